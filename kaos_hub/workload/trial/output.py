"""The output of a trial: stamped, kept up to a limit, and its last bytes."""

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

from kaos_hub.schemas import LogAnswer
from kaos_hub.transport.worker import Link
from kaos_hub.util.log_lines import Stamper, stamp

TAIL = 1 << 16
"""Bytes of the end of the output that are remembered, to say why a trial failed."""
_SPARE = 1 << 20
"""Bytes of the log that are held in memory where the disk is full."""
_PIECE = 1 << 20
"""Bytes of the log that are sent at once."""


class Log:
    """A trial's log, in a file that has no name: no other process can change it.

    Args:
        folder: where the file lies.
        limit: bytes that it may have.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._stamper = Stamper()
        self._file = -1
        self._full = False
        self._tail = b""
        self._on_disk = 0
        self._spare = bytearray()
        self.size = 0
        """Bytes so far."""

    def feed(self, data: bytes) -> None:
        """Take what the trial has printed."""
        self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]
        # Nothing is kept beyond the limit: then it costs nothing to print, however much.
        if not self._full:
            now = time.time()
            self._add(self._stamper.feed(data, now), now)

    def finish(self) -> None:
        """Take the end of the output: the trial prints no more."""
        now = time.time()
        self._add(self._stamper.finish(now), now)

    def say(self, text: str) -> None:
        """Add a line of our own."""
        now = time.time()
        self._add(stamp(now) + f"kaos: {text}\n".encode(), now)

    def tail(self) -> str:
        """The last that was printed, as it was."""
        return self._tail.decode(errors="replace")

    def _add(self, lines: bytes, now: float) -> None:
        if self._full or not lines:
            return
        if self.size + len(lines) > self._limit:
            self._full = True
            lines = lines[: lines.rfind(b"\n", 0, max(0, self._limit - self.size)) + 1]
            text = f"kaos: the log ends here, at its limit of {self._limit:,} bytes"
            lines += stamp(now) + text.encode() + b"; the trial goes on\n"
        self._keep(lines, now)

    def _keep(self, lines: bytes, now: float) -> None:
        try:
            while lines and not self._spare:
                if self._file < 0:
                    self._file = _nameless(self._folder)
                written = os.write(self._file, lines)
                self._on_disk += written
                self.size += written
                lines = lines[written:]
        except OSError:
            # A full disk must not hide what a trial says of it; but memory is not for much.
            pass
        if lines and len(self._spare) + len(lines) > _SPARE:
            self._full = True
            lines = stamp(now) + b"kaos: the log ends here, for want of disk; the trial goes on\n"
        self._spare += lines
        self.size += len(lines)

    def read(self, offset: int) -> bytes:
        """A piece of the log."""
        if offset < self._on_disk:
            return os.pread(self._file, min(_PIECE, self._on_disk - offset), offset)
        return bytes(self._spare[offset - self._on_disk :])

    def close(self) -> None:
        """Forget it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _nameless(folder: Path) -> int:
    with contextlib.suppress(OSError, AttributeError):
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    # A file system that has no such files; or there is no folder any more.
    with tempfile.TemporaryFile(dir=folder if folder.is_dir() else None) as file:
        return os.dup(file.fileno())


class LogSender:
    """Sends a log as it grows; the service says what it has.

    Args:
        log: to send.
        trial, attempt: whose it is.
    """

    def __init__(self, log: Log, trial: int, attempt: int) -> None:
        self._log = log
        self._path = f"log?trial={trial}&attempt={attempt}&offset="
        self._sent = 0
        self._idle = 0
        self._lock = threading.Lock()

    @property
    def behind(self) -> bool:
        """True if there is something to send."""
        return self._sent < self._log.size

    def send(self, link: Link) -> None:
        """Send what there is, once.

        Raises:
            Gone, Trouble, Refused: not all of it arrived.
        """
        with self._lock:
            while self.behind:
                piece = self._log.read(self._sent)
                answer = link.parse(
                    LogAnswer, link.post(f"{self._path}{self._sent}", piece, len(piece))
                )
                self._idle = 0 if answer.size > self._sent else self._idle + 1
                # It takes no more: its log is full, or has become another.
                full = self._idle > 2
                self._sent = self._log.size if full else min(answer.size, self._log.size)
