"""Sending what a trial left: what the service lacks, many small objects in one request."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kaos_hub.bundles.lenient import Kept, keep
from kaos_hub.bundles.limits import Limits
from kaos_hub.schemas import MissingAnswer, MissingRequest
from kaos_hub.transport.worker import Link, patiently

_BATCH_BYTES = 8 << 20
_BATCH_OBJECTS = 2000
_ASKED_AT_ONCE = 50_000
LITTLE = 256 << 10
"""Bytes that are sent without asking what is missing."""
_LITTLE_OBJECTS = 100
_REMEMBERED = 10_000
_PACKET = 1 << 18


def collect(folders: list[Path], limit: int) -> Kept:
    """Gather what is kept of a trial's output directories; the first has the say.

    Raises:
        InvalidBundle: it is too much.
    """
    return keep(folders, Limits(max_size=limit, max_file_size=limit))


class Sender:
    """Sends objects over one connection, and remembers some of those that it has sent.

    Args:
        link: to the service.
        tell: is told in words when the service is away.
    """

    def __init__(self, link: Link, tell: Callable[[str], object]) -> None:
        self._link = link
        self._tell = tell
        self._known: set[str] = set()

    def forget(self) -> None:
        """Forget what was sent: the service has not what we believed it had."""
        self._known.clear()

    def send(self, kept: Kept) -> None:
        """Send all of it, however long that takes.

        Raises:
            Gone, Refused: the service will not have it.
            InvalidBundle: a file has changed meanwhile.
            OSError: a file cannot be read any more.
        """
        sizes = {d: size for d, size in kept.objects().items() if d not in self._known}
        patiently(lambda: self._send(kept, sizes), self._tell)
        if len(self._known) < _REMEMBERED:
            self._known |= sizes.keys()

    def _send(self, kept: Kept, sizes: dict[str, int]) -> None:
        if len(sizes) > _LITTLE_OBJECTS or sum(sizes.values()) > LITTLE:
            sizes = {digest: sizes[digest] for digest in self._missing(sizes)}
        for batch in _batches(sizes):
            size = sum(len(_head(digest, sizes[digest])) + sizes[digest] for digest in batch)
            body = _body(kept, batch, sizes)
            # What fits one packet can be sent again without another look at the files.
            whole = b"".join(body) if size <= _PACKET else body
            self._link.post("objects", whole, size)

    def _missing(self, sizes: dict[str, int]) -> list[str]:
        found = []
        digests = list(sizes)
        for first in range(0, len(digests), _ASKED_AT_ONCE):
            some = {digest: sizes[digest] for digest in digests[first : first + _ASKED_AT_ONCE]}
            request = MissingRequest(objects=some)
            found += self._link.ask("missing", request, MissingAnswer).missing
        return found


def _batches(sizes: dict[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = _BATCH_BYTES
    for digest, size in sizes.items():
        if batch and (size > room or len(batch) == _BATCH_OBJECTS):
            yield batch
            batch, room = [], _BATCH_BYTES
        batch.append(digest)
        room -= size
    if batch:
        yield batch


def _head(digest: str, size: int) -> bytes:
    return f"{digest.removeprefix('blake3:')} {size}\n".encode()


def _body(kept: Kept, batch: Iterable[str], sizes: dict[str, int]) -> Iterator[bytes]:
    gathered = bytearray()
    for digest in batch:
        gathered += _head(digest, sizes[digest])
        for piece in kept.read(digest):
            gathered += piece
            # A packet per small file would cost more than the file.
            if len(gathered) >= _PACKET:
                yield bytes(gathered)
                gathered.clear()
    yield bytes(gathered)
