"""Server-sent events, read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kaos_hub.errors import Unavailable

_LINE_LIMIT = 16 << 20
"""Bytes of the longest line."""


@dataclass(frozen=True)
class ServerEvent:
    """One event of an SSE stream."""

    id: str
    event: str
    data: str


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Text lines without their ends. What follows the last end is dropped: it is half a line."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if len(rest) > _LINE_LIMIT:
            raise Unavailable("the service sent a line without end")


def parse_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Server-sent events from their lines.

    A comment (keep-alive) comes as an event ``comment``, so that who waits can look at the time.
    """
    last, event, data = "", "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data or event != "message":
                yield ServerEvent(last, event, "\n".join(data))
            event, data = "message", []
        elif not name:
            yield ServerEvent(last, "comment", value)
        elif name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id":
            last = value
