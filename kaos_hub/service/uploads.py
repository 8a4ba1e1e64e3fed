"""What becomes of request bodies: JSON up to a limit, or objects streamed into the store."""

import asyncio
import json
from typing import TYPE_CHECKING, Any, Protocol

from kaos_hub.errors import InvalidRequest, TooLarge
from kaos_hub.quantities import show_memory

if TYPE_CHECKING:
    from kaos_hub.receiving import Receiver


class BodyReader(Protocol):
    """Takes a body piece by piece."""

    async def feed(self, chunk: bytes) -> None:
        """Take the next piece."""

    async def finish(self) -> Any:
        """The whole is there; what it means."""

    async def abort(self) -> None:
        """The rest never comes."""


class RawReader:
    """A body of at most ``limit`` bytes, as it is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    async def feed(self, chunk: bytes) -> None:
        if len(self._data) + len(chunk) > self._limit:
            limit = show_memory(self._limit)
            raise TooLarge(f"The body is larger than the {limit} that this address takes.")
        self._data += chunk

    async def finish(self) -> Any:
        return bytes(self._data)

    async def abort(self) -> None:
        self._data.clear()


class JsonReader(RawReader):
    """A JSON body of at most ``limit`` bytes."""

    async def finish(self) -> Any:
        try:
            return json.loads(await super().finish() or b"{}")
        except (ValueError, RecursionError):
            raise InvalidRequest("The body is not JSON.") from None


class ObjectReader:
    """Objects on their way into the store. Nothing of one that breaks off becomes visible."""

    def __init__(self, receiver: "Receiver", settings: dict[str, Any]) -> None:
        self._receiver = receiver
        self._metrics = settings.get("metrics")
        # A client can vanish while a piece is being stored: aborting waits for that.
        self._turn = asyncio.Lock()
        self._aborted = False

    async def feed(self, chunk: bytes) -> None:
        async with self._turn:
            if self._aborted:
                return
            if self._metrics is not None:
                self._metrics.uploaded.inc(len(chunk))
            await self._receiver.feed(chunk)

    async def finish(self) -> dict[str, int]:
        async with self._turn:
            return {"received": await self._receiver.finish()}

    async def abort(self) -> None:
        async with self._turn:
            if not self._aborted:
                self._aborted = True
                await self._receiver.abort()
