"""The files of a tree, fetched over several connections at once and written where they belong."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from kaos_hub.transport.fetch import FetchError, Patience, Source, Trouble, Wire
from kaos_hub.workload.fetch.listing import Entry

FILE, EXECUTABLE, FOLDER = 0o444, 0o555, 0o555

_CHUNK = 1 << 18
_WHOLE = 1 << 16
"""Bytes up to which a file is held before it is written. Of a larger one what has come is kept when
the connection breaks; the service checks files of this size before it sends any of it."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


if TYPE_CHECKING:
    from http.client import HTTPResponse

    Body = io.BufferedReader[HTTPResponse]


class Progress:
    """Prints a line whenever a further per cent is done.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, -1
        self._lock = threading.Lock()
        self.add(0)

    def add(self, more: int) -> None:
        """Note that so many bytes more are done."""
        with self._lock:
            self._done += more
            percent = self._done * 100 // self._total if self._total else 100
            if percent > self._shown:
                self._shown = percent
                print(f"{percent}% {self._done:,} of {self._total:,} bytes", flush=True)


class Files:
    """Takes ranges of files, and has them written. Holds only a few ranges at a time.

    Args:
        source: where from.
        digest: of the tree.
        folder: descriptor of the folder to write to, in which their folders are.
        jobs: connections at once.
        progress: told of the bytes written.
    """

    def __init__(
        self, source: Source, digest: str, folder: int, jobs: int, progress: Progress
    ) -> None:
        self._source, self._digest, self._folder = source, digest, folder
        self._progress = progress
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="fetch")
        self._slots = threading.Semaphore(2 * jobs)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._wires: list[Wire] = []
        self._idle: list[Wire] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        if e is not None:
            self._fail(e)
        self._threads.shutdown()
        for wire in self._wires:
            wire.close()

    def add(self, first: int, entries: Sequence[Entry]) -> None:
        """Fetch files; waits while enough others are under way.

        Args:
            first: the number of the first.
            entries: they, in order; their folders are there.

        Raises:
            FetchError: one, of these or of earlier ones, cannot be had.
            OSError: one cannot be written.
        """
        self._slots.acquire()
        self._check()
        self._threads.submit(self._run, first, entries)

    def finish(self) -> None:
        """Wait for all; raises as :meth:`add`."""
        for _ in range(2 * self._jobs):
            self._slots.acquire()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, first: int, entries: Sequence[Entry]) -> None:
        try:
            if not self._stop.is_set():
                self._fetch(first, entries)
        except BaseException as e:  # whatever it is, the main thread must hear of it
            self._fail(e)
        finally:
            self._slots.release()

    def _fetch(self, first: int, entries: Sequence[Entry]) -> None:
        with self._lock:
            wire = self._idle.pop() if self._idle else None
        if wire is None:
            wire = Wire(self._source)
            self._wires.append(wire)
        with contextlib.closing(_Range(self._folder, first, entries)) as todo:
            patience = Patience(self._stop)
            while not todo.done:
                try:
                    for size in todo.ask(wire, self._digest):
                        patience.progress()
                        self._progress.add(size)
                        if self._stop.is_set():
                            return
                except Trouble as e:
                    wire.close()
                    patience.wait(e)
        self._idle.append(wire)

    def _fail(self, e: BaseException) -> None:
        """Let all others end, too. What they say of that does not count."""
        with self._lock:
            self._error = self._error or e
        self._stop.set()
        for wire in list(self._wires):
            wire.abort()


@dataclass
class _Large:
    """A large file that is being written."""

    descriptor: int
    written: int = 0
    hash: "blake3" = field(default_factory=blake3)


class _Range:
    """Files that are asked for at once. After trouble it goes on where it was."""

    def __init__(self, folder: int, first: int, entries: Sequence[Entry]) -> None:
        self._folder, self._first, self._entries = folder, first, entries
        self._at = 0
        self._large: _Large | None = None
        self._garbled = -1

    @property
    def done(self) -> bool:
        """True if all are written."""
        return self._at == len(self._entries)

    def ask(self, wire: Wire, digest: str) -> Iterator[int]:
        """Ask for what is left, and write it; yields the bytes of each piece written.

        Raises:
            Trouble: the connection broke, or the service cannot answer now.
            FetchError: the service refuses, or sends the wrong content again and again.
            OSError: a file cannot be written.
        """
        offset = self._large.written if self._large else 0
        first, end = self._first + self._at, self._first + len(self._entries)
        answer = wire.get(f"{digest}/files?from={first}&to={end}&offset={offset}")
        if answer.length != sum(entry.size for entry in self._entries[self._at :]) - offset:
            raise Trouble("an answer of the wrong length")
        body = io.BufferedReader(answer, _CHUNK)
        while not self.done:
            entry = self._entries[self._at]
            if entry.size > _WHOLE:
                yield from self._write_large(entry, body)
            else:
                self._write_whole(entry, body)
                yield entry.size
            self._at += 1

    def close(self) -> None:
        """Let go of what is half written."""
        if self._large is not None:
            os.close(self._large.descriptor)
            self._large = None

    def _write_whole(self, entry: Entry, body: "Body") -> None:
        data = _read(body, entry.size)
        if blake3(data).hexdigest() != entry.digest:
            self._refuse(entry)
        descriptor = self._create(entry)
        try:
            _write(descriptor, data)
        finally:
            os.close(descriptor)

    def _write_large(self, entry: Entry, body: "Body") -> Iterator[int]:
        large = self._large = self._large or _Large(self._create(entry))
        while large.written < entry.size:
            data = _read(body, min(_CHUNK, entry.size - large.written))
            large.hash.update(data)
            _write(large.descriptor, data)
            large.written += len(data)
            yield len(data)
        if large.hash.hexdigest() != entry.digest:
            yield -large.written
            os.ftruncate(large.descriptor, 0)
            os.lseek(large.descriptor, 0, os.SEEK_SET)
            large.hash, large.written = blake3(), 0
            self._refuse(entry)
        self.close()

    def _create(self, entry: Entry) -> int:
        mode = EXECUTABLE if entry.kind == "x" else FILE
        try:
            return os.open(entry.path, _CREATE, mode, dir_fd=self._folder)
        except FileExistsError:
            raise FetchError(
                f"{entry.path!r} cannot be laid out: this file system takes it for another name"
                " beside it, which differs in case or accents"
            ) from None

    def _refuse(self, entry: Entry) -> None:
        """Refuse wrong content: once may be the wire's fault, twice in a row is the store's."""
        if self._garbled == self._at:
            raise FetchError(
                f"the content of {entry.path!r} arrives damaged; an admin should check the store"
            )
        self._garbled = self._at
        raise Trouble(f"the content of {entry.path!r} arrived damaged")


def _read(body: "Body", size: int) -> bytes:
    try:
        data = body.read(size)
    except (OSError, ValueError) as e:  # ValueError: closed by another thread
        raise Trouble(str(e) or type(e).__name__) from None
    if len(data) != size:
        raise Trouble("the connection broke")
    return data


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
