"""Trees that are being fetched, kept ready for a while: a few of them, and never for long."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kaos_hub.bundles.objects import ReadObject
from kaos_hub.errors import Unavailable
from kaos_hub.service.workers.wire_listing import Flat, flatten

T = TypeVar("T")

_THREADS = 16
"""The number of threads. Four keep a disk busy; a store behind a network mostly waits."""
_TREES = 4
_WEIGHT = 64 << 20
"""Bytes of all trees kept; the latest is kept whatever it weighs. 100,000 files weigh 9 MB."""
_IDLE = 120.0
"""Seconds without a request after which a tree is forgotten."""
_STREAMS = 64
"""Answers sent at once. Each holds up to a megabyte, so memory stays bounded with many clients."""
_PATIENCE = 20.0
"""Seconds for which the others wait for their turn, before they are told to try again."""


class Listings:
    """A reader of trees with threads of its own, so that the event loop never waits for a disk.

    Args:
        read: reads objects of the store; blocks.
    """

    def __init__(self, read: ReadObject) -> None:
        self._read = read
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kaos-fetch")
        self._kept: dict[str, asyncio.Task[Flat]] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        # One at a time: what is read has its weight before it is kept.
        self._reading = asyncio.Lock()
        self.turns = asyncio.Semaphore(_STREAMS)

    async def get(self, digest: str) -> Flat:
        """Return a tree. Callers that ask while it is being read wait for that one reading.

        Raises:
            Damaged: an object of it is not in the store, or not what it should be.
            Unavailable: the store cannot be read now.
        """
        task = self._kept.pop(digest, None) or self._begin(digest)
        self._kept[digest] = task  # as the latest
        self._let_expire(digest)
        try:
            # The caller may go away; others wait for the same.
            flat = await asyncio.shield(task)
        except BaseException:
            if task.done() and self._kept.get(digest) is task:
                self._forget(digest)
            raise
        self._make_room()
        return flat

    def listing(self, flat: Flat) -> AsyncIterator[bytes]:
        """Yield the listing of a tree, piece by piece."""
        return self._pump(flat.listing())

    def content(self, flat: Flat, first: int, end: int, offset: int) -> AsyncIterator[bytes]:
        """Yield the files of a tree, piece by piece; see :meth:`Flat.content`."""
        return self._pump(flat.content(self._read, first, end, offset))

    async def take_turn(self) -> None:
        """Wait until one more answer may be sent. The caller must release ``turns`` afterwards.

        Raises:
            Unavailable: too many are being sent.
        """
        try:
            await asyncio.wait_for(self.turns.acquire(), _PATIENCE)
        except TimeoutError:
            raise Unavailable("Too many trees are being fetched now; try again.") from None

    def _begin(self, digest: str) -> asyncio.Task[Flat]:
        task = asyncio.create_task(self._flatten(digest))
        # If all callers are gone when it fails, its error need not be reported.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _flatten(self, digest: str) -> Flat:
        async with self._reading:
            return await self._run(lambda: flatten(digest, self._read))

    def _let_expire(self, digest: str) -> None:
        if digest in self._expiry:
            self._expiry[digest].cancel()
        loop = asyncio.get_running_loop()
        self._expiry[digest] = loop.call_later(_IDLE, self._forget, digest)

    def _forget(self, digest: str) -> None:
        self._expiry.pop(digest).cancel()
        self._kept.pop(digest, None)

    def _make_room(self) -> None:
        while len(self._kept) > 1 and (len(self._kept) > _TREES or self._weight() > _WEIGHT):
            self._forget(next(iter(self._kept)))

    def _weight(self) -> int:
        ready = (task for task in self._kept.values() if task.done() and not task.cancelled())
        return sum(task.result().weight for task in ready if task.exception() is None)

    async def _pump(self, source: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Run a blocking iterator in a thread, one step at a time."""
        step: asyncio.Future[bytes] | None = None
        try:
            while True:
                step = self._run(lambda: next(source, b""))
                if not (piece := await asyncio.shield(step)):
                    return
                yield piece
        finally:
            # A step cannot be taken back; only after it may its files be closed.
            if step is not None and not step.done():
                await asyncio.wait({step})
            close = getattr(source, "close", None)
            if close is not None:
                await self._run(close)

    def _run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, work)
