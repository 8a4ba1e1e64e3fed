"""The protocol between workers and the service: over HTTP, with a ticket instead of a login.

    POST <prefix>work/v1/lease      LeaseRequest → LeaseAnswer: how the last trial ended; the next
    POST <prefix>work/v1/beat       Beat → BeatAnswer
    POST <prefix>work/v1/log?trial=&attempt=&offset=
                                    a piece of a trial's log → LogAnswer: the size held. A piece
                                    behind a gap is not taken; bytes held already are skipped.
    POST <prefix>work/v1/missing    MissingRequest → MissingAnswer
    POST <prefix>work/v1/objects    objects, as a client sends them, into the owner's hands
    GET  <prefix>work/v1/order      IngestOrder
    GET  <prefix>work/v1/object/<digest>
                                    an object that the order names
    POST <prefix>work/v1/fetched    IngestPart
    POST <prefix>work/v1/ingested   IngestEnd

A ticket lets a worker in as long as its job is active. Without one, all these addresses are not
found.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.bundles import objects
from kaos_hub.errors import InvalidRequest, NotAuthenticated, NotFound
from kaos_hub.schemas import (
    Beat,
    IngestEnd,
    IngestPart,
    JobKind,
    LeaseRequest,
    MissingRequest,
    Model,
    parse_request,
)
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow
from kaos_hub.service.jobs.jobs import workload_name
from kaos_hub.service.web.bodies import BodyHandler
from kaos_hub.service.web.uploads import BodyReader, JsonReader, ObjectReader, RawReader
from kaos_hub.transport.tickets import Tickets

if TYPE_CHECKING:
    from kaos_hub.service.bundles.versions import Versions
    from kaos_hub.service.trainings.trainings import Trainings

_JSON_LIMIT = 8 << 20
"""Bytes: a thousand points of a few dozen metrics each."""

LOG_LIMIT = 4 << 20
"""Bytes of a log that may come at once; they are held in memory."""

_MISSING_LIMIT = 8 << 20
"""Bytes: fifty thousand digests with their sizes."""

_FRESH = 2.0
"""Seconds for which a job that was active is believed to be so."""
_MOST_SEEN = 10_000

AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class WorkParts:
    """The parts of the service that these handlers work on."""

    db: Database
    versions: "Versions"
    trainings: "Trainings"
    tickets: Tickets
    seen: dict["Worker", float] = field(default_factory=dict)
    """The times at which workers were last found to be of active jobs."""


@dataclass(frozen=True)
class Worker:
    """The job behind a ticket."""

    workload: str
    kind: JobKind
    job: str


def worker_of(workload: str, kinds: tuple[JobKind, ...]) -> Worker | None:
    """Return the job of one of these kinds that runs as this workload; None if there is none."""
    job_id = workload.rpartition("-")[2]
    fitting = (kind for kind in kinds if workload_name(kind, job_id) == workload)
    return next((Worker(workload, kind, job_id) for kind in fitting), None)


def find_owner(session: Session, worker: Worker) -> str | None:
    """Return the owner of the worker's job, or None if it is not active."""
    query = select(JobRow.owner).where(
        JobRow.id == worker.job, JobRow.kind == worker.kind, JobRow.state.in_(ACTIVE_JOBS)
    )
    return session.scalar(query)


class WorkHandler(BodyHandler):
    """Base of all handlers for workers. It lets in the workers of active jobs."""

    route_name: ClassVar[str] = "/work"
    kinds: ClassVar[tuple[JobKind, ...]] = (JobKind.TRAIN,)
    limit: ClassVar[int] = _JSON_LIMIT

    def initialize(self, parts: WorkParts) -> None:
        self.parts = parts
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The worker that sent the request."""
        assert self._worker is not None, "let_in comes first"
        return self._worker

    @property
    def who(self) -> str:
        """The workload, for the access log."""
        return self._worker.workload if self._worker else "-"

    async def let_in(self) -> BodyReader | None:
        """Let in only the worker of an active job of the right kind."""
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        try:
            ticket = self.parts.tickets.check(given.strip() if scheme.lower() == "bearer" else "")
        except NotAuthenticated:
            raise _nothing() from None
        self._worker = worker_of(ticket.workload, self.kinds)
        if self._worker is None:
            raise _nothing()
        # Leases must be quick. A worker that was alive just now need not be checked here: its
        # request is done in a transaction that checks for itself.
        if time.monotonic() - self.parts.seen.get(self._worker, float("-inf")) > _FRESH:
            await self.owner()
        self.check_announced(self.limit)
        return await self.reader()

    async def owner(self) -> str:
        """Return the owner of the job.

        Raises:
            NotFound: the job is not active (any more).
        """
        owner = await self.parts.db.run(lambda session: find_owner(session, self.worker))
        if owner is None:
            raise _nothing()
        seen = self.parts.seen
        while len(seen) >= _MOST_SEEN:
            del seen[next(iter(seen))]
        seen[self.worker] = time.monotonic()
        return owner

    async def reader(self) -> BodyReader | None:
        """Return the reader of the body."""
        return JsonReader(self.limit)

    async def said(self, model: type[AnyModel]) -> AnyModel:
        """Return the body as a model."""
        return parse_request(model, await self.content())

    def answer(self, model: Model) -> None:
        """Answer with a model as JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(model.model_dump_json())

    def number(self, name: str) -> int:
        """Return a number of the query.

        Raises:
            InvalidRequest: it is not a number.
        """
        text = self.get_query_argument(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InvalidRequest(f"{name} must be a number")
        return int(text)

    def end(self, complete: bool) -> None:
        if complete:
            self.finish()
        else:
            self.cut()


class LeaseHandler(WorkHandler):
    """``POST lease``."""

    route_name = "/work/v1/lease"

    async def post(self) -> None:
        """Record how the last trial ended, and answer with the next one."""
        wanted = await self.said(LeaseRequest)
        self.answer(await self.parts.trainings.lease(self.worker.job, wanted))


class BeatHandler(WorkHandler):
    """``POST beat``."""

    route_name = "/work/v1/beat"

    async def post(self) -> None:
        """Record that the worker lives, and what its trial reported."""
        beat = await self.said(Beat)
        self.answer(await self.parts.trainings.beat(self.worker.job, beat))


class LogHandler(WorkHandler):
    """``POST log``."""

    route_name = "/work/v1/log"
    limit = LOG_LIMIT

    async def reader(self) -> BodyReader:
        return RawReader(self.limit)

    async def post(self) -> None:
        """Append a piece to a trial's log."""
        trial, attempt, offset = (self.number(name) for name in ("trial", "attempt", "offset"))
        data: bytes = await self.content()
        trainings = self.parts.trainings
        self.answer(await trainings.append_log(self.worker.job, trial, attempt, offset, data))


class MissingHandler(WorkHandler):
    """``POST missing``."""

    route_name = "/work/v1/missing"
    kinds = (JobKind.TRAIN, JobKind.INGEST)
    limit = _MISSING_LIMIT

    async def post(self) -> None:
        """Answer with the objects that the owner lacks. Check limits here, before bytes move."""
        wanted = await self.said(MissingRequest)
        self.answer(await self.parts.versions.missing(await self.owner(), wanted))


class ObjectsHandler(WorkHandler):
    """``POST objects``."""

    route_name = "/work/v1/objects"
    kinds = (JobKind.TRAIN, JobKind.INGEST)
    # what really bounds it is the owner's storage limit, while it runs, too
    limit = 1 << 50

    async def reader(self) -> BodyReader:
        receiver = self.parts.versions.receive(await self.owner(), self.announced)
        return ObjectReader(receiver, self.settings)

    async def post(self) -> None:
        """Answer with the number of objects. They went into the store while they came."""
        self.finish(await self.content())


class OrderHandler(WorkHandler):
    """``GET order``."""

    route_name = "/work/v1/order"
    kinds = (JobKind.INGEST,)

    async def reader(self) -> BodyReader | None:
        return None

    async def get(self) -> None:
        """Answer with the order: what is to be fetched."""
        self.answer(await self.parts.trainings.order(self.worker.job))


class ObjectHandler(OrderHandler):
    """``GET object/<digest>``."""

    route_name = "/work/v1/object/{digest}"

    async def get(self, digest: str) -> None:  # type: ignore[override]
        """Stream an object that the order names."""
        order = await self.parts.trainings.order(self.worker.job)
        if digest not in (order.manifest, order.index):
            raise _nothing()
        self.set_header("Content-Type", "application/octet-stream")
        await self.stream(self._pieces(digest))

    async def _pieces(self, digest: str) -> AsyncIterator[bytes]:
        pieces = objects.stream(self.parts.versions.read, digest)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece


class FetchedHandler(WorkHandler):
    """``POST fetched``."""

    route_name = "/work/v1/fetched"
    kinds = (JobKind.INGEST,)

    async def post(self) -> None:
        """Record what has been fetched up to now."""
        part = await self.said(IngestPart)
        await self.parts.trainings.fetched(self.worker.job, part)
        self.finish({})


class IngestedHandler(WorkHandler):
    """``POST ingested``."""

    route_name = "/work/v1/ingested"
    kinds = (JobKind.INGEST,)

    async def post(self) -> None:
        """Record that all has been fetched."""
        end = await self.said(IngestEnd)
        await self.parts.trainings.ingested(self.worker.job, end)
        self.finish({})


class NoWorkHandler(WorkHandler):
    """Any other address."""

    async def let_in(self) -> BodyReader | None:
        raise _nothing()


_HANDLERS: tuple[tuple[str, type[WorkHandler]], ...] = (
    ("lease", LeaseHandler),
    ("beat", BeatHandler),
    ("log", LogHandler),
    ("missing", MissingHandler),
    ("objects", ObjectsHandler),
    ("order", OrderHandler),
    ("object/(?P<digest>blake3:[0-9a-f]{64})", ObjectHandler),
    ("fetched", FetchedHandler),
    ("ingested", IngestedHandler),
)


def work_rules(prefix: str, parts: WorkParts) -> list[Any]:
    """Return tornado's rules for workers, below ``prefix`` (with slashes at both ends)."""
    given = {"parts": parts}
    rules = [(f"{prefix}work/v1/{path}", handler, given) for path, handler in _HANDLERS]
    return [*rules, (f"{prefix}work/.*", NoWorkHandler, given)]


def _nothing() -> NotFound:
    return NotFound("There is nothing here, or the ticket for it is not valid (any more).")
