"""The requests of workers; each knows its own job."""

import logging

from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidBundle, NotFound, StorageFull
from kaos_hub.schemas import (
    Beat,
    BeatAnswer,
    IngestEnd,
    IngestOrder,
    IngestPart,
    Lease,
    LeaseAnswer,
    LeaseRequest,
    LogAnswer,
    Output,
    TrialEnd,
)
from kaos_hub.service.db.tables import TrialRow
from kaos_hub.service.trainings import metrics
from kaos_hub.service.trainings.base import Base, Tools
from kaos_hub.service.trainings.execution import leases
from kaos_hub.service.trainings.records import log_name
from kaos_hub.service.trainings.settings import Settings

log = logging.getLogger(__name__)

SLACK = 64 << 10
"""Bytes of a log that are taken beyond its limit: its end, and that it was cut."""


KNOWN = 1000
"""Outputs of which it is remembered that they were looked at."""


class Working(Base):
    """The service's side of workers."""

    def __init__(self, tools: Tools, settings: Settings) -> None:
        super().__init__(tools, settings)
        self._checked_outputs: dict[tuple[str, str], tuple[int, int]] = {}

    async def lease(self, job_id: str, asked: LeaseRequest) -> LeaseAnswer:
        """Write down how a trial ended, and give the next one.

        Raises:
            MissingObjects: not all of what the trial left was sent.
        """
        ended, taken = await self._turn(job_id, asked.ended)
        if ended is not None and asked.ended is not None:
            self._logs.close(log_name(ended, asked.ended.trial))
            self._driver.poke(ended)
        if taken is None:
            return LeaseAnswer()
        training, lease = taken
        self._logs.open(log_name(training, lease.trial))
        self._driver.poke(training)
        return LeaseAnswer(lease=lease)

    async def _turn(
        self, job_id: str, told: TrialEnd | None
    ) -> tuple[str | None, tuple[str, Lease] | None]:
        """The training of the trial that has ended, and what comes next: in one transaction."""
        if told is None:
            return None, await self._db.run(lambda session: leases.take(session, job_id))
        left, end = await self._checked(job_id, told)
        return await self._db.run(
            lambda session: leases.end_and_take(session, job_id, end, left, self._logs.size)
        )

    async def _checked(self, job_id: str, told: TrialEnd) -> tuple[Output | None, TrialEnd]:
        """The output as it really is: complete, and the owner's. One that breaks a rule of bundles
        is not kept, which does not make the trial fail."""
        if told.output is None:
            return None, told
        try:
            size, files = await self._facts(job_id, told.output.digest)
        except InvalidBundle as e:
            reason = f"{told.reason}; " if told.reason else ""
            why = f"{reason}its output could not be kept: {e.message}"[:2000]
            return None, told.model_copy(update={"reason": why})
        return told.output.model_copy(update={"size": size, "files": files}), told

    async def _facts(self, job_id: str, digest: str) -> tuple[int, int]:
        """Bytes and files of an output. A worker whose trials leave the same has it looked at
        once."""
        known = self._checked_outputs.get((job_id, digest))
        if known is None:
            _, row = await self._db.run(lambda session: leases.worker_of(session, job_id))
            known = await self._versions.facts(row.owner, digest)
            while len(self._checked_outputs) >= KNOWN:
                del self._checked_outputs[next(iter(self._checked_outputs))]
            self._checked_outputs[job_id, digest] = known
        return known

    async def beat(self, job_id: str, beat: Beat) -> BeatAnswer:
        """Take what a trial said of itself; whether it is still wanted."""
        answer, training, before = await self._db.run(
            lambda session: leases.beat(session, job_id, beat)
        )
        if before >= 0 and beat.points:
            try:
                metrics.keep(self._logs, training, beat.trial, before, beat.points)
            except OSError as e:
                # a full disk costs the course of metrics, not the trial; last values are kept
                log.error("training %s: its metrics cannot be kept: %s", training, e)
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
            try:
                self._logs.append(name, data[have - offset :])
            except OSError as e:
                raise StorageFull(f"The log cannot be kept: {e.strerror}.") from None
        return LogAnswer(size=self._logs.size(name) - row.log_base)

    async def order(self, job_id: str) -> IngestOrder:
        """Return what a job of kind INGEST is to fetch."""
        return await self._ingests.order(job_id)

    async def fetched(self, job_id: str, part: IngestPart) -> None:
        """Write down what a job of kind INGEST has fetched up to now: the next one goes on."""
        await self._ingests.fetched(job_id, part)

    async def ingested(self, job_id: str, end: IngestEnd) -> None:
        """Write down what a job of kind INGEST has fetched; told twice, it counts once."""
        await self._ingests.ingested(job_id, end)
