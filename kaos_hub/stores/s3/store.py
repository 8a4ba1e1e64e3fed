"""A store in a bucket of an S3 server, reached with obstore.

    <prefix>/objects/ab/cdef…   an object, named by the hex of its digest
    <prefix>/kaos-store         written whenever the service starts: so a wrong key is seen then

An object appears when it was found right, and at once: small ones are put, large ones put together
of parts. Only the service holds the key of the bucket, so only it opens this store: workloads fetch
their trees from the service, wherever they run.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import obstore

from kaos_hub.bundles.tree import Hasher, is_digest
from kaos_hub.errors import InvalidRequest, NotFound, Unavailable
from kaos_hub.stores.base import Store, Upload
from kaos_hub.stores.s3.address import Address
from kaos_hub.stores.s3.client import Client
from kaos_hub.stores.s3.leftovers import Leftovers
from kaos_hub.stores.s3.upload import PART, PIECE, IncomingObject, LargeObject, SmallObject, Turns

_MARK = "kaos-store"
_STALE = timedelta(days=1)
"""So old an upload in parts is taken for abandoned. None pauses for a day."""


class S3Store(Store):
    """Objects in a bucket.

    Args:
        address: which bucket, where.
        secrets: the folder in which the key of the bucket may lie.

    Raises:
        Unavailable: its certificates cannot be read.
    """

    name: ClassVar[str] = "s3"
    private: ClassVar[bool] = True

    def __init__(self, address: Address, secrets: Path | None = None) -> None:
        self._address = address
        self._client = Client(address, secrets)

    @classmethod
    def from_url(cls, url: str, secrets: Path | None = None) -> Self:
        return cls(Address.parse(url), secrets)

    @property
    def url(self) -> str:
        return self._address.url

    async def probe(self) -> None:
        await asyncio.to_thread(self._probe)

    def _probe(self) -> None:
        # Not obstore's own way for loops: it leaves a moment's work to threads of its own, on which
        # an interpreter that ends just then, since the probe failed, is aborted.
        mark = self._address.key(_MARK)
        text = b"A store of kaos_hub, format 1.\n"
        with self._client.errors():
            obstore.put(self._client.bucket, mark, text, use_multipart=False)
            found = obstore.get(self._client.bucket, mark).bytes()
        if bytes(found) != text:
            raise Unavailable(f"What {self._address.server} gives back is not what it was given.")

    async def tidy(self) -> int:
        return await asyncio.to_thread(self.take_back)

    async def upload(self, digest: str, size: int) -> Upload:
        key = self._key(digest)
        if size <= PIECE:
            return SmallObject(self._client, key, digest, size, None)
        if await self.size(digest) == size:
            return IncomingObject(digest, size)
        turn = await self._turns.take()
        if size <= PART:
            return SmallObject(self._client, key, digest, size, turn)
        return LargeObject(self._client, key, digest, size, turn)

    async def read(self, digest: str, chunk: int = PIECE) -> AsyncIterator[bytes]:
        key, held = self._key(digest), bytearray()
        with self._client.errors(digest):
            found = await obstore.get_async(self._client.bucket, key)
            async for piece in found.stream(min_chunk_size=chunk):
                held += piece
                while len(held) >= chunk:
                    yield bytes(held[:chunk])
                    del held[:chunk]
        if held:
            yield bytes(held)

    def pieces(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        key = self._key(digest)
        with self._client.errors(digest):
            found = obstore.get(
                self._client.bucket, key, options={"range": {"offset": offset}} if offset else None
            )
            for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)

    async def size(self, digest: str) -> int | None:
        key = self._key(digest)
        try:
            with self._client.errors(digest):
                return (await obstore.head_async(self._client.bucket, key))["size"]
        except NotFound:
            return None

    def local_path(self, digest: str) -> None:
        return None

    async def check(self, digest: str) -> bool:
        hasher = Hasher()
        try:
            async for piece in self.read(digest):
                hasher.update(piece)
        except NotFound:
            return False
        return hasher.digest() == digest

    def take_back(self, age: timedelta = _STALE) -> int:
        """Take back uploads in parts that are older and unfinished; how many there were. Blocks.

        Raises:
            Unavailable: the server does not do that.
        """
        return Leftovers(self._client).take_back(age)

    @cached_property
    def _turns(self) -> Turns:
        return Turns()

    def _key(self, digest: str) -> str:
        if not is_digest(digest):
            raise InvalidRequest(f"{digest!r} is no digest")
        hexadecimal = digest.removeprefix("blake3:")
        return self._address.key(f"objects/{hexadecimal[:2]}/{hexadecimal[2:]}")
