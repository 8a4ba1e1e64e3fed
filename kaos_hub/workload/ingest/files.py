"""One file of a manifest, fetched: hashed on the way, gone on with after a cut."""

import errno
import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from urllib3.exceptions import HTTPError

from kaos_hub.bundles.tree import Hasher
from kaos_hub.errors import TooLarge
from kaos_hub.formats.manifest import Entry
from kaos_hub.transport.hosts import Later, Wrong
from kaos_hub.workload.ingest.web import Answer, Web, said

PATIENCE = 120.0
"""Seconds without progress after which a file is given up."""

_PIECE = 1 << 18
_SMALL = 1 << 16
"""Bytes up to which a file is held in memory: to delete it from a disk takes longer than all else.
"""
_LONGEST_PAUSE = 30.0
_MOST_WAITS = 20
"""Times that a server may ask for patience."""
_UNKNOWN = 8 << 20
"""Bytes of room that are taken for a file of unknown size."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """The disk that files take between being fetched and being sent.

    Args:
        limit: bytes. A file that is larger waits until it is alone.
        most: bytes that may be fetched.
    """

    def __init__(self, limit: int, most: int) -> None:
        self._limit, self._most = limit, most
        self._used = self._total = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, size: int) -> None:
        """Wait until there is room for so many bytes.

        Raises:
            Wrong: the room was closed.
        """
        with self._changed:
            while self._used and self._used + size > self._limit and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Wrong("ended")
            self._used += size

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def count(self, size: int) -> None:
        """Count a file of so many bytes, which is there for good.

        Raises:
            TooLarge: all together are more than there may be.
        """
        with self._changed:
            self._total += size
            self.check(0)

    def check(self, size: int) -> None:
        """Check that so many bytes more may come; raises as :meth:`count`."""
        if self._total + size > self._most:
            raise TooLarge(
                f"the files that are to be fetched have more than the {self._most:,} bytes that"
                " may be added"
            )

    def close(self) -> None:
        """Close it: :meth:`take` waits no longer, and raises."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Part:
    """The part of a file that is there. It takes room until :meth:`drop` gives that back.

    Args:
        entry: what it shall be.
        path: where it lies, if it is not small.
        room: the disk.
    """

    def __init__(self, entry: Entry, path: Path, room: Room) -> None:
        self.entry, self.room = entry, room
        self._path = path
        self.taken = 0
        """Bytes of room."""
        self.best = 0
        """Bytes that there have been at most."""
        self.resumed = False
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        self._validator = ""
        self._total: int | None = None
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self._held.clear()
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
        self._blake, self._sha = Hasher(), hashlib.sha256()
        self.resumed = False

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self._blake.size

    @property
    def digest(self) -> str:
        """Of what is there."""
        return self._blake.digest()

    def headers(self) -> dict[str, str]:
        """Return headers that ask for the rest, if that can be known to be of the same file."""
        asked = {"Accept-Encoding": "identity", "User-Agent": "kaos-hub"}
        if self.size and (self._validator or self._total):
            asked["Range"] = f"bytes={self.size}-"
            if self._validator:
                asked["If-Range"] = self._validator
        return asked

    def take(self, answer: Answer) -> None:
        """Take what comes.

        Raises:
            Wrong, TooLarge: it is not what it should be, or too large.
            Later: it broke off, or goes beyond the disk.
        """
        self._begin(answer)
        try:
            for piece in answer.stream(_PIECE, decode_content=False):
                self._write(piece)
        except HTTPError as e:
            raise Later(said(e)) from None
        except OSError as e:
            if e.errno not in _FULL:
                raise Later(said(e)) from None
            self.reset()
            raise Later("there is no space left on the disk of the ingest") from None
        if self._total is not None and self.size != self._total:
            raise Later("the connection was cut")

    def _begin(self, answer: Answer) -> None:
        length = answer.headers.get("Content-Length", "")
        left = int(length) if length.isascii() and length.isdigit() else None
        if answer.status != 200:
            self._continue(answer)
        elif self.size:
            self.reset()
        etag = answer.headers.get("ETag", "")
        weak = etag.startswith("W/") or not etag
        self._validator = answer.headers.get("Last-Modified", "") if weak else etag
        self._total = None if left is None else self.size + left
        self._check(self._total)
        wanted = _UNKNOWN if self._total is None else self._total
        if wanted > self.taken:
            self._take(wanted - self.taken)

    def _continue(self, answer: Answer) -> None:
        """See that it is the rest of what there is."""
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        known = None if self._total is None else str(self._total)
        if (
            answer.status != 206
            or found is None
            or int(found[1]) != self.size
            or known not in (None, found[2])
        ):
            self.reset()
            self._validator, self._total = "", None
            raise Later("the server sent another part than was asked for")
        self.resumed = True

    def _check(self, size: int | None) -> None:
        if size is None:
            return
        wanted = self.entry.size
        if wanted is not None and size != wanted:
            raise Wrong(f"it has {size:,} bytes, and the manifest says {wanted:,}")
        self.room.check(size)

    def _take(self, size: int) -> None:
        # Only a part that holds no room waits, so that none waits for another that waits.
        if self.taken == 0:
            self.room.take(size)
        else:
            self.room.give(-size)
        self.taken += size

    def _write(self, piece: bytes) -> None:
        self._blake.update(piece)
        self._sha.update(piece)
        if self.entry.size is not None and self.size > self.entry.size:
            self._check(self.size)
        if self.size > self.taken:
            self.room.check(self.size)
            self._take(self.size - self.taken)
        if self._file is None and self.size > _SMALL:
            self._file = self._path.open("w+b", buffering=0)
            self._put(self._held)
            self._held.clear()
        self._put(piece)

    def _put(self, piece: bytes | bytearray) -> None:
        if self._file is None:
            self._held += piece
            return
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        view.release()

    def verify(self) -> None:
        """Check all that the manifest says.

        Raises:
            Wrong: it is not so.
            Later: it was put together of parts; as a whole it may be.
        """
        self._check(self.size)
        found = self._sha.hexdigest()
        if self.entry.sha256 not in (None, found):
            if self.resumed:
                self.reset()
                raise Later("it was another file after the connection was cut")
            raise Wrong(f"its sha256 is {found}, and the manifest says {self.entry.sha256}")

    def content(self) -> Iterator[bytes]:
        """Yield what is there, as often as it is asked for."""
        if self._file is None:
            yield bytes(self._held)
            return
        with self._path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece

    def close(self) -> None:
        """Close the file, which is complete. More files may be waiting than can be open."""
        if self._file is not None:
            self._file.close()

    def drop(self) -> None:
        """Delete it, and give its room back."""
        self._held = bytearray()
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
        self.room.give(self.taken)
        self.taken = 0


class Fetcher:
    """Fetches files, patiently. Threads may share it.

    Args:
        web: makes the requests.
        room: the disk.
        stop: set when they are no longer wanted.
        patience: seconds without progress, after which a file is given up.
    """

    def __init__(self, web: Web, room: Room, stop: threading.Event, patience: float) -> None:
        self._web, self._room, self._stop, self._patience = web, room, stop, patience

    def fetch(self, entry: Entry, path: Path) -> Part:
        """Fetch a file to ``path``; the caller drops it in the end.

        Raises:
            Wrong: it cannot be had.
            TooLarge: all files together are too large.
        """
        part = Part(entry, path, self._room)
        try:
            self._insist(part)
            self._room.count(part.size)
        except BaseException:
            part.drop()
            raise
        part.close()
        return part

    def _insist(self, part: Part) -> None:
        since, pause, waits = time.monotonic(), 0.5, 0
        while True:
            try:
                with closing(self._web.get(part.entry.url, part.headers())) as answer:
                    part.take(answer)
                part.verify()
                return
            except Later as e:
                if part.size > part.best:
                    part.best, since, pause = part.size, time.monotonic(), 0.5
                if e.wait is not None and waits < _MOST_WAITS:
                    since, waits = time.monotonic(), waits + 1
                elif time.monotonic() - since > self._patience:
                    raise Wrong(f"{e}; gave up after {self._patience:.0f} s") from None
                # Not all at once, when there are many of us.
                some = pause * random.uniform(0.5, 1)  # noqa: S311
                if self._stop.wait(max(some, e.wait or 0.0)):
                    raise Wrong("ended") from None
                pause = min(2 * pause, _LONGEST_PAUSE)
