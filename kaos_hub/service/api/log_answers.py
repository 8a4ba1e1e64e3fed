"""Logs over REST: as text or as events, from any offset, followed or not."""

from collections.abc import AsyncIterator

from pydantic import Field

from kaos_hub.schemas import Model
from kaos_hub.service.api.routes import Call, Download, Events
from kaos_hub.service.web import sse

LOG_MEDIA = ("text/plain", "text/event-stream")

_MOST_TAIL = 64 << 20

Pieces = AsyncIterator[tuple[int, bytes]]
"""Pieces of a log, each with the offset after it."""


class ReadLog(Model):
    """The part of a log to read, and whether to wait for more."""

    offset: int = Field(
        0,
        ge=-_MOST_TAIL,
        description="bytes to leave out at the beginning; negative: all but so many at the end,"
        " from a line's beginning on; an event `from` tells where that is",
    )
    follow: bool = Field(False, description="go on until the work ends; events always do")


def from_where(call: Call) -> tuple[int, bool]:
    """Return the offset from which a log is wanted, and whether it is to be followed."""
    query: ReadLog = call.query
    if not _wants_events(call):
        return query.offset, query.follow
    return (query.offset if call.last_event_id is None else call.last_event_id), True


def answer_log(
    call: Call, log: Pieces, media_type: str = "text/plain; charset=utf-8", event: str = "log"
) -> Download | Events:
    """Return the log in the form that was asked for: as text or as events."""
    if _wants_events(call):
        tail = call.last_event_id is None and call.query.offset < 0
        return Events(sse.lines_of_log(log, event, tell_start=tail))
    return Download(_bytes_of(log), media_type)


def _wants_events(call: Call) -> bool:
    return "text/event-stream" in call.accept


async def _bytes_of(log: Pieces) -> AsyncIterator[bytes]:
    try:
        async for _, piece in log:
            yield piece
    finally:
        await sse.close(log)
