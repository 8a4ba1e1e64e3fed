"""A tree as it is fetched over the wire: one listing of everything, and its files by number.

The listing has a line of JSON per entry, each folder before what is in it, else in the order of
names' bytes ::

    {"path":"model/train.py","kind":"file","size":210,"digest":"blake3:5d1c…"}

with ``target`` where it is a link. Sizes and digests are those of the tree's own text (of a folder:
its listing), so a client that knows the root's digest can check all of it. Files and executables
are numbered from 0 in that order.

Made for services that serve many trees: a hundred thousand entries take about ten megabytes, and
no object of Python's per entry stays behind.
"""

import contextlib
import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from kaos_hub.bundles import tree
from kaos_hub.bundles.objects import ReadObject, Seekable, ahead, stream, whole
from kaos_hub.errors import Damaged, NotFound, Unavailable
from kaos_hub.schemas import EntryKind

PIECE = 1 << 18
"""Bytes that are read and sent at once: small files are gathered up to it, large ones cut."""

_BLOCK = 1 << 18
_WRITE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_SMALL = 1 << 14
_REMEMBERED = 256
"""So many listings and link targets of at most :data:`_SMALL` bytes are kept in mind."""


@dataclass(frozen=True)
class Flat:
    """A tree in this form. Compressed, for it may be kept for a while."""

    blocks: tuple[bytes, ...]
    """The listing, piece by piece, each compressed."""
    length: int
    """Bytes of the listing, not compressed."""
    sizes: "array[int]"
    """Bytes of each file."""
    digests: bytes
    """The digests of all files, 32 bytes each."""

    @property
    def files(self) -> int:
        """The number of files, executables among them."""
        return len(self.sizes)

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes, more or less."""
        return sum(map(len, self.blocks)) + len(self.digests) + 8 * len(self.sizes)

    def listing(self) -> Iterator[bytes]:
        """The listing, piece by piece."""
        return map(zlib.decompress, self.blocks)

    def digest(self, number: int) -> str:
        """The digest of a file."""
        return f"blake3:{self.digests[32 * number : 32 * number + 32].hex()}"

    def content(self, read: ReadObject, first: int, end: int, offset: int = 0) -> Iterator[bytes]:
        """The bytes of the files ``first`` to ``end`` (that one excluded), one after the other.

        Each file's last bytes come only once all of it was found right. ``offset`` leaves out so
        many bytes of the first file, which is then not checked.

        Raises:
            Damaged: an object is not in the store, or not what it should be.
            Unavailable: the store cannot be read now.
        """
        with _store_errors():
            gathered: list[bytes] = []
            room = PIECE
            wanted = ((self.digest(n), self.sizes[n]) for n in range(first, end))
            for digest, size, source in ahead(read, wanted):
                for piece in _content(source, digest, size, offset):
                    gathered.append(piece)
                    room -= len(piece)
                    if room <= 0:
                        yield b"".join(gathered)
                        gathered, room = [], PIECE
                offset = 0
            if gathered:
                yield b"".join(gathered)


def _content(
    source: Path | Iterable[bytes], digest: str, size: int, offset: int
) -> Iterable[bytes]:
    """The pieces of a file, from ``offset`` on."""
    if offset:
        return _rest(source, digest, size, offset)
    if size > PIECE:
        return stream(lambda _: source, digest, size, PIECE)
    return (_one_piece(source, digest, size),) if size else ()


def flatten(root: str, read: ReadObject) -> Flat:
    """Read the listings and link targets of a tree that was checked when it was taken in.

    Raises:
        Damaged: an object is not in the store, or not what it should be.
        InvalidBundle: the digest is not that of a tree.
    """
    small = _Small(read)
    blocks: list[bytes] = []
    lines: list[str] = []
    sizes, digests, length, room = array("Q"), bytearray(), 0, _BLOCK
    for path, kind, digest, size in _entries(root, small):
        said: dict[str, str | int] = {"path": path, "kind": kind, "size": size, "digest": digest}
        if kind is EntryKind.LINK:
            said["target"] = small.get(digest).decode()
        elif kind is not EntryKind.DIRECTORY:
            sizes.append(size)
            digests += bytes.fromhex(digest[-64:])
        lines.append(_WRITE(said))
        room -= len(lines[-1])
        if room <= 0:
            length += _keep(lines, blocks)
            room = _BLOCK
    length += _keep(lines, blocks)
    return Flat(tuple(blocks), length, sizes, bytes(digests))


def _keep(lines: list[str], blocks: list[bytes]) -> int:
    """Compress what was gathered; how many bytes that was."""
    text = "".join(f"{line}\n" for line in lines).encode()
    lines.clear()
    if text:
        blocks.append(zlib.compress(text, 1))
    return len(text)


def _entries(root: str, small: "_Small") -> Iterator[tuple[str, EntryKind, str, int]]:
    above = [("", tree.lines(small.get(root)))]
    while above:
        where, entries = above[-1]
        entry = next(entries, None)
        if entry is None:
            above.pop()
            continue
        kind, digest, size, name = entry
        path = tree.join(where, name)
        yield path, kind, digest, size
        if kind is EntryKind.DIRECTORY:
            above.append((path, tree.lines(small.get(digest))))


class _Small:
    """Reads listings and link targets; what stands in a tree many times is read once."""

    def __init__(self, read: ReadObject) -> None:
        self._read = read
        self._kept: dict[str, bytes] = {}

    def get(self, digest: str) -> bytes:
        found = self._kept.get(digest)
        if found is None:
            with _store_errors():
                found = whole(self._read, digest, tree.MAX_NODE)
            if len(self._kept) >= _REMEMBERED:
                self._kept.clear()
            if len(found) <= _SMALL:
                self._kept[digest] = found
        return found


def _one_piece(source: Path | Iterable[bytes], digest: str, size: int) -> bytes:
    """A small file: the same as a stream of one piece, in a third of the time."""
    if not isinstance(source, Path):
        return b"".join(stream(lambda _: source, digest, size))
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)
    if len(data) != size or blake3(data).hexdigest() != digest[-64:]:
        raise Damaged(f"the store's object {digest} is damaged; an admin should check the store")
    return data


def _rest(source: Path | Iterable[bytes], digest: str, size: int, offset: int) -> Iterator[bytes]:
    """A file without its first bytes, as it lies in the store."""
    left = size - offset
    for piece in _file(source, offset) if isinstance(source, Path) else _after(source, offset):
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            break
    if left:
        raise Damaged(f"the store's object {digest} is damaged; an admin should check the store")


def _file(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(PIECE):
            yield piece


def _after(source: Iterable[bytes], offset: int) -> Iterator[bytes]:
    """The bytes from ``offset`` on, as directly as the store can."""
    if isinstance(source, Seekable):
        yield from source.after(offset)
        return
    for piece in source:
        yield piece[offset:]
        offset = max(0, offset - len(piece))


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except NotFound as e:
        raise Damaged(f"{e.message}; an admin should check the store") from None
    except FileNotFoundError as e:
        raise Damaged(f"{e.filename} is missing; an admin should check the store") from None
    except OSError as e:
        raise Unavailable(f"the store cannot be read: {e.strerror}") from None
