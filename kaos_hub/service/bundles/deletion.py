"""Deleting bundles: refused while something is made of them, and what nothing else needs no longer
counts against the owner's storage.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from kaos_hub.bundles import tree
from kaos_hub.bundles.objects import stream
from kaos_hub.errors import Conflict, KaosError, NotFound
from kaos_hub.schemas import BundleKind, DeletedBundle, EntryKind
from kaos_hub.service.bundles.upload import batches
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import (
    DigestBytes,
    HoldingRow,
    IngestRow,
    InputRow,
    NotebookRow,
    TrainingRow,
    TrialRow,
    VersionRow,
)

_MOST_NAMED = 5
"""Users of a bundle that a refusal names."""
_ROUNDS = 3
"""Times that what is still needed is looked for, if something is sent meanwhile."""
_DIGEST = re.compile(rb"blake3:([0-9a-f]{64})")


class Removal:
    """Deletes bundles.

    Args:
        db: the service's database.
        versions: the bundles.
    """

    def __init__(self, db: Database, versions: Versions) -> None:
        self._db, self._versions = db, versions

    async def users(
        self, owner: str, kind: BundleKind, name: str, number: int | None = None
    ) -> list[str]:
        """List what keeps a bundle (or one version) from being deleted, in words."""
        return await self._db.run(
            lambda session: _users(session, _ids(session, owner, kind, name, number))
        )

    async def delete(
        self, owner: str, kind: BundleKind, name: str, number: int | None = None
    ) -> DeletedBundle:
        """Delete a version, or all of a bundle.

        Raises:
            NotFound: the owner has no such bundle.
            Conflict: a notebook or training is made of it; names them.
        """
        for _ in range(_ROUNDS):
            gone, kept = await self._db.run(
                lambda session: _roots(session, owner, kind, name, number)
            )
            loose = await asyncio.to_thread(self._loose, gone, kept)
            done = await self._db.run(
                lambda s, kept=kept, loose=loose: _delete(  # type: ignore[misc]
                    s, (owner, kind, name, number), kept, loose
                )
            )
            if done is not None:
                return done
        # The owner sends all the time: what is loose stays counted until the next is deleted.
        done = await self._db.run(lambda s: _delete(s, (owner, kind, name, number), None, set()))
        assert done is not None, "nothing was to be compared"
        return done

    def _loose(self, gone: set[str], kept: set[tuple[str, bool]]) -> set[str]:
        """The objects of trees that no kept one has. Blocks."""
        seen: set[str] = set()
        loose = set[str]().union(*(self._objects(root, seen) for root in gone))
        seen = set()
        for root, is_list in kept:
            if not loose:
                break
            loose -= self._listed(root) if is_list else self._objects(root, seen)
        return loose

    def _objects(self, root: str, seen: set[str]) -> set[str]:
        """All objects of a tree but those of folders that were ``seen`` before."""
        found, folders = {root}, [root]
        while folders:
            digest = folders.pop()
            if digest in seen:
                continue
            seen.add(digest)
            try:
                listing = b"".join(stream(self._versions.read, digest))
                entries = list(tree.lines(listing))
            except (KaosError, OSError):
                continue  # damaged or not there: then it holds nothing either
            found.update(entry[1] for entry in entries)
            folders += [entry[1] for entry in entries if entry[0] is EntryKind.DIRECTORY]
        return found

    def _listed(self, index: str) -> set[str]:
        """The objects that an index of what was fetched names, and itself."""
        found, rest = {index}, b""
        try:
            for piece in stream(self._versions.read, index):
                text = rest + piece
                found.update(f"blake3:{match.decode()}" for match in _DIGEST.findall(text))
                rest = text[-80:]
        except (KaosError, OSError):
            pass
        return found


def _ids(
    session: Session, owner: str, kind: BundleKind, name: str, number: int | None
) -> dict[int, VersionRow]:
    query = select(VersionRow).where(
        VersionRow.owner == owner, VersionRow.kind == kind, VersionRow.name == name
    )
    if number is not None:
        query = query.where(VersionRow.number == number)
    rows = {row.id: row for row in session.scalars(query.order_by(VersionRow.number))}
    if not rows:
        what = name if number is None else f"{name}@v{number}"
        raise NotFound(f"You have no {kind} bundle {what!r}. `kaos bundle list` shows yours.")
    return rows


def _roots(
    session: Session, owner: str, kind: BundleKind, name: str, number: int | None
) -> tuple[set[str], set[tuple[str, bool]]]:
    """The trees that are to go, and what the owner keeps: trees, and (True) indexes."""
    rows = _ids(session, owner, kind, name, number)
    _refuse_used(session, rows)
    return {row.digest for row in rows.values()}, _kept(session, owner, rows)


def _kept(session: Session, owner: str, rows: Iterable[int]) -> set[tuple[str, bool]]:
    ids = set(rows)
    versions = select(VersionRow.id, VersionRow.digest).where(VersionRow.owner == owner)
    outputs = select(TrialRow.output).where(TrialRow.owner == owner, TrialRow.output.is_not(None))
    indexes = select(IngestRow.index, IngestRow.data_id).where(IngestRow.owner == owner)
    return {
        *((row.digest, False) for row in session.execute(versions) if row.id not in ids),
        *((str(digest), False) for digest in session.scalars(outputs.distinct())),
        *((digest, False) for digest in _worked_on(session, owner)),
        *((row.index, True) for row in session.execute(indexes) if row.data_id not in ids),
    }


def _worked_on(session: Session, owner: str) -> set[str]:
    """Trees of notebooks that are no versions: several that were laid over one another."""
    trees = set[str]()
    for column in NotebookRow.__table__.columns:
        if isinstance(column.type, DigestBytes):
            query = select(column).where(NotebookRow.owner == owner, column.is_not(None))
            trees.update(session.scalars(query))
    return trees


def _delete(
    session: Session,
    which: tuple[str, BundleKind, str, int | None],
    kept: set[tuple[str, bool]] | None,
    loose: set[str],
) -> DeletedBundle | None:
    """Delete the rows; None if what is kept is not any more what was looked at."""
    owner, kind, name, _ = which
    rows = _ids(session, *which)
    _refuse_used(session, rows)
    if kept is not None and _kept(session, owner, rows) != kept:
        return None
    ids = list(rows)
    freed = 0
    for batch in batches(ids):
        session.execute(update(TrialRow).where(TrialRow.named_id.in_(batch)).values(named_id=None))
        session.execute(delete(InputRow).where(InputRow.version_id.in_(batch)))
        # What was fetched is gone; asked for again, it is fetched again.
        session.execute(delete(IngestRow).where(IngestRow.data_id.in_(batch)))
        session.execute(delete(VersionRow).where(VersionRow.id.in_(batch)))
    for part in batches(loose):
        mine = (HoldingRow.owner == owner, HoldingRow.digest.in_(part))
        freed += sum(session.scalars(select(HoldingRow.size).where(*mine)))
        session.execute(delete(HoldingRow).where(*mine))
    _choose_current(session, owner, kind, name)
    return DeletedBundle(versions=[row.number for row in rows.values()], freed=freed)


def _choose_current(session: Session, owner: str, kind: BundleKind, name: str) -> None:
    """The newest version that is left is what the name alone means, if what it meant is gone."""
    mine = (VersionRow.owner == owner, VersionRow.kind == kind, VersionRow.name == name)
    if session.scalar(select(VersionRow.id).where(*mine, VersionRow.current).limit(1)) is None:
        left = select(VersionRow).where(*mine).order_by(VersionRow.number.desc()).limit(1)
        row = session.scalar(left)
        if row is not None:
            row.current = True


# --- who uses it ---


def _refuse_used(session: Session, rows: dict[int, VersionRow]) -> None:
    users = _users(session, rows)
    if users:
        named = ", ".join(users[:_MOST_NAMED])
        more = len(users) - _MOST_NAMED
        if more > 0:
            named += f" and {more} more"
        what = " and ".join(sorted({f"{row.kind} bundle {row.name}" for row in rows.values()}))
        raise Conflict(
            f"The {what} is in use by {named}. Delete them, or give them another version, first.",
            users=users[:100],
        )


def _users(session: Session, rows: dict[int, VersionRow]) -> list[str]:
    """Notebooks and trainings that are made of the versions, in words."""
    found = []
    for batch in batches(rows):
        notebooks = select(NotebookRow.name).where(
            or_(
                *(column.in_(batch) for column in _references(NotebookRow)),
                # what it runs with, whatever it is to start with next time
                NotebookRow.held & NotebookRow.mounted_data_id.in_(batch),
            )
        )
        trainings = select(TrainingRow.id, TrainingRow.name).where(
            or_(*(column.in_(batch) for column in _references(TrainingRow)))
        )
        found += [f"notebook {name}" for name in session.scalars(notebooks)]
        found += [f"training {row.name} ({row.id})" for row in session.execute(trainings)]
    return list(dict.fromkeys(found))


def _references(table: Any) -> list[Any]:
    """The columns of a table that name a version."""
    return [
        column
        for column in table.__table__.columns
        if any(key.column.table.name == VersionRow.__tablename__ for key in column.foreign_keys)
    ]
