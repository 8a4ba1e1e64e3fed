"""A store in a folder: one file per object, for one machine or a shared volume.

    objects/ab/cdef…   an object, named by the hex of its digest; mode 0444, one inode per digest
    tmp/…              objects on their way in

An object appears by a rename, after its digest was checked and its bytes were synced: what stands
under ``objects`` is whole, whenever the machine died. What a dead process left in ``tmp`` goes
when the store is next opened and the file is a day old.
"""

import asyncio
import contextlib
import errno
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ClassVar, Self, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from kaos_hub.bundles.tree import Hasher, is_digest
from kaos_hub.errors import InvalidRequest, NotFound, StorageFull, Unavailable
from kaos_hub.stores.base import Store, Upload

T = TypeVar("T")

BUFFER = 1 << 20
"""Bytes gathered before a thread is asked to write: small objects cost one hop in all."""
STALE = 24 * 3600
"""Seconds after which an unfinished object is taken for abandoned. No upload pauses for a day."""
THREADS = 4
"""Enough to keep a disk busy while one thread waits for a sync."""


class FileStore(Store):
    """Objects as files in a folder."""

    name: ClassVar[str] = "file"

    def __init__(self, path: Path) -> None:
        """Open the store at ``path``, making it if there is none.

        Raises:
            Unavailable: the folder cannot be made or entered.
        """
        self.path = path.absolute()
        self._objects = self.path / "objects"
        self._incoming = self.path / "tmp"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kaos-store")
        with _system_errors(self.path):
            self._objects.mkdir(0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(0o700, exist_ok=True)

    @classmethod
    def from_url(cls, url: str, secrets: Path | None = None) -> Self:
        """Open the store of a ``file:///…`` URL.

        Raises:
            InvalidRequest: not such a URL.
        """
        parts = urlsplit(url)
        if parts.scheme != cls.name or parts.netloc or not parts.path.startswith("/"):
            raise InvalidRequest(
                f"{url!r} is no store's URL; one looks like file:///srv/kaos/store"
            )
        return cls(Path(unquote(parts.path)))

    @property
    def url(self) -> str:
        return self.path.as_uri()

    async def probe(self) -> None:
        def probe() -> None:
            with _system_errors(self.path), tempfile.TemporaryFile(dir=self._incoming) as file:
                file.write(b"Can this be written?")

        await self._run(probe)

    async def tidy(self) -> int:
        return await self._run(self._remove_stale)

    async def upload(self, digest: str, size: int) -> Upload:
        return _FileUpload(self._run, _Incoming(self._path(digest), self._incoming, digest, size))

    async def read(self, digest: str, chunk: int = BUFFER) -> AsyncIterator[bytes]:
        path = self._path(digest)
        file = await self._run(lambda: _open(path, digest))
        with file:
            left = os.fstat(file.fileno()).st_size
            while left > 0 and (data := await self._run(lambda: self._next(file, chunk))):
                left -= len(data)
                yield data

    def pieces(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        with _open(self._path(digest), digest) as file:
            file.seek(offset)
            while piece := self._next(file, BUFFER):
                yield piece

    async def size(self, digest: str) -> int | None:
        return await self._run(lambda: _size(self._path(digest)))

    def local_path(self, digest: str) -> Path:
        return self._path(digest)

    async def check(self, digest: str) -> bool:
        return await self._run(lambda: self._rehash(digest) == digest)

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise InvalidRequest(f"{digest!r} is no digest")
        hexadecimal = digest.removeprefix("blake3:")
        return self._objects / hexadecimal[:2] / hexadecimal[2:]

    def _next(self, file: BinaryIO, chunk: int) -> bytes:
        with _system_errors(self.path):
            return file.read(chunk)

    def _rehash(self, digest: str) -> str | None:
        hasher = Hasher()
        try:
            with self._path(digest).open("rb") as file:
                while piece := file.read(BUFFER):
                    hasher.update(piece)
        except OSError:  # absent, or the disk cannot give it back: either way it is not there
            return None
        return hasher.digest()

    def _remove_stale(self) -> int:
        stale = 0
        with _system_errors(self.path):
            for path in self._incoming.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - STALE:
                        path.unlink()
                        stale += 1
        return stale

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _FileUpload:
    """The loop's side of an object on its way in: gathers bytes, and lets a thread write them."""

    def __init__(
        self, run: Callable[[Callable[[], None]], Awaitable[None]], incoming: "_Incoming"
    ) -> None:
        self._run = run
        self._incoming = incoming
        self._pieces: list[bytes] = []
        self._gathered = 0

    async def write(self, data: bytes) -> None:
        self._pieces.append(bytes(data))
        self._gathered += len(data)
        self._incoming.expect(self._gathered)
        if self._gathered >= BUFFER:
            gathered = self._take()
            await self._run(lambda: self._incoming.write(gathered))

    async def finish(self) -> None:
        gathered = self._take()
        await self._run(lambda: self._incoming.finish(gathered))

    async def abort(self) -> None:
        self._take()
        await self._run(self._incoming.discard)

    def _take(self) -> bytes:
        gathered = b"".join(self._pieces)
        self._pieces.clear()
        self._gathered = 0
        return gathered


class _Incoming:
    """The thread's side. A lock, because an abort may come while a write is under way."""

    def __init__(self, path: Path, folder: Path, digest: str, size: int) -> None:
        self._path = path
        self._digest = digest
        self._size = size
        self._temporary = folder / uuid4().hex
        self._file: BinaryIO | None = None
        self._hasher = Hasher()
        self._lock = threading.Lock()
        self._ended = False

    def expect(self, more: int) -> None:
        """Refuse ``more`` bytes if they are too many."""
        if self._hasher.size + more > self._size:
            raise InvalidRequest(
                f"more bytes came for {self._digest} than the {self._size:,} announced"
            )

    def write(self, data: bytes) -> None:
        with self._lock, self._discarding():
            self._take(data)
            self._append(data)

    def finish(self, data: bytes) -> None:
        with self._lock, self._discarding():
            self._take(data)
            self._verify()
            if _size(self._path) == self._size:  # it was brought before
                self._discard()
                return
            self._append(data)
            self._keep()
            self._ended = True

    def discard(self) -> None:
        with self._lock:
            self._discard()

    def _take(self, data: bytes) -> None:
        if self._ended:
            raise InvalidRequest(f"the upload of {self._digest} has ended")
        self.expect(len(data))
        self._hasher.update(data)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._temporary.open("xb", buffering=0)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _verify(self) -> None:
        if self._hasher.size != self._size:
            raise InvalidRequest(
                f"{self._hasher.size:,} bytes came for {self._digest} instead of {self._size:,}"
            )
        if self._hasher.digest() != self._digest:
            raise InvalidRequest(
                f"the bytes sent as {self._digest} are {self._hasher.digest()}; send them again"
            )

    def _keep(self) -> None:
        """Make the object visible: bytes on disk first, then the name, then the folder."""
        assert self._file is not None
        os.fchmod(self._file.fileno(), 0o444)
        os.fsync(self._file.fileno())
        self._file.close()
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(0o700, exist_ok=True)
            _sync_folder(self._path.parent.parent)
        self._temporary.rename(self._path)
        _sync_folder(self._path.parent)

    def _discard(self) -> None:
        self._ended = True
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _discarding(self) -> Iterator[None]:
        """Whatever goes wrong, keep nothing of the object."""
        try:
            with _system_errors(self._path.parent.parent.parent):
                yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._discard()
            raise


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, digest: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no object {digest} in the store") from None


@contextlib.contextmanager
def _system_errors(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from None
        where = error.filename or store
        raise Unavailable(
            f"the store at {store} does not work: {where}: {error.strerror}"
        ) from None
