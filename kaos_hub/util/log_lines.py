"""Turning what a workload prints into stamped lines. Needs only the standard library.

A log is a stream of lines ``2026-01-31T12:00:00.123456Z text\\n``: invalid UTF-8 and NUL are
replaced, lines over 16 KiB broken, and of a progress bar that redraws itself with carriage returns
at most one state per second is kept, and its last.
"""

import os
from datetime import UTC, datetime

LINE = 16 * 1024
"""Longest line, in bytes of what the workload printed."""

_CAPPED = "The log ends here: it has reached its limit of {} bytes. The work itself goes on."


def stamp(when: float) -> bytes:
    """The prefix of a line written at ``when`` (seconds since the epoch)."""
    text = datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00").encode() + b"Z "


def clean(line: bytes) -> bytes:
    """The text of one line as it goes into a log: valid UTF-8, no NUL."""
    return line.decode(errors="replace").replace("\0", "\ufffd").encode()


def broken(line: bytes, limit: int = LINE) -> list[bytes]:
    """A line in pieces of at most ``limit`` bytes, never cut within a character."""
    pieces = []
    while len(line) > limit:
        cut = limit
        while cut > limit - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


class Stamper:
    """Makes stamped lines of raw output, as it comes."""

    def __init__(self, limit: int = LINE, progress: float = 1.0) -> None:
        self._limit = limit
        self._every = progress
        self._line = bytearray()
        self._redrawn: bytes | None = None  # what a carriage return is about to overwrite
        self._shown = 0.0
        self._out: list[bytes] = []
        self._stamp = b""

    def feed(self, data: bytes, now: float) -> bytes:
        """The lines that ``data``, read at ``now`` (seconds since the epoch), completes."""
        self._stamp = stamp(now)
        plain = b"\r" not in data and self._redrawn is None and b"\n" in data
        if plain and self._line:
            data, self._line = bytes(self._line) + data, bytearray()
        *lines, rest = data.split(b"\n")
        if plain and max(map(len, lines)) <= self._limit:
            # Ordinary output, a hundred times as fast: no line is looked at alone.
            whole = clean(b"\n".join(lines)).replace(b"\n", b"\n" + self._stamp)
            self._out.append(self._stamp + whole + b"\n")
            lines = []
        for line in lines:
            self._add(line, now)
            self._end()
        self._add(rest, now)
        return self._take()

    def finish(self, now: float) -> bytes:
        """Return what is left when no more output comes."""
        self._stamp = stamp(now)
        if self._line or self._redrawn:
            self._end()
        return self._take()

    def _take(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _add(self, text: bytes, now: float) -> None:
        if b"\r" in text:
            *states, text = text.split(b"\r")
            for state in states:
                self._line += state
                self._redraw(now)
        self._line += text
        if len(self._line) > self._limit:
            *full, rest = broken(bytes(self._line), self._limit)
            for piece in full:
                self._emit(piece)
            self._line = bytearray(rest)

    def _redraw(self, now: float) -> None:
        if not self._line:
            return
        self._redrawn, self._line = bytes(self._line), bytearray()
        if now - self._shown >= self._every:
            self._shown = now
            self._emit(self._redrawn)
            self._redrawn = b""

    def _end(self) -> None:
        if self._line or self._redrawn is None:
            self._emit(bytes(self._line))
        elif self._redrawn:
            self._emit(self._redrawn)
        self._line, self._redrawn = bytearray(), None

    def _emit(self, line: bytes) -> None:
        for piece in broken(line, self._limit):
            self._out.append(self._stamp + clean(piece) + b"\n")


class CappedLog:
    """A log file that never grows beyond ``cap`` bytes (but for one last line saying so).

    A full disk ends the log, not the work.
    """

    def __init__(self, path: str | os.PathLike[str], cap: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._left = cap
        self._cap = cap

    def write(self, lines: bytes, now: float) -> None:
        """Append whole lines; silently drops them once the log is full."""
        if self._left < 0 or not lines:
            return
        if len(lines) > self._left:
            lines = lines[: lines.rfind(b"\n", 0, self._left) + 1]
            lines += stamp(now) + _CAPPED.format(self._cap).encode() + b"\n"
            self._left = -1
        else:
            self._left -= len(lines)
        self._append(lines)

    def _append(self, lines: bytes) -> None:
        while lines:
            try:
                lines = lines[os.write(self._file, lines) :]
            except OSError:
                self._left = -1
                return
