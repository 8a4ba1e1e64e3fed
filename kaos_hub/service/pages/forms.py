"""Forms with a file, as browsers without JavaScript send them.

The file is written to the disk as it comes; nothing of it is held in memory.
"""

import asyncio
import email
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kaos_hub.errors import InvalidRequest, StorageFull, TooLarge
from kaos_hub.util.quantities import show_memory

_FIELD = 64 << 10
"""Bytes of a field that is not a file."""
_HEAD = 16 << 10
"""Bytes of the headers before a field."""
_FIELDS = 50

_OUTSIDE, _AFTER, _HEADERS, _INSIDE, _OVER = range(5)


@dataclass
class Form:
    """The values of a form that was filled in."""

    fields: dict[str, str] = field(default_factory=dict)
    file: str = ""
    """The name of the file on the client's machine, if one was chosen."""
    size: int = 0


class FormReader:
    """A reader of a form of the type ``multipart/form-data``.

    Args:
        content_type: the request's.
        target: where the file goes.
        limit: bytes that the file may have.
        check: called with the fields before the file, before any of the file is taken.
    """

    whole = False

    def __init__(
        self,
        content_type: str,
        target: Path,
        limit: int,
        check: Callable[[Form], Awaitable[None]],
    ) -> None:
        self._mark = b"\r\n--" + _boundary(content_type)
        self._target, self._limit, self._check = target, limit, check
        # The first mark has no line before it.
        self._rest = b"\r\n"
        self._state = _OUTSIDE
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None
        self._checked = False
        self.form = Form()

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequest: it is not such a form.
            TooLarge: a field, or the file, is too long.
            StorageFull: the file cannot be written.
        """
        self._rest += chunk
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Use some of the bytes at hand. Return whether there may be more to use."""
        if self._state in (_OUTSIDE, _INSIDE):
            return await self._content()
        if self._state == _AFTER:
            return self._after_mark()
        if self._state == _HEADERS:
            return await self._headers()
        self._rest = b""
        return False

    async def _content(self) -> bool:
        found = self._rest.find(self._mark)
        # What may be the beginning of a mark waits for the rest of it.
        end = found if found >= 0 else max(0, len(self._rest) - len(self._mark) + 1)
        piece, self._rest = self._rest[:end], self._rest[end:]
        if self._state == _INSIDE and piece:
            await self._keep(piece)
        if found < 0:
            return False
        self._rest = self._rest[len(self._mark) :]
        if self._state == _INSIDE:
            await self._end_part()
        self._state = _AFTER
        return True

    def _after_mark(self) -> bool:
        if len(self._rest) < 2:
            return False
        following, self._rest = self._rest[:2], self._rest[2:]
        if following not in (b"--", b"\r\n"):
            raise InvalidRequest("The form cannot be read.")
        self._state = _OVER if following == b"--" else _HEADERS
        return True

    async def _headers(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end > _HEAD or (end < 0 and len(self._rest) > _HEAD):
            raise InvalidRequest("The form cannot be read.")
        if end < 0:
            return False
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        message = email.message_from_string(head.decode("utf-8", "replace"))
        self._name = str(message.get_param("name", "", "content-disposition"))
        called = message.get_param("filename", None, "content-disposition")
        if not self._name or len(self.form.fields) >= _FIELDS:
            raise InvalidRequest("The form cannot be read.")
        if called is not None:
            await self._begin_file(str(called))
        self._state = _INSIDE
        return True

    async def _begin_file(self, called: str) -> None:
        if self._checked:
            raise InvalidRequest("Send one archive at a time.")
        await self._check(self.form)
        self._checked = True
        # Some browsers send the path.
        self.form.file = called.replace("\\", "/").rpartition("/")[2]
        self._file = await asyncio.to_thread(self._target.open, "xb")

    async def _keep(self, piece: bytes) -> None:
        if self._file is None:
            self._text += piece
            if len(self._text) > _FIELD:
                raise TooLarge(f"The field {self._name!r} is too long.")
            return
        self.form.size += len(piece)
        if self.form.size > self._limit:
            raise TooLarge(
                f"The archive has more than the {show_memory(self._limit)} there is room for."
            )
        try:
            await asyncio.to_thread(self._file.write, piece)
        except OSError as e:
            raise StorageFull(f"The archive cannot be kept here: {e.strerror}.") from None

    async def _end_part(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            await asyncio.to_thread(file.close)
            return
        self.form.fields[self._name] = self._text.decode("utf-8", "replace")
        self._text.clear()

    async def finish(self) -> Form:
        """Return the form, all of which has come.

        Raises:
            InvalidRequest: the form ends too early.
        """
        if self._state != _OVER:
            await self.abort()
            raise InvalidRequest("The form ends too early. Send it again.")
        if not self._checked:
            await self._check(self.form)
        return self.form

    async def abort(self) -> None:
        """Close the file: the rest of the form never comes."""
        if self._file is not None:
            file, self._file = self._file, None
            await asyncio.to_thread(file.close)


def _boundary(content_type: str) -> bytes:
    message = email.message_from_string(f"Content-Type: {content_type}\n\n")
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/form-data" or not boundary or len(boundary) > 200:
        raise InvalidRequest("Send a form with a file (multipart/form-data).")
    return boundary.encode("ascii", "replace")
