"""A worker's line to the service, and patience with it."""

import contextlib
import http.client
import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from kaos_hub.schemas import AnyModel, Model
from kaos_hub.util import tls

_TIMEOUT = 60.0
"""Seconds for which a connection may be silent."""
_LONGEST_PAUSE = 15.0
_FULL = 600.0
"""Seconds for which we wait that a full store has room again."""
_LOST = 24 * 3600.0
"""Seconds without an answer after which the job is taken to be over."""
_JSON = "application/json"

T = TypeVar("T")


class Gone(Exception):
    """The end of the job, whatever we do: the ticket is worth nothing any more."""


class Trouble(Exception):
    """A failure now; later it may work."""


class Refused(Exception):
    """A refusal of the service, now and later.

    Args:
        status: of HTTP.
        code: of :mod:`kaos_hub.errors`.
        message: for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Link:
    """A connection that is kept, for one thread at a time.

    Args:
        url: the service's, without a slash at the end.
        ticket: what lets us.
        context: for TLS with the service, if that wants our certificate.
    """

    def __init__(self, url: str, ticket: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._prefix = f"{parts.path}/work/v1/"
        self._secret = {"Authorization": f"Bearer {ticket}"}
        self._connection = tls.connection(parts, _TIMEOUT, context)

    def ask(self, path: str, said: Model, answer: type[AnyModel]) -> AnyModel:
        """Say something, get an answer; tried once.

        Raises:
            Gone, Trouble, Refused: no answer.
        """
        body = said.model_dump_json().encode()
        return self.parse(answer, self.post(path, body, len(body), _JSON))

    @staticmethod
    def parse(answer: type[AnyModel], body: bytes) -> AnyModel:
        """Understand an answer.

        Raises:
            Trouble: it makes no sense.
        """
        try:
            return answer.model_validate_json(body)
        except ValidationError as e:
            raise Trouble(f"an answer that makes no sense: {e.error_count()} errors") from None

    def post(
        self,
        path: str,
        body: bytes | Iterable[bytes],
        size: int,
        kind: str = "application/octet-stream",
    ) -> bytes:
        """Send a body, get one; tried once.

        Raises:
            Gone, Trouble, Refused: no answer.
        """
        headers = {**self._secret, "Content-Type": kind, "Content-Length": str(size)}
        fresh = self._connection.sock is None
        try:
            status, content = self._exchange(path, body, headers)
        except (ConnectionError, http.client.BadStatusLine) as e:
            self.close()
            # The service may have closed a connection that was idle; then a new one does.
            if fresh or not isinstance(body, bytes):
                raise Trouble(str(e) or type(e).__name__) from None
            return self.post(path, body, size, kind)
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise Trouble(str(e) or type(e).__name__) from None
        if status != 200:
            raise _refusal(status, content)
        return content

    def _exchange(
        self, path: str, body: bytes | Iterable[bytes], headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection
        try:
            connection.request("POST", self._prefix + path, body=body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # Perhaps it has said why, before it hung up.
            if connection.sock is None:
                raise
        answer = connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Forget the connection; the next request makes a new one."""
        self._connection.close()

    def abort(self) -> None:
        """Break the connection, for another thread that uses it."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)


def patiently(do: Callable[[], T], tell: Callable[[str], object]) -> T:
    """Do something until it works, however long the service is away.

    Args:
        do: what may raise Trouble.
        tell: is told in words when it does not work, and when it works again.

    Raises:
        Gone, Refused: it never will; the service has been away for a day.
    """
    pause, since = 0.1, time.monotonic()
    troubled = ""
    while True:
        try:
            done = do()
        except Refused as e:
            if e.status != 507 or time.monotonic() - since > _FULL:
                raise
            problem = e.message
        except Trouble as e:
            problem = str(e)
        else:
            if troubled:
                tell("the service answers again")
            return done
        if time.monotonic() - since > _LOST:
            raise Gone(problem)
        if not troubled:
            troubled = problem
            tell(f"the service cannot be reached ({problem}); trying again")
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311
        pause = min(pause * 2, _LONGEST_PAUSE)


def _refusal(status: int, body: bytes) -> Exception:
    """Return the error for a status other than 200. The service's own errors have a ``code``."""
    try:
        said = json.loads(body)
        code, message = str(said["code"]), " ".join(str(said["message"]).split())
    except (ValueError, KeyError, TypeError):
        # Not of the service: of a proxy, while the service starts again.
        return Trouble(f"HTTP status {status}")
    if status in (401, 404):
        return Gone(message)
    if status in (408, 429) or (status >= 500 and status != 507):
        return Trouble(f"{message} (HTTP status {status})")
    return Refused(status, code, message)
