"""A tree ⇄ a tar stream.

The stream is made from the store without a temporary file, and the same tree always makes the
same bytes. Unpacking believes nothing: only files, folders and links that stay inside, each name
new, and the folder appears whole or not at all.
"""

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import Limits, Meter, refuse, shown
from kaos_hub.bundles.links import check_links
from kaos_hub.bundles.objects import ReadObject, ahead, stream
from kaos_hub.bundles.walk import DEFAULT_LIMITS, Item, load
from kaos_hub.errors import InvalidBundle, KaosError
from kaos_hub.schemas import EntryKind

if TYPE_CHECKING:
    from _typeshed import SupportsRead, WriteableBuffer

    Readable = SupportsRead[bytes]

CHUNK = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)
_TYPES = {EntryKind.DIRECTORY: tarfile.DIRTYPE, EntryKind.LINK: tarfile.SYMTYPE}
_MODES = {EntryKind.DIRECTORY: 0o755, EntryKind.EXECUTABLE: 0o755, EntryKind.LINK: 0o777}


def write_tar(root: str, read: ReadObject, limits: Limits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The tree ``root`` as an uncompressed tar (pax), piece by piece: same tree, same bytes.

    All listings are read before the first byte, so a broken tree gives an error and not half an
    archive. Times are 0, owners root, files writable by the user who unpacks them.

    Raises:
        InvalidBundle: the tree breaks a rule of bundles.
        NotFound: an object is not in the store.
        KaosError: an object is damaged; the archive then ends too early to be taken for complete.
    """
    items = load(root, read, limits).items
    return _archive(items, read)


def _archive(items: tuple[Item, ...], read: ReadObject) -> Iterator[bytes]:
    files = (item.entry for item in items if _header(item).size)
    with contextlib.closing(ahead(read, ((e.digest, e.size) for e in files))) as contents:
        yield from _members(items, contents)
    yield _END


def _members(
    items: tuple[Item, ...], contents: Iterator[tuple[str, int, Path | Iterable[bytes]]]
) -> Iterator[bytes]:
    for item in items:
        header = _header(item)
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        if header.size:
            digest, size, source = next(contents)
            yield from stream(partial(_given, source), digest, size)
            if filling := -header.size % tarfile.BLOCKSIZE:
                yield bytes(filling)  # never no bytes: to a reader, those are the end


def _given(source: Path | Iterable[bytes], _digest: str) -> Path | Iterable[bytes]:
    return source


def _header(item: Item) -> tarfile.TarInfo:
    kind = item.entry.kind
    header = tarfile.TarInfo(item.path)
    header.type = _TYPES.get(kind, tarfile.REGTYPE)
    header.mode = _MODES.get(kind, 0o644)
    header.linkname = item.target or ""
    header.size = item.entry.size if header.type == tarfile.REGTYPE else 0
    return header


def unpack_tar(archive: IO[bytes], target: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack a tar stream (not compressed) to ``target``, which is absent or an empty folder.

    Raises:
        InvalidBundle: the archive is no tar, is cut off, or holds what no bundle may hold; names
            the entry. Nothing is left.
        KaosError: the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            whole = Whole(archive)
            with tarfile.open(fileobj=whole, mode="r|") as members:
                Unpacking(partial, limits).all(members)
                whole.check(members.offset)
            partial.chmod(0o755)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except tarfile.TarError as error:
        raise InvalidBundle(f"the archive cannot be read: {error}") from None
    except OSError as error:
        raise KaosError(f"{shown(str(target))} cannot be written: {error.strerror}") from None


class Whole(io.RawIOBase):
    """Reads an archive and knows where its last byte that is not zero stood.

    tarfile takes an archive that is cut off or garbled between two entries for a complete one.
    """

    def __init__(self, archive: "Readable") -> None:
        self.archive = archive
        self.size = 0
        self.filled = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self.archive.read(len(view))
        view[: len(data)] = data
        if filled := len(data.rstrip(b"\0")):
            self.filled = self.size + filled
        self.size += len(data)
        return len(data)

    def check(self, end: int) -> None:
        """Check that nothing but the end marker follows the entries, which end at ``end``."""
        while self.read(CHUNK):
            pass
        if self.filled > end or self.size < end + len(_END):
            raise InvalidBundle("the archive is cut off or damaged")


class Unpacking:
    """Fills one fresh folder. Links are made last, so nothing can be written through one.

    Args:
        folder: which.
        limits: how much it may become.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.meter = Meter(limits)
        self.folders = {""}
        self.links: dict[str, str] = {}

    def all(self, members: tarfile.TarFile) -> None:
        """Unpack all of a tar.

        Raises:
            InvalidBundle: it holds what no bundle may hold; names the entry.
        """
        for member in members:
            path = checked_path(member.name, member.isdir())
            if path:
                self.member(members, member, path)
            # It would remember every entry for good.
            members.members.clear()  # type: ignore[attr-defined]
        self.finish()

    def finish(self) -> None:
        """Make the links, when all entries have come."""
        check_links(self.links)
        for path, target in self.links.items():
            with _taken(path):
                (self.folder / path).symlink_to(target)

    def member(self, members: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        """Unpack an entry of a tar."""
        if member.isdir():
            self.directory(path)
        elif member.issym():
            self.link(path, member.linkname.encode(errors="surrogateescape"))
        elif member.isreg() and not member.issparse():
            content = members.extractfile(member)
            self.file(path, member.size, bool(member.mode & 0o100), content)
        else:
            raise refuse(path, "is neither file, folder nor symbolic link")

    def directory(self, path: str) -> None:
        """Make a folder, unless it was made for what is in it."""
        self._enter(path)
        self._make_folder(path)

    def link(self, path: str, target: bytes) -> None:
        """Note a symbolic link, which :meth:`finish` makes."""
        self._enter(path)
        if path in self.links:
            raise refuse(path, "stands twice in the archive")
        self.links[path] = tree.check_target(target, path)

    def file(self, path: str, size: int, executable: bool, content: IO[bytes] | None) -> None:
        """Write a file of exactly ``size`` bytes."""
        self._enter(path)
        self.meter.file(path, size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _taken(path):
            descriptor = os.open(self.folder / path, flags, 0o755 if executable else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            while content is not None and (piece := content.read(CHUNK)):
                file.write(piece)
            written = file.tell()
        if written != size:
            raise refuse(path, "is cut off: the archive ends too early")

    def _enter(self, path: str) -> None:
        self.meter.entry(path)
        self._make_folder(path.rpartition("/")[0])

    def _make_folder(self, path: str) -> None:
        if path in self.folders:
            return
        self._make_folder(path.rpartition("/")[0])
        with _taken(path):
            (self.folder / path).mkdir(0o755)
        self.folders.add(path)


def checked_path(name: str, is_folder: bool) -> str:
    """The path of an entry of an archive; empty for the folder itself.

    Raises:
        InvalidBundle: no bundle may hold it.
    """
    path = name.removeprefix("./").rstrip("/")
    if is_folder and path in ("", "."):
        return ""
    for part in path.split("/"):
        try:
            tree.check_name(part.encode(errors="surrogateescape"))
        except InvalidBundle:
            raise refuse(name, "has a path that no bundle may hold") from None
    return path


@contextlib.contextmanager
def _taken(path: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise refuse(
            path,
            "stands twice in the archive, or this file system takes it for another name beside it"
            " (macOS and Windows: names that differ in case or accents)",
        ) from None
