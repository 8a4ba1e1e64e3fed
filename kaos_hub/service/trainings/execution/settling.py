"""The state of a training, and what has to be done next: decided in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.schemas import JobKind, JobState, TrainingState, TrialState
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow, TrainingRow, TrialRow, now
from kaos_hub.service.trainings.execution.leases import LogSize, conclude, gone, stop_rest
from kaos_hub.service.trainings.records import announce, plain, set_state
from kaos_hub.util.quantities import duration

LOSSES = 3
"""Workers that may end one after the other without having run anything."""
OVERDUE = timedelta(minutes=10)
"""After the deadline of its trial, a worker that tells nothing is given up."""


@dataclass(frozen=True)
class Situation:
    """The state of a training, and what has to be done next."""

    over: bool
    killed: bool
    workers: Mapping[str, JobState]
    """Jobs of its workers that are active."""
    hire: int | None = None
    """Slot of a worker that should be started."""
    pause: float = 0
    """Seconds before that: workers keep ending at once."""
    cancelling: Sequence[tuple[str, int, int]] = ()
    """Job, trial and attempt of what runs and is no longer wanted."""
    stuck: Sequence[str] = ()
    """Workers that are to be ended."""


def workers_of(session: Session, row: TrainingRow) -> list[JobRow]:
    """Jobs of its workers that are active."""
    return list(
        session.scalars(
            select(JobRow).where(
                JobRow.state.in_(ACTIVE_JOBS),
                JobRow.kind == JobKind.TRAIN,
                JobRow.key.startswith(f"{row.id}/"),
            )
        )
    )


def settle(session: Session, row: TrainingRow, log_size: LogSize) -> Situation:
    """Take note of workers that are gone, end the training if nothing is left to be run, and say
    what has to be done."""
    stuck = _take_note(session, row, log_size)
    workers = workers_of(session, row)
    if not TrainingState(row.state).ended and not row.queued and not row.running:
        state, reason = _ending(session, row)
        set_state(session, row, state, reason, 100)
    states = {job.id: JobState(job.state) for job in workers}
    if TrainingState(row.state).ended:
        return Situation(True, bool(row.kill_reason), states)
    _say(session, row, workers)
    hire = None if row.kill_reason else _slot(row, workers)
    pause = 2.0**row.losses if row.losses else 0
    unwanted = _unwanted(session, row)
    return Situation(False, bool(row.kill_reason), states, hire, pause, unwanted, stuck)


def _take_note(session: Session, row: TrainingRow, log_size: LogSize) -> list[str]:
    """Running trials whose worker is gone, or has been silent for too long."""
    session.flush()
    stuck = []
    latest = now() - timedelta(seconds=row.deadline) - OVERDUE
    running = select(TrialRow).where(
        TrialRow.training == row.number, TrialRow.state == TrialState.RUNNING
    )
    for trial in list(session.scalars(running)):
        job = session.get(JobRow, trial.job) if trial.job else None
        if job is None or job.state not in ACTIVE_JOBS:
            gone(session, row, trial, job, log_size)
        elif trial.started is not None and trial.started < latest:
            reason = f"took longer than the {duration(row.deadline)} allowed, and did not answer"
            conclude(session, row, trial, TrialState.FAILED, reason)
            stuck.append(job.id)
    return stuck


def _unwanted(session: Session, row: TrainingRow) -> list[tuple[str, int, int]]:
    query = select(TrialRow.job, TrialRow.number, TrialRow.attempt).where(
        TrialRow.training == row.number, TrialRow.state == TrialState.RUNNING
    )
    if not row.kill_reason:
        query = query.where(TrialRow.cancel_reason != "")
    return [(job, number, attempt) for job, number, attempt in session.execute(query) if job]


def _slot(row: TrainingRow, workers: Sequence[JobRow]) -> int | None:
    """A slot to be filled. One worker at a time waits for its turn, however many are wanted."""
    wanted = min(row.slots, row.queued + row.running) if row.queued else 0
    waiting = any(job.state == JobState.QUEUED for job in workers)
    if waiting or len(workers) >= wanted:
        return None
    taken = {job.key.partition("/")[2] for job in workers}
    return next(slot for slot in range(row.slots + 1) if str(slot) not in taken)


def _say(session: Session, row: TrainingRow, workers: Sequence[JobRow]) -> None:
    """The state of a training that runs: what it waits for, and how far it is."""
    reason = ""
    if row.kill_reason:
        reason = f"{row.kill_reason}; what runs is being ended"
    elif not row.running:
        reason = next((job.reason for job in workers if job.reason), "waiting for a worker")
    ended = row.succeeded + row.failed + row.cancelled
    progress = min(99, 100 * ended // row.total) if row.total else 0
    if (row.state, row.reason) == (TrainingState.TRAINING, plain(reason)):
        row.progress = progress  # the driver tells of that, now and then
    else:
        set_state(session, row, TrainingState.TRAINING, reason, progress)


def _ending(session: Session, row: TrainingRow) -> tuple[TrainingState, str]:
    if row.kill_reason:
        return TrainingState.CANCELLED, row.kill_reason
    if not row.succeeded and not row.failed:
        return TrainingState.CANCELLED, "all of its trials were cancelled"
    if not row.failed:
        left = f"{row.cancelled} of {row.total} trials were cancelled" if row.cancelled else ""
        return TrainingState.SUCCEEDED, left
    first = _first_failure(session, row)
    if row.total == 1:
        return TrainingState.FAILED, first.reason
    words = f"{row.failed} of {row.total} trials failed; the first, {first.number}: {first.reason}"
    if row.succeeded and not row.stop_on_failure:
        return TrainingState.SUCCEEDED, words
    return TrainingState.FAILED, words


def _first_failure(session: Session, row: TrainingRow) -> TrialRow:
    query = select(TrialRow).where(
        TrialRow.training == row.number, TrialRow.state == TrialState.FAILED
    )
    return session.scalars(query.order_by(TrialRow.number).limit(1)).one()


def note_worker(session: Session, row: TrainingRow, job_id: str) -> None:
    """A worker's job has ended. If that happens again and again before anything ran, the training
    fails with what they said."""
    job = session.get_one(JobRow, job_id)
    ran = session.scalar(select(TrialRow.number).where(TrialRow.job == job_id).limit(1))
    if job.state != JobState.FAILED or ran is not None or TrainingState(row.state).ended:
        return
    row.losses += 1
    if row.losses >= LOSSES:
        fail(session, row, f"No worker could run: {job.reason}")


def fail(session: Session, row: TrainingRow, reason: str) -> None:
    """The training cannot go on."""
    stop_rest(session, row, "it never ran")
    set_state(session, row, TrainingState.FAILED, reason, 100)


def kill(session: Session, row: TrainingRow, reason: str) -> None:
    """End a training: note the reason, and stop its trials."""
    row.kill_reason = plain(reason)
    stop_rest(session, row, reason)
    announce(session, row)
