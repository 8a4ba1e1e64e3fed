"""Things of owners whom the Hub has no more: listed, handed over or deleted by admins."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from kaos_hub.engines.places import Places
from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import OwnerState, OwnerSummary
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import (
    ACTIVE_JOBS,
    ChoiceRow,
    EventRow,
    HoldingRow,
    ImageRow,
    IngestRow,
    InputRow,
    JobRow,
    NotebookRow,
    OwnerRow,
    TrainingEventRow,
    TrainingRow,
    TrialRow,
    VersionRow,
    VolumeRow,
)
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.quota import stored
from kaos_hub.service.users.identities import Identities

_MOVED: tuple[Any, ...] = (
    HoldingRow, VersionRow, ImageRow, JobRow, NotebookRow, VolumeRow, EventRow, TrainingRow,
    TrialRow, IngestRow, TrainingEventRow,
)  # fmt: skip
_PASSING: tuple[Any, ...] = (ChoiceRow, InputRow)
"""Tables of what an owner chose last: of no use to another owner."""
_EXCLUSIVE: tuple[tuple[Any, Any], ...] = (
    (HoldingRow, HoldingRow.digest),
    (ImageRow, ImageRow.key),
    (IngestRow, IngestRow.manifest),
)
"""Of these, each owner has one of a kind, and one is as good as the other."""
_SHORT = 28
"""Signs of a name that stay when a number is added."""


class Handover:
    """Lists, hands over and deletes what owners have.

    Args:
        db: the service's database.
        identities: knows which owner is who.
        places: where homes and volumes lie.
        logs: of jobs and trials.
    """

    def __init__(
        self, db: Database, identities: Identities, places: Places, logs: LogStore
    ) -> None:
        self._db, self._identities = db, identities
        self._places, self._logs = places, logs

    async def list(self, gone: bool = False) -> list[OwnerSummary]:
        """All owners, or those that the Hub has no more, with what they have.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        await self._identities.check_all()

        def look(session: Session) -> list[OwnerSummary]:
            rows = session.scalars(select(OwnerRow).order_by(OwnerRow.owner)).all()
            return [_summary(session, row) for row in rows if row.gone is not None or not gone]

        return await self._db.run(look)

    async def hand_over(self, owner: str, to: str) -> OwnerSummary:
        """Give all that an owner has to another. What both have of one name gets a number.

        Args:
            owner: the key of an owner whom the Hub has no more.
            to: the key of one whom it has.

        Raises:
            NotFound: there is no such owner.
            Conflict: the Hub still has the owner, or something of it runs; or does not have the
                other.
        """
        await self._identities.check_all()

        def write(session: Session) -> OwnerSummary:
            _leaver(session, owner)
            receiver = _owner(session, to)
            if receiver.gone is not None or receiver.identity is None or to == owner:
                raise Conflict(f"{to} is no user or group that the Hub has now.")
            _rename(session, NotebookRow, owner, to)
            renamed = _rename(session, VolumeRow, owner, to)
            _rename_volumes(session, owner, renamed)
            _rename(session, VersionRow, owner, to, VersionRow.kind)
            for table, key in _EXCLUSIVE:
                theirs = select(key).where(table.owner == to)
                session.execute(delete(table).where(table.owner == owner, key.in_(theirs)))
            for table in _PASSING:
                session.execute(delete(table).where(table.owner == owner))
            for table in _MOVED:
                session.execute(update(table).where(table.owner == owner).values(owner=to))
            session.flush()
            return _summary(session, receiver)

        return await self._db.run(write)

    async def delete(self, owner: str) -> OwnerSummary:
        """Delete all that an owner has, files included; says what that was.

        Raises:
            NotFound: there is no such owner.
            Conflict: the Hub still has the owner, or something of it runs.
        """
        await self._identities.check_all()

        def look(session: Session) -> tuple[OwnerSummary, list[str], list[str], list[str]]:
            row = _leaver(session, owner)
            homes = session.scalars(select(NotebookRow.id).where(NotebookRow.owner == owner))
            volumes = session.scalars(select(VolumeRow.id).where(VolumeRow.owner == owner))
            trials = select(TrainingRow.id, TrialRow.number).join(
                TrialRow, TrialRow.training == TrainingRow.number
            )
            found = session.execute(trials.where(TrainingRow.owner == owner))
            logs = [f"trial-{training}-{number}" for training, number in found]
            logs += session.scalars(select(JobRow.id).where(JobRow.owner == owner))
            return _summary(session, row), list(homes), list(volumes), logs

        summary, homes, volumes, logs = await self._db.run(look)
        # Files first: if the service is killed in between, the rows are left to begin again with.
        for home in homes:
            await self._places.remove_home(home)
        for volume in volumes:
            await self._places.remove_volume(volume)
        for log in logs:
            self._logs.remove(log)
        await self._db.run(lambda session: _forget(session, owner))
        return summary


def _forget(session: Session, owner: str) -> None:
    _leaver(session, owner)
    numbers = select(TrainingRow.number).where(TrainingRow.owner == owner)
    session.execute(delete(TrialRow).where(TrialRow.training.in_(numbers)))
    versions = select(VersionRow.id).where(VersionRow.owner == owner)
    # A notebook of another's may stand on a group's run; it keeps its row, and says what it lacks.
    for column in ("source_id", "data_id", "context_id", "good_source_id"):
        used = getattr(NotebookRow, column).in_(versions)
        session.execute(update(NotebookRow).where(used).values({column: None}))
    for table in (NotebookRow, TrainingRow, TrialRow, *_PASSING, *_MOVED):
        if table is not VersionRow:
            session.execute(delete(table).where(table.owner == owner))
    session.execute(delete(InputRow).where(InputRow.version_id.in_(versions)))
    session.execute(delete(VersionRow).where(VersionRow.owner == owner))


def _owner(session: Session, owner: str) -> OwnerRow:
    row = session.get(OwnerRow, owner)
    if row is None:
        raise NotFound(f"There is no owner {owner!r}. `kaos admin owners list` shows all.")
    return row


def _leaver(session: Session, owner: str) -> OwnerRow:
    """An owner whom the Hub has no more, and of whom nothing runs."""
    row = _owner(session, owner)
    if row.gone is None and row.identity is not None:
        raise Conflict(
            f"The Hub still has {owner.partition(':')[0]} {row.name!r}, whose things these are."
        )
    held = select(NotebookRow.name).where(NotebookRow.owner == owner, NotebookRow.held)
    active = select(JobRow.id).where(JobRow.owner == owner, JobRow.state.in_(ACTIVE_JOBS))
    if session.scalar(held.limit(1)) or session.scalar(active.limit(1)):
        raise Conflict(f"Something of {owner} still runs. Try again when it has ended.")
    return row


def _summary(session: Session, row: OwnerRow) -> OwnerSummary:
    def count(table: Any) -> int:
        query = select(func.count()).select_from(table).where(table.owner == row.owner)
        return session.scalar(query) or 0

    state = OwnerState.HERE if row.identity is not None else OwnerState.UNSEEN
    return OwnerSummary(
        id=row.owner,
        kind=row.owner.partition(":")[0],
        name=row.name,
        state=OwnerState.GONE if row.gone is not None else state,
        since=row.gone,
        notebooks=count(NotebookRow),
        volumes=count(VolumeRow),
        versions=count(VersionRow),
        trainings=count(TrainingRow),
        storage=stored(session, row.owner),
    )


def _rename(session: Session, table: Any, owner: str, to: str, *kinds: Any) -> dict[str, str]:
    """Give names of the owner's that the other has, too, a number; returns new names by old."""
    columns = (table.name, *kinds)
    taken = {tuple(row) for row in session.execute(select(*columns).where(table.owner == to))}
    mine = {tuple(row) for row in session.execute(select(*columns).where(table.owner == owner))}
    renamed = {}
    for key in sorted(mine & taken):
        name = _free(key[0], lambda new, rest=key[1:]: (new, *rest) in taken | mine)  # type: ignore[misc]
        same = [column == value for column, value in zip(columns, key, strict=True)]
        session.execute(update(table).where(table.owner == owner, *same).values(name=name))
        mine.add((name, *key[1:]))
        renamed[key[0]] = name
    return renamed


def _free(name: str, taken: Callable[[str], bool]) -> str:
    number = 2
    while taken(f"{name[:_SHORT]}-{number}"):
        number += 1
    return f"{name[:_SHORT]}-{number}"


def _rename_volumes(session: Session, owner: str, renamed: dict[str, str]) -> None:
    """Have notebooks name their volumes as they are called now."""
    if not renamed:
        return
    for row in session.scalars(select(NotebookRow).where(NotebookRow.owner == owner)):
        mounts: Iterable[dict[str, Any]] = row.options.get("volumes", [])
        changed = [{**m, "volume": renamed.get(m["volume"], m["volume"])} for m in mounts]
        row.options = {**row.options, "volumes": changed}
