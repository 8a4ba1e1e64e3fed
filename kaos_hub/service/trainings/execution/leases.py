"""Leases: which worker runs which trial. Each step is one short transaction.

A trial is leased by one worker at a time, as its first attempt or its second. What an attempt that
is over still tells is not heard, so a trial ends once, however often it is told.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Cause
from kaos_hub.errors import NotFound
from kaos_hub.schemas import (
    Beat,
    BeatAnswer,
    EndedBy,
    JobKind,
    JobState,
    Lease,
    Output,
    TrainingState,
    TrialEnd,
    TrialState,
)
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow, TrainingRow, TrialRow, now
from kaos_hub.service.trainings.records import log_name, move, plain
from kaos_hub.util.quantities import duration

MOST_METRICS = 1000
"""Names of metrics that are kept of one training."""

LogSize = Callable[[str], int]


def worker_of(session: Session, job_id: str) -> tuple[JobRow, TrainingRow]:
    """A worker's job and its training.

    Raises:
        NotFound: it is none, or over.
    """
    job = session.get(JobRow, job_id)
    if job is None or job.kind != JobKind.TRAIN or job.state not in ACTIVE_JOBS:
        raise NotFound("There is no such worker (any more).")
    row = session.scalar(select(TrainingRow).where(TrainingRow.id == job.key.partition("/")[0]))
    if row is None:
        raise NotFound("There is no such training (any more).")
    return job, row


def leased(session: Session, job_id: str, number: int, attempt: int) -> TrialRow | None:
    """The trial that the worker runs as that attempt; None: it is not its own (any more)."""
    query = select(TrialRow).where(
        TrialRow.job == job_id,
        TrialRow.number == number,
        TrialRow.attempt == attempt,
        TrialRow.state == TrialState.RUNNING,
    )
    return session.scalar(query)


def take(session: Session, job_id: str) -> tuple[str, Lease] | None:
    """The trial that the worker is to run, with its training: the one it has, or the next."""
    return _take(session, *worker_of(session, job_id))


def _take(
    session: Session, job: JobRow, row: TrainingRow, free: bool = False
) -> tuple[str, Lease] | None:
    """``free``: its own trial has just ended, so it has none."""
    running = select(TrialRow).where(TrialRow.job == job.id, TrialRow.state == TrialState.RUNNING)
    trial = None if free else session.scalar(running)
    if trial is None:
        wanted = row.state == TrainingState.TRAINING and not row.kill_reason
        if not wanted or job.cancel_requested:
            return None
        trial = _next(session, row)
        if trial is None:
            return None
        move(row, trial, TrialState.RUNNING, trial.reason)
        trial.job, trial.started, row.losses = job.id, now(), 0
        row.started = row.started or trial.started
    lease = Lease(
        trial=trial.number, attempt=trial.attempt, params=trial.params, deadline=row.deadline
    )
    return row.id, lease


def _next(session: Session, row: TrainingRow) -> TrialRow | None:
    if not row.queued:
        return None
    query = select(TrialRow).where(
        TrialRow.training == row.number, TrialRow.state == TrialState.QUEUED
    )
    return session.scalar(query.order_by(TrialRow.number).limit(1))


def end_and_take(
    session: Session, job_id: str, told: TrialEnd, left: Output | None, log_size: LogSize
) -> tuple[str | None, tuple[str, Lease] | None]:
    """:func:`end` and :func:`take` at once."""
    job, row = worker_of(session, job_id)
    # what is changed is written once, at the end: a thousand short trials are a thousand of these
    with session.no_autoflush:
        ended = _end(session, job, row, told, left, log_size)
        return ended, _take(session, job, row, free=ended is not None)


def end(
    session: Session, job_id: str, told: TrialEnd, left: Output | None, log_size: LogSize
) -> str | None:
    """Write down how a trial ended; its training, or None if that was known.

    Args:
        session: the transaction.
        job_id: the worker that tells it.
        told: what it tells.
        left: its output, found to be there.
        log_size: bytes that a log has.
    """
    return _end(session, *worker_of(session, job_id), told, left, log_size)


def _end(
    session: Session,
    job: JobRow,
    row: TrainingRow,
    told: TrialEnd,
    left: Output | None,
    log_size: LogSize,
) -> str | None:
    trial = leased(session, job.id, told.trial, told.attempt)
    if trial is None:
        return None
    unasked = not (trial.cancel_reason or row.kill_reason or job.cancel_requested)
    if told.by is EndedBy.CANCELLED and unasked:
        # the engine ended the worker, which was not asked for
        lose(row, trial, "its worker had to go", log_size)
        session.flush()
        return row.id
    take_metrics(row, trial, told.metrics)
    trial.exit_code = told.exit_code
    state = _state(told)
    if left is not None:
        trial.output, trial.output_size, trial.output_files = left.digest, left.size, left.files
        trial.partial = state is not TrialState.SUCCEEDED or left.partial
        trial.skipped = [plain(line, 500) for line in left.skipped[:100]]
    reason = told.reason or _reason(told, row)
    if state is TrialState.CANCELLED:
        reason = trial.cancel_reason or row.kill_reason or "cancelled"
    conclude(session, row, trial, state, reason)
    return row.id


def _state(told: TrialEnd) -> TrialState:
    if told.by is EndedBy.CANCELLED:
        return TrialState.CANCELLED
    well = told.by is EndedBy.ITSELF and told.exit_code == 0
    return TrialState.SUCCEEDED if well else TrialState.FAILED


def _reason(told: TrialEnd, row: TrainingRow) -> str:
    if told.by is EndedBy.ITSELF:
        return "" if told.exit_code == 0 else f"train ended with exit code {told.exit_code}"
    words = {
        EndedBy.SIGNAL: "train was ended by a signal",
        EndedBy.OUT_OF_MEMORY: "train ran out of memory; ask for more, or need less",
        EndedBy.DEADLINE: f"train took longer than the {duration(row.deadline)} allowed",
        EndedBy.STORAGE: "train wrote more than it may",
        EndedBy.NOT_STARTED: "train could not be started",
    }
    return words.get(told.by, told.by.value)


def conclude(
    session: Session, row: TrainingRow, trial: TrialRow, state: TrialState, reason: str
) -> None:
    """A trial is over."""
    move(row, trial, state, reason)
    if state is TrialState.SUCCEEDED and trial.score is not None and _better(row, trial.score):
        row.best_trial, row.best_score = trial.number, trial.score
    if state is TrialState.FAILED and row.stop_on_failure:
        stop_rest(session, row, f"trial {trial.number} failed")


def _better(row: TrainingRow, score: float) -> bool:
    if row.best_score is None:
        return True
    return score < row.best_score if row.goal_direction == "min" else score > row.best_score


def stop_rest(session: Session, row: TrainingRow, reason: str) -> None:
    """Cancel what is queued, and ask for the end of what runs."""
    session.flush()
    mine = TrialRow.training == row.number
    session.execute(
        update(TrialRow)
        .where(mine, TrialRow.state == TrialState.QUEUED)
        .values(state=TrialState.CANCELLED, reason=plain(reason), finished=now())
    )
    row.cancelled, row.queued = row.cancelled + row.queued, 0
    session.execute(
        update(TrialRow)
        .where(mine, TrialRow.state == TrialState.RUNNING, TrialRow.cancel_reason == "")
        .values(cancel_reason=plain(reason))
    )


def lose(row: TrainingRow, trial: TrialRow, why: str, log_size: LogSize) -> None:
    """The worker of a running trial is gone: once, it is tried again."""
    if trial.attempt > 1:
        move(row, trial, TrialState.FAILED, f"lost twice: {why}")
        return
    move(row, trial, TrialState.QUEUED, f"second attempt; at the first, {why}")
    trial.attempt, trial.job = 2, None
    trial.log_base = log_size(log_name(row.id, trial.number))
    trial.metrics, trial.score = {}, None


def gone(
    session: Session, row: TrainingRow, trial: TrialRow, job: JobRow | None, log_size: LogSize
) -> None:
    """A running trial whose worker's job is over."""
    if trial.cancel_reason or row.kill_reason:
        reason = trial.cancel_reason or row.kill_reason
        conclude(session, row, trial, TrialState.CANCELLED, reason)
    elif job is not None and job.cause in (Cause.OUT_OF_MEMORY, Cause.STORAGE):
        conclude(session, row, trial, TrialState.FAILED, job.reason)
    else:
        lose(row, trial, _why_gone(job), log_size)


def _why_gone(job: JobRow | None) -> str:
    if job is None or job.state != JobState.FAILED:
        return "its worker ended without a word"
    return f"its worker {job.reason or 'failed'}"


def beat(session: Session, job_id: str, told: Beat) -> tuple[BeatAnswer, str, int]:
    """Take the last values; whether the trial is still wanted, its training, and how many points
    were told before these."""
    job, row = worker_of(session, job_id)
    trial = leased(session, job_id, told.trial, told.attempt)
    if trial is None:
        return BeatAnswer(cancel=True), row.id, -1
    before = trial.points
    if told.points:
        last: dict[str, Any] = {}
        for point in told.points:
            last |= point.values
        take_metrics(row, trial, last)
        trial.points = before + len(told.points)
    cancel = bool(trial.cancel_reason or row.kill_reason or job.cancel_requested)
    return BeatAnswer(cancel=cancel), row.id, before


def take_metrics(row: TrainingRow, trial: TrialRow, metrics: Mapping[str, float]) -> None:
    """Values that a trial told; what is no finite number cannot be compared, and is left out."""
    known = {plain(k, 100): float(v) for k, v in metrics.items() if math.isfinite(v)}
    if not known:
        return
    merged = {**trial.metrics, **known}
    trial.metrics = dict(list(merged.items())[:MOST_METRICS])
    if row.goal_metric in trial.metrics:
        trial.score = trial.metrics[row.goal_metric]
    new = known.keys() - set(row.metrics)
    if new and len(row.metrics) < MOST_METRICS:
        row.metrics = sorted({*row.metrics, *new})[:MOST_METRICS]
