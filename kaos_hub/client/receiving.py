"""Receiving an archive: unpacked while it comes, without ever being whole anywhere."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_hub.errors import InvalidRequest
from kaos_hub.transport.objects import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def check_target(target: Path) -> None:
    """Check that a folder can be made at ``target`` without touching what is there.

    Raises:
        InvalidRequest: something is there already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequest(f"{target} is there already; name a folder that is to be made: -o DIR")


def receive(
    pieces: Iterator[bytes], target: Path, total: int = 0, progress: Progress | None = None
) -> None:
    """Unpack a tar that arrives in pieces. The folder appears whole or not at all.

    Args:
        pieces: the archive.
        target: the folder to make.
        total: bytes of all files; 0 is not known.
        progress: called with the bytes received and the total.

    Raises:
        InvalidBundle: the archive is damaged.
        InvalidRequest: something is at ``target`` already.
    """
    from kaos_hub.bundles.archive import unpack_tar

    check_target(target)
    with io.BufferedReader(_Reader(pieces, total, progress), 1 << 20) as archive:
        unpack_tar(archive, target)


class _Reader(io.RawIOBase):
    """Pieces as a file, counted as they are read."""

    def __init__(self, pieces: Iterator[bytes], total: int, progress: Progress | None) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""
        self._total = total
        self._progress = progress
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        self._rest = self._rest or next(self._pieces, b"")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self._done += size
        if self._progress:
            # The archive has headers too: more bytes than the files.
            self._progress(min(self._done, self._total or self._done), self._total)
        return size
