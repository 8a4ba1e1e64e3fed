"""Objects on their way into a bucket, and how many of the larger ones there may be at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import obstore
from obstore.exceptions import BaseError

from kaos_hub.bundles.tree import Hasher
from kaos_hub.errors import InvalidRequest, KaosError, Unavailable
from kaos_hub.stores.s3.client import Client

PIECE = 1 << 20
"""Bytes that are gathered before they are hashed and handed on: less than a millisecond's work.
What is no larger is sent without waiting for a turn."""
PART = 8 << 20
"""Bytes of a part. What is no larger is sent at once; more goes in parts."""
_MOST_PARTS = 10_000
_AT_ONCE = 2
"""Parts of one object that are sent at once."""
_TURNS = 16
"""Larger objects on their way at once. Each holds up to four parts in memory."""
_PATIENCE = 60.0
"""Seconds for which one more waits for its turn."""
_STALLED = 120.0
"""Seconds after which an object of which nothing more comes gives its turn to others."""


class Turns:
    """Turns for larger objects, of all senders together: what is on its way takes memory."""

    def __init__(self, many: int = _TURNS, stalled: float = _STALLED) -> None:
        self._free, self._stalled = asyncio.Semaphore(many), stalled

    async def take(self) -> "Turn":
        """Wait for a turn.

        Raises:
            Unavailable: none came.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), _PATIENCE)
        except TimeoutError:
            raise Unavailable("Too many large files are being sent now; try again.") from None
        return Turn(self._free.release, self._stalled)


class Turn:
    """One turn, until it is given back; it ends by itself when nothing happens.

    Args:
        release: gives it back.
        stalled: seconds.
    """

    def __init__(self, release: Callable[[], None], stalled: float) -> None:
        self._release, self._stalled = release, stalled
        self._given = False
        self._watch: asyncio.TimerHandle | None = None

    def go_on(self, give_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Something happens; ``give_up`` is what is to be done when nothing more does."""
        self._rest()
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self._stalled, lambda: loop.create_task(give_up()))

    def give(self) -> None:
        """Give it back. Once is enough."""
        self._rest()
        if not self._given:
            self._given = True
            self._release()

    def _rest(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


class IncomingObject:
    """The common part of all uploads: counts, hashes and checks the bytes; see ``base.Upload``.

    Args:
        digest, size: of what is announced.
        turn: what it needs to be on its way, if it does.
    """

    def __init__(self, digest: str, size: int, turn: Turn | None = None) -> None:
        self._digest, self._size, self._turn = digest, size, turn
        self._hasher = Hasher()
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._ended = False
        self._go_on()

    async def write(self, data: bytes) -> None:
        self._check_going()
        self._go_on()
        if self._hasher.size + self._gathered + len(data) > self._size:
            raise InvalidRequest(
                f"more bytes came for {self._digest} than the {self._size:,} announced"
            )
        for start in range(0, len(data), PIECE):
            piece = bytes(data[start : start + PIECE])
            self._pieces.append(piece)
            self._gathered += len(piece)
            if self._gathered >= PIECE:
                await self._take()

    async def finish(self) -> None:
        self._check_going()
        try:
            await self._take()
            self._verify()
            await self._keep()
        except BaseException:
            await self.abort()
            raise
        self._end()

    async def abort(self) -> None:
        self._end()

    async def _take(self) -> None:
        """Hash what was gathered, and hand it on."""
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._gathered = 0
        if piece:
            self._hasher.update(piece)
            await self._hand_on(piece)

    async def _hand_on(self, piece: bytes) -> None:
        """Handle a piece. Here it is dropped, since the object is in the store already.

        By sending it the client shows that it has the object.
        """

    async def _keep(self) -> None:
        """Make it an object."""

    def _check_going(self) -> None:
        if self._ended:
            raise InvalidRequest(f"the upload of {self._digest} has ended")

    def _go_on(self) -> None:
        if self._turn is not None:
            self._turn.go_on(self.abort)

    def _end(self) -> None:
        self._ended = True
        self._pieces.clear()
        if self._turn is not None:
            self._turn.give()

    def _verify(self) -> None:
        if self._hasher.size != self._size:
            raise InvalidRequest(
                f"{self._hasher.size:,} bytes came for {self._digest} instead of {self._size:,}"
            )
        if self._hasher.digest() != self._digest:
            raise InvalidRequest(
                f"the bytes sent as {self._digest} are {self._hasher.digest()}; send them again"
            )


class SmallObject(IncomingObject):
    """An object that is sent at once, when all of it is there and found right."""

    def __init__(self, client: Client, key: str, digest: str, size: int, turn: Turn | None) -> None:
        super().__init__(digest, size, turn)
        self._client, self._key = client, key
        self._content: list[bytes] = []

    async def _hand_on(self, piece: bytes) -> None:
        self._content.append(piece)

    async def _keep(self) -> None:
        content = b"".join(self._content)
        self._content.clear()
        with self._client.errors():
            try:
                put = obstore.put_async
                await put(self._client.bucket, self._key, content, use_multipart=False)
            except BaseError:
                if not await self._client.has(self._key, self._size):
                    raise

    def _end(self) -> None:
        super()._end()
        self._content.clear()


class LargeObject(IncomingObject):
    """An object that goes on in parts while it comes, and is put together when it was found right.

    Until then it is invisible. One that fails is taken back by obstore, since the source of its
    bytes fails; what a killed service left behind is taken back later, see ``leftovers``.
    """

    def __init__(self, client: Client, key: str, digest: str, size: int, turn: Turn) -> None:
        self._client, self._key = client, key
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._given_up = False
        super().__init__(digest, size, turn)
        self._sending = asyncio.create_task(self._send())

    async def abort(self) -> None:
        if not self._ended:
            self._ended = self._given_up = True
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(None)
        try:
            with contextlib.suppress(KaosError, _GivenUpError):
                # To the end, even if the caller is cancelled: it is being taken back.
                await asyncio.shield(self._sending)
        finally:
            self._end()

    async def _hand_on(self, piece: bytes | None) -> None:
        """Hand a piece on; none is the end. Fails as soon as sending has failed."""
        putting = asyncio.ensure_future(self._queue.put(piece))
        try:
            await asyncio.wait({putting, self._sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if self._sending.done():
            await self._sent()

    async def _keep(self) -> None:
        await self._hand_on(None)
        await self._sent()

    async def _sent(self) -> None:
        try:
            await asyncio.shield(self._sending)
        except _GivenUpError:
            raise Unavailable(f"The upload of {self._digest} took too long; try again.") from None

    async def _send(self) -> None:
        part = max(PART, -(-self._size // _MOST_PARTS))
        with self._client.errors():
            try:
                await obstore.put_async(
                    self._client.bucket, self._key, self._all(), use_multipart=True,
                    chunk_size=part, max_concurrency=_AT_ONCE,
                )  # fmt: skip
            except BaseError:
                if not await self._client.has(self._key, self._size):
                    raise

    async def _all(self) -> AsyncIterator[bytes]:
        while (piece := await self._queue.get()) is not None:
            yield piece
        if self._given_up:
            raise _GivenUpError


class _GivenUpError(Exception):
    """Makes obstore take back what it sent."""
