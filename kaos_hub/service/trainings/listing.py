"""Lists of trainings, trials and models: sorted and cut by the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, String, and_, case, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from kaos_hub.errors import InvalidRequest
from kaos_hub.schemas import TrainedModel, Training, TrainingState, Trial, TrialState
from kaos_hub.service.db.tables import TrainingRow, TrialRow, VersionRow, contains
from kaos_hub.service.trainings.records import (
    as_models,
    find,
    find_trial,
    link,
    output,
    trial_model,
)
from kaos_hub.service.users.identities import shown_author, shown_owner

PLAIN: dict[str, InstrumentedAttribute[Any]] = {
    "state": TrialRow.state,
    "started": TrialRow.started,
    "finished": TrialRow.finished,
}


def trainings(
    session: Session,
    owner: str,
    states: Sequence[TrainingState],
    limit: int,
    after: str | None,
    search: str = "",
) -> list[Training]:
    """The owner's trainings, the youngest first; ``search``: in name or id."""
    query = select(TrainingRow).where(TrainingRow.owner == owner)
    if search:
        query = query.where(contains(search, TrainingRow.name, TrainingRow.id))
    if states:
        query = query.where(TrainingRow.state.in_([state.value for state in states]))
    if after is not None:
        query = query.where(TrainingRow.number < find(session, owner, after).number)
    rows = session.scalars(query.order_by(TrainingRow.number.desc()).limit(limit))
    return as_models(session, list(rows))


def trials(
    session: Session,
    row: TrainingRow,
    sort: str,
    order: str | None,
    state: TrialState | None,
    limit: int,
    after: int,
) -> list[Trial]:
    """Trials of a training.

    Raises:
        InvalidRequest: nothing can be sorted by that.
    """
    if order not in (None, "asc", "desc"):
        raise InvalidRequest(f"order is asc or desc, not {order!r}")
    best = "desc" if row.goal_direction == "max" else "asc"
    down = (order or (best if sort == "score" else "asc")) == "desc"
    wanted = [TrialRow.training == row.number]
    if state is not None:
        wanted.append(TrialRow.state == state)
    if sort == "score":
        return [trial_model(row, t) for t in _by_score(session, wanted, down, limit, after)]
    if sort == "number":
        # The order of the primary key: however many trials there are, no others are looked at.
        number = TrialRow.number.desc() if down else TrialRow.number.asc()
        query = select(TrialRow).where(*wanted).order_by(number).limit(limit).offset(after)
        return [trial_model(row, trial) for trial in session.scalars(query)]
    keys = _keys(sort, session.get_bind().dialect.name == "postgresql")
    ordered = [key.desc() if down else key.asc() for key in keys]
    query = select(TrialRow).where(*wanted).order_by(_nothing(keys), *ordered, TrialRow.number)
    found = session.scalars(query.limit(limit).offset(after))
    return [trial_model(row, trial) for trial in found]


def _by_score(
    session: Session, wanted: Sequence[ColumnElement[bool]], down: bool, limit: int, after: int
) -> list[TrialRow]:
    """First those that have a score, which an index has in order, then the others."""
    has = TrialRow.score.is_not(None)
    order = TrialRow.score.desc() if down else TrialRow.score.asc()
    query = select(TrialRow).where(*wanted, has).order_by(order, TrialRow.number)
    found = list(session.scalars(query.limit(limit).offset(after)))
    if len(found) < limit:
        scored = session.scalar(select(func.count()).select_from(TrialRow).where(*wanted, has))
        others = select(TrialRow).where(*wanted, ~has).order_by(TrialRow.number)
        left_out = max(0, after - (scored or 0))
        found += session.scalars(others.limit(limit - len(found)).offset(left_out))
    return found


def _nothing(keys: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """Return a sort key by which missing values stand last, and texts behind numbers."""
    return case(*((key.is_not(None), rank) for rank, key in enumerate(keys)), else_=len(keys))


def _keys(sort: str, postgresql: bool) -> list[ColumnElement[Any]]:
    if sort in PLAIN:
        return [PLAIN[sort].expression]
    if sort == "duration":
        if postgresql:
            return [func.extract("epoch", TrialRow.finished - TrialRow.started)]
        return [func.julianday(TrialRow.finished) - func.julianday(TrialRow.started)]
    where, _, name = sort.partition(".")
    columns = {"metrics": TrialRow.metrics, "params": TrialRow.params}
    if where not in columns or not name or not name.isprintable() or {'"', "\\"} & set(name):
        known = ", ".join(["number", *PLAIN, "score", "duration", "metrics.<name>", "params.<key>"])
        raise InvalidRequest(f"Trials cannot be sorted by {sort!r}, but by {known}.")
    column: Any = columns[where]
    if postgresql:
        kind, text = func.json_typeof(column.op("->")(name)), column.op("->>")(name)
    else:
        path = f'$."{name}"'
        kind, text = func.json_type(column, path), func.json_extract(column, path)
    number = kind.in_(("number", "integer", "real"))
    return [case((number, cast(text, Float))), case((~number, cast(text, String)))]


def models(
    session: Session, owner: str, limit: int, after: str | None, named: bool, search: str = ""
) -> list[TrainedModel]:
    """Return the models that the owner's trials left which ended well, the youngest first.

    ``search`` is a part of the name that a model was given, or of its training's name or id.
    """
    query = (
        select(TrialRow, TrainingRow)
        .join(TrainingRow, TrainingRow.number == TrialRow.training)
        .where(
            TrialRow.owner == owner,
            TrialRow.state == TrialState.SUCCEEDED,
            TrialRow.output.is_not(None),
        )
    )
    if named:
        query = query.where(TrialRow.named_id.is_not(None))
    if search:
        query = query.outerjoin(VersionRow, VersionRow.id == TrialRow.named_id)
        names = (VersionRow.name, TrainingRow.name, TrainingRow.id)
        query = query.where(contains(search, *names))
    if after is not None:
        training, _, number = after.partition(".")
        row = find(session, owner, training)
        query = query.where(_older_than(find_trial(session, row, int(number))))
    query = query.order_by(
        TrialRow.finished.desc(), TrialRow.training.desc(), TrialRow.number.desc()
    )
    found = session.execute(query.limit(limit)).all()
    return as_trained(session, [(row, trial) for trial, row in found])


def _older_than(last: TrialRow) -> ColumnElement[bool]:
    same = TrialRow.finished == last.finished
    return or_(
        TrialRow.finished < last.finished,
        and_(same, TrialRow.training < last.training),
        and_(same, TrialRow.training == last.training, TrialRow.number < last.number),
    )


def as_trained(
    session: Session, found: Sequence[tuple[TrainingRow, TrialRow]]
) -> list[TrainedModel]:
    """Models as the API shows them; each of the trials left something."""
    ids = {i for r, t in found for i in (r.source_id, r.data_id, t.named_id)}
    query = select(VersionRow).where(VersionRow.id.in_(ids - {None}))
    versions = {version.id: version for version in session.scalars(query)}
    return [_trained(session, row, trial, versions) for row, trial in found]


def _trained(
    session: Session, row: TrainingRow, trial: TrialRow, versions: dict[int, VersionRow]
) -> TrainedModel:
    left = output(trial)
    assert left is not None, "whoever asks has looked"
    named = versions.get(trial.named_id or 0)
    source, data = versions.get(row.source_id or 0), versions.get(row.data_id or 0)
    return TrainedModel(
        id=f"{row.id}.{trial.number}",
        name=f"{named.name}@v{named.number}" if named else None,
        owner=shown_owner(session, row.owner),
        author=shown_author(session, row.author),
        training=row.id,
        trial=trial.number,
        source=link(source) if source else None,
        data=link(data) if data else None,
        params=trial.params,
        metrics=trial.metrics,
        output=left,
        created=trial.finished or row.created,
    )
