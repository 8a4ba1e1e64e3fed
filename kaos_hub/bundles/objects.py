"""Reading objects by digest, wherever they lie."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

from kaos_hub.bundles.tree import Hasher
from kaos_hub.errors import Damaged, KaosError, NotFound

ReadObject = Callable[[str], Path | Iterable[bytes]]
"""Gives the object of a digest: the file it lies in, or its bytes piece by piece.

It may raise :class:`~kaos_hub.errors.NotFound` at once or while it is read.
"""

CHUNK = 1 << 20
_AHEAD = 16
"""Objects that are asked for before their turn."""
_SMALL = 1 << 18
"""Bytes of an object that may wait in memory for its turn."""


@runtime_checkable
class Seekable(Protocol):
    """Bytes that need not be read from their beginning."""

    def after(self, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` on."""


def ahead(
    read: ReadObject, wanted: Iterable[tuple[str, int]]
) -> Generator[tuple[str, int, Path | Iterable[bytes]]]:
    """Objects one after the other, with digest and size. Small ones that lie in no file come while
    those before them are used: behind a network it is the waiting for each that takes time.

    Raises:
        NotFound: there is no such object.
    """
    rest, coming = (
        iter(wanted),
        deque[tuple[str, int, Path | Iterable[bytes] | Future[list[bytes]]]](),
    )
    try:
        while True:
            for digest, size in islice(rest, _AHEAD - len(coming)):
                source = read(digest)
                if size > _SMALL or isinstance(source, Path):
                    coming.append((digest, size, source))
                else:
                    coming.append((digest, size, _threads().submit(_all, source)))
            if not coming:
                return
            digest, size, found = coming.popleft()
            yield digest, size, found.result() if isinstance(found, Future) else found
    finally:
        for _, _, found in coming:
            if isinstance(found, Future):
                found.cancel()


def _all(source: Iterable[bytes]) -> list[bytes]:
    return list(source)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2 * _AHEAD, thread_name_prefix="kaos-ahead")


def stream(
    read: ReadObject, digest: str, size: int | None = None, chunk: int = CHUNK
) -> Iterator[bytes]:
    """The bytes of an object, verified; ``chunk`` bytes at a time if it lies in a file.

    The last piece is held back until the digest is known to be right, so a reader that gets all
    ``size`` bytes got the right ones.

    Raises:
        NotFound: there is no such object.
        Damaged: its bytes (or their number, if ``size`` is given) are not what they should be.
    """
    source = read(digest)
    pieces = _file(source, digest, chunk) if isinstance(source, Path) else source
    hasher = Hasher()
    held = b""
    for piece in pieces:
        hasher.update(piece)
        if size is not None and hasher.size > size:
            break
        if held:
            yield held
        held = piece
    if hasher.digest() != digest or size not in (None, hasher.size):
        raise Damaged(f"the store's object {digest} is damaged; an admin should check the store")
    if held:
        yield held


def _file(path: Path, digest: str, chunk: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(chunk):
                yield piece
    except FileNotFoundError:
        raise NotFound(f"there is no object {digest} in the store") from None


def whole(read: ReadObject, digest: str, limit: int) -> bytes:
    """The verified bytes of a small object.

    Raises:
        NotFound: there is no such object.
        Damaged: it is damaged.
        KaosError: it has more than ``limit`` bytes.
    """
    pieces = []
    room = limit
    for piece in stream(read, digest):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            raise KaosError(f"object {digest} is larger than {limit:,} bytes")
    return b"".join(pieces)
