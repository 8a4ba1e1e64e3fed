"""Archives that came whole, from people without a command line, become versions of bundles.

Unpacking is the business of a process of its own (:mod:`kaos_hub.bundles.unpack`); what it leaves
is read, checked and stored by the same means as everything else that is sent.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from kaos_hub.bundles import source
from kaos_hub.bundles.ignore import rules_for
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.bundles.unpack import ENDINGS, command
from kaos_hub.errors import InvalidBundle, KaosError, MissingObjects, StorageFull, from_body
from kaos_hub.ledger import Ledger
from kaos_hub.models import BundleKind, BundleVersion, CommitRequest, MissingRequest
from kaos_hub.versions import Versions

KINDS = (BundleKind.DATA, BundleKind.SOURCE)
"""What an archive may become."""
_ASK = 50_000
_ROUNDS = 2
"""Times it is stored: somebody may delete what it has in common with another bundle meanwhile."""
_PATIENCE = 3600.0
"""Seconds that unpacking may take."""


_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")


@dataclass(frozen=True)
class Deposit:
    """What became of an archive."""

    version: BundleVersion
    skipped: tuple[str, ...]
    """What was left out of it."""


class Deposits:
    """Takes archives.

    Args:
        versions, ledger: what it works with.
        directory: where archives and what is in them lie for a while; it is ours alone.
        limits: how large one bundle may be.
    """

    def __init__(self, versions: Versions, ledger: Ledger, directory: Path, limits: Limits) -> None:
        self._versions, self._ledger = versions, ledger
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
        free = (await asyncio.to_thread(shutil.disk_usage, self._directory)).free
        limit = self._ledger.limits(owner).storage
        # Half of what is free: others need room, too, and the store is mostly on the same disk.
        return free // 2 if limit is None else min(free // 2, limit)

    async def take(
        self, owner: str, author: str, kind: BundleKind, name: str, archive: Path, called: str
    ) -> Deposit:
        """Make a version of an archive.

        Args:
            owner: whose it becomes.
            author: who sends it.
            kind: one of :data:`KINDS`.
            name: of the bundle.
            archive: the file, in a :meth:`place`; what is in it comes beside it.
            called: the name that it had where it came from.

        Raises:
            InvalidBundle: it is none, or holds what no bundle may hold; names the entry.
            LimitExceeded, StorageFull: there is no room for it.
        """
        folder = archive.parent / "unpacked"
        folder.mkdir()
        room = await self.room(owner)
        limits = replace(self._limits, max_size=min(self._limits.max_size, room))
        await self._unpack(archive, folder, limits)
        found = await asyncio.to_thread(_read, folder, kind, called, limits)
        wanted = CommitRequest(kind=kind, name=name, root=found.root)
        for _ in range(_ROUNDS):
            await self._store(owner, found)
            try:
                version = await self._versions.commit(owner, author, wanted)
            except MissingObjects:
                continue
            return Deposit(version, found.skipped)
        raise MissingObjects()

    async def _unpack(self, archive: Path, folder: Path, limits: Limits) -> None:
        process = await asyncio.create_subprocess_exec(
            *command(archive, folder, limits),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # None of our secrets is anything to it.
            env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                output, _ = await process.communicate()
        except TimeoutError:
            raise InvalidBundle("It takes too long to unpack the archive.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
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
    """What the process said was wrong; nothing if all went well."""
    try:
        body: dict[str, Any] | None = json.loads(output)
    except ValueError:
        # Killed: it had as much memory as an honest archive needs.
        return InvalidBundle("The archive could not be unpacked: it needs too much memory.")
    if body is None:
        return None
    error = from_body(400, body)
    if "No space left" in error.message:
        return StorageFull("There is no room on the disk for what is in the archive.")
    return error


def _read(folder: Path, kind: BundleKind, called: str, limits: Limits) -> Scan:
    """The bundle in an unpacked archive."""
    if kind is BundleKind.SOURCE:
        found = scan(source.find_source_root(folder), rules_for(kind), limits)
        source.check_source(found)
        return found
    found = scan(_root(folder, called), rules_for(kind), limits)
    source.check_data(found)
    return found


def _root(folder: Path, called: str) -> Path:
    """Who packs the folder ``digits`` as ``digits.zip`` means what is in it."""
    below = list(islice(folder.iterdir(), 2))
    alone = len(below) == 1 and below[0].is_dir() and not below[0].is_symlink()
    return below[0] if alone and below[0].name == plain_name(called) else folder


def plain_name(called: str) -> str:
    """The name of an archive without its ending."""
    ending = next((end for end in ENDINGS if called.lower().endswith(end)), "")
    return called[: len(called) - len(ending)]
