"""Requests of our programs in workloads to the service: with their ticket, as long as it takes.

The service may be restarted, the network away; what was asked is asked again, with longer and
longer pauses. All that can be asked of ``work/v1/`` may be asked twice. What ends it is success, a
refusal that would come again (a :class:`~kaos_hub.errors.KaosError`), or that the job is over.
"""

import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import IO, Any, ClassVar, TypeVar

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

from kaos_hub.errors import InvalidRequest, KaosError, from_body
from kaos_hub.schemas import AnyModel, Model
from kaos_hub.util import tls

PATIENCE = 6 * 3600.0
"""Seconds without any progress after which we give up."""

_CONNECT, _READ = 10.0, 120.0
_LONGEST_PAUSE = 15.0
_QUIET = 10.0
"""Seconds of trouble before it is told."""
_ERROR = 1 << 16
_PIECE = 1 << 18
_BATCH_BYTES = 8 << 20
_BATCH_OBJECTS = 2000
_ASKED = 20_000
"""Digests that are asked for at once."""
_REMEMBERED = 100_000

Body = bytes | Callable[[], Iterable[bytes]]
"""Bytes, or what makes them once more for every try."""

T = TypeVar("T")


class Over(Exception):
    """The end of the job: the service no longer knows the ticket, or we were told to stop."""


class Trouble(Exception):
    """A failure now; later it may work."""


class Work:
    """Requests of one workload. Threads may share it.

    Args:
        url: the service's, like ``http://hub:8001/services/kaos/``.
        ticket: the workload's.
        patience: seconds without progress after which to give up.
        stop: set when no answer is wanted any more.
        context: for TLS with the service; by default that of the environment.

    Raises:
        InvalidRequest: URL or ticket cannot be right.
        OSError: the certificate that the environment names cannot be used.
    """

    below: ClassVar[str] = "/work/v1/"
    scheme: ClassVar[str] = "Bearer"
    lacking: ClassVar[str] = "missing"
    """The path at which to ask what the owner lacks."""

    def __init__(
        self,
        url: str,
        ticket: str,
        patience: float = PATIENCE,
        stop: threading.Event | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if not re.match(r"https?://[^/]", url):
            raise InvalidRequest(f"{url!r} is no URL of a service")
        if not re.fullmatch(r"[!-~]+", ticket):
            raise InvalidRequest("the ticket is damaged")
        self._url = url.rstrip("/") + self.below
        self._headers = {
            "Authorization": f"{self.scheme} {ticket}",
            "Accept-Encoding": "identity",
        }
        context = context or tls.of_environment()
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, ssl_context=context)
        self._patience = patience
        self.stop = stop or threading.Event()

    def post(self, path: str, said: Model, answer: type[AnyModel]) -> AnyModel:
        """Say something, and hear what the service answers.

        Raises:
            Over: the job is over.
            KaosError: the service refuses, or was away for too long.
        """
        body = said.model_dump_json().encode()
        return answer.model_validate(self.insist(lambda: self.once("POST", path, body)))

    def get(self, path: str, answer: type[AnyModel]) -> AnyModel:
        """Ask for something; raises as :meth:`post`."""
        return answer.model_validate(self.insist(lambda: self.once("GET", path)))

    def save(self, path: str, file: IO[bytes]) -> None:
        """Write what is there into a file, from its beginning; raises as :meth:`post`."""

        def attempt() -> None:
            file.seek(0)
            file.truncate()
            with closing(self._open("GET", path)) as answer:
                for piece in _reading(answer):
                    file.write(piece)

        self.insist(attempt)

    def insist(self, attempt: Callable[[], T]) -> T:
        """Try until it works; raises as :meth:`post`."""
        patience = Patience(self.stop, self._patience)
        while True:
            try:
                return attempt()
            except Trouble as e:
                patience.wait(e)

    def patience(self) -> "Patience":
        """Return patience for what is done in several steps."""
        return Patience(self.stop, self._patience)

    def once(self, method: str, path: str, body: Body | None = None, size: int = 0) -> Any:
        """Ask once, and return the JSON that is answered.

        Args:
            method, path: what to ask; the path may have a query.
            body: JSON, if it is bytes and has no ``size``.
            size: bytes of the body, if it is anything else.

        Raises:
            Trouble: the service does not answer, or not now.
            Over, KaosError: as :meth:`post`.
        """
        with closing(self._open(method, path, body, size)) as answer:
            content = b"".join(_reading(answer))
        try:
            return json.loads(content or b"null")
        except ValueError:
            raise Trouble("somebody answers in place of the service") from None

    def _open(
        self, method: str, path: str, body: Body | None = None, size: int = 0
    ) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        if body is not None:
            kind = "octet-stream" if size or callable(body) else "json"
            headers["Content-Type"] = f"application/{kind}"
        if callable(body):
            headers["Content-Length"] = str(size)
        try:
            answer = self._pool.request(
                method,
                self._url + path,
                body=body() if callable(body) else body,
                headers=headers,
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
            )
        except (HTTPError, OSError) as e:
            raise Trouble(_problem(e)) from None
        if answer.status != 200:
            with closing(answer):
                raise _refusal(answer)
        return answer


class Api(Work):
    """Requests of a notebook's server: the API of all clients, with the server's own token."""

    below = "/api/v1/"
    scheme = "token"
    lacking = "bundles/missing"


def _reading(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer.stream(_PIECE)
    except (HTTPError, OSError) as e:
        raise Trouble(_problem(e)) from None


def _refusal(answer: urllib3.BaseHTTPResponse) -> Exception:
    """Return the error for a status other than 200. Only the service's errors have a ``code``."""
    status = answer.status
    try:
        said = json.loads(answer.read(_ERROR))
        said["code"]
    except (HTTPError, OSError, ValueError, KeyError, TypeError):
        # A proxy that has no route to the service yet says 404, too.
        return Trouble(f"HTTP status {status}")
    if status in (401, 404):
        return Over(str(said.get("message")))
    error = from_body(status, said)
    if status == 429 or (status >= 500 and error.code not in ("damaged", "storage_full")):
        return Trouble(error.message)
    return error


def _problem(e: Exception) -> str:
    reason: object = e.reason if isinstance(e, MaxRetryError) else e
    return str(reason or e).rpartition(": ")[2] or type(e).__name__


class Patience:
    """The limit to trying again, and the pauses between.

    Args:
        stop: set when it is no longer wanted.
        seconds: without progress, after which it ends.
    """

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        self._stop, self._seconds = stop, seconds
        self._told = False
        self.progress()

    def progress(self) -> None:
        """Begin to count anew: something worked."""
        self._since = time.monotonic()
        self._pause = 0.1

    def wait(self, trouble: Trouble) -> None:
        """Pause before the next try.

        Raises:
            Over: ``stop`` is set.
            KaosError: it has been tried for long enough.
        """
        waited = time.monotonic() - self._since
        if waited > self._seconds:
            raise KaosError(f"the service was away for {waited:.0f} s ({trouble}); gave up")
        if waited > _QUIET and not self._told:
            self._told = True
            print(f"kaos: the service does not answer ({trouble}); trying on", flush=True)
        # Not all at once, when there are many of us.
        if self._stop.wait(self._pause * random.uniform(0.5, 1)):  # noqa: S311
            raise Over("ended")
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


class Sender:
    """Sends objects into the hands of the job's owner: those that the owner lacks, and no other.

    What has arrived is not sent again when the connection breaks. One thread at a time.

    Args:
        work: to the service.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._held: set[str] = set()

    def send(self, objects: Mapping[str, int], read: Callable[[str], Iterable[bytes]]) -> None:
        """See to it that the owner holds all of these.

        Args:
            objects: digest → bytes.
            read: gives the content of one, as often as it is asked.

        Raises:
            Over: the job is over.
            KaosError: the service refuses (a limit, say) or was away for too long; or what ``read``
                raises. An error in reading (``OSError``) is a KaosError, too.
        """
        rest = iter([(d, size) for d, size in objects.items() if d not in self._held])
        while some := dict(islice(rest, _ASKED)):
            lacking = self.missing(some)
            for batch in _batches(lacking):
                self._send(batch, read)
            if len(self._held) > _REMEMBERED:
                self._held.clear()
            self._held.update(some)

    def missing(self, objects: Mapping[str, int]) -> dict[str, int]:
        """Those of some objects that the owner lacks; raises as :meth:`send`.

        The service checks limits, too, so it may refuse before a byte has moved.
        """
        body = json.dumps({"objects": dict(objects)}).encode()
        answer = self._work.insist(lambda: self._work.once("POST", self._work.lacking, body))
        return {digest: objects[digest] for digest in answer["missing"]}

    def _send(self, batch: dict[str, int], read: Callable[[str], Iterable[bytes]]) -> None:
        patience = self._work.patience()
        while batch:
            todo = dict(batch)
            size = sum(len(_head(d, n)) + n for d, n in todo.items())
            try:
                self._work.once("POST", "objects", lambda t=todo: _frames(t, read), size)
                return
            except Trouble as e:
                patience.wait(e)
            batch = self.missing(todo)
            if len(batch) < len(todo):
                patience.progress()


def _head(digest: str, size: int) -> bytes:
    return f"{digest.removeprefix('blake3:')} {size}\n".encode()


def _frames(batch: Mapping[str, int], read: Callable[[str], Iterable[bytes]]) -> Iterator[bytes]:
    """Objects as they go over the wire."""
    gathered = bytearray()
    for digest, size in batch.items():
        gathered += _head(digest, size)
        for piece in _pieces(digest, read):
            gathered += piece
            # A packet per small file would cost more than the file.
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
    yield bytes(gathered)


def _pieces(digest: str, read: Callable[[str], Iterable[bytes]]) -> Iterator[bytes]:
    try:
        yield from read(digest)
    except OSError as e:
        # Else it would count as trouble with the connection, and be tried again for hours.
        raise KaosError(f"{e.filename or digest} cannot be read: {e.strerror}") from None


def _batches(objects: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Requests of some size: many small objects, or one large one."""
    batch: dict[str, int] = {}
    total = 0
    for digest, size in objects.items():
        if batch and (total + size > _BATCH_BYTES or len(batch) == _BATCH_OBJECTS):
            yield batch
            batch, total = {}, 0
        batch[digest] = size
        total += size
    if batch:
        yield batch
