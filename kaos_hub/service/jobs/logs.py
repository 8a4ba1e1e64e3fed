"""Logs that outlive what wrote them: append-only files, read from any offset, followed live."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

CHUNK = 256 * 1024


class LogStore:
    """A directory of logs. An offset counts bytes and stays valid for ever.

    Readers keep their own place in the file, so a slow one delays no other.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._changed: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._live: set[str] = set()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def size(self, name: str) -> int:
        """Bytes written so far."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, name: str) -> None:
        """Say that more will be written; followers wait for it."""
        self._live.add(name)

    def live(self, prefix: str) -> list[str]:
        """Logs to which more will be written, whose names begin so."""
        return [name for name in self._live if name.startswith(prefix)]

    def append(self, name: str, data: bytes) -> None:
        """Write at the end, and wake followers."""
        with self._path(name).open("ab") as file:
            file.write(data)
        self._wake(name)

    def close(self, name: str) -> None:
        """Say that nothing more will be written; followers end."""
        self._live.discard(name)
        self._wake(name)
        self._changed.pop(name, None)

    def remove(self, name: str) -> None:
        """Forget it. What is not there is fine."""
        self.close(name)
        self._path(name).unlink(missing_ok=True)

    def _wake(self, name: str) -> None:
        if name in self._changed:
            self._changed.pop(name).set()

    async def read(
        self, name: str, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of the log from ``offset`` on, each with the offset after it.

        A piece ends at a line's end where it can. With ``follow``, goes on until the log is closed.
        A negative offset leaves out all but so many bytes at the end, and a line that is cut.
        """
        if offset < 0:
            offset = await asyncio.to_thread(self._from_end, name, -offset)
        while True:
            changed = self._changed[name] if name in self._live else None
            piece = await asyncio.to_thread(self._piece, name, offset)
            if piece:
                offset += len(piece)
                yield offset, piece
            elif follow and changed is not None:
                await changed.wait()
            else:
                return

    def _from_end(self, name: str, size: int) -> int:
        """Return where the first whole line of the last ``size`` bytes begins."""
        start = self.size(name) - size
        if start <= 0:
            return 0
        with self._path(name).open("rb") as file:
            file.seek(start)
            # Without any end of a line it begins in the middle of one.
            return start + file.read(CHUNK).find(b"\n") + 1

    def _piece(self, name: str, offset: int) -> bytes:
        try:
            with self._path(name).open("rb") as file:
                # The caller may name any number, also one that no file system can seek to.
                file.seek(min(offset, os.fstat(file.fileno()).st_size))
                piece = file.read(CHUNK)
        except FileNotFoundError:
            return b""
        end = piece.rfind(b"\n") + 1
        return piece[:end] if end and len(piece) == CHUNK else piece

    async def lines(self, name: str) -> list[str]:
        """All lines, without their time stamps."""
        text = await asyncio.to_thread(self._text, name)
        return [line.partition(" ")[2] for line in text.splitlines()]

    def _text(self, name: str) -> str:
        try:
            return self._path(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
