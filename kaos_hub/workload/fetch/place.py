"""A folder that appears whole or not at all, also where many machines share the volume.

What is being made has a name of its own, and its time of change is renewed for as long as its maker
lives. What was not renewed for some minutes is left over; the next maker beside it removes it.
Times are compared with that of a folder made just now, so only the volume's own clock counts. No
lock: volumes that are shared between machines do not reliably have any.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_RENEWED = 20.0
"""Seconds."""
STALE = 300.0
"""Seconds without a renewal. Network volumes may show a time a minute late."""

_PARTIAL, _REMOVED = ".kaos-partial-", ".kaos-removed-"
_OURS = re.compile(r"\.kaos-(?:partial|removed)-[0-9a-f]{16}")


class Target:
    """The place of a folder. Enter it to make the folder; it is gone at the exit if not kept.

    Args:
        target: the folder; what it lies in is there.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.absolute()
        self._partial = self.target.with_name(_PARTIAL + secrets.token_hex(8))
        self._over = threading.Event()
        self._kept = False
        self.folder = -1
        """Descriptor of the folder that is being made."""

    def taken(self) -> bool:
        """Tell whether it is there already: kubelet makes empty ones, so these count as nothing."""
        if self.target.is_symlink():
            return False
        try:
            with os.scandir(self.target) as entries:
                return next(entries, None) is not None
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        self._partial.mkdir(0o700)
        self.folder = os.open(self._partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._sweep()
        threading.Thread(target=self._renew, daemon=True).start()
        return self

    def keep(self, sync: bool) -> bool:
        """Give it its name; return False if another maker was quicker.

        Args:
            sync: first wait until the disk holds everything.
        """
        if sync:
            _sync(self.folder)
        try:
            self._partial.rename(self.target)
        except OSError as e:
            if e.errno in (errno.ENOTEMPTY, errno.EEXIST) and self.taken():
                return False
            raise
        self._kept = True
        if sync:
            _sync_folder(self.target.parent)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._over.set()
        os.close(self.folder)
        if not self._kept:
            discard(self._partial)

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED):
            with contextlib.suppress(OSError):
                os.utime(self._partial)

    def _sweep(self) -> None:
        """Remove what dead ones left."""
        present = os.fstat(self.folder).st_mtime
        with contextlib.suppress(OSError):  # only ours must be there
            for path in list(self.target.parent.iterdir()):
                if _OURS.fullmatch(path.name) and _changed(path) < present - STALE:
                    discard(path)


def _changed(path: Path) -> float:
    """Return when it changed; infinity, if it is just gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def discard(path: Path) -> None:
    """Delete a folder, read-only or not; what cannot be deleted now is swept later."""
    grave = path.with_name(_REMOVED + secrets.token_hex(8))
    with contextlib.suppress(OSError):
        # Renamed, so that its maker, should it live after all, cannot give it its name any more.
        path.rename(grave)
        # Nothing can be removed from a read-only folder, except by root.
        for _, _, _, descriptor in os.fwalk(grave, follow_symlinks=False):
            os.fchmod(descriptor, 0o700)
    shutil.rmtree(grave, ignore_errors=True)


def _sync(descriptor: int) -> None:
    """Wait until the file system on which a file lies has everything on its disk."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
