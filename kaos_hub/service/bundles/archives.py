"""Archives that came whole, from people without a command line, become versions of bundles.

Unpacking is the business of a process of its own (:mod:`kaos_hub.bundles.unpack`); what it leaves
is read, checked and stored by the same means as everything else that is sent.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from kaos_hub.bundles import prune, source, unpack
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.bundles.unpack import ENDINGS
from kaos_hub.errors import InvalidBundle, KaosError, MissingObjects, StorageFull, from_body
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    CommitRequest,
    Likeness,
    LikenessRequest,
    MissingRequest,
)
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.quota import Ledger, Reservation
from kaos_hub.util import limited

KINDS = (BundleKind.DATA, BundleKind.SOURCE)
"""Kinds of bundles that an archive may become."""
_ASK = 50_000
_ROUNDS = 2
"""Times it is stored: what it has in common with another bundle may be deleted meanwhile."""
_COMPARED = 5000
"""Files by which something is told from another thing of its name."""
_PATIENCE = 3600.0
"""Seconds that unpacking may take."""

Alike = Callable[[str, LikenessRequest], Awaitable[Likeness]]


@dataclass(frozen=True)
class Deposit:
    """A version that an archive became, and what was left out of it."""

    version: BundleVersion
    skipped: tuple[str, ...]
    """Names of the first thousand entries that were left out."""
    more: int
    """Further entries that were left out."""


@dataclass(frozen=True)
class Undecided:
    """An archive that is stored, and that something else of its name is there of."""

    wanted: CommitRequest
    """The request with which it becomes the next version of that."""
    like: Likeness
    """The version that it has nothing in common with, and a name that is free."""
    files: int
    size: int
    """Bytes."""


class Deposits:
    """Takes archives.

    Args:
        versions, ledger: what it works with.
        alike: says whether something of an owner is another version of what has its name.
        directory: where archives and what is in them lie for a while; it is ours alone.
        limits: how large one bundle may be.
    """

    def __init__(
        self, versions: Versions, ledger: Ledger, alike: Alike, directory: Path, limits: Limits
    ) -> None:
        self._versions, self._ledger, self._alike = versions, ledger, alike
        self._directory, self._limits = directory, limits

    def clear(self) -> None:
        """Remove what was left by a service that was killed. Blocks."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Path]:
        """A folder for an archive, gone afterwards with all that is in it."""
        path = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._directory))
        try:
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def room(self, owner: str) -> int:
        """Bytes that an archive of an owner, or what is in it, may have."""
        left = await self._versions.room(owner)
        free = await self.free()
        return free if left is None else min(free, left)

    async def free(self) -> int:
        """Bytes of the disk that an archive may take."""
        # Half of what is free: others need room, too, and the store is mostly on the same disk.
        return (await asyncio.to_thread(shutil.disk_usage, self._directory)).free // 2

    @asynccontextmanager
    async def held(self, owner: str, size: int) -> AsyncIterator[Reservation]:
        """Storage for an archive of ``size`` bytes while it is on its way, and is unpacked.

        Raises:
            LimitExceeded: there is no room for it.
        """
        reservation = self._ledger.reserve(owner)
        try:
            await reservation.grow(size)
            yield reservation
        finally:
            await reservation.release()

    async def take(
        self,
        owner: str,
        author: str,
        kind: BundleKind,
        name: str,
        archive: Path,
        called: str,
        held: Reservation,
    ) -> Deposit | Undecided:
        """Make a version of an archive, unless something else has its name already.

        Args:
            owner: whose it becomes.
            author: who sends it.
            kind: one of :data:`KINDS`.
            name: of the bundle.
            archive: the file, in a :meth:`place`; what is in it comes beside it.
            called: the name that it had where it came from.
            held: for the archive itself; it is let go of when what is in it is stored.

        Raises:
            InvalidBundle: it is none, or holds what no bundle may hold; names the entry.
            LimitExceeded, StorageFull: there is no room for it.
        """
        folder = archive.parent / "unpacked"
        folder.mkdir()
        # The archive itself goes when it is unpacked.
        await held.release()
        room = await self.room(owner)
        limits = replace(self._limits, max_size=min(self._limits.max_size, room))
        await self._unpack(archive, folder, limits)
        root = await asyncio.to_thread(_root, folder, kind, called)
        skipped, count = await _prune(root, kind)
        found = await asyncio.to_thread(_read, root, kind, limits, skipped)
        wanted = CommitRequest(kind=kind, name=name, root=found.root)
        like = await self._alike(owner, _asked(wanted, found))
        if not like.alike:
            await self._store(owner, found)
            return Undecided(wanted, like, found.count, found.size)
        wanted = wanted.model_copy(update={"name": like.name})
        for _ in range(_ROUNDS):
            await self._store(owner, found)
            try:
                version = await self._versions.commit(owner, author, wanted)
            except MissingObjects:
                continue
            version = version.model_copy(update={"notes": list(found.notes)})
            return Deposit(version, skipped, count - len(skipped))
        raise MissingObjects()

    async def _unpack(self, archive: Path, folder: Path, limits: Limits) -> None:
        told = (str(archive), str(folder), json.dumps(asdict(limits)))
        try:
            output = await limited.run(unpack.MODULE, *told, patience=_PATIENCE)
        except limited.Exceeded as e:
            raise InvalidBundle(
                f"The archive could not be unpacked: it needs too much {e.what}."
            ) from None
        problem = _problem(output)
        if problem is not None:
            raise problem

    async def _store(self, owner: str, found: Scan) -> None:
        """Store what the owner does not hold yet."""
        receiver = self._versions.receive(owner)
        objects = iter(found.objects.items())
        try:
            while part := dict(islice(objects, _ASK)):
                lacking = await self._versions.missing(owner, MissingRequest(objects=part))
                for digest in lacking.missing:
                    head = f"{digest.removeprefix('blake3:')} {part[digest]}\n"
                    await receiver.feed(head.encode())
                    pieces = found.read(digest)
                    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                        await receiver.feed(piece)
            await receiver.finish()
        except BaseException:
            await receiver.abort()
            raise


def _problem(output: bytes) -> KaosError | None:
    """Return the error that the process told; None if all went well."""
    body: dict[str, Any] | None = json.loads(output)
    if body is None:
        return None
    error = from_body(400, body)
    if "No space left" in error.message:
        return StorageFull("There is no room on the disk for what is in the archive.")
    return error


def _asked(wanted: CommitRequest, found: Scan) -> LikenessRequest:
    files = ((path, digest) for digest, (path, size) in found.files.items() if size)
    return LikenessRequest(
        kind=wanted.kind,
        name=wanted.name,
        root=wanted.root,
        files=dict(islice(files, _COMPARED)),
    )


async def _prune(root: Path, kind: BundleKind) -> tuple[tuple[str, ...], int]:
    """Remove what is left out of the bundle; what that is, and how much."""
    try:
        output = await limited.run(prune.MODULE, str(root), kind, patience=_PATIENCE)
    except limited.Exceeded as e:
        raise InvalidBundle(
            f"The patterns of .kaosignore take too much {e.what} on so many files. Send fewer of"
            " either."
        ) from None
    answer: dict[str, Any] = json.loads(output)
    if "error" in answer:
        raise from_body(400, answer["error"])
    return tuple(answer["skipped"]), int(answer["count"])


def _read(root: Path, kind: BundleKind, limits: Limits, skipped: tuple[str, ...]) -> Scan:
    """The bundle in a folder, of which something was left out."""
    found = replace(scan(root, limits=limits), skipped=skipped)
    if kind is BundleKind.SOURCE:
        source.check_source(found)
    else:
        source.check_data(found)
    return found


def _root(folder: Path, kind: BundleKind, called: str) -> Path:
    """The folder that is the bundle, in what was unpacked.

    A user who packs the folder ``digits`` as ``digits.zip`` means what is in it.
    """
    if kind is BundleKind.SOURCE:
        return source.find_source_root(folder)
    below = list(islice(folder.iterdir(), 2))
    alone = len(below) == 1 and below[0].is_dir() and not below[0].is_symlink()
    return below[0] if alone and below[0].name == plain_name(called) else folder


def plain_name(called: str) -> str:
    """The name of an archive without its ending."""
    ending = next((end for end in ENDINGS if called.lower().endswith(end)), "")
    return called[: len(called) - len(ending)]
