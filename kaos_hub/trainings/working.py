"""What workers ask; each knows its own job."""

from functools import partial

from sqlalchemy.orm import Session

from kaos_hub.database import TrialRow
from kaos_hub.errors import InvalidBundle, NotFound
from kaos_hub.models import (
    Beat,
    BeatAnswer,
    IngestEnd,
    IngestOrder,
    IngestPart,
    LeaseAnswer,
    LeaseRequest,
    LogAnswer,
    Output,
    TrialEnd,
)
from kaos_hub.trainings import leases, metrics
from kaos_hub.trainings.base import Base
from kaos_hub.trainings.records import log_name

SLACK = 64 << 10
"""Bytes of a log that are taken beyond its limit: its end, and that it was cut."""


class Working(Base):
    """The service's side of workers."""

    async def lease(self, job_id: str, asked: LeaseRequest) -> LeaseAnswer:
        """Write down how a trial ended, and give the next one.

        Raises:
            MissingObjects: not all of what the trial left was sent.
        """
        if asked.ended is not None:
            await self._end(job_id, asked.ended)
        taken = await self._db.run(lambda session: leases.take(session, job_id))
        if taken is None:
            return LeaseAnswer()
        training, lease = taken
        self._logs.open(log_name(training, lease.trial))
        self._driver.poke(training)
        return LeaseAnswer(lease=lease)

    async def _end(self, job_id: str, told: TrialEnd) -> None:
        look = partial(leases.leased, job_id=job_id, number=told.trial, attempt=told.attempt)
        if await self._db.run(look) is None:
            return
        left, told = await self._checked(job_id, told)
        training = await self._db.run(
            lambda session: leases.end(session, job_id, told, left, self._logs.size)
        )
        if training is not None:
            self._logs.close(log_name(training, told.trial))
            self._driver.poke(training)

    async def _checked(self, job_id: str, told: TrialEnd) -> tuple[Output | None, TrialEnd]:
        """The output as it really is: complete, and the owner's. One that breaks a rule of bundles
        is not kept, which does not make the trial fail."""
        if told.output is None:
            return None, told
        _, row = await self._db.run(lambda session: leases.worker_of(session, job_id))
        try:
            size, files = await self._versions.facts(row.owner, told.output.digest)
        except InvalidBundle as e:
            reason = f"{told.reason}; " if told.reason else ""
            why = f"{reason}its output could not be kept: {e.message}"[:2000]
            return None, told.model_copy(update={"reason": why})
        return told.output.model_copy(update={"size": size, "files": files}), told

    async def beat(self, job_id: str, beat: Beat) -> BeatAnswer:
        """Take what a trial said of itself; whether it is still wanted."""
        answer, training, before = await self._db.run(
            lambda session: leases.beat(session, job_id, beat)
        )
        if before >= 0 and beat.points:
            metrics.keep(self._logs, training, beat.trial, before, beat.points)
        return answer

    async def append_log(
        self, job_id: str, trial: int, attempt: int, offset: int, data: bytes
    ) -> LogAnswer:
        """Write output of a trial at an offset; how much of it is there now. What is there already
        is passed over; what would leave a gap is not taken."""

        def look(session: Session) -> tuple[str, TrialRow | None]:
            _, row = leases.worker_of(session, job_id)
            return row.id, leases.leased(session, job_id, trial, attempt)

        training, row = await self._db.run(look)
        if row is None:
            raise NotFound("That trial is not this worker's (any more).")
        name = log_name(training, trial)
        have = self._logs.size(name) - row.log_base
        if have >= self._settings.log_limit + SLACK:
            return LogAnswer(size=offset + len(data))
        if offset <= have < offset + len(data):
            self._logs.append(name, data[have - offset :])
        return LogAnswer(size=self._logs.size(name) - row.log_base)

    async def order(self, job_id: str) -> IngestOrder:
        """What a job of kind INGEST is to fetch."""
        return await self._ingests.order(job_id)

    async def fetched(self, job_id: str, part: IngestPart) -> None:
        """Write down what a job of kind INGEST has fetched up to now: the next one goes on."""
        await self._ingests.fetched(job_id, part)

    async def ingested(self, job_id: str, end: IngestEnd) -> None:
        """Write down what a job of kind INGEST has fetched; told twice, it counts once."""
        await self._ingests.ingested(job_id, end)
