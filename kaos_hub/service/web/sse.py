"""Server-sent events: one stream to one client, at that client's own pace."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

KEEPALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""Headers that keep browsers and proxies from holding events back."""

COMMENT = b":\n\n"


@dataclass(frozen=True)
class Message:
    """One event. A client sends the id back to go on after the event."""

    event: str
    data: str
    id: int | None = None

    def encode(self) -> bytes:
        """Return the bytes for the wire. Line breaks of any kind in the data forge no fields."""
        lines = self.data.replace("\r\n", "\n").replace("\r", " ").split("\n")
        head = f"id: {self.id}\n" if self.id is not None else ""
        body = "".join(f"data: {line}\n" for line in lines)
        return f"{head}event: {self.event}\n{body}\n".encode()


async def lines_of_log(
    log: AsyncIterator[tuple[int, bytes]], event: str = "log", tell_start: bool = False
) -> AsyncIterator[Message]:
    """Yield the whole lines of a log as messages.

    A message's id is the offset after its last line.

    Args:
        log: pieces, each with the offset after it.
        event: the name of the messages.
        tell_start: begin with a message ``from`` that has the offset of the first piece.
    """
    rest = b""
    offset: int | None = None
    try:
        async for offset, piece in log:
            if tell_start:
                tell_start = False
                yield Message("from", str(offset - len(piece)))
            whole, found, tail = (rest + piece).rpartition(b"\n")
            rest = tail
            if found:
                yield Message(event, whole.decode("utf-8", "replace"), offset - len(tail))
        if rest:
            yield Message(event, rest.decode("utf-8", "replace"), offset)
    finally:
        await close(log)
    yield Message("end", "")


async def with_keepalive(
    source: AsyncIterator[T], pause: float = KEEPALIVE
) -> AsyncIterator[T | None]:
    """Yield the items of a source, and None whenever it was silent for ``pause`` seconds.

    The source is never cancelled for a pause, so it loses nothing; it is closed at the end.
    """
    waiting: asyncio.Future[T] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({waiting}, timeout=pause)
            if not done:
                yield None
                continue
            finished, waiting = waiting, None
            try:
                item = finished.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting
        await close(source)


async def close(source: AsyncIterator[T]) -> None:
    """Close an iterator now, so that it releases what it holds."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
