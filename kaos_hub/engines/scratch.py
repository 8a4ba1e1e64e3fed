"""Directories of this machine that workloads write to. They are gone with their workloads."""

import asyncio
import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kaos_hub.engines.base import IDENTITY, TICKET, Run
from kaos_hub.errors import EngineUnavailable
from kaos_hub.schemas import Mount

_GRAVE = ".deleted-"
_UNDER_ONE_ROOT = "root"
_TICKETS = str(PurePosixPath(TICKET).parent)


@dataclass(frozen=True)
class Pass:
    """The ticket and certificate with which a workload is let in at the service."""

    ticket: str
    identity: str = ""
    """Its certificate; empty where the hub's parts speak plain HTTP."""


class Scratch:
    """Directories that workloads write to: ``<directory>/<workload>/<number>``, one per target.

    Args:
        directory: where all of it lies.
        uid: whose the directories are, if the service may give them away; None: its own user's.
    """

    def __init__(self, directory: Path, uid: int | None = None) -> None:
        self._directory = directory
        self._uid = uid if uid is not None and os.geteuid() == 0 else None

    def make(self, name: str, work: Run, given: Pass | None = None) -> list[Mount]:
        """Make the directories of a workload that has not begun, with what lets it in.

        Returns:
            How it sees them; to be mounted before what lies in them.

        Raises:
            EngineUnavailable: they cannot be made, the disk is full, say.
        """
        targets = scratch_of(work)
        if not targets:
            return []
        places = {t: self._directory / name / str(n) for n, t in enumerate(targets)}
        with _explained(name):
            for place in places.values():
                self._folder(place)
            self._points(work, places)
            if given:
                self._let_in(places[_TICKETS], given)
        return [Mount(source=str(p), target=t, read_only=False) for t, p in places.items()]

    def make_one_root(self, name: str, work: Run, given: Pass | None = None) -> Path:
        """The same below one directory, with links instead of mounts; that directory.

        Raises:
            EngineUnavailable: they cannot be made.
        """
        root = self._directory / name / _UNDER_ONE_ROOT
        with _explained(name):
            for target in scratch_of(work):
                self._folder(root / target.lstrip("/"))
            for mount in (m for m in work.mounts if m.source != m.target):
                link = root / mount.target.lstrip("/")
                self._folder(link.parent)
                if not link.is_symlink():
                    link.symlink_to(mount.source)
            if given:
                self._let_in(root / _TICKETS.lstrip("/"), given)
        return root

    def keep_ticket(self, name: str, given: Pass) -> Path:
        """The file with the ticket of a program of ours that writes to none of these directories;
        that with its certificate, if there is one, is beside it.

        Raises:
            EngineUnavailable: it cannot be written.
        """
        folder = self._directory / name
        with _explained(name):
            self._folder(folder)
            self._let_in(folder, given)
        return folder / PurePosixPath(TICKET).name

    def keep(self, name: str, folder: str, files: Mapping[str, str]) -> Path:
        """A folder with files that a workload reads, made anew.

        Args:
            name: the workload's.
            folder: the folder's.
            files: their names and content, in the order in which they are written.

        Raises:
            EngineUnavailable: it cannot be written.
        """
        place = self._directory / name / folder
        with _explained(name):
            self._folder(place)
            for file, text in files.items():
                self._write(place / file, text)
        return place

    def names(self) -> list[str]:
        """All workloads that have such directories, and what is left of interrupted removals."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in self._directory.iterdir())
        return []

    def forgotten(self, name: str) -> bool:
        """Return whether a name of :meth:`names` is what an interrupted removal left."""
        return name.startswith(_GRAVE)

    async def remove(self, name: str) -> None:
        """Delete a workload's directories, whatever it made of them. None there is fine."""
        path = self._directory / name
        if not path.exists():
            return
        grave = path
        if not self.forgotten(name):
            grave = path.with_name(f"{_GRAVE}{name}-{secrets.token_hex(4)}")
            path.rename(grave)
        await asyncio.to_thread(_delete, grave)

    # --- steps ---

    def _points(self, work: Run, places: dict[str, Path]) -> None:
        """The places of mounts in these directories: made by others, they would be root's."""
        sources = {m.target: Path(m.source) for m in work.mounts}
        for target, source in {**places, **sources}.items():
            around = [t for t in (*places, *sources) if t != target and _within(target, t)]
            nearest = max(around, key=len, default="")
            if nearest not in places or nearest in sources:
                continue
            point = places[nearest] / PurePosixPath(target).relative_to(nearest)
            if source.is_file():
                self._folder(point.parent)
                point.touch()
            else:
                self._folder(point)

    def _folder(self, path: Path) -> None:
        """A directory, and those above it, that the workload may write to."""
        if path.is_dir():
            return
        self._folder(path.parent)
        path.mkdir(mode=0o700)
        if self._uid is not None and self._directory not in (path, path.parent):
            os.chown(path, self._uid, self._uid)

    def _let_in(self, folder: Path, given: Pass) -> None:
        self._write(folder / PurePosixPath(TICKET).name, given.ticket)
        if given.identity:
            self._write(folder / PurePosixPath(IDENTITY).name, given.identity)

    def _write(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="ascii") as ticket:
            ticket.write(text)
            if self._uid is not None:
                os.fchown(file, self._uid, self._uid)


def scratch_of(work: Run) -> list[str]:
    """The targets of all scratch directories of a workload, that of its ticket among them."""
    return sorted({*work.scratch, *([_TICKETS] if work.ticket else [])})


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise EngineUnavailable(f"Cannot make the directories of {name}: {e}") from None


def _delete(path: Path) -> None:
    """With programs that mind neither depth nor numbers, of which a workload may make many."""
    remove = ["rm", "-rf", "--", str(path)]
    subprocess.run(remove, capture_output=True, check=False)
    if path.exists():
        # What it kept even itself from looking into.
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(path)], capture_output=True, check=False)
        subprocess.run(remove, capture_output=True, check=False)
