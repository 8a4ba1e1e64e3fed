"""Events of trainings, as streams."""

from collections.abc import AsyncIterator

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from kaos_hub.schemas import TrainingEvent, TrainingState, TrialCounts
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import TrainingEventRow, TrainingRow, now
from kaos_hub.service.trainings.records import GOING, counts
from kaos_hub.util.notifier import Bell, resumable


def stream(
    db: Database, bell: Bell, owner: str, training: str | None, after: int | None
) -> AsyncIterator[TrainingEvent]:
    """Events of one training or all of the owner's, from ``after`` on, then live.

    Without ``after`` it begins with the present state: of the one asked for, or of all that have
    not ended.
    """
    return resumable(
        bell,
        after,
        lambda: db.run(lambda session: _present(session, owner, training)),
        lambda last: db.run(lambda session: _since(session, owner, training, last)),
    )


def _present(session: Session, owner: str, training: str | None) -> tuple[list[TrainingEvent], int]:
    newest = select(TrainingEventRow.id).order_by(TrainingEventRow.id.desc()).limit(1)
    last = session.scalar(newest) or 0
    query = select(TrainingRow).where(TrainingRow.owner == owner)
    query = query.where(or_(TrainingRow.state.in_(GOING), TrainingRow.id == (training or "")))
    if training is not None:
        query = query.where(TrainingRow.id == training)
    events = [
        TrainingEvent(
            id=last, training=row.id, at=now(), state=TrainingState(row.state), reason=row.reason,
            progress=row.progress, trials=counts(row),
        )
        for row in session.scalars(query.order_by(TrainingRow.number))
    ]  # fmt: skip
    return events, last


def _since(session: Session, owner: str, training: str | None, after: int) -> list[TrainingEvent]:
    query = select(TrainingEventRow).where(TrainingEventRow.id > after)
    query = query.where(TrainingEventRow.owner == owner)
    if training is not None:
        query = query.where(TrainingEventRow.training == training)
    return [
        TrainingEvent(
            id=row.id, training=row.training, at=row.at, state=TrainingState(row.state),
            reason=row.reason, progress=row.progress, trials=TrialCounts(**row.trials),
        )
        for row in session.scalars(query.order_by(TrainingEventRow.id).limit(500))
    ]  # fmt: skip
