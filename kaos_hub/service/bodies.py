"""Requests whose bodies are streamed: whoever may not ask is refused before a body is read, and no
body is held that is larger than its address allows.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, stream_request_body

from kaos_hub.errors import KaosError, TooLarge
from kaos_hub.quantities import show_memory
from kaos_hub.service.streaming import StreamingHandler
from kaos_hub.service.uploads import BodyReader
from kaos_hub.service.web import as_kaos_error

_DRAIN = 64 << 20
"""Bytes of a refused body that are read and thrown away, so that the client hears why: a connection
closed under a client that still sends shows it a broken pipe, and a proxy an error of its own."""


@stream_request_body
class BodyHandler(StreamingHandler):
    """Base of handlers that take bodies. They say in :meth:`let_in` who may send what."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._refusal: KaosError | HTTPError | None = None
        self._reader: BodyReader | None = None
        self._drained = 0
        self._hangs_up = False
        super().__init__(*args, **kwargs)

    async def let_in(self) -> BodyReader | None:
        """Refuse who may not ask; what takes the body, or None where there is none.

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
            if not self._has_body():
                self._hangs_up = True
                raise
            self._refusal = e

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Any error; says so where the connection ends with it."""
        if self._hangs_up:
            # Tornado hangs up after an answer that came before it looked for a body. A proxy that
            # is not told sends its next request into a connection that is just being closed.
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def _has_body(self) -> bool:
        headers = self.request.headers
        return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers

    def check_announced(self, limit: int) -> None:
        """Refuse a body that says itself that it is too large.

        Raises:
            TooLarge: it has more than ``limit`` bytes.
        """
        announced = self.request.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > limit:
            raise TooLarge(
                f"The body is larger than the {show_memory(limit)} that this address takes."
            )

    async def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; tornado reads on when this returns.

        Never raises: an exception from here would cut the connection instead of answering.
        """
        if self._refusal is None and self._reader is not None:
            try:
                await self._reader.feed(chunk)
                return
            except KaosError as e:
                self._refusal = e
            except Exception as e:  # the guard of tornado's reading loop; as_kaos_error logs it
                self._refusal = as_kaos_error(e)
            await self._reader.abort()
        self._drained += len(chunk)
        if self._drained > _DRAIN and self._refusal is not None and not self._finished:
            self.send_error(400, exc_info=(type(self._refusal), self._refusal, None))

    def check_taken(self) -> None:
        """Raise what the request was refused for, if it was."""
        if self._refusal is not None:
            raise self._refusal

    async def content(self) -> Any:
        """What the reader made of the body; None where no body is taken."""
        if self._reader is None:
            return None
        content = await self._reader.finish()
        self._reader = None
        return content

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._reader is not None:
            reader, self._reader = self._reader, None
            self.keep(reader.abort())

    def keep(self, ending: Coroutine[Any, Any, None]) -> None:
        """Have something done although nobody waits for it any more."""
        kept = asyncio.ensure_future(ending)
        self.settings["loose_ends"].add(kept)
        kept.add_done_callback(self.settings["loose_ends"].discard)
