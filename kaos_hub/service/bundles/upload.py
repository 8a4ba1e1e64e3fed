"""Objects of bundles as they come over the wire, into the store and an owner's hands."""

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidRequest, KaosError, TooLarge
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow
from kaos_hub.service.quota import Ledger
from kaos_hub.stores.base import Store, Upload

T = TypeVar("T")
_HEADER = re.compile(rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,17})")
_HEADER_MAX = 96
_RECORD_EVERY = 500
_AT_ONCE = 16
"""Objects of one stream that are being kept at once, where the store is behind a network: it takes
its time for each. One on a disk is done at once."""


def check_size(size: int, limit: int) -> None:
    """Refuse a file of more than ``limit`` bytes.

    Raises:
        TooLarge: says both sizes.
    """
    if size > limit:
        raise TooLarge(
            f"A file of {size:,} bytes is more than the {limit:,} allowed here. Leave it out with a"
            " .kaosignore, or ask your admin for more (c.KaosService.max_file_size)."
        )


def batches(items: Iterable[T], size: int = 500) -> Iterator[list[T]]:
    """The items in lists of at most ``size``; databases limit what one statement may name."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


class Receiver:
    """Objects on the wire: ``<64 hex> <size>\\n<bytes>``, again and again.

    Nothing is held in memory but what was just fed. Every object that is complete and right is kept
    for the owner, even if the connection dies in the next one: sending again goes on from there.

    Args:
        db, store, ledger: what it works with.
        max_file_size: bytes of the largest file accepted.
        owner: whose objects they become.
        announced: bytes that will come, as far as they are known.
    """

    def __init__(
        self,
        db: Database,
        store: Store,
        ledger: Ledger,
        max_file_size: int,
        owner: str,
        announced: int = 0,
    ) -> None:
        self._db, self._store = db, store
        self._reservation = ledger.reserve(owner)
        self._max_file_size, self._owner = max_file_size, owner
        self._head = b""
        self._upload: Upload | None = None
        self._object: tuple[str, int] = ("", 0)
        self._left = 0
        self._keeping: dict[asyncio.Task[None], tuple[str, int]] = {}
        self._at_once = _AT_ONCE if store.private else 1
        self._done: dict[str, int] = {}
        self._received = 0
        self._announced = announced
        self._free = 0

    async def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequest: they are not framed as said, or not what their digest says.
            LimitExceeded, TooLarge, StorageFull: no place for them.
        """
        view = memoryview(data)
        while view or (self._upload is not None and self._left == 0):
            if self._upload is None:
                view = await self._take_head(view)
            else:
                piece, view = view[: self._left], view[self._left :]
                await self._upload.write(bytes(piece))
                self._left -= len(piece)
                if self._left == 0:
                    await self._complete()

    async def _take_head(self, view: memoryview) -> memoryview:
        cut = bytes(view[:_HEADER_MAX])
        end = cut.find(b"\n")
        self._head += cut if end < 0 else cut[:end]
        if len(self._head) > _HEADER_MAX:
            raise InvalidRequest("An object does not begin with its digest and size.")
        if end < 0:
            return view[len(cut) :]
        match = _HEADER.fullmatch(self._head)
        if match is None:
            raise InvalidRequest("An object does not begin with its digest and size.")
        self._head = b""
        digest, size = f"blake3:{match[1].decode()}", int(match[2])
        check_size(size, self._max_file_size)
        await self._reserve(size)
        self._object, self._left = (digest, size), size
        self._upload = await self._store.upload(digest, size)
        return view[end + 1 :]

    async def _reserve(self, size: int) -> None:
        """Hold storage for an object; at first for all that was announced, if there is room."""
        if size > self._free:
            needed = size - self._free
            self._free += await self._reservation.grow(needed, self._announced)
            self._announced = 0
        self._free -= size

    async def _complete(self) -> None:
        assert self._upload is not None
        keeping = asyncio.create_task(_finish(self._upload))
        self._keeping[keeping] = self._object
        self._upload = None
        await self._settle(self._at_once - 1)
        if len(self._done) >= _RECORD_EVERY:
            await self._record()

    async def _settle(self, left: int) -> None:
        """Wait until no more than ``left`` objects are being kept."""
        while len(self._keeping) > left:
            kept, _ = await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
            for task in kept:
                digest, size = self._keeping.pop(task)
                task.result()
                self._done[digest] = size
                self._received += 1

    async def _record(self) -> None:
        done, self._done = self._done, {}
        if done:
            await self._db.run(lambda session: self._hold(session, done))

    def _hold(self, session: Session, done: Mapping[str, int]) -> None:
        _hold(session, self._owner, done)
        self._reservation.settle(session, sum(done.values()))

    async def finish(self) -> int:
        """End the stream. Return how many objects came.

        Raises:
            InvalidRequest: it ended in the middle of an object, or one of the last is not what its
                digest says. The others are kept.
        """
        try:
            await self._settle(0)
        except BaseException:
            await self.abort()
            raise
        if self._upload is None and not self._head:
            await self._record()
            await self._reservation.release()
            return self._received
        await self.abort()
        raise InvalidRequest("The upload ended in the middle of an object. Send it again.")

    async def abort(self) -> None:
        """Give up a stream that broke off. What was complete is kept."""
        if self._upload is not None:
            await self._upload.abort()
            self._upload = None
        while self._keeping:
            with contextlib.suppress(KaosError):
                await self._settle(0)
        try:
            await self._record()
        finally:
            await self._reservation.release()


async def _finish(upload: Upload) -> None:
    try:
        await upload.finish()
    except BaseException:
        await upload.abort()
        raise


def _hold(session: Session, owner: str, objects: Mapping[str, int]) -> None:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    for batch in batches(objects.items()):
        rows = [{"owner": owner, "digest": digest, "size": size} for digest, size in batch]
        session.execute(dialect.insert(HoldingRow).values(rows).on_conflict_do_nothing())
