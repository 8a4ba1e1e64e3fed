"""A container's output as one stream of stamped lines that never changes once seen."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kaos_hub.util.log_lines import broken, clean

if TYPE_CHECKING:
    from docker import DockerClient

_QUEUE = 64
_BATCH = 1 << 16


def stamped(frames: Iterable[bytes], cap: int) -> Iterator[bytes]:
    """Lines from the Engine's frames: each is a message with the time at which the Engine got it.

    Only what the Engine stores goes in, never when or how often it is read: so an offset into the
    result means the same to every reader. It ends after ``cap`` bytes.
    """
    total = 0
    for frame in frames:
        when, _, text = frame.partition(b" ")
        # Nanoseconds there, microseconds here.
        prefix = when[:26] + b"Z "
        states = [s for s in text.rstrip(b"\n").split(b"\r") if s]
        pieces = broken(states[-1] if states else b"")
        lines = b"".join(prefix + clean(piece) + b"\n" for piece in pieces)
        total += len(lines)
        if total > cap:
            note = f"The log ends here: it has reached its limit of {cap} bytes."
            yield prefix + note.encode() + b"\n"
            return
        yield lines


def _read(client: "DockerClient", container: str, cap: int, follow: bool) -> tuple[Any, Any]:
    """The stream of frames (to be closed) and the lines in it."""
    frames = client.api.logs(
        container, stdout=True, stderr=True, stream=True, follow=follow, timestamps=True
    )
    return frames, stamped(frames, cap)


class Follower:
    """Reads a container's log in a thread of its own, as far ahead as its reader allows."""

    def __init__(self, client: "DockerClient", container: str, offset: int, cap: int) -> None:
        self._client = client
        self._container = container
        self._skip = offset
        self._cap = cap
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_QUEUE)
        self._stopped = threading.Event()
        self._frames: Any = None

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines from the offset on, until the container has ended."""
        thread = threading.Thread(target=self._run, name="kaos-docker-log", daemon=True)
        thread.start()
        try:
            while (piece := await self._queue.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self._stopped.set()
            if self._frames is not None:
                self._frames.close()

    def _run(self) -> None:
        try:
            done = self._copy(follow=True, skip=self._skip)
            # Following may end before the last lines are on the Engine's disk: look once more.
            self._copy(follow=False, skip=done)
            self._put(None)
        except Exception as e:
            # whatever it is, it is the reader's to hear
            self._put(e)

    def _copy(self, follow: bool, skip: int) -> int:
        """Hand over the lines after ``skip`` bytes; how many bytes have been seen in all."""
        seen, batch = 0, b""
        self._frames, lines = _read(self._client, self._container, self._cap, follow)
        for line in lines:
            seen += len(line)
            new = line[max(0, len(line) - (seen - skip)) :] if seen > skip else b""
            if follow:
                self._put(new)
            else:
                batch += new
            if len(batch) > _BATCH:
                self._put(batch)
                batch = b""
        self._put(batch)
        return max(seen, skip)

    def _put(self, piece: bytes | BaseException | None) -> None:
        if piece == b"" or self._stopped.is_set():
            return
        # Its loop may be closed by now; then there is no reader.
        try:
            waiting = asyncio.run_coroutine_threadsafe(self._queue.put(piece), self._loop)
        except RuntimeError:
            return
        while not self._stopped.is_set():
            try:
                waiting.result(0.5)
                return
            except TimeoutError:
                continue
