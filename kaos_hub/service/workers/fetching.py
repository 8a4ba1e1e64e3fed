"""The protocol by which workloads fetch trees: over HTTP, with a ticket instead of a login.

    GET <prefix>fetch/v1/<digest>/listing            all entries; the format is that of bundles/flat
    GET <prefix>fetch/v1/<digest>/files?from=A&to=B  the files A to B (excluded), concatenated;
                                                     &offset=N leaves out bytes of the first

Both answers have a Content-Length: what ends too early was cut off, and can be asked for again.
A caller without the right to a tree learns nothing of it, not even whether it exists.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidRequest, NotAuthenticated, NotFound
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow, NotebookRow
from kaos_hub.service.jobs.jobs import workload_name
from kaos_hub.service.web.streaming import StreamingHandler
from kaos_hub.service.workers.listings import Listings
from kaos_hub.transport.tickets import Ticket, Tickets

MOST_FILES = 10_000
"""Files of one answer."""

_DIGEST = "(?P<digest>blake3:[0-9a-f]{64})"


class FetchHandler(StreamingHandler):
    """Base of both handlers. It admits tickets for the tree, while their workload lives."""

    ticket: Ticket | None = None

    def initialize(self, listings: Listings, tickets: Tickets) -> None:
        self._listings = listings
        self._tickets = tickets

    @property
    def who(self) -> str:
        """The name of the workload, for the access log."""
        return self.ticket.workload if self.ticket else "-"

    async def prepare(self) -> None:
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        try:
            ticket = self._tickets.check(given.strip() if scheme.lower() == "bearer" else "")
        except NotAuthenticated:
            raise _nothing() from None
        if self.path_kwargs["digest"] not in ticket.digests:
            raise _nothing()
        if not await self.core.db.run(lambda session: is_alive(session, ticket.workload)):
            raise _nothing()
        self.ticket = ticket

    def end(self, complete: bool) -> None:
        if complete:
            self.finish()
        else:
            self.cut()


class ListingHandler(FetchHandler):
    """``GET …/listing``."""

    route_name = "/fetch/v1/{digest}/listing"

    async def get(self, digest: str) -> None:
        """Stream all entries of the tree, in its order."""
        await self._listings.take_turn()
        try:
            flat = await self._listings.get(digest)
            self.set_header("Content-Type", "application/x-ndjson")
            self.set_header("Content-Length", flat.length)
            await self.stream(self._listings.listing(flat))
        finally:
            self._listings.turns.release()


class TreeFilesHandler(FetchHandler):
    """``GET …/files``."""

    route_name = "/fetch/v1/{digest}/files"

    async def get(self, digest: str) -> None:
        """Stream the contents of files, one after the other."""
        first, end, offset = self._number("from"), self._number("to"), self._number("offset", "0")
        await self._listings.take_turn()
        try:
            flat = await self._listings.get(digest)
            if not first <= end <= flat.files or end - first > MOST_FILES:
                raise InvalidRequest(
                    f"There are the files 0 to {flat.files:,}; at most {MOST_FILES:,} at once."
                )
            if offset and (first == end or offset > flat.sizes[first]):
                raise InvalidRequest("The first file is not that long.")
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Length", sum(flat.sizes[first:end]) - offset)
            await self.stream(self._listings.content(flat, first, end, offset))
        finally:
            self._listings.turns.release()

    def _number(self, name: str, default: str = "") -> int:
        text = self.get_query_argument(name, default)
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InvalidRequest(f"{name} must be a number")
        return int(text)


def is_alive(session: Session, workload: str) -> bool:
    """Return whether a workload is one of an active job, or of a notebook that holds something."""
    job = session.get(JobRow, workload.rpartition("-")[2])
    if job is not None and workload_name(job.kind, job.id) == workload:
        return job.state in ACTIVE_JOBS
    held = select(NotebookRow.id).where(NotebookRow.workload == workload, NotebookRow.held)
    return session.scalar(held.limit(1)) is not None


def fetch_rules(prefix: str, listings: Listings, tickets: Tickets) -> list[Any]:
    """Return tornado's rules for fetching, below ``prefix`` (with slashes at both ends)."""
    parts = {"listings": listings, "tickets": tickets}
    return [
        (f"{prefix}fetch/v1/{_DIGEST}/listing", ListingHandler, parts),
        (f"{prefix}fetch/v1/{_DIGEST}/files", TreeFilesHandler, parts),
        (f"{prefix}fetch/.*", NoTreeHandler, parts),
    ]


class NoTreeHandler(FetchHandler):
    """Any other address."""

    route_name = "/fetch"

    async def prepare(self) -> None:
        raise _nothing()


def _nothing() -> NotFound:
    return NotFound("There is no such tree, or the ticket for it is not valid (any more).")
