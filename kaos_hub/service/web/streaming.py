"""Answers that are sent piece by piece, as fast as each client takes them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from kaos_hub.service.web import sse
from kaos_hub.service.web.base import Handler, as_kaos_error, log

_STALLED = 300.0
"""Seconds for which a client may read nothing of a streamed answer."""

_SILENT = 0.5
"""Seconds after which an answer begins, though there is nothing to send yet.

Until then it can still become an error.
"""


class StreamingHandler(Handler):
    """Base of handlers that stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stop = asyncio.Event()
        super().__init__(*args, **kwargs)

    async def stream(self, content: AsyncIterator[bytes]) -> None:
        """Send pieces as fast as this client reads them, and stop as soon as it is gone."""
        streams = self.settings["streams"]
        streams.add(self)
        complete = False
        try:
            while (piece := await self._next(content)) is not None:
                self.write(piece)
                await asyncio.wait_for(self.flush(), _STALLED)
            complete = not self._stop.is_set()
        except StreamClosedError:
            return
        except TimeoutError:
            log.info("%s: the client takes nothing any more", self.request.path)
            self.cut()
            return
        except Exception as e:
            if not self._headers_written:
                raise
            log.warning("%s broke off: %s", self.request.path, as_kaos_error(e).message)
        finally:
            streams.discard(self)
            await sse.close(content)
        self.end(complete)

    def end(self, complete: bool) -> None:
        """End the answer; ``complete`` is whether all of it was sent."""
        # What is not complete could be cut, but a proxy may then let the client wait for ever, and
        # what we stream (events, logs, archives) is known as broken when its end is not there.
        self.finish()

    def cut(self) -> None:
        """Close the connection, so that the client does not take the answer for complete."""
        cast(HTTP1Connection, self.request.connection).close()

    def end_stream(self) -> None:
        """Stop sending: the client is gone, or the service ends."""
        self._stop.set()

    async def _next(self, content: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece; None at the end, if the client is gone, or if the service ends."""
        piece = asyncio.ensure_future(anext(content, None))
        stop = asyncio.ensure_future(self._stop.wait())
        either = {piece, stop}
        soon = None if self._headers_written else _SILENT
        try:
            done, _ = await asyncio.wait(either, timeout=soon, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                # A client that follows a silent source must see that the source is there.
                await self.flush()
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stop.is_set() else piece.result()
        finally:
            stop.cancel()
            if not piece.done():
                piece.cancel()
                await asyncio.wait({piece})

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.end_stream()
