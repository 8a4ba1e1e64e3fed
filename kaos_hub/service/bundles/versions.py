"""Bundles as versions of a name, held by an owner.

An owner may name only what it holds: what was sent for it. So equal bytes are kept once underneath,
yet no answer tells an owner whether another one has them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session, object_session

from kaos_hub.bundles import source as source_rules, tree, walk
from kaos_hub.bundles.archive import write_tar
from kaos_hub.bundles.compose import compose
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.errors import InvalidBundle, KaosError, MissingObjects, NotFound
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    CommitRequest,
    EntryKind,
    MissingAnswer,
    MissingRequest,
    TreeEntry,
)
from kaos_hub.service.bundles.upload import Receiver, batches, check_size
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import (
    HoldingRow,
    InputRow,
    NotebookRow,
    TrainingRow,
    VersionRow,
    now,
)
from kaos_hub.service.quota import Ledger
from kaos_hub.service.users.identities import shown_author, shown_owner
from kaos_hub.stores.access import reader
from kaos_hub.stores.base import Store

_SELECTOR = re.compile(r"(?P<name>.+?)(?:@v?(?P<version>\d{1,9}))?")


_TEXT = 1 << 20
"""Bytes of the largest file that is read as a text."""


class Versions:
    """The objects that owners sent, and the versions made of them.

    Args:
        db: the service's database.
        store: where the bytes rest.
        ledger: who may store how much.
        max_file_size: bytes of the largest file accepted.
        max_files: files of the largest bundle accepted.
    """

    def __init__(
        self, db: Database, store: Store, ledger: Ledger, max_file_size: int, max_files: int
    ) -> None:
        self._db, self._store, self._ledger = db, store, ledger
        self._max_file_size, self._max_files = max_file_size, max_files
        self._read = reader(store)

    # --- taking in ---

    async def missing(self, owner: str, asked: MissingRequest) -> MissingAnswer:
        """Return which of the objects the owner has yet to send.

        Raises:
            LimitExceeded: they would not fit; nothing need be sent.
            TooLarge: one of them is more than may be sent.
        """
        for size in asked.objects.values():
            check_size(size, self._max_file_size)

        def look(session: Session) -> list[str]:
            held = _held(session, owner, asked.objects)
            missing = [digest for digest in asked.objects if digest not in held]
            self._ledger.admit_storage(session, owner, sum(asked.objects[d] for d in missing))
            return missing

        return MissingAnswer(missing=await self._db.run(look))

    async def room(self, owner: str) -> int | None:
        """Bytes that an owner may send, besides what is on its way; None is no bound."""
        return await self._db.run(lambda session: self._ledger.room(session, owner))

    def receive(self, owner: str, announced: int = 0) -> Receiver:
        """Take in objects as they come over the wire; ``announced`` bytes, if that is known."""
        return Receiver(self._db, self._store, self._ledger, self._max_file_size, owner, announced)

    async def commit(
        self,
        owner: str,
        author: str,
        wanted: CommitRequest,
        also: Callable[[Session, VersionRow], None] = lambda session, version: None,
    ) -> BundleVersion:
        """Make a version of a tree. A tree that is a version already becomes the current one again.

        Args:
            owner, author, wanted: whose, by whom, and what.
            also: what is written in the same transaction.

        Raises:
            MissingObjects: the owner does not hold all of it.
            InvalidBundle: it breaks a rule, e.g. a source bundle without a Dockerfile.
        """
        size, files = await self.facts(owner, wanted.root)
        if wanted.kind is BundleKind.SOURCE:
            root = await self.object(wanted.root)
            source_rules.check_source_tree({wanted.root: root}.__getitem__, wanted.root)
        elif wanted.kind is not BundleKind.ARTIFACT:
            source_rules.check_data_tree(wanted.root)

        def write(session: Session) -> BundleVersion:
            row = _select_or_add(session, owner, author, wanted, size, files)
            also(session, row)
            return as_model(row)

        return await self._db.run(write)

    async def facts(self, owner: str, root: str) -> tuple[int, int]:
        """Bytes and files of a tree that the owner has sent. One that is a version was looked at
        before.

        Raises:
            MissingObjects: the owner does not hold all of it.
            InvalidBundle: it breaks a rule.
        """
        known = await self._db.run(lambda session: _facts(session, owner, root))
        return known or await self._verify(owner, root)

    async def _verify(self, owner: str, root: str) -> tuple[int, int]:
        """Bytes and files of a tree, found well-formed and held by the owner to the last object.

        A listing is read only after it is known to be the owner's: whatever is wrong with the tree
        of another owner, the answer is that it was not sent.
        """
        loop = asyncio.get_running_loop()

        def read(digest: str) -> Path | Iterable[bytes]:
            asyncio.run_coroutine_threadsafe(self.require(owner, {digest: None}), loop).result()
            return self._read(digest)

        limits = Limits(max_files=self._max_files, max_file_size=self._max_file_size)
        found = await asyncio.to_thread(walk.load, root, read, limits)
        await self.require(owner, found.objects)
        return found.size, found.files

    async def require(self, owner: str, objects: Mapping[str, int | None]) -> None:
        """Check that the owner holds these objects, of these sizes where one is given.

        Raises:
            MissingObjects: some were not sent.
            InvalidBundle: one has another size.
        """
        held = await self._db.run(lambda session: _held(session, owner, objects))
        lacking = [digest for digest in objects if digest not in held]
        if lacking:
            raise MissingObjects(missing=lacking[:100], total=len(lacking))
        for digest, size in objects.items():
            if size is not None and held[digest] != size:
                raise InvalidBundle(f"{digest} has {held[digest]:,} bytes; the tree says {size:,}.")

    # --- looking ---

    @property
    def read(self) -> ReadObject:
        """A function that reads any object of the store, whichever owner holds it. Blocks."""
        return self._read

    async def object(self, digest: str) -> bytes:
        """The content of a small object: a listing, a Dockerfile."""
        return b"".join([piece async for piece in self._store.read(digest)])

    async def has(self, digest: str) -> bool:
        """Return whether an object is there, whichever owner holds it."""
        return await self._store.size(digest) is not None

    async def compose(self, below: str, above: str) -> str:
        """The tree of both, ``above`` laid over ``below``; kept, so that it can be laid out.

        Raises:
            InvalidBundle: one has a folder where the other has none, or both are too much for
                one tree; names the entry.
        """
        found = await asyncio.to_thread(compose, below, above, self._read)
        for digest, text in found.nodes.items():
            upload = await self._store.upload(digest, len(text))
            await upload.write(text)
            await upload.finish()
        limits = Limits(max_files=self._max_files, max_file_size=self._max_file_size)
        # Each was checked alone; links of one may lead through the other.
        await asyncio.to_thread(walk.load, found.root, self._read, limits)
        return found.root

    async def files(self, root: str) -> dict[str, str]:
        """Path → digest of all files of a tree."""
        return await asyncio.to_thread(self._files, root)

    def _files(self, root: str) -> dict[str, str]:
        kinds = (EntryKind.FILE, EntryKind.EXECUTABLE)
        items = walk.load(root, self._read).items if root else ()
        return {item.path: item.entry.digest for item in items if item.entry.kind in kinds}

    def texts(self, root: str) -> Callable[[str], str | None]:
        """Reads small files of a tree (none: ``""``) by path; None if not there. Both block."""
        files = self._files(root)

        def read(path: str) -> str | None:
            try:
                return whole(self._read, files[path], _TEXT).decode(errors="replace")
            except (KeyError, KaosError):
                return None

        return read

    async def archive(self, root: str) -> AsyncIterator[bytes]:
        """A tree as a tar stream, the same bytes every time."""
        pieces = write_tar(root, self._read)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece

    async def get(
        self, owner: str, kind: BundleKind, name: str, version: int | None = None
    ) -> BundleVersion:
        """One version, or the current one.

        Raises:
            NotFound: the owner has no such bundle.
        """
        text = name if version is None else f"{name}@v{version}"
        return await self.select(owner, kind, text)

    async def select(self, owner: str, kind: BundleKind, text: str) -> BundleVersion:
        """The version that ``text`` means: a digest, ``name`` (current) or ``name@v2``.

        Raises:
            NotFound: the owner has no such bundle.
        """
        return await self._db.run(
            lambda session: as_model(select_version(session, owner, kind, text))
        )

    async def entries(self, version: BundleVersion, path: str = "") -> list[TreeEntry]:
        """List the entries of a directory of a version.

        Raises:
            NotFound: no such directory in it.
        """
        digest = version.digest
        for part in filter(None, path.split("/")):
            below = {e.name: e.digest for e in await self._directories(digest)}
            if part not in below:
                raise NotFound(f"{version.name} v{version.version} has no directory {path!r}.")
            digest = below[part]
        # A folder may have a million entries.
        return list(await asyncio.to_thread(tree.decode, await self.object(digest)))

    async def _directories(self, digest: str) -> list[TreeEntry]:
        listing = await asyncio.to_thread(tree.decode, await self.object(digest))
        return [entry for entry in listing if entry.kind is EntryKind.DIRECTORY]

    async def list(
        self,
        owner: str,
        kind: BundleKind | None = None,
        name: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> list[BundleVersion]:
        """Versions of the owner's bundles, the newest first; ``after`` skips that many."""

        def look(session: Session) -> list[BundleVersion]:
            query = select(VersionRow).where(VersionRow.owner == owner)
            if kind is not None:
                query = query.where(VersionRow.kind == kind)
            if name is not None:
                query = query.where(VersionRow.name == name)
            query = query.order_by(VersionRow.id.desc()).offset(after or 0).limit(limit)
            return [as_model(row) for row in session.scalars(query)]

        return await self._db.run(look)


def _held(session: Session, owner: str, digests: Iterable[str]) -> dict[str, int]:
    """Those of the digests that the owner holds, with their sizes."""
    held: dict[str, int] = {}
    for batch in batches(digests):
        query = select(HoldingRow.digest, HoldingRow.size).where(
            HoldingRow.owner == owner, HoldingRow.digest.in_(batch)
        )
        held.update((digest, size) for digest, size in session.execute(query))
    return held


def _facts(session: Session, owner: str, root: str) -> tuple[int, int] | None:
    """Bytes and files of a tree of which the owner has a version already."""
    row = session.execute(
        select(VersionRow.size, VersionRow.files)
        .where(VersionRow.owner == owner, VersionRow.digest == root)
        .limit(1)
    ).first()
    return None if row is None else (row.size, row.files)


def _select_or_add(
    session: Session, owner: str, author: str, wanted: CommitRequest, size: int, files: int
) -> VersionRow:
    named = (
        VersionRow.owner == owner,
        VersionRow.kind == wanted.kind,
        VersionRow.name == wanted.name,
    )
    rows = session.scalars(select(VersionRow).where(*named, VersionRow.digest == wanted.root))
    row = rows.first()
    session.execute(update(VersionRow).where(*named).values(current=False))
    if row is None:
        newest = session.scalar(
            select(VersionRow.number).where(*named).order_by(VersionRow.number.desc()).limit(1)
        )
        row = VersionRow(
            owner=owner, kind=wanted.kind, name=wanted.name, number=(newest or 0) + 1,
            digest=wanted.root, size=size, files=files, author=author, created=now(),
            origin=wanted.origin,
        )  # fmt: skip
        session.add(row)
    row.current = True
    session.flush()
    return row


def select_version(session: Session, owner: str, kind: BundleKind, text: str) -> VersionRow:
    """The owner's version that ``text`` means: a digest, ``name`` (current) or ``name@v2``.

    Raises:
        NotFound: the owner has no such bundle.
    """
    query = select(VersionRow).where(VersionRow.owner == owner, VersionRow.kind == kind)
    if tree.is_digest(text):
        query = query.where(VersionRow.digest == text)
    else:
        match = _SELECTOR.fullmatch(text)
        query = query.where(VersionRow.name == (match["name"] if match else text))
        if match and match["version"]:
            query = query.where(VersionRow.number == int(match["version"]))
        else:
            query = query.where(VersionRow.current)
    row = session.scalar(query.order_by(VersionRow.id.desc()).limit(1))
    if row is None:
        raise NotFound(f"You have no {kind} bundle {text!r}. `kaos bundle list` shows yours.")
    return row


def in_use(session: Session, version_id: int) -> bool:
    """Return whether a notebook, an unfinished training or a default input needs the version."""
    training = (
        TrainingRow.source_id,
        TrainingRow.data_id,
        TrainingRow.manifest_id,
        TrainingRow.params_id,
    )
    notebook = (
        NotebookRow.source_id,
        NotebookRow.data_id,
        NotebookRow.context_id,
        NotebookRow.good_source_id,
    )
    ended = ("SUCCEEDED", "FAILED", "CANCELLED")
    queries = (
        select(NotebookRow.id).where(or_(*(column == version_id for column in notebook))),
        select(InputRow.kind).where(InputRow.version_id == version_id),
        select(TrainingRow.id).where(
            TrainingRow.state.not_in(ended), or_(*(column == version_id for column in training))
        ),
    )
    return any(session.scalar(query.limit(1)) is not None for query in queries)


def as_model(row: VersionRow, session: Session | None = None) -> BundleVersion:
    """A version as the API shows it; ``session`` is needed where it was read in another."""
    session = session or object_session(row)
    assert session is not None, "read in this transaction"
    return BundleVersion(
        kind=BundleKind(row.kind), name=row.name, version=row.number, digest=row.digest,
        owner=shown_owner(session, row.owner), author=shown_author(session, row.author),
        created=row.created, size=row.size, files=row.files,
        current=row.current,
    )  # fmt: skip
