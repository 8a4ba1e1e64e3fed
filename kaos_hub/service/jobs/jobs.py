"""Jobs: the state machine, and the only code that moves one.

    QUEUED ──► SUBMITTED ──► RUNNING ──► SUCCEEDED | FAILED | CANCELLED

Every active job has one task, its driver, which brings it a step further and may be killed between
any two steps: a state is written before the engine is asked for what it implies, and engines adopt
what is already there. So a restart is nothing but driving every active row again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from secrets import token_hex
from types import MappingProxyType
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from kaos_hub.engines.base import (
    Cause,
    Engine,
    JobSpec,
    Observation,
    Phase,
    Work,
    from_json,
    to_json,
)
from kaos_hub.errors import KaosError, NotFound, Unavailable, Unsupported
from kaos_hub.schemas import Job, JobKind, JobState, Resources
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow, now
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.jobs.outcomes import ATTEMPTS, TRIES, Explain, progress, unforeseen, why
from kaos_hub.service.quota import Ledger

log = logging.getLogger(__name__)


def workload_name(kind: str, job_id: str) -> str:
    """Return the name of a job's workload, the same in every engine."""
    return f"kaos-{kind}-{job_id}"


class Jobs:
    """The queue and the reconciler.

    Args:
        db: the service's database.
        engine: where the jobs run.
        logs: where their output is kept, by job id.
        ledger: which owner may run how many builds.
        max_builds: builds that run at once, of all owners together.
        explain: makes a person's words of a failed build, from its row and log.
        shares: what builds and ingests get and hold, if that is limited.
        max_workers: workers of trainings that run at once, of all owners together; 0 is any number.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        logs: LogStore,
        ledger: Ledger,
        max_builds: int,
        explain: Explain,
        shares: Mapping[JobKind, Resources] = MappingProxyType({}),
        max_workers: int = 0,
    ) -> None:
        self._db, self._engine, self._logs, self._ledger = db, engine, logs, ledger
        self._max_builds, self._explain, self._shares = max_builds, explain, shares
        self._max_workers = max_workers
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._slot_freed = asyncio.Event()

    # --- what others ask ---

    async def recover(self) -> None:
        """After a start: drive every active job, and forget the workloads of ended ones."""

        def unfinished(session: Session) -> tuple[list[str], list[tuple[str, str]]]:
            active = session.scalars(select(JobRow.id).where(JobRow.state.in_(ACTIVE_JOBS)))
            left = session.execute(
                select(JobRow.kind, JobRow.id).where(
                    JobRow.state.not_in(ACTIVE_JOBS), ~JobRow.removed
                )
            )
            return list(active), [(kind, id) for kind, id in left]

        active, left = await self._db.run(unfinished)
        for job_id in active:
            self._drive(job_id)
        for kind, job_id in left:
            await self._remove(kind, job_id)

    async def ensure(
        self,
        kind: JobKind,
        owner: str,
        key: str,
        work: Work,
        deadline: int = 3600,
        author: str = "",
        resources: Resources = Resources(),  # noqa: B008 - frozen
        begun: str | None = None,
    ) -> str:
        """The id of the active job of that owner, kind and key; a new one if there is none.

        Args:
            kind, owner, key: what it is known by.
            work, deadline: what it does, and in how many seconds.
            author: the user who asks; what a worker holds counts against that user's limits.
            resources: what a worker gets and holds.
            begun: the job that the caller was waiting for when the service was killed. If it has
                succeeded since, and is the same, it is not done again.
        """

        def join_or_add(session: Session) -> str:
            same = (JobRow.owner == owner, JobRow.kind == kind, JobRow.key == key)
            done = JobRow.state == JobState.SUCCEEDED
            if begun and session.scalar(select(JobRow.id).where(JobRow.id == begun, *same, done)):
                return begun
            found = session.scalar(
                select(JobRow.id).where(
                    *same, JobRow.state.in_(ACTIVE_JOBS), ~JobRow.cancel_requested
                )
            )
            if found:
                return found
            # one that is being cancelled still holds the name of its key; let go of it
            session.execute(
                update(JobRow)
                .where(*same, JobRow.state.in_(ACTIVE_JOBS))
                .values(key=JobRow.key + "-cancelled-" + token_hex(4))
            )
            row = JobRow(
                id=token_hex(8), kind=kind, owner=owner, key=key, state=JobState.QUEUED,
                work=to_json(work), deadline=deadline, created=now(), author=author,
                cpu=resources.cpu, memory=resources.memory, gpu=resources.gpu,
            )  # fmt: skip
            session.add(row)
            return row.id

        job_id = await self._db.run(join_or_add)
        self._drive(job_id)
        return job_id

    async def row(self, job_id: str) -> JobRow:
        """The job's row, detached.

        Raises:
            NotFound: no such job.
        """
        row = await self._db.run(lambda session: session.get(JobRow, job_id))
        if row is None:
            raise NotFound(f"There is no job {job_id}.")
        return row

    async def get(self, owner: str, job_id: str) -> Job:
        """A job of the owner's.

        Raises:
            NotFound: not there, or another owner's.
        """
        row = await self.row(job_id)
        if row.owner != owner:
            raise NotFound(f"There is no job {job_id}.")
        return as_model(row)

    async def wait(self, job_id: str, changed: Callable[[JobRow], Any] | None = None) -> JobRow:
        """Wait for a job's end; ``changed`` (a coroutine function) is told of every step before."""
        while True:
            # registered before reading, so that no change falls between
            event = self._changed.setdefault(job_id, asyncio.Event())
            row = await self.row(job_id)
            if JobState(row.state).ended:
                self._wake(job_id)
                return row
            if changed is not None:
                await changed(row)
            await event.wait()

    async def cancel(self, job_id: str) -> None:
        """Ask for a job's end. It is CANCELLED when its work is really gone."""

        def request(session: Session) -> None:
            session.execute(
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.state.in_(ACTIVE_JOBS))
                .values(cancel_requested=True)
            )

        await self._db.run(request)
        row = await self.row(job_id)
        if not JobState(row.state).ended:
            # the driver may wait for anything; it is as crash-safe as the process, so begin it anew
            await self._stop_driver(job_id)
            self._drive(job_id)

    async def close(self) -> None:
        """Stop driving. What runs in the engine goes on."""
        for job_id in list(self._drivers):
            await self._stop_driver(job_id)

    # --- driving ---

    def _drive(self, job_id: str) -> None:
        task = self._drivers.get(job_id)
        if task is None or task.done():
            self._logs.open(job_id)
            task = asyncio.create_task(self._guard(job_id), name=f"job-{job_id}")
            self._drivers[job_id] = task

    async def _stop_driver(self, job_id: str) -> None:
        task = self._drivers.pop(job_id, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _guard(self, job_id: str) -> None:
        """Drive to the end, whatever happens on the way."""
        pause, failures = 1.0, 0
        while True:
            try:
                await self._drive_once(job_id)
                self._drivers.pop(job_id, None)
                self._logs.close(job_id)
                return
            except Unavailable as e:
                log.warning("job %s: %s", job_id, e)
                with contextlib.suppress(Unavailable):
                    await self._note(job_id, reason=f"waiting: {e}")
            except Exception as e:
                # one broken job must not stop the others, nor be forgotten
                log.exception("job %s: driving failed", job_id)
                failures += 1
                if failures == TRIES:
                    await self._give_up(job_id, unforeseen(e))
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30)

    async def _give_up(self, job_id: str, reason: str) -> None:
        """End a job that cannot be driven; its workload is removed, now or after a restart."""
        row = await self.row(job_id)
        if not JobState(row.state).ended:
            await self._finish(row, JobState.FAILED, reason)

    async def _drive_once(self, job_id: str) -> None:
        while not JobState((row := await self.row(job_id)).state).ended:
            name = workload_name(row.kind, job_id)
            if row.cancel_requested:
                await self._engine.cancel(name)
                await self._drain(row)
                await self._finish(row, JobState.CANCELLED, "cancelled")
            elif row.state == JobState.QUEUED:
                await self._claim(row)
            else:
                await self._run(row)
        await self._remove(row.kind, job_id)

    async def _claim(self, row: JobRow) -> None:
        """Wait for the time and the place to run."""
        if row.not_before is not None:
            await asyncio.sleep(max(0.0, (row.not_before - now()).total_seconds()))
        while not await self._db.run(lambda session: self._take_slot(session, row.id)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._slot_freed.wait(), 5)

        self._wake(row.id)

    def _take_slot(self, session: Session, job_id: str) -> bool:
        row = session.get_one(JobRow, job_id)
        shares = self._shares.get(JobKind(row.kind))
        if row.kind == JobKind.BUILD:
            share = shares or Resources()
            row.reason = self._ledger.build_waits(session, row, self._max_builds, share)
        elif row.kind == JobKind.TRAIN:
            row.reason = self._ledger.worker_waits(session, row, self._max_workers)
        else:
            row.reason = ""
        if shares is not None and not row.reason:
            gets = self._ledger.job_gets(session, row.owner, shares.cpu, shares.memory)
            if isinstance(gets, str):
                row.reason = gets
            else:
                row.cpu, row.memory = gets
        if row.reason:
            return False
        row.state, row.reason = JobState.SUBMITTED, "handed to the engine"
        return True

    async def _run(self, row: JobRow) -> None:
        """From SUBMITTED to an end. Submitting again after a crash adopts what is there."""
        name = workload_name(row.kind, row.id)
        spec = JobSpec(
            name=name,
            owner=row.owner,
            work=from_json(row.kind, row.work),
            resources=self._resources(row),
            deadline=row.deadline,
        )
        try:
            await self._engine.submit(spec)
        except Unsupported as e:
            await self._finish(row, JobState.FAILED, e.message)
            return
        follower = asyncio.create_task(self._follow(row))
        try:
            async for seen in self._engine.watch(name):
                if seen.phase is Phase.RUNNING and row.state != JobState.RUNNING:
                    row.state = JobState.RUNNING
                    await self._note(
                        row.id,
                        state=JobState.RUNNING,
                        reason="",
                        started=seen.started or now(),
                    )
                if not seen.phase.ended and seen.message:
                    await self._note(row.id, reason=f"waiting: {seen.message}")
                if seen.phase.ended or seen.phase is Phase.ABSENT:
                    await follower
                    await self._conclude(row, seen)
                    return
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

    def _resources(self, row: JobRow) -> Resources:
        if row.kind == JobKind.MATERIALISE:
            return Resources()
        return Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu)

    async def _follow(self, row: JobRow) -> None:
        """Keep the workload's output, going on where an earlier driver was killed."""
        have = self._logs.size(row.id) - row.log_base
        async for piece in self._engine.logs(workload_name(row.kind, row.id), max(have, 0)):
            try:
                self._logs.append(row.id, piece)
            except OSError as e:
                # a full disk costs the rest of the log, not the job
                log.error("job %s: its log cannot be kept: %s", row.id, e)
                return
            done = progress(piece)
            if done is not None:
                await self._note(row.id, progress=done)

    async def _drain(self, row: JobRow) -> None:
        with contextlib.suppress(Unavailable, TimeoutError):
            await asyncio.wait_for(self._follow(row), 10)

    async def _conclude(self, row: JobRow, seen: Observation) -> None:
        if seen.phase is Phase.SUCCEEDED:
            await self._finish(row, JobState.SUCCEEDED, "", seen.result, seen.finished)
            return
        lost = seen.phase in (Phase.LOST, Phase.ABSENT) or seen.cause.infrastructure
        # what a worker had leased is not its own to try again: see kaos_hub.service.trainings
        if lost and row.attempt < ATTEMPTS and row.kind != JobKind.TRAIN:
            await self._again(row, seen)
            return
        reason = await why(row, seen, self._logs, self._explain)
        cause = Cause.LOST if lost and seen.cause is Cause.NONE else seen.cause
        await self._finish(row, JobState.FAILED, reason, finished=seen.finished, cause=cause)

    async def _again(self, row: JobRow, seen: Observation) -> None:
        """Infrastructure failed: forget the workload, and queue once more, later."""
        await self._engine.remove(workload_name(row.kind, row.id))
        await self._note(
            row.id,
            state=JobState.QUEUED,
            attempt=row.attempt + 1,
            log_base=self._logs.size(row.id),
            not_before=now() + timedelta(seconds=2**row.attempt),
            reason=f"trying again ({row.attempt + 1} of {ATTEMPTS}): {seen.message or 'lost'}",
        )
        self._slot_freed.set()
        self._slot_freed = asyncio.Event()

    async def _finish(
        self,
        row: JobRow,
        state: JobState,
        reason: str,
        result: dict[str, Any] | None = None,
        finished: datetime | None = None,
        cause: Cause = Cause.NONE,
    ) -> None:
        await self._note(
            row.id,
            state=state,
            reason=reason,
            result=result or {},
            cause=cause.value,
            progress=100,
            finished=finished or now(),
        )
        self._slot_freed.set()
        self._slot_freed = asyncio.Event()

    async def _remove(self, kind: str, job_id: str) -> None:
        try:
            await self._engine.remove(workload_name(kind, job_id))
        except KaosError as e:
            log.warning("job %s: its workload could not be removed yet: %s", job_id, e)
            return
        await self._note(job_id, removed=True)

    async def _note(self, job_id: str, **values: Any) -> None:
        """Write columns of a job that has not ended (its end is written once), and tell waiters."""

        def write(session: Session) -> None:
            query = update(JobRow).where(JobRow.id == job_id)
            if "removed" not in values:
                query = query.where(JobRow.state.in_(ACTIVE_JOBS))
            session.execute(query.values(**values))

        await self._db.run(write)
        self._wake(job_id)

    def _wake(self, job_id: str) -> None:
        event = self._changed.pop(job_id, None)
        if event is not None:
            event.set()


def as_model(row: JobRow) -> Job:
    """A job as the API shows it."""
    return Job(
        id=row.id, kind=JobKind(row.kind), owner=row.owner, state=JobState(row.state),
        reason=row.reason, progress=row.progress, attempt=row.attempt, created=row.created,
        started=row.started, finished=row.finished,
    )  # fmt: skip
