"""Ingest and Build, then Train: what was asked for is made so, step by step.

Each training that has not ended has one driver task. It may be ended and begun anew between any two
steps (a wish to kill does just that, and so does a crash): every step looks first at what is
already so.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import KaosError, Unavailable
from kaos_hub.schemas import JobKind, JobState, Resources, TrainingState, TrialState
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow, TrainingRow, TrialRow, VersionRow
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.jobs.outcomes import TRIES, unforeseen
from kaos_hub.service.trainings.execution import workers
from kaos_hub.service.trainings.execution.leavers import Leavers
from kaos_hub.service.trainings.execution.preparing import Preparing
from kaos_hub.service.trainings.execution.settling import Situation, fail, note_worker, settle
from kaos_hub.service.trainings.records import (
    GOING,
    announce,
    counts,
    log_name,
    points_name,
    set_state,
)
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.util.notifier import Bell

log = logging.getLogger(__name__)

T = TypeVar("T")
GRACE = 60.0
"""Seconds in which a worker may end what is no longer wanted, before it is ended itself."""
RESYNC = 5.0
"""Seconds after which a driver looks at everything again, whatever it was told."""
TELL = 0.5
"""Seconds between two events that only tell of progress."""
BREATH = 0.05
"""Seconds between two looks at a training, however fast its trials end."""


class Driver:
    """Drives trainings to their end.

    Args:
        db, bell, jobs, engine, logs, preparing: what it works with.
        settings: how trainings run here.
        leavers: knows whose trainings must not go on.
    """

    def __init__(
        self,
        db: Database,
        bell: Bell,
        jobs: Jobs,
        engine: Engine,
        logs: LogStore,
        preparing: Preparing,
        settings: Settings,
        leavers: Leavers,
    ) -> None:
        self._leavers = leavers
        self._db, self._bell, self._jobs, self._engine = db, bell, jobs, engine
        self._logs, self._preparing, self._settings = logs, preparing, settings
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, asyncio.Task[None]] = {}
        self._pokes: dict[str, asyncio.Event] = {}
        self._told: dict[str, tuple[float, object]] = {}
        self._unwanted: dict[str, dict[tuple[str, int, int], float]] = {}

    # --- life ---

    async def start(self) -> None:
        """Drive every training that has not ended, and end workers of all others."""

        def unfinished(session: Session) -> tuple[list[str], list[str]]:
            going = session.scalars(select(TrainingRow.id).where(TrainingRow.state.in_(GOING)))
            active = session.scalars(
                select(JobRow).where(JobRow.state.in_(ACTIVE_JOBS), JobRow.kind == JobKind.TRAIN)
            )
            ids = list(going)
            return ids, [job.id for job in active if workers.training_of(job) not in set(ids)]

        going, left = await self._db.run(unfinished)
        for training in going:
            self.wake(training)
        for job_id in left:
            await self._jobs.cancel(job_id)

    async def close(self) -> None:
        """Stop driving. Workers go on."""
        tasks = [*self._drivers.values(), *self._watched.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, training: str) -> None:
        """Drive a training from the beginning, since what is wanted of it changed."""
        running = self._drivers.get(training)
        if running is not None:
            running.cancel()
        task = asyncio.create_task(self._guard(training, running), name=f"train-{training}")
        self._drivers[training] = task

    def poke(self, training: str) -> None:
        """Something happened to one of its trials."""
        if event := self._pokes.get(training):
            event.set()

    # --- driving ---

    async def _guard(self, training: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._keep_driving(training)
        finally:
            if self._drivers.get(training) is asyncio.current_task():
                del self._drivers[training]
                self._pokes.pop(training, None)
                self._told.pop(training, None)
                self._unwanted.pop(training, None)

    async def _keep_driving(self, training: str) -> None:
        pause, failures = 1.0, 0
        while True:
            try:
                await self._drive(training)
                await self._hang_up(training)
                return
            except Unavailable as e:
                log.warning("training %s: %s", training, e)
                with contextlib.suppress(Unavailable):
                    await self._waits(training, e.message)
            except KaosError as e:
                await self._failed(training, e.message)
                await self._hang_up(training)
                return
            except Exception as e:
                # one broken training must not stop the others, nor be forgotten
                log.exception("training %s: driving failed", training)
                failures += 1
                if failures >= TRIES:
                    await self._failed(training, unforeseen(e))
                    await self._hang_up(training)
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30)

    async def _drive(self, training: str) -> None:
        self._pokes.setdefault(training, asyncio.Event())
        row = await self._row(training)
        if row is None:
            return
        going = not row.kill_reason and not TrainingState(row.state).ended
        if going and (reason := await self._leavers.reason(row)):
            await self._leavers.end(training, reason)
            row = await self._row(training) or row
        if row.kill_reason:
            await self._preparing.stop(row)
        elif not TrainingState(row.state).ended and not await self._preparing.prepare(row):
            return
        await self._train(training)

    async def _row(self, training: str) -> TrainingRow | None:
        query = select(TrainingRow).where(TrainingRow.id == training)
        return await self._db.run(lambda session: session.scalar(query))

    async def _train(self, training: str) -> None:
        """Have workers run its trials until none is left."""
        poke = self._pokes.setdefault(training, asyncio.Event())
        while True:
            poke.clear()
            settled = await self._change(
                training, partial(self._settle, live=self._followed(training))
            )
            if settled is None:
                return
            situation, ended = settled
            for number in ended:
                self._logs.close(log_name(training, number))
            if situation.over:
                await self._hang_up(training)
                await self._dismiss(situation)
                return
            await self._end_unwanted(training, situation)
            if situation.hire is not None:
                await asyncio.sleep(situation.pause)
                await self._hire(training, situation.hire)
                continue
            self._watch(training, situation)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(poke.wait(), RESYNC)
            await asyncio.sleep(BREATH)

    async def _change(self, training: str, change: Callable[[Session, TrainingRow], T]) -> T | None:
        def write(session: Session) -> T | None:
            row = session.scalar(select(TrainingRow).where(TrainingRow.id == training))
            return None if row is None else change(session, row)

        result = await self._db.run(write)
        self._bell.ring()
        return result

    def _followed(self, training: str) -> Sequence[int]:
        begin = log_name(training, "")
        return [int(name.removeprefix(begin)) for name in self._logs.live(begin)]

    def _settle(
        self, session: Session, row: TrainingRow, live: Sequence[int]
    ) -> tuple[Situation, Sequence[int]]:
        """Settle a training. Return its situation, and which of the followed trials have ended."""
        state = row.state
        situation = settle(session, row, self._logs.size)
        at, told = self._told.get(row.id, (0.0, None))
        present = counts(row)
        if row.state != state:
            self._told[row.id] = (time.monotonic(), present)
        elif present != told and time.monotonic() - at >= TELL:
            announce(session, row)
            self._told[row.id] = (time.monotonic(), present)
        return situation, _ended(session, row, live)

    async def _hang_up(self, training: str) -> None:
        """Of a training that has ended, nothing more is written."""
        row = await self._row(training)
        if row is None or TrainingState(row.state).ended:
            for name in [points_name(training), *self._logs.live(log_name(training, ""))]:
                self._logs.close(name)

    async def _hire(self, training: str, slot: int) -> None:
        """Start a worker."""

        def look(session: Session) -> tuple[TrainingRow, VersionRow, VersionRow]:
            row = session.scalars(select(TrainingRow).where(TrainingRow.id == training)).one()
            source = session.get_one(VersionRow, row.source_id)
            return row, source, session.get_one(VersionRow, row.data_id)

        row, source, data = await self._db.run(look)
        if reason := await self._leavers.reason(row):
            await self._leavers.end(training, reason)
            return
        job_id = await self._jobs.ensure(
            JobKind.TRAIN,
            row.owner,
            f"{training}/{slot}",
            workers.worker(self._engine, self._settings, row, source, data),
            deadline=workers.ENDLESS,
            author=row.author,
            resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        )
        self._see(training, job_id)

    def _watch(self, training: str, situation: Situation) -> None:
        for job_id in situation.workers:
            self._see(training, job_id)

    def _see(self, training: str, job_id: str) -> None:
        if job_id not in self._watched:
            task = asyncio.create_task(self._until_end(training, job_id), name=f"see-{job_id}")
            self._watched[job_id] = task

    async def _until_end(self, training: str, job_id: str) -> None:
        async def changed(job: JobRow) -> None:
            self.poke(training)

        try:
            await self._jobs.wait(job_id, changed)
            await self._change(training, lambda session, row: note_worker(session, row, job_id))
        except KaosError as e:
            log.warning("worker %s: %s", job_id, e)  # the next look sees to it again
            await asyncio.sleep(1)
        finally:
            self._watched.pop(job_id, None)
            self.poke(training)

    async def _end_unwanted(self, training: str, situation: Situation) -> None:
        """End workers that do not end by themselves what they should."""
        for job_id in situation.stuck:
            await self._jobs.cancel(job_id)
        before, present = self._unwanted.get(training, {}), time.monotonic()
        since = {key: before.get(key, present) for key in situation.cancelling}
        self._unwanted[training] = since
        for key, begun in since.items():
            if present - begun > GRACE:
                await self._jobs.cancel(key[0])
        busy = {job for job, _, _ in situation.cancelling}
        for job_id, state in situation.workers.items():
            # who has nothing to run need not even begin
            if situation.killed and job_id not in busy and state != JobState.RUNNING:
                await self._jobs.cancel(job_id)

    async def _dismiss(self, situation: Situation) -> None:
        """All is over: workers end by themselves when they hear so; those that do not are ended."""
        for job_id, state in situation.workers.items():
            if state != JobState.RUNNING:
                await self._jobs.cancel(job_id)
        late = [partial(self._jobs.wait, job_id) for job_id in situation.workers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await asyncio.gather(*(wait() for wait in late))
        for job_id in situation.workers:
            await self._jobs.cancel(job_id)

    async def _waits(self, training: str, why: str) -> None:
        """Note with a training why it cannot go on now; its state stays."""

        def note(session: Session, row: TrainingRow) -> None:
            state = TrainingState(row.state)
            if not state.ended and state is not TrainingState.WAITING:
                set_state(session, row, state, f"waiting: {why}", row.progress)

        await self._change(training, note)

    async def _failed(self, training: str, reason: str) -> None:
        await self._change(training, lambda session, row: fail(session, row, reason))
        row = await self._row(training)
        if row is not None:
            await self._preparing.stop(row)


def _ended(session: Session, row: TrainingRow, live: Sequence[int]) -> Sequence[int]:
    """Return which of the followed trials have ended, so that their followers stop waiting."""
    if not live:
        return []
    query = select(TrialRow.number).where(
        TrialRow.training == row.number,
        TrialRow.number.in_(live[:500]),
        TrialRow.state.in_([state.value for state in TrialState if state.ended]),
    )
    return list(session.scalars(query))
