"""Folders that trials write to, whatever they did with them: emptied, copied, measured."""

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

Signature = dict[str, tuple[int, int, int, int]]
"""Path → numbers that change when the file is touched."""


def fresh(path: Path) -> None:
    """Make ``path`` an empty folder, whatever it is now.

    Raises:
        OSError: it cannot be.
    """
    try:
        path.mkdir(0o755)
        return
    except FileExistsError:
        status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()
        path.mkdir(0o755)
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        path.chmod(0o755)
    with os.scandir(path) as entries:
        if next(entries, None) is None:
            return
    _empty(path)


def remove(path: Path) -> None:
    """Remove a file, link or folder.

    Raises:
        OSError: it cannot be.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        fresh(path)
        path.rmdir()


def _empty(top: Path) -> None:
    """Empty a folder, however deep it goes and whatever rights its folders have.

    Each folder in it is moved up to ``top`` before it is looked into, so that no path gets long and
    nothing recurs.
    """
    names = (top / f".{number}" for number in itertools.count())
    while True:
        with os.scandir(top) as listing:
            entries = list(listing)
        if not entries:
            return
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry)  # noqa: PTH108
                continue
            os.chmod(entry, 0o700)  # noqa: PTH101
            with os.scandir(entry) as below:
                for inner in below:
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner, 0o700)  # noqa: PTH101  else it cannot be moved
                        os.rename(inner, _unused(names))  # noqa: PTH104
                    else:
                        os.unlink(inner)  # noqa: PTH108
            os.rmdir(entry)  # noqa: PTH106


def _unused(names: Iterable[Path]) -> Path:
    return next(name for name in names if not os.path.lexists(name))


def copy(source: Path, target: Path) -> Signature:
    """Copy a folder, so that its owner may change the copy. Returns the copy's signature.

    Raises:
        OSError: there is no such folder, or no room.
    """
    fresh(target)
    for above, folders, files in os.walk(source, onerror=_raise):
        to = target / Path(above).relative_to(source)
        for name in folders:
            if os.path.islink(f"{above}/{name}"):  # noqa: PTH114
                files.append(name)
            else:
                (to / name).mkdir(0o755)
        for name in files:
            _copy_file(f"{above}/{name}", f"{to}/{name}")
    return signature(target)


def _copy_file(source: str, target: str) -> None:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)  # noqa: PTH115, PTH211
        return
    shutil.copyfile(source, target)
    os.chmod(target, 0o755 if status.st_mode & 0o111 else 0o644)  # noqa: PTH101


def _raise(error: OSError) -> None:
    raise error


def signature(folder: Path) -> Signature:
    """Return what stands in a folder, and when it was last touched; the contents are not read."""
    found: Signature = {}
    ahead = [str(folder)]
    while ahead:
        above = ahead.pop()
        try:
            with os.scandir(above) as listing:
                for entry in listing:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        ahead.append(entry.path)
                        found[entry.path] = (status.st_mode, 0, 0, 0)
                    else:
                        size, inode = status.st_size, status.st_ino
                        found[entry.path] = (status.st_mode, inode, size, status.st_ctime_ns)
        except OSError:
            found[above] = (0, 0, 0, 0)
    return found


def used(places: Iterable[Path]) -> int:
    """Bytes on the disk of these files and folders, as far as one may look."""
    linked = set[tuple[int, int]]()
    total, ahead = 0, list[str]()
    for place in places:
        with contextlib.suppress(OSError):
            total += _counted(os.lstat(place), str(place), ahead, linked)
    while ahead:
        with contextlib.suppress(OSError), os.scandir(ahead.pop()) as listing:
            for entry in listing:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    total += _counted(status, entry.path, ahead, linked)
    return total


def _counted(
    status: os.stat_result, path: str, ahead: list[str], linked: set[tuple[int, int]]
) -> int:
    """Bytes of one entry; a folder is to be looked into."""
    if stat.S_ISDIR(status.st_mode):
        ahead.append(path)
    elif status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in linked:
            return 0
        linked.add((status.st_dev, status.st_ino))
    return status.st_blocks * 512
