"""Requests of an ingest: redirects are followed by hand, so that every step of them is judged."""

import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    SSLError,
)

from kaos_hub.transport.hosts import Hosts, Later, Wrong, host_header, is_address
from kaos_hub.workload.ingest.ftp import FtpAnswer, ask

REDIRECTS = 10
"""Followed at most."""

_CONNECT, _READ = 15.0, 60.0
_PORTS = {"http": 80, "https": 443, "ftp": 21}
_MOVED = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which one may ask again."""
_LONGEST_WAIT = 300.0
_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

Answer = urllib3.BaseHTTPResponse | FtpAnswer


class Web:
    """The web, as far as an ingest or a clone may ask it. Threads may share it.

    Args:
        hosts: judges where connections may go.
        schemes: of URLs that may be asked for; known here are ``http``, ``https`` and ``ftp``.
        parallel: connections at once.
        stop: set when no answer is wanted any more.
    """

    def __init__(
        self, hosts: Hosts, schemes: Sequence[str], parallel: int, stop: threading.Event
    ) -> None:
        self._hosts, self._stop = hosts, stop
        self._schemes = tuple(s.lower() for s in schemes)
        # No proxy of the environment: behind one, it is unknown where a connection goes.
        self._pools = urllib3.PoolManager(
            num_pools=64,
            maxsize=parallel,
            ssl_context=ssl.create_default_context(cafile=_authorities()),
            retries=False,
        )

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request: 200, or 206 if a range was asked for, or 416.

        Raises:
            Wrong: it is refused, here or there.
            Later: it did not work now.
        """
        first = self._split(url)
        answer, last = self._arrive(url, lambda parts: {**headers, **_login(parts, first)})
        if answer.status == 200 or (answer.status in (206, 416) and "Range" in headers):
            return answer
        answer.close()
        raise self._refusal(answer, self._split(last), first)

    def ask(
        self,
        url: str,
        headers: Callable[[SplitResult], Mapping[str, str]],
        body: bytes | None = None,
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """Whatever is answered, and by which URL. What has a body is sent to no other place.

        Args:
            url: what is asked.
            headers: of the request to a URL; after a redirect it is another.
            body: with one it is a POST.

        Raises:
            Wrong, Later: as :meth:`get`.
        """
        answer, last = self._arrive(url, headers, body)
        assert isinstance(answer, urllib3.BaseHTTPResponse)
        return answer, last

    def _arrive(
        self,
        url: str,
        headers: Callable[[SplitResult], Mapping[str, str]],
        body: bytes | None = None,
    ) -> tuple[Answer, str]:
        """The answer at the end of all redirects, and the URL that gave it."""
        for hop in range(REDIRECTS + 1):
            try:
                parts = self._split(url)
                answer = self._ask(parts, headers(parts), body)
            except Wrong as e:
                raise Wrong(f"it was redirected, and {e}") if hop else e from None
            to = answer.headers.get("Location")
            if answer.status not in _MOVED or not to or body is not None:
                return answer, url
            answer.close()
            url = _join(url, to)
        raise Wrong(f"it was redirected more than {REDIRECTS} times")

    def _split(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Wrong(f"{url[:100]!r} is no URL") from None
        scheme = parts.scheme.lower()
        if scheme not in self._schemes:
            raise Wrong(f"{scheme}:// may not be fetched here, but {', '.join(self._schemes)}")
        if scheme not in _PORTS:
            raise Wrong(f"{scheme}:// is allowed here, and cannot be fetched by this version")
        if not parts.hostname or port == 0:
            raise Wrong(f"{url[:100]!r} names no host")
        return parts._replace(scheme=scheme)

    def _ask(
        self, parts: SplitResult, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        host, standard = _ascii(parts.hostname or ""), _PORTS[parts.scheme]
        port = parts.port or standard
        self._hosts.wait(host, self._stop)
        if parts.scheme == "ftp":
            return ask(parts, self._hosts.find(host, port), headers)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": host_header(host, port, standard), **headers}
        problem = ""
        for address in self._hosts.find(host, port):
            try:
                return self._pool(parts.scheme, host, address, port).urlopen(
                    "GET" if body is None else "POST",
                    target,
                    body,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
                )
            except (NewConnectionError, ConnectTimeoutError) as e:
                problem = said(e)
            except LocationParseError:
                raise Wrong(f"{host!r} is no name of a host") from None
            except SSLError as e:
                if "CERTIFICATE_VERIFY_FAILED" in str(e):
                    raise Wrong(f"the certificate of {host} is not trusted") from None
                raise Later(said(e)) from None
            except HTTPError as e:
                raise Later(said(e)) from None
        raise Later(f"{host} cannot be reached: {problem}")

    def _pool(self, scheme: str, host: str, address: str, port: int) -> HTTPConnectionPool:
        """Connections to one address, over which that host is expected to answer."""
        named = scheme == "https" and not is_address(host)
        kwargs = {"server_hostname": host} if named else {}
        return self._pools.connection_from_host(address, port, scheme, pool_kwargs=kwargs)

    def _refusal(self, answer: Answer, parts: SplitResult, first: SplitResult) -> Wrong | Later:
        moved = f" by {parts.hostname}" if parts.hostname != first.hostname else ""
        problem = f"answered{moved} with {status_words(answer.status)}"
        if answer.status not in PASSING:
            return Wrong(problem)
        wait = _retry_after(answer)
        if wait is not None:
            self._hosts.hold(_ascii(parts.hostname or ""), wait)
        return Later(problem, wait)


def _join(url: str, to: str) -> str:
    try:
        return urljoin(url, to)
    except ValueError:
        raise Wrong(f"it was redirected to {to[:100]!r}, which is no URL") from None


def status_words(status: int) -> str:
    """A status for people: ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def said(e: Exception) -> str:
    """Return what went wrong with a connection, for people."""
    if isinstance(e, NewConnectionError | ConnectTimeoutError | SSLError):
        return re.sub(r"^.*(?:: |\] )", "", str(e)) or type(e).__name__
    return {
        "IncompleteRead": "the connection was cut",
        "ProtocolError": "the connection was cut",
        "ReadTimeoutError": f"it was silent for {_READ:.0f} s",
    }.get(type(e).__name__, str(e) or type(e).__name__)


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise Wrong(f"{host!r} is no name of a host") from None


def _login(parts: SplitResult, first: SplitResult) -> dict[str, str]:
    """Name and password that stand in the first URL. They go to no other host."""
    if parts.username is None or (parts.scheme, parts.netloc) != (first.scheme, first.netloc):
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": urllib3.make_headers(basic_auth=login)["authorization"]}


def _retry_after(answer: Answer) -> float | None:
    """Seconds after which the server wants to be asked again."""
    text = (answer.headers.get("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
        present = parsedate_to_datetime(answer.headers.get("Date") or "")
        return min(max((at - present).total_seconds(), 0.0), _LONGEST_WAIT)
    except (ValueError, TypeError):
        return None


def _authorities() -> str | None:
    """Whom to trust: what Python trusts by itself, else what the image has, else certifi."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return None
    for known in _AUTHORITIES:
        if Path(known).is_file():
            return known
    try:
        import certifi
    except ImportError:
        return None
    return str(certifi.where())
