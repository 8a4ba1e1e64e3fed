"""The machine's own folders in notebooks: what the admin offers, and nothing by a trick.

A path is resolved to where it really leads before it is compared with what is offered. A user who
can write to a folder on the way could lead it elsewhere after that. So where anything is offered to
be written to, only that can be mounted whose way leads through folders that notebooks cannot
write to.
"""

import asyncio
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kaos_hub.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from kaos_hub.schemas import AllowedMount, BindMount, Mount
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.records import USER, options_of

_PATIENCE = 10
"""Seconds that looking at folders may take; a file server that is away would take for ever."""


@dataclass(frozen=True)
class Mounts:
    """Finds what notebooks see of the machine.

    Args:
        allowed: what the admin offers.
        hidden: the hub's own directory, which no notebook ever sees.
        here: whether notebooks run on this machine; else on nodes that cannot be looked at.
        uid: whom notebooks run as, if not as the service's own user.
        shown: says how an owner is called now.
    """

    allowed: Sequence[AllowedMount] = ()
    hidden: Path | None = None
    here: bool = True
    uid: int | None = None
    shown: Callable[[str], str] = str

    async def of(self, row: NotebookRow) -> list[Mount]:
        """The folders that a notebook asks for, and those that every notebook gets.

        Raises:
            Forbidden: one is not offered; says which are.
            NotFound: one is not there.
            Unavailable: the folders cannot be looked at now.
        """
        user = self.shown(row.owner).removeprefix(USER)
        wanted = options_of(row).bind_mounts
        if not wanted and not any(offer.container_path for offer in self.allowed):
            return []
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.to_thread(self.find, user, wanted)
        except TimeoutError:
            raise Unavailable(
                "The folders that the notebook is to see do not answer. Try again; if that does not"
                " help, tell the administrator."
            ) from None

    def find(self, user: str, wanted: Sequence[BindMount]) -> list[Mount]:
        """As :meth:`of`. Blocks."""
        offers = [offer for each in self.allowed if (offer := _for(each, user)) is not None]
        taken = {mount.container_path for mount in wanted}
        given = [
            BindMount(
                host_path=offer.host_path,
                container_path=offer.container_path,
                read_only=offer.read_only,
            )
            for offer in offers
            if offer.container_path and offer.container_path not in taken
        ]
        return [self._mount(mount, offers) for mount in [*given, *wanted]]

    def offered(self, user: str) -> list[str]:
        """The folders that a user may have mounted, for people."""
        offers = [offer for each in self.allowed if (offer := _for(each, user)) is not None]
        return [f"{each.host_path}{' (read only)' * each.read_only}" for each in offers]

    def _mount(self, mount: BindMount, offers: Sequence[AllowedMount]) -> Mount:
        source = self._really(mount, offers) if self.here else _on_nodes(mount, offers)
        return Mount(
            source=source, target=mount.container_path, read_only=mount.read_only, host=True
        )

    def _really(self, mount: BindMount, offers: Sequence[AllowedMount]) -> str:
        # Nothing is told of what is not offered, not even whether it is there.
        try:
            source = Path(mount.host_path).resolve()
        except (OSError, RuntimeError):
            raise _refused(mount, offers) from None
        for offer in offers:
            top = Path(offer.host_path).resolve()
            writable = mount.read_only or not offer.read_only
            if source.is_relative_to(top) and writable:
                self._keep_hidden(mount, source)
                self._keep_ways(mount, Path(offer.host_path), source)
                _check_folder(mount, source)
                return str(source)
        raise _refused(mount, offers)

    def _keep_hidden(self, mount: BindMount, source: Path) -> None:
        hidden = self.hidden.resolve() if self.hidden else None
        if hidden and (hidden.is_relative_to(source) or source.is_relative_to(hidden)):
            raise Forbidden(
                f"{mount.host_path} cannot be mounted: the hub's own directory, with its secrets,"
                " lies there. Mount a folder beside it."
            )

    def _keep_ways(self, mount: BindMount, offered: Path, source: Path) -> None:
        """Refuse a mount if notebooks could lead the way to it, just looked at, elsewhere."""
        if self.uid is None:
            return
        areas = self._written()
        loose = [
            folder
            for folder in [*offered.parents, *source.parents]
            if any(folder.is_relative_to(area) for area in areas) and _may_write(folder, self.uid)
        ]
        if loose:
            raise Forbidden(
                f"{mount.host_path} cannot be mounted by itself, since notebooks can write to"
                f" {loose[0]}, in which it lies. Mount that instead."
            )

    def _written(self) -> list[Path]:
        """Return the folders below which notebooks may write."""
        found = []
        for offer in self.allowed:
            if not offer.read_only:
                fixed = Path(offer.host_path.partition("{username}")[0] + "x").parent
                whole = Path(offer.host_path)
                area = fixed if "{username}" in offer.host_path else whole
                found += [area, area.resolve()]
        return found


def _check_folder(mount: BindMount, source: Path) -> None:
    try:
        if stat.S_ISDIR(source.stat().st_mode):
            return
    except FileNotFoundError:
        raise NotFound(f"There is no folder {mount.host_path!r} on this machine.") from None
    except OSError as e:
        raise Unavailable(f"{mount.host_path} cannot be looked at: {e.strerror}") from None
    raise InvalidRequest(f"{mount.host_path!r} is no folder; mount the one it is in")


def told(mounts: Sequence[Mount]) -> dict[str, str]:
    """Variables that tell a notebook's start what was mounted: it puts links to that in its home.

    The place, which on an engine without containers is another one, and what it is to be called.
    """
    found = {}
    for number, mount in enumerate(mounts, 1):
        found[f"KAOS_MOUNT_{number}"] = mount.target
        found[f"KAOS_MOUNT_{number}_NAME"] = PurePosixPath(mount.target).name
    return found


def _for(offer: AllowedMount, user: str) -> AllowedMount | None:
    """An offer as it is for one user; None if it is none, for that name cannot be a folder's."""
    if "{username}" not in f"{offer.host_path}{offer.container_path}":
        return offer
    if "/" in user or user in ("", ".", "..") or not user.isprintable():
        return None
    filled = {
        field: value.replace("{username}", user)
        for field in ("host_path", "container_path")
        if (value := getattr(offer, field)) is not None
    }
    return offer.model_copy(update=filled)


def _fitting(
    path: PurePosixPath, mount: BindMount, offers: Sequence[AllowedMount]
) -> list[AllowedMount]:
    return [
        offer
        for offer in offers
        if path.is_relative_to(offer.host_path) and (mount.read_only or not offer.read_only)
    ]


def _on_nodes(mount: BindMount, offers: Sequence[AllowedMount]) -> str:
    """Links on nodes cannot be resolved here: just what the admin wrote can be mounted."""
    fitting = [
        offer
        for offer in _fitting(PurePosixPath(mount.host_path), mount, offers)
        if offer.on_nodes and offer.host_path == mount.host_path
    ]
    if not fitting:
        raise _refused(mount, [offer for offer in offers if offer.on_nodes], nodes=True)
    return mount.host_path


def _refused(mount: BindMount, offers: Sequence[AllowedMount], nodes: bool = False) -> Forbidden:
    offered = ", ".join(
        f"{offer.host_path}{' (read-only)' if offer.read_only else ''}" for offer in offers
    )
    what = f"The folder {mount.host_path!r} is not offered to notebooks"
    path, only_read = PurePosixPath(mount.host_path), mount.model_copy(update={"read_only": True})
    if not _fitting(path, mount, offers) and _fitting(path, only_read, offers):
        return Forbidden(f"{what} to be written to; mount it read-only (read_only, or :ro).")
    if nodes:
        hint = f"on this cluster's nodes there is {offered}" if offered else ""
        hint = hint or "folders of nodes never are, unless the admin says so"
        return Forbidden(f"{what}: {hint}. A volume outlives notebooks, too: --volume NAME:PATH.")
    hint = f"offered: {offered}" if offered else "the admin offers none"
    return Forbidden(f"{what}; {hint}. Links count for what they lead to.")


def _may_write(folder: Path, uid: int) -> bool:
    """Return whether notebooks may change what names in a folder mean."""
    try:
        seen = folder.stat()
    except OSError:
        return True
    # Access lists beside the mode show in its group bits.
    return uid in (0, seen.st_uid) or bool(seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
