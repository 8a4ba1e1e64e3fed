"""Views of an owner's bundles: by name, file by file, and one version beside another."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kaos_hub.bundles import tree
from kaos_hub.bundles.compare import compare
from kaos_hub.bundles.objects import stream, whole
from kaos_hub.errors import NotFound
from kaos_hub.schemas import (
    BundleChange,
    BundleComparison,
    BundleKind,
    BundleVersion,
    ChangeKind,
    EntryKind,
    NamedBundle,
    TreeEntry,
)
from kaos_hub.service.bundles.versions import Versions, as_model
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import VersionRow, contains

FILES = (EntryKind.FILE, EntryKind.EXECUTABLE)
"""Kinds of entries that have content of their own."""


_FOLDER = EntryKind.DIRECTORY
_Line = tuple[EntryKind, str, int, str]
"""Kind, digest, size and name of an entry."""


class Catalogue:
    """Looks at bundles; changes nothing.

    Args:
        db: the service's database.
        versions: the bundles.
    """

    def __init__(self, db: Database, versions: Versions) -> None:
        self._db, self._versions = db, versions

    async def names(
        self,
        owner: str,
        kind: BundleKind | None = None,
        search: str = "",
        limit: int = 100,
        after: int = 0,
    ) -> list[NamedBundle]:
        """The owner's bundles, the one sent last first.

        Args:
            owner: whose.
            kind: only this kind.
            search: only names that contain it, in whatever case.
            limit: at most so many.
            after: leave out so many of the first.
        """
        return await self._db.run(
            lambda session: _names(session, owner, kind, search, limit, after)
        )

    async def all_of(self, owner: str, kind: BundleKind, name: str) -> NamedBundle:
        """One bundle.

        Raises:
            NotFound: the owner has none of that name.
        """

        def look(session: Session) -> NamedBundle | None:
            return next(iter(_names(session, owner, kind, "", 1, 0, name)), None)

        found = await self._db.run(look)
        if found is None:
            raise NotFound(f"You have no {kind} bundle {name!r}. `kaos bundle list` shows yours.")
        return found

    async def before(self, owner: str, version: BundleVersion) -> BundleVersion:
        """The version that came before one of the owner's, or the first itself.

        Raises:
            NotFound: it is gone meanwhile.
        """
        query = select(VersionRow).where(
            VersionRow.owner == owner,
            VersionRow.kind == version.kind,
            VersionRow.name == version.name,
            VersionRow.number < version.version,
        )
        query = query.order_by(VersionRow.number.desc()).limit(1)

        def look(session: Session) -> BundleVersion:
            row = session.scalar(query)
            return version if row is None else as_model(row)

        return await self._db.run(look)

    async def folder(
        self, version: BundleVersion, path: str, after: int = 0, limit: int = 1000
    ) -> tuple[list[TreeEntry], int]:
        """A part of what stands in a folder of a version, and how much there is: folders first,
        then by name, in whatever case.

        Raises:
            NotFound: there is no such folder.
        """
        listing = await self._listing(version, path)

        def part() -> list[TreeEntry]:
            ordered = sorted(listing, key=lambda e: (e[0] is not _FOLDER, e[3].casefold(), e[3]))
            return [_entry(one) for one in ordered[after : after + limit]]

        return await asyncio.to_thread(part), len(listing)

    async def entry(self, version: BundleVersion, path: str) -> TreeEntry:
        """Return the entry at a path of a version.

        Raises:
            NotFound: there is none.
        """
        folder, _, name = path.strip("/").rpartition("/")
        for one in await self._listing(version, folder):
            if one[3] == name:
                return _entry(one)
        raise NotFound(f"{version.name} v{version.version} has no {path!r}.")

    async def _listing(self, version: BundleVersion, path: str) -> list[_Line]:
        """All of a folder. What is a version was checked when it became one."""

        def look() -> list[_Line] | None:
            digest = version.digest
            for part in (*filter(None, path.split("/")), None):
                found = list(tree.lines(whole(self._versions.read, digest, tree.MAX_NODE)))
                if part is None:
                    return found
                below = (one[1] for one in found if one[3] == part and one[0] is _FOLDER)
                digest = next(below, "")
                if not digest:
                    break
            return None

        found = await asyncio.to_thread(look)
        if found is None:
            raise NotFound(f"{version.name} v{version.version} has no directory {path!r}.")
        return found

    async def files(self, digest: str, limit: int) -> list[tuple[str, int]]:
        """Paths and sizes of the files of a tree, folder by folder, the first of them.

        Args:
            digest: of the tree.
            limit: at most so many.

        Raises:
            Damaged: a listing of it is.
        """

        def below(digest: str, path: str) -> Iterator[tuple[str, int]]:
            for kind, inner, size, name in tree.lines(
                whole(self._versions.read, digest, tree.MAX_NODE)
            ):
                if kind is _FOLDER:
                    yield from below(inner, f"{path}{name}/")
                else:
                    yield f"{path}{name}", size

        return await asyncio.to_thread(lambda: list(islice(below(digest, ""), limit)))

    async def file(self, version: BundleVersion, path: str) -> TreeEntry:
        """A file of a version.

        Raises:
            NotFound: no file is there.
        """
        entry = await self.entry(version, path)
        if entry.kind not in FILES:
            raise NotFound(f"{path!r} of {version.name} v{version.version} is no file.")
        return entry

    async def content(self, entry: TreeEntry) -> AsyncIterator[bytes]:
        """The bytes of a file, piece by piece, found to be the right ones."""
        pieces = stream(self._versions.read, entry.digest, entry.size)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece

    async def beginning(self, entry: TreeEntry, limit: int) -> bytes:
        """The first bytes of a file, at most ``limit``."""
        found = bytearray()
        pieces = self.content(entry)
        try:
            async for piece in pieces:
                found += piece
                if len(found) >= limit:
                    break
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        return bytes(found[:limit])

    async def compare(
        self, before: BundleVersion, after: BundleVersion, limit: int = 1000
    ) -> BundleComparison:
        """Compare two versions. ``limit`` bounds the listed changes, not the counts.

        Raises:
            Damaged: a listing of one of them is.
        """
        changes = await asyncio.to_thread(
            lambda: _count(compare(before.digest, after.digest, self._versions.read), limit)
        )
        counts, listed = changes
        return BundleComparison(
            before=before,
            after=after,
            added=counts[ChangeKind.ADDED],
            removed=counts[ChangeKind.REMOVED],
            changed=counts[ChangeKind.CHANGED],
            changes=listed,
        )


def _entry(line: _Line) -> TreeEntry:
    kind, digest, size, name = line
    return TreeEntry(kind=kind, digest=digest, size=size, name=name)


def _count(
    changes: Iterable[BundleChange], limit: int
) -> tuple[dict[ChangeKind, int], list[BundleChange]]:
    counts, listed = dict.fromkeys(ChangeKind, 0), list[BundleChange]()
    for change in changes:
        counts[change.change] += 1
        if len(listed) < limit:
            listed.append(change)
    return counts, listed


def _names(
    session: Session,
    owner: str,
    kind: BundleKind | None,
    search: str,
    limit: int,
    after: int,
    name: str | None = None,
) -> list[NamedBundle]:
    newest = func.max(VersionRow.id)
    query = select(
        VersionRow.kind, VersionRow.name, func.count(), func.max(VersionRow.number)
    ).where(VersionRow.owner == owner)
    if kind is not None:
        query = query.where(VersionRow.kind == kind)
    if name is not None:
        query = query.where(VersionRow.name == name)
    if search:
        query = query.where(contains(search, VersionRow.name))
    query = query.group_by(VersionRow.kind, VersionRow.name).order_by(newest.desc())
    groups = session.execute(query.offset(after).limit(limit)).all()
    current = _current(session, owner, {row.name for row in groups})
    return [
        NamedBundle(
            kind=BundleKind(row[0]), name=row[1], versions=row[2], newest=row[3],
            current=as_model(current[row[0], row[1]]),
        )
        for row in groups
        if (row[0], row[1]) in current
    ]  # fmt: skip


def _current(session: Session, owner: str, names: set[str]) -> dict[tuple[str, str], VersionRow]:
    """The versions that those names mean where none is named."""
    query = select(VersionRow).where(
        VersionRow.owner == owner, VersionRow.name.in_(names), VersionRow.current
    )
    return {(row.kind, row.name): row for row in session.scalars(query)}
