"""Readers of request bodies: JSON up to a limit, or objects streamed into the store."""

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any, Protocol

from kaos_hub.errors import InvalidRequest, TooLarge
from kaos_hub.util.quantities import show_memory

if TYPE_CHECKING:
    from kaos_hub.service.bundles.upload import Receiver

_QUICK = 64 << 10
"""Bytes of JSON that are read at once; more is read in a thread."""
_ESCAPED = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
_HALF = re.compile("[\ud800-\udfff]")


class BodyReader(Protocol):
    """A reader that takes a body piece by piece."""

    whole: bool
    """True if all of the body is held in memory until it is complete."""

    async def feed(self, chunk: bytes) -> None:
        """Take the next piece."""

    async def finish(self) -> Any:
        """Return the content of the body, all of which has come."""

    async def abort(self) -> None:
        """Release what is held: the rest never comes."""


class RawReader:
    """A reader of a body of at most ``limit`` bytes, as it is."""

    whole = True

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
    """A reader of a JSON body of at most ``limit`` bytes."""

    async def finish(self) -> Any:
        content = await super().finish() or b"{}"
        if len(content) <= _QUICK:
            return read_json(content)
        return await asyncio.to_thread(read_json, content)


def read_json(content: bytes) -> Any:
    """Return the value of JSON that can be written again.

    It has no number that is not finite, no name twice in one object, and no text that cannot be
    written to a file or a database.

    Raises:
        InvalidRequest: it is not such JSON.
    """
    try:
        found = json.loads(
            content.decode(), object_pairs_hook=_once, parse_constant=_no_number,
            parse_float=_finite,
        )  # fmt: skip
        if _ESCAPED.search(content) or b"\0" in content:
            _check_texts(found)
    except InvalidRequest:
        raise
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.") from None
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("The body is not JSON that can be understood: a name stands twice.")
    return found


def _no_number(text: str) -> Any:
    raise InvalidRequest(f"The body is not JSON: {text} is no number.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest("The body has a number that is too large.")
    return number


def _check_texts(found: Any) -> None:
    left = [found]
    while left:
        one = left.pop()
        if isinstance(one, str):
            check_text(one)
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one


def check_text(text: str) -> None:
    """Refuse text with NUL in it, or with half of a character.

    Raises:
        InvalidRequest: it is such text.
    """
    if not is_text(text):
        raise InvalidRequest("A text has a character that no text has: NUL, or half of a pair.")


def is_text(text: str) -> bool:
    """Return whether text can be written to files and databases: no NUL, and no half character."""
    return "\0" not in text and (text.isascii() or not _HALF.search(text))


class ObjectReader:
    """A reader of objects into the store. Nothing of one that breaks off becomes visible."""

    whole = False

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
