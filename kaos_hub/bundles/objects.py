"""Reading objects by digest, wherever they lie."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from kaos_hub.bundles.tree import Hasher
from kaos_hub.errors import Damaged, KaosError, NotFound

ReadObject = Callable[[str], Path | Iterable[bytes]]
"""Gives the object of a digest: the file it lies in, or its bytes piece by piece.

It may raise :class:`~kaos_hub.errors.NotFound` at once or while it is read.
"""

CHUNK = 1 << 20


@runtime_checkable
class Seekable(Protocol):
    """Bytes that need not be read from their beginning."""

    def after(self, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` on."""


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
