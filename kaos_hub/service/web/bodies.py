"""Handlers of requests whose bodies are streamed.

A caller without the right is refused before a body is read, no body is held that is larger than its
address allows, and each must come at a minimum pace.
"""

import asyncio
from asyncio import Future
from collections.abc import Coroutine
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, stream_request_body

from kaos_hub.errors import KaosError, TooLarge, TooManyRequests, TooSlow
from kaos_hub.service.web.base import as_kaos_error
from kaos_hub.service.web.streaming import StreamingHandler
from kaos_hub.service.web.uploads import BodyReader
from kaos_hub.util.quantities import show_memory

_DRAIN = 128 << 20
"""Bytes of a refused body that are read and thrown away, so that the client gets the reason.

A connection closed under a client that still sends shows it a broken pipe, and a proxy an error of
its own.
"""
_REFUSED = 60.0
"""Seconds that a refused body may take."""
_SMALL = 300.0
"""Seconds that a body may take if it is held in memory."""


@stream_request_body
class BodyHandler(StreamingHandler):
    """Base of handlers that take bodies. :meth:`let_in` decides who may send what."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._refusal: KaosError | HTTPError | None = None
        self._reader: BodyReader | None = None
        self._drained = 0
        self._held: str | None = None
        self._arrived = 0
        self._feeding = False
        super().__init__(*args, **kwargs)

    async def let_in(self) -> BodyReader | None:
        """Refuse a caller without the right. Return the reader of the body, or None without a body.

        Raises:
            KaosError, HTTPError: the refusal.
        """
        raise NotImplementedError

    async def prepare(self) -> None:
        # Must come before the first await: tornado compares with its own limit right after.
        cast(HTTP1Connection, self.request.connection).set_max_body_size(1 << 60)
        try:
            self._reader = await self.let_in()
        except (KaosError, HTTPError) as e:
            # Said after the body was read, so that the connection serves the next request.
            self._refuse(e)
        if self._has_body():
            self._take_body()

    def _take_body(self) -> None:
        """Limit the body: how many come at once, how slowly, and for how long."""
        traffic, key = self.traffic, self.traffic_key
        try:
            traffic.begin("bodies", key)
            self._held = key
        except TooManyRequests as e:
            # Reading on would be what there is too much of.
            self._drained = _DRAIN
            self._refuse(e)
        longest = _REFUSED
        if self._refusal is None:
            whole = self._reader is None or self._reader.whole
            longest = _SMALL if whole else traffic.pace.longest
        cast(HTTP1Connection, self.request.connection).set_body_timeout(longest)
        traffic.watch(self)

    def _refuse(self, error: KaosError | HTTPError) -> None:
        """Have the request answered by an error, whatever its method would do."""
        self._refusal = error
        setattr(self, str(self.request.method).lower(), self._say_refusal)

    async def _say_refusal(self, *_: Any, **__: Any) -> None:
        assert self._refusal is not None, "it was refused"
        raise self._refusal

    def arrived(self) -> int | None:
        """Return the bytes that came since the last call.

        None means that the client is not to blame: we are working on a piece, or the body is
        complete.
        """
        arrived, self._arrived = self._arrived, 0
        return None if self._feeding or self._body_over() else arrived

    def end_slow(self, error: TooSlow) -> None:
        """Give up a body that comes too slowly."""
        self._refuse(error)
        if not self._finished:
            self.send_error(error.status, exc_info=(type(error), error, None))

    def flush(self, include_footers: bool = False) -> "Future[None]":
        """Send what was written, and tell the client if the connection ends with this answer."""
        if not self._headers_written and not self._body_over():
            # Tornado hangs up after an answer that came before it looked for a body. A proxy that
            # is not told sends its next request into a connection that is just being closed.
            self.set_header("Connection", "close")
        return super().flush(include_footers)

    def _body_over(self) -> bool:
        return cast(HTTP1Connection, self.request.connection)._read_finished

    def _let_go_of_body(self) -> None:
        self.traffic.forget(self)
        if self._held is not None:
            held, self._held = self._held, None
            self.traffic.end("bodies", held)

    def on_finish(self) -> None:
        self._let_go_of_body()
        self._give_up()
        super().on_finish()

    def _give_up(self) -> None:
        """Abort the reader, if its result has not been taken."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            self.keep(reader.abort())

    def _has_body(self) -> bool:
        headers = self.request.headers
        return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers

    @property
    def announced(self) -> int:
        """The length of the body in bytes, as the client says; 0 if it does not."""
        announced = self.request.headers.get("Content-Length", "")
        return int(announced) if announced.isascii() and announced.isdigit() else 0

    def check_announced(self, limit: int) -> None:
        """Refuse a body whose announced length is too large.

        Raises:
            TooLarge: it has more than ``limit`` bytes.
        """
        if self.announced > limit:
            raise TooLarge(
                f"The body is larger than the {show_memory(limit)} that this address takes."
            )

    async def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; tornado reads on when this returns.

        Never raises: an exception from here would cut the connection instead of answering.
        """
        self._arrived += len(chunk)
        if self._refusal is None and self._reader is not None:
            self._feeding = True
            try:
                await self._reader.feed(chunk)
                return
            except KaosError as e:
                self._refuse(e)
            except Exception as e:  # the guard of tornado's reading loop; as_kaos_error logs it
                self._refuse(as_kaos_error(e))
            finally:
                self._feeding = False
            await self._reader.abort()
        self._drained += len(chunk)
        if self._drained > _DRAIN and self._refusal is not None and not self._finished:
            self.send_error(400, exc_info=(type(self._refusal), self._refusal, None))

    async def content(self) -> Any:
        """Return the result of the body's reader, or None where no body is taken."""
        if self._reader is None:
            return None
        content = await self._reader.finish()
        self._reader = None
        return content

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._let_go_of_body()
        self._give_up()

    def keep(self, ending: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end although no request waits for it any more."""
        kept = asyncio.ensure_future(ending)
        self.settings["loose_ends"].add(kept)
        kept.add_done_callback(self.settings["loose_ends"].discard)
