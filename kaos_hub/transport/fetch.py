"""One connection to the service that gives out trees, and patience with it."""

import contextlib
import http.client
import json
import random
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from kaos_hub.util import tls

PATIENCE = 600.0
"""Seconds without any progress after which we give up: a restart of the service takes a few."""
SHORT_PATIENCE = 60.0
"""The same if a proxy or another server answers: the service is restarted, or the URL wrong."""
TIMEOUT = 60.0
"""Seconds for which a connection may be silent."""

_LONGEST_PAUSE = 10.0
_ERROR = 1 << 16


class FetchError(Exception):
    """The reason why it cannot be fetched, in one line for people."""


class Trouble(Exception):
    """A failure now; later it may work.

    Args:
        problem: what happened, for people.
        foreign: whether a proxy or another server answered in place of the service.
    """

    def __init__(self, problem: str, foreign: bool = False) -> None:
        super().__init__(problem)
        self.foreign = foreign


@dataclass(frozen=True)
class Source:
    """The service that trees are fetched from.

    Args:
        url: the service's, without a slash at the end.
        ticket: what lets us.
    """

    url: str
    ticket: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            right = False
        if not right:
            raise FetchError(f"{self.url!r} is no URL of a service")
        if not self.ticket.isascii() or not self.ticket.isprintable() or not self.ticket:
            raise FetchError("the ticket is damaged")


class Wire:
    """A connection that is kept, for one thread at a time.

    Args:
        source: where to.
    """

    def __init__(self, source: Source) -> None:
        parts = urlsplit(source.url)
        self._connection = tls.connection(parts, TIMEOUT, tls.of_environment())
        self._prefix = parts.path.rstrip("/") + "/fetch/v1/"
        self._headers = {"Authorization": f"Bearer {source.ticket}", "Accept-Encoding": "identity"}

    def get(self, path: str) -> http.client.HTTPResponse:
        """Ask for something.

        Raises:
            Trouble: the service does not answer, or not now.
            FetchError: the service refuses.
        """
        try:
            self._connection.request("GET", self._prefix + path, headers=self._headers)
            answer = self._connection.getresponse()
            if answer.status == 200:
                return answer
            body = answer.read(_ERROR)
        except ssl.SSLCertVerificationError as e:
            raise FetchError(
                f"the service's certificate is not trusted: {e.verify_message}"
            ) from None
        except (OSError, http.client.HTTPException) as e:
            raise Trouble(str(e) or type(e).__name__) from None
        raise _refusal(answer.status, body)

    def close(self) -> None:
        """Forget the connection; the next request makes a new one."""
        self._connection.close()

    def abort(self) -> None:
        """Break the connection, for another thread that reads from it."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)


def _refusal(status: int, body: bytes) -> Exception:
    """Return the error for a status other than 200. The service's own errors have a ``code``."""
    try:
        said = json.loads(body)
        code, message = str(said["code"]), " ".join(str(said["message"]).split())
    except (ValueError, KeyError, TypeError):
        return Trouble(f"HTTP status {status}", foreign=status < 500)
    if status < 500 or code == "damaged":
        return FetchError(message)
    return Trouble(message)


class Patience:
    """The limit to trying again.

    Args:
        stop: set when it is no longer wanted.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.progress()

    def progress(self) -> None:
        """Begin to count anew: something worked."""
        self._since = time.monotonic()
        self._pause = 0.1

    def wait(self, trouble: Trouble) -> None:
        """Pause before the next try.

        Raises:
            FetchError: it has been tried for long enough, or ``stop`` is set.
        """
        waited = time.monotonic() - self._since
        if waited > (SHORT_PATIENCE if trouble.foreign else PATIENCE):
            raise FetchError(f"gave up after {waited:.0f} s: {trouble}")
        # Not all at once, when there are many of us.
        if self._stop.wait(self._pause * random.uniform(0.5, 1)):  # noqa: S311
            raise FetchError("ended")
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
