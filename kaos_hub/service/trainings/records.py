"""Trainings and trials as rows: how they are found, how their state is set, what the API shows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.errors import NotFound
from kaos_hub.schemas import (
    Best,
    BundleLink,
    Direction,
    Goal,
    Output,
    Resources,
    Stage,
    Training,
    TrainingState,
    Trial,
    TrialCounts,
    TrialState,
)
from kaos_hub.service.db.tables import (
    JobRow,
    TrainingEventRow,
    TrainingRow,
    TrialRow,
    VersionRow,
    now,
)
from kaos_hub.service.users.identities import shown_author, shown_owner

KEEP_EVENTS = 200
"""Events kept of one training; older ones are forgotten."""

GOING = tuple(state.value for state in TrainingState if not state.ended)
"""States of trainings that have not ended."""


def find(session: Session, owner: str, training: str) -> TrainingRow:
    """Return the owner's training of that id.

    Raises:
        NotFound: there is none, or it is another owner's.
    """
    row = session.scalar(
        select(TrainingRow).where(TrainingRow.id == training, TrainingRow.owner == owner)
    )
    if row is None:
        raise NotFound(f"There is no training {training!r}. `kaos train list` shows yours.")
    return row


def find_trial(session: Session, row: TrainingRow, number: int) -> TrialRow:
    """A trial of a training.

    Raises:
        NotFound: it has fewer.
    """
    trial = session.get(TrialRow, (row.number, number))
    if trial is None:
        raise NotFound(
            f"Training {row.id} has no trial {number}; it has {row.total}:"
            f" kaos train info -j {row.id}"
        )
    return trial


def log_name(training: str, number: int | Literal[""]) -> str:
    """Return the name of a trial's log; without a number, the beginning of all trials' names."""
    return f"trial-{training}-{number}"


def points_name(training: str) -> str:
    """Return the name of the file with a training's metrics."""
    return f"metrics-{training}"


def plain(text: str, most: int = 2000) -> str:
    """A text that databases take, of a bounded length."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()[:most]


# --- changing ---


def set_state(
    session: Session,
    row: TrainingRow,
    state: TrainingState,
    reason: str = "",
    progress: int = 0,
) -> None:
    """Write a training's state, and the event of it if anything changed."""
    reason = plain(reason)
    if (row.state, row.reason, row.progress) == (state, reason, progress):
        return
    row.state, row.reason, row.progress = state, reason, progress
    if state.ended and row.finished is None:
        row.finished = now()
    announce(session, row)


def announce(session: Session, row: TrainingRow) -> None:
    """Write an event of the training as it is."""
    event = TrainingEventRow(
        owner=row.owner, training=row.id, at=now(), state=row.state, reason=row.reason,
        progress=row.progress, trials=counts(row).model_dump(),
    )  # fmt: skip
    session.add(event)
    session.flush()
    if event.id % 50 == 0:
        _forget_old(session, row)


def _forget_old(session: Session, row: TrainingRow) -> None:
    mine = TrainingEventRow.training == row.id
    newest = (
        select(TrainingEventRow.id)
        .where(mine)
        .order_by(TrainingEventRow.id.desc())
        .offset(KEEP_EVENTS)
        .limit(1)
        .scalar_subquery()
    )
    session.execute(delete(TrainingEventRow).where(mine, TrainingEventRow.id <= newest))


def move(row: TrainingRow, trial: TrialRow, state: TrialState, reason: str = "") -> None:
    """Bring a trial to another state, and count it there."""
    before = trial.state.lower()
    setattr(row, before, getattr(row, before) - 1)
    after = state.value.lower()
    setattr(row, after, getattr(row, after) + 1)
    trial.state, trial.reason = state.value, plain(reason)
    if state.ended:
        trial.finished = now()


# --- showing ---


def counts(row: TrainingRow) -> TrialCounts:
    """Return how many trials are in each state."""
    return TrialCounts(
        total=row.total, queued=row.queued, running=row.running, succeeded=row.succeeded,
        failed=row.failed, cancelled=row.cancelled,
    )  # fmt: skip


def goal(row: TrainingRow) -> Goal | None:
    """Return what makes one trial better than another, if anything was said of that."""
    if row.goal_metric is None or row.goal_direction is None:
        return None
    return Goal(metric=row.goal_metric, direction=Direction(row.goal_direction))


def as_models(session: Session, rows: Sequence[TrainingRow]) -> list[Training]:
    """Trainings as the API shows them; what they refer to is read all at once."""
    ids = {i for r in rows for i in (r.source_id, r.data_id, r.manifest_id, r.params_id)}
    links = {
        version.id: link(version)
        for version in session.scalars(select(VersionRow).where(VersionRow.id.in_(ids - {None})))
    }
    names = {name for row in rows for name in (row.ingest_job, row.build_job) if name}
    jobs = {job.id: job for job in session.scalars(select(JobRow).where(JobRow.id.in_(names)))}
    return [_as_model(session, row, links, jobs) for row in rows]


def as_model(session: Session, row: TrainingRow) -> Training:
    """A training as the API shows it."""
    return as_models(session, [row])[0]


def link(version: VersionRow) -> BundleLink:
    """Return the name, number and digest of a bundle's version."""
    return BundleLink(name=version.name, version=version.number, digest=version.digest)


def _as_model(
    session: Session,
    row: TrainingRow,
    links: Mapping[int, BundleLink],
    jobs: Mapping[str, JobRow],
) -> Training:
    best = None
    if row.best_trial is not None and row.best_score is not None:
        best = Best(trial=row.best_trial, score=row.best_score)
    return Training(
        id=row.id,
        name=row.name,
        owner=shown_owner(session, row.owner),
        author=shown_author(session, row.author),
        notebook=row.notebook,
        state=TrainingState(row.state),
        reason=row.reason,
        progress=row.progress,
        source=links.get(row.source_id or 0),
        data=links.get(row.data_id or 0),
        manifest=links.get(row.manifest_id or 0),
        params=links.get(row.params_id or 0),
        reused=row.reused or [],
        slots=row.slots,
        goal=goal(row),
        stop_on_failure=row.stop_on_failure,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        deadline=row.deadline,
        trials=counts(row),
        best=best,
        metrics=row.metrics,
        stages=list(_stages(row, jobs)),
        reproduces=row.reproduces,
        created=row.created,
        started=row.started,
        finished=row.finished,
    )


def _stages(row: TrainingRow, jobs: Mapping[str, JobRow]) -> Iterable[Stage]:
    ended = TrainingState(row.state).ended
    ingest, build = jobs.get(row.ingest_job or ""), jobs.get(row.build_job or "")
    if row.manifest_id is not None:
        if ingest is not None:
            yield _job_stage("ingest", ingest)
        elif row.data_id is not None:
            reason = "nothing to fetch: all of it was fetched before"
            yield Stage(name="ingest", state="SKIPPED", reason=reason, progress=100)
        else:
            yield Stage(name="ingest", state="SKIPPED" if ended else "QUEUED")
    if build is not None and not row.build_reason:
        yield _job_stage("build", build)
    elif row.environment:
        yield Stage(
            name="build", state="SKIPPED", reason=row.build_reason, progress=100, job=row.build_job
        )
    else:
        yield Stage(name="build", state="SKIPPED" if ended else "QUEUED")
    yield _train_stage(row)


def _job_stage(name: str, job: JobRow) -> Stage:
    return Stage(
        name=name, state=job.state, reason=job.reason, progress=job.progress,
        started=job.started, finished=job.finished, job=job.id,
    )  # fmt: skip


def _train_stage(row: TrainingRow) -> Stage:
    state, training = "QUEUED", row.state == TrainingState.TRAINING
    if training:
        state = "RUNNING" if row.started else "QUEUED"
    elif TrainingState(row.state).ended:
        state = row.state if row.started else "SKIPPED"
    return Stage(
        name="train",
        state=state,
        reason=row.reason if training or row.started else "",
        progress=_per_cent(row),
        started=row.started,
        finished=row.finished if row.started else None,
    )


def _per_cent(row: TrainingRow) -> int:
    ended = row.succeeded + row.failed + row.cancelled
    return 100 * ended // row.total if row.total else 0


def trial_model(row: TrainingRow, trial: TrialRow) -> Trial:
    """A trial as the API shows it."""
    return Trial(
        training=row.id,
        number=trial.number,
        state=TrialState(trial.state),
        reason=trial.reason,
        params=trial.params,
        metrics=trial.metrics,
        attempt=trial.attempt,
        exit_code=trial.exit_code,
        output=output(trial),
        created=row.created,
        started=trial.started,
        finished=trial.finished,
    )


def output(trial: TrialRow) -> Output | None:
    """Return what the trial left, if anything."""
    if trial.output is None:
        return None
    return Output(
        digest=trial.output, size=trial.output_size, files=trial.output_files,
        partial=trial.partial, skipped=trial.skipped,
    )  # fmt: skip
