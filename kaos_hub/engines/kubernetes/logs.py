"""A pod's output as one stream of stamped lines: all its containers, one after the other."""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kaos_hub.engines.kubernetes.api import Api, answering
from kaos_hub.engines.kubernetes.watch import hang_up, lines
from kaos_hub.errors import EngineUnavailable, KaosError
from kaos_hub.util.log_lines import broken, clean

_QUEUE = 64
_PIECE = 8 << 10
"""Lines from here on may be of several pieces."""
_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"
_STAMP = re.compile(rb"(" + _TIME + rb") ?")
_BETWEEN = re.compile(rb"(?<=.{4096})" + _TIME + rb" ", re.DOTALL)


def stamped(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Our lines from those of the API: each begins with the time at which the node got it.

    Only what the node keeps goes in, never when or how often it is read: so an offset into the
    result means the same to every reader.
    """
    for line in raw:
        match = _STAMP.match(line)
        if match is None:
            # Not of the workload: "unable to retrieve container logs", say.
            continue
        text = line[match.end() :].rstrip(b"\n")
        if len(text) > _PIECE:
            # Older nodes stamp every piece of a long line, in the middle of it.
            text = _BETWEEN.sub(b"", text)
        states = [s for s in text.split(b"\r") if s]
        prefix = _microseconds(match[1]) + b" "
        pieces = broken(states[-1] if states else b"")
        yield b"".join(prefix + clean(piece) + b"\n" for piece in pieces)


def _microseconds(time: bytes) -> bytes:
    """A time of whatever precision, UTC as nodes mostly have it, with exactly six digits."""
    whole, _, rest = time.partition(b".")
    digits = re.match(rb"\d*", rest)
    fraction = digits[0] if digits else b""
    return whole[:19] + b"." + fraction[:6].ljust(6, b"0") + b"Z"


@dataclass
class Progress:
    """The position of a reader in the stream."""

    skip: int
    """Bytes that it has already."""
    cap: int
    """Bytes after which the stream ends."""
    base: int = 0
    """Bytes of the containers before this one."""
    seen: int = 0
    """Bytes of this container that were handed over or skipped."""

    @property
    def full(self) -> bool:
        return self.base + self.seen > self.cap

    def next(self) -> None:
        """Go on to the next container."""
        self.base, self.seen = self.base + self.seen, 0


class Reader:
    """Reads one container's output in a thread of its own, as far ahead as its reader allows.

    Args:
        api: the cluster.
        pod: the pod's name.
        container: the container's name.
        progress: how far the reader is; kept up to date.
    """

    def __init__(self, api: Api, pod: str, container: str, progress: Progress) -> None:
        self._api, self._pod, self._container = api, pod, container
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_QUEUE)
        self._stopped = threading.Event()
        self._stream: Any = None

    async def read(self, follow: bool) -> AsyncGenerator[bytes, None]:
        """The lines that the reader does not have yet.

        Raises:
            KaosError: the cluster does not answer, or has no such output.
        """
        thread = threading.Thread(
            target=self._run, args=(follow,), name="kaos-pod-log", daemon=True
        )
        thread.start()
        try:
            while (piece := await self._queue.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self._stopped.set()
            hang_up(self._stream)

    def _run(self, follow: bool) -> None:
        try:
            with answering():
                self._copy(follow)
            self._put(None)
        except KaosError as e:
            self._put(e)
        except Exception as e:
            # the other side hung up in the middle, or we did
            self._put(EngineUnavailable(f"reading a log broke off: {e}"))

    def _copy(self, follow: bool) -> None:
        position = 0
        self._stream = self._api.log(self._pod, self._container, follow)
        try:
            for batch in lines(self._stream):
                ours = list(stamped(batch))
                self._put(b"".join(self._new(ours, position)))
                position += sum(map(len, ours))
                if self._stopped.is_set() or self._progress.full:
                    break
        finally:
            self._stream.release_conn()

    def _new(self, batch: list[bytes], position: int) -> Iterator[bytes]:
        """Of a batch that begins at ``position`` what the reader does not have."""
        progress = self._progress
        for text in batch:
            have, position = progress.skip - progress.base - position, position + len(text)
            if position <= progress.seen or progress.full:
                continue
            progress.seen = position
            if progress.full:
                text = _end(text, progress.cap)
            yield text[max(0, have) :]

    def _put(self, piece: bytes | BaseException | None) -> None:
        if piece == b"" or self._stopped.is_set():
            return
        # Its loop may be closed by now; then there is no reader.
        with contextlib.suppress(RuntimeError):
            waiting = asyncio.run_coroutine_threadsafe(self._queue.put(piece), self._loop)
            while not self._stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    waiting.result(0.5)
                    return


def _end(line: bytes, cap: int) -> bytes:
    note = f"The log ends here: it has reached its limit of {cap} bytes."
    return line[:28] + note.encode() + b"\n"
