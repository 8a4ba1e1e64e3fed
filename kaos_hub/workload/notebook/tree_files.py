"""Files in a directory that a person changes at the same moment.

Every step goes from an open directory to a name in it, so no link is ever followed, wherever it
points. Nothing is overwritten unseen: what stands at a name is first taken aside, then compared
with what we believe it to be, and put back if it is anything else. Standard library only: it runs
in any container.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP, errno.ENOENT)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_NAME_MAX = 255


class Kind(StrEnum):
    """The kind of an entry."""

    FILE = "file"
    EXECUTABLE = "executable"
    LINK = "link"
    DIRECTORY = "directory"
    OTHER = "other"
    """Something we never lay and cannot compare: a socket, a file without permission to read."""


@dataclass(frozen=True)
class FileState:
    """An entry at a path: its kind and the SHA-256 (hex) of its content or link target."""

    kind: Kind
    digest: str = ""


DIRECTORY = FileState(Kind.DIRECTORY)


class Tree:
    """A directory, held open. Paths are relative to it, with ``/`` between names."""

    def __init__(self, root: Path) -> None:
        self._fd = os.open(root, _DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def scan(self) -> dict[str, FileState]:
        """Everything below, in the order of the paths.

        Raises:
            OSError: a directory cannot be read; half a listing would look like removed files.
        """
        found: dict[str, FileState] = {}
        for at, directories, files, fd in os.fwalk(dir_fd=self._fd, onerror=_raise):
            for name in (*directories, *files):
                entry = _entry(fd, name)
                if entry is not None:
                    found[os.path.normpath(f"{at}/{name}")] = entry
        return dict(sorted(found.items()))

    def look(self, path: str) -> FileState | None:
        """Return the entry at ``path``; None if there is none, or its parent is no directory."""
        with self._reach(path) as place:
            return _entry(*place) if place else None

    def kind(self, path: str) -> Kind | None:
        """The kind of what stands at ``path``, without reading it; None as in :meth:`look`."""
        with self._reach(path) as place:
            return _kind(*place) if place else None

    def make_directory(self, path: str) -> None:
        """Make a directory with its parents, mode 0755. One that is there stays as it is."""
        with self._parent(f"{path}/.", make=True):
            pass

    def remove_directory(self, path: str) -> bool:
        """Remove a directory if it is empty; whether it was."""
        with self._reach(path) as place:
            if place is None:
                return False
            try:
                os.rmdir(place[1], dir_fd=place[0])
            except OSError as e:
                if e.errno in (errno.ENOTEMPTY, errno.EEXIST, *_NOT_A_DIRECTORY):
                    return False
                raise
            return True

    def lay(
        self, path: str, source: "Tree", origin: str, replaces: FileState | None = None
    ) -> bool:
        """Copy file or link ``origin`` of ``source`` to ``path``, all at once.

        Args:
            replaces: what must stand there now; None is nothing.

        Returns:
            Whether it was laid. If not, something else stands there, untouched.

        Raises:
            OSError: no space, no permission…; what stood there is untouched.
        """
        with self._parent(path, make=True) as (fd, name):
            if _entry(fd, name) != replaces:
                return False
            new = _aside(name, "new")
            with source._parent(origin) as (source_fd, source_name):
                _copy(source_fd, source_name, fd, new)
            if replaces is None:
                return _place(fd, new, name)
            return _swap(fd, new, name, replaces)

    def remove(self, path: str, expected: FileState) -> bool:
        """Remove a file or link if it is what we believe it to be; whether it was."""
        with self._reach(path) as place:
            if place is None or _entry(*place) != expected:
                return False
            fd, name = place
            old = _aside(name, "old")
            os.rename(name, old, src_dir_fd=fd, dst_dir_fd=fd)
            if _entry(fd, old) == expected:
                os.unlink(old, dir_fd=fd)
                return True
            _give_back(fd, old, name)
            return False

    def mend(self, path: str, ours: Set[FileState | None]) -> None:
        """Finish or undo what a killed :meth:`lay` or :meth:`remove` left at ``path``.

        Args:
            ours: contents that are no edit of the user's.
        """
        with self._reach(path) as place:
            if place is None:
                return
            fd, name = place
            old = _aside(name, "old")
            with suppress(FileNotFoundError):
                os.unlink(_aside(name, "new"), dir_fd=fd)
            held = _entry(fd, old)
            if held is not None and held in ours and _entry(fd, name) is not None:
                os.unlink(old, dir_fd=fd)
            elif held is not None:
                _give_back(fd, old, name)

    @contextmanager
    def _parent(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """The open directory that holds ``path``, and the name in it."""
        *parents, name = path.split("/")
        fd = os.dup(self._fd)
        try:
            for part in parents:
                child = _open_directory(fd, part, make)
                os.close(fd)
                fd = child
            yield fd, name
        finally:
            os.close(fd)

    @contextmanager
    def _reach(self, path: str) -> Iterator[tuple[int, str] | None]:
        """Yield the same as :meth:`_parent`, but None where there is no such directory."""
        with ExitStack() as stack:
            try:
                place = stack.enter_context(self._parent(path))
            except OSError as e:
                if e.errno not in _NOT_A_DIRECTORY:
                    raise
                place = None
            yield place


def beside(path: str, digest: str, number: int = 1) -> str:
    """Return where to lay a version whose own place is taken: ``a/train.new-1a2b3c4d.py``."""
    return _marked(path, f"new-{digest[:8]}" + (f"-{number}" if number > 1 else ""))


def _marked(path: str, mark: str) -> str:
    directory, _, name = path.rpartition("/")
    pure = PurePosixPath(name)
    stem, extension = pure.stem, pure.suffix
    marked = f"{stem}.{mark}{extension}"
    while len(os.fsencode(marked)) > _NAME_MAX and (stem or extension):
        stem, extension = (stem[:-1], extension) if stem else ("", extension[:-1])
        marked = f"{stem}.{mark}{extension}"
    return f"{directory}/{marked}" if directory else marked


def _aside(name: str, role: str) -> str:
    # Derived from the name alone, so that a later run finds what a killed one left.
    return f".kaos-{role}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def _raise(e: OSError) -> None:
    raise e


def _open_directory(fd: int, name: str, make: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=fd)
    child = os.open(name, _DIRECTORY, dir_fd=fd)
    os.fchmod(child, 0o755)
    return child


def _kind(fd: int, name: str) -> Kind | None:
    try:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except OSError as e:
        if e.errno in _NOT_A_DIRECTORY:
            return None
        raise
    if stat.S_ISREG(mode):
        return Kind.EXECUTABLE if mode & stat.S_IXUSR else Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.LINK
    return Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.OTHER


def _entry(fd: int, name: str) -> FileState | None:
    kind = _kind(fd, name)
    if kind is None or kind in (Kind.DIRECTORY, Kind.OTHER):
        return None if kind is None else FileState(kind)
    try:
        if kind is Kind.LINK:
            target = os.readlink(name, dir_fd=fd)
            return FileState(kind, hashlib.sha256(os.fsencode(target)).hexdigest())
        with os.fdopen(os.open(name, _READ, dir_fd=fd), "rb") as file:
            return FileState(kind, hashlib.file_digest(file, "sha256").hexdigest())
    except FileNotFoundError:
        return None
    except OSError:
        # Unreadable, or just now replaced by something else: in any case not known to be ours.
        return FileState(Kind.OTHER)


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _copy(source_fd: int, source: str, fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)
    kind = _kind(source_fd, source)
    try:
        if kind is Kind.LINK:
            os.symlink(os.readlink(source, dir_fd=source_fd), name, dir_fd=fd)
            return
        read = os.open(source, _READ, dir_fd=source_fd)
        with (
            os.fdopen(read, "rb") as reader,
            os.fdopen(os.open(name, _WRITE, 0o600, dir_fd=fd), "wb") as writer,
        ):
            while block := reader.read(1 << 20):
                writer.write(block)
            os.fchmod(writer.fileno(), 0o755 if kind is Kind.EXECUTABLE else 0o644)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
        raise


def _place(fd: int, new: str, name: str) -> bool:
    """Give ``new`` the name ``name`` if it is free; ``new`` is gone in any case."""
    try:
        os.link(new, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        os.unlink(new, dir_fd=fd)
        return False
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS or _kind(fd, name) is not None:
            os.unlink(new, dir_fd=fd)
            if e.errno in _NO_HARD_LINKS:
                return False
            raise
        os.rename(new, name, src_dir_fd=fd, dst_dir_fd=fd)
        return True
    os.unlink(new, dir_fd=fd)
    return True


def _swap(fd: int, new: str, name: str, expected: FileState) -> bool:
    old = _aside(name, "old")
    os.rename(name, old, src_dir_fd=fd, dst_dir_fd=fd)
    placed = _place(fd, new, name)
    if _entry(fd, old) == expected:
        os.unlink(old, dir_fd=fd)
        return placed
    # An editor wrote in the instant between look and rename: that edit keeps its place.
    if placed:
        os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)
    else:
        _give_back(fd, old, name)
    return False


def _give_back(fd: int, old: str, name: str) -> None:
    """Put what was taken aside back, or beside what has taken its place meanwhile."""
    for place in (name, *(_marked(name, f"yours-{n}") for n in range(1, 1000))):
        try:
            os.link(old, place, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError as e:
            if e.errno not in _NO_HARD_LINKS or _kind(fd, place) is not None:
                continue
            os.rename(old, place, src_dir_fd=fd, dst_dir_fd=fd)
            return
        os.unlink(old, dir_fd=fd)
        return
