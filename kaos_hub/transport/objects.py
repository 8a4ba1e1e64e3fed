"""Sending a bundle's objects: many small ones in one request, large ones alone, a few at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

from kaos_hub.bundles.scan import Scan
from kaos_hub.transport.http import Transport

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes to do."""

_CONNECTIONS = 4
_BATCH_BYTES = 8 << 20
_BATCH_OBJECTS = 2000


@dataclass(frozen=True)
class _Frame:
    digest: str
    size: int

    @property
    def head(self) -> bytes:
        return f"{self.digest.removeprefix('blake3:')} {self.size}\n".encode()


class _Stopped(Exception):
    """Another request failed, so this one need not go on."""


class Sender:
    """Sends some objects of a scan.

    Args:
        transport: to the service.
        scan: the folder they lie in; each file is checked again while it is read.
        progress: called as bytes go out, from several threads but never twice at a time.
    """

    def __init__(self, transport: Transport, scan: Scan, progress: Progress | None) -> None:
        self._transport = transport
        self._scan = scan
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._done = 0
        self._total = 0

    def send(self, digests: Iterable[str]) -> None:
        """Send these objects. What has arrived before a failure need not be sent again.

        Raises:
            InvalidBundle: a file has changed since it was scanned; names it.
            KaosError: what the service says.
            Unavailable: the connection broke.
        """
        sizes = self._scan.objects
        frames = [_Frame(digest, sizes[digest]) for digest in digests]
        self._total = sum(frame.size for frame in frames)
        pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="kaos-send")
        try:
            futures = [pool.submit(self._request, batch) for batch in _batches(frames)]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            errors = [e for future in done if (e := future.exception())]
            if errors:
                # The one that failed first, not those that were stopped because of it.
                raise next((e for e in errors if not isinstance(e, _Stopped)), errors[0])
        finally:
            # Also on Ctrl-C: requests under way end at their next piece.
            self._stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _request(self, batch: list[_Frame]) -> None:
        size = sum(len(frame.head) + frame.size for frame in batch)
        counted = 0

        def count(size: int) -> None:
            nonlocal counted
            counted += size
            self._count(size)

        def body() -> Iterator[bytes]:
            # What was refused, and is sent again, does not count twice.
            count(-counted)
            return self._body(batch, count)

        self._transport.upload("/api/v1/objects", body, size)

    def _body(self, batch: list[_Frame], count: Callable[[int], None]) -> Iterator[bytes]:
        small = bytearray()
        for frame in batch:
            small += frame.head
            for piece in self._scan.read(frame.digest):
                if self._stopped.is_set():
                    raise _Stopped
                small += piece
                # A packet per small file would cost more than the file.
                if len(small) >= 1 << 18:
                    yield bytes(small)
                    small.clear()
                count(len(piece))
        yield bytes(small)

    def _count(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._progress:
                self._progress(self._done, self._total)


def _batches(frames: list[_Frame]) -> Iterator[list[_Frame]]:
    """Requests of some size: the largest objects first, so that no large one is left to the end."""
    batch: list[_Frame] = []
    size = 0
    for frame in sorted(frames, key=lambda f: f.size, reverse=True):
        if batch and (size + frame.size > _BATCH_BYTES or len(batch) == _BATCH_OBJECTS):
            yield batch
            batch, size = [], 0
        batch.append(frame)
        size += frame.size
    if batch:
        yield batch
