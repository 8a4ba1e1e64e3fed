"""A tree → a read-only folder on disk.

The folder appears whole or not at all: it is laid out beside its place under a hidden name and
renamed. A process that dies half-way leaves only that hidden folder, which the next try removes.
Two processes at once wait for each other. Laying out what is there already does nothing.

Files are ``0444`` (executables ``0555``), folders ``0555``. Where the store has its objects as
files on the same file system, a file is a hard link to its object: no bytes are copied or kept
twice. An executable is a copy, because a mode belongs to the content's one inode; so is an empty
file, because an inode has a limit of names and every ``__init__.py`` is the same one.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from kaos_hub.bundles.limits import Limits, shown
from kaos_hub.bundles.objects import ReadObject, stream
from kaos_hub.bundles.walk import DEFAULT_LIMITS, Item, Tree, load
from kaos_hub.errors import KaosError, NotFound, StorageFull
from kaos_hub.schemas import EntryKind

Progress = Callable[[int, int], None]
"""Called with the bytes laid out so far and all bytes."""

FILE_MODE = 0o444
EXECUTABLE_MODE = 0o555
FOLDER_MODE = 0o555
FEW_COPIES = 100
"""Up to here each copy is synced by itself, beyond it the whole machine once: a hundred thousand
syncs would take minutes, and one of the whole machine waits for the writes of all processes."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Another file system, too many names for one inode, a file system or kernel that links nothing, or
# not ours to link: then the bytes are copied.
_NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EACCES}


def materialise(
    root: str,
    read: ReadObject,
    target: Path,
    *,
    link: bool = False,
    durable: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> None:
    """Lay the tree ``root`` out at ``target``, unless it is there.

    ``link`` allows hard links to the store's files (no program may then be able to write to the
    folder: a read-only mount). ``durable`` waits until the disk holds everything, so that a power
    failure cannot leave a folder that only looks complete.

    Raises:
        InvalidBundle: the tree breaks a rule of bundles.
        NotFound: an object is not in the store.
        StorageFull: no space; nothing is left.
        KaosError: an object is damaged, or the folder cannot be written.
    """
    if _is_folder(target):
        return
    with _system_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not _is_folder(target):
                tree = load(root, read, limits)
                _lay_out(target, _Layout(tree, read, link, durable, progress))


def remove_tree(target: Path) -> None:
    """Remove a laid-out tree (or any folder), read-only or not. What is not there is fine.

    The folder is renamed first, so a half removed one is never taken for complete.

    Raises:
        KaosError: something in it cannot be removed.
    """
    if not target.parent.is_dir():
        return
    with _system_errors(target), _locked(target):
        _sweep(target)
        with contextlib.suppress(FileNotFoundError):
            target.rename(_hidden(target, "removed"))
        _sweep(target)


def _lay_out(target: Path, layout: "_Layout") -> None:
    _sweep(target)
    partial = _hidden(target, "partial")
    partial.mkdir(0o700)
    try:
        layout.fill(partial)
        partial.rename(target)
        if layout.durable:
            _sync_folder(target.parent)
    finally:
        _sweep(target)


class _Layout:
    """Fills one fresh folder. Every path is taken relative to its descriptor."""

    def __init__(
        self, tree: Tree, read: ReadObject, link: bool, durable: bool, progress: Progress | None
    ) -> None:
        self.tree = tree
        self.read = read
        self.link = link
        self.durable = durable
        self.progress = progress
        self.descriptor = -1
        self.done = 0
        self.copies = 0

    def fill(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self.report(0)
            for item in self.tree.items:
                self.entry(item)
            for item in reversed(self.tree.items):
                if item.entry.kind is EntryKind.DIRECTORY:
                    os.chmod(item.path, FOLDER_MODE, dir_fd=self.descriptor)
            os.fchmod(self.descriptor, FOLDER_MODE)
        finally:
            os.close(self.descriptor)
        if self.durable and self.copies > FEW_COPIES:
            os.sync()

    def entry(self, item: Item) -> None:
        """Make one entry. What is there already can only be a name that is taken for the same."""
        try:
            self.make(item)
        except FileExistsError:
            raise KaosError(
                f"{item.path!r} cannot be laid out: this file system takes it for another name"
                " beside it, which differs in case or accents"
            ) from None

    def make(self, item: Item) -> None:
        if item.target is not None:
            os.symlink(item.target, item.path, dir_fd=self.descriptor)
        elif item.entry.kind is EntryKind.DIRECTORY:
            os.mkdir(item.path, 0o700, dir_fd=self.descriptor)
        elif self.linked(item):
            self.report(item.entry.size)
        else:
            self.copy(item)

    def linked(self, item: Item) -> bool:
        """Hard-link the file to its object, if that may and can be."""
        if not self.link or item.entry.kind is not EntryKind.FILE or not item.entry.size:
            return False
        source = self.read(item.entry.digest)
        if not isinstance(source, Path):
            return False
        try:
            status = source.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != item.entry.size:
                raise KaosError(f"the store's object {item.entry.digest} is damaged")
            if stat.S_IMODE(status.st_mode) != FILE_MODE:
                return False
            os.link(source, item.path, dst_dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFound(f"there is no object {item.entry.digest} in the store") from None
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True

    def copy(self, item: Item) -> None:
        executable = item.entry.kind is EntryKind.EXECUTABLE
        descriptor = os.open(item.path, _CREATE, 0o600, dir_fd=self.descriptor)
        try:
            for piece in stream(self.read, item.entry.digest, item.entry.size):
                _write(descriptor, piece)
                self.report(len(piece))
            os.fchmod(descriptor, EXECUTABLE_MODE if executable else FILE_MODE)
            self.copies += bool(item.entry.size)
            if self.durable and self.copies <= FEW_COPIES:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def report(self, more: int) -> None:
        self.done += more
        if self.progress is not None:
            self.progress(self.done, self.tree.size)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_folder(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink()


def _hidden(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _sweep(target: Path) -> None:
    """Remove what an earlier try may have left."""
    for what in ("partial", "removed"):
        _remove(_hidden(target, what))


def _remove(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not _is_folder(path):
        path.unlink()
        return
    # Nothing can be removed from a read-only folder, except by root.
    for _, _, _, descriptor in os.fwalk(path, follow_symlinks=False):
        os.fchmod(descriptor, 0o700)
    shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one in at a time per target, on this machine; the kernel frees a dead holder's lock."""
    path = _hidden(target, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _still_there(path, descriptor):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _still_there(path: Path, descriptor: int) -> bool:
    """Tell whether the file we hold is the one at its path: the last holder removed its own."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _system_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left to lay out {shown(str(target))}; nothing of it was kept"
            ) from None
        raise KaosError(f"{error.filename or target} cannot be written: {error.strerror}") from None
