"""HTTP between the SDK and the service: one connection pool, errors as :mod:`kaos_hub.errors`."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from pydantic import ValidationError
from urllib3.exceptions import HTTPError, MaxRetryError

from kaos_hub import __version__
from kaos_hub.errors import (
    Forbidden,
    KaosError,
    NotAuthenticated,
    NotFound,
    TooManyRequests,
    Unavailable,
    from_body,
)
from kaos_hub.schemas import AnyModel
from kaos_hub.transport.credentials import hub_base
from kaos_hub.transport.events import ServerEvent, lines, parse_events
from kaos_hub.util import tls

_CONNECT = 10.0
_READ = 120.0
_PATIENCE = 300.0
"""Seconds for which a request is sent again that the service had no time for."""
_QUIET = 60.0
"""Seconds without a byte after which a stream is taken for dead and opened again."""
_RECONNECTS = 6
"""Times a broken stream is opened again before we give up: half a minute, for a Hub to restart."""


Body = bytes | Callable[[], Iterable[bytes]] | None
"""The body of a request: there at once, or made as often as it is sent."""


def parse(model: type[AnyModel], data: object) -> AnyModel:
    """Read what the service sent.

    Raises:
        Unavailable: it is not what this version of the client understands.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        field = ".".join(map(str, e.errors(include_url=False)[0]["loc"]))
        raise Unavailable(
            f"the service sent a {model.__name__} that this kaos {__version__} cannot read (field"
            f" {field or 'all'}); `kaos --version` and the service's should be the same"
        ) from None


def quoted(*parts: object) -> str:
    """A path of the API from its parts, each quoted."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


class Transport:
    """Requests to one service with one token.

    Args:
        service: address of the service, e.g. ``http://127.0.0.1:8000/services/kaos``.
        token: the token to send, if there is one.
        owner: whose things are meant, e.g. ``group:vision``; without it, the asking user's.
        instead: address of a service that answers the same to who may not use the first.
    """

    def __init__(
        self,
        service: str,
        token: str | None,
        owner: str | None = None,
        instead: str | None = None,
    ) -> None:
        self.service = service.rstrip("/")
        self._instead = instead and instead.rstrip("/")
        self._headers = {"User-Agent": f"kaos-hub/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"token {token}"
        if owner:
            self._headers["X-Kaos-Owner"] = quote(owner, safe=":")
        self._pool = _pool(self.service)

    def close(self) -> None:
        """Let go of all connections."""
        self._pool.clear()

    def json(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        """Send JSON, get JSON. Only a GET is tried again when the connection breaks. What was too
        much at once is sent again when the service says so.

        Raises:
            KaosError: the class the service answered with.
            Unavailable: the service does not answer.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        response = self._open(method, path, data, headers, query)
        with closing(response):
            content = self._content(response)
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise Unavailable(
                f"{self.service} answered with something that is not of kaos: is the URL right?"
                " Another one: kaos login URL"
            ) from None

    def upload(self, path: str, body: Callable[[], Iterable[bytes]], size: int) -> Any:
        """Stream ``size`` bytes to the service. Never tried again when the connection breaks.

        Args:
            path: of the service.
            body: makes the bytes; anew, where the service says that it was too much at once.
            size: how many they are.

        Raises:
            KaosError: as :meth:`json`.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        response = self._open("POST", path, body, headers)
        with closing(response):
            return json.loads(self._content(response) or b"null")

    def stream(
        self, path: str, query: Mapping[str, object] | None = None, accept: str = "*/*"
    ) -> Iterator[bytes]:
        """The bytes of an answer, as they come.

        Raises:
            KaosError: as :meth:`json`.
        """
        response = self._open("GET", path, None, {"Accept": accept}, query)
        with closing(response):
            try:
                yield from _pieces(response)
            except HTTPError as e:
                self._unreachable(e)

    def lines(
        self, path: str, query: Mapping[str, object] | None = None, accept: str = "*/*"
    ) -> Iterator[str]:
        """The lines of an answer, as they come, without their ends.

        Raises:
            KaosError: as :meth:`json`.
        """
        rest = b""
        for piece in self.stream(path, query, accept):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def log(
        self,
        path: str,
        follow: bool,
        query: Mapping[str, object] | None = None,
        event: str = "log",
    ) -> Iterator[str]:
        """The lines of a log; ``follow`` goes on to its end, by events called ``event``.

        Raises:
            KaosError: as :meth:`json`.
        """
        if not follow:
            yield from self.lines(path, query)
            return
        for one in self.events(path, {**(query or {}), "follow": "true"}):
            if one.event == event:
                yield from one.data.split("\n")

    def events(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[ServerEvent]:
        """An SSE stream, opened again after its last event whenever it breaks.

        It ends with the service's ``end`` event, and only with that: a connection that closes
        without one is a service or proxy that restarts.

        Raises:
            KaosError: as :meth:`json`.
        """
        last, failures = "", 0
        while True:
            failures += 1
            try:
                for event in self._event_stream(path, query, last):
                    last, failures = event.id or last, 0
                    if event.event == "end":
                        return
                    yield event
            except (HTTPError, Unavailable) as e:
                if failures > _RECONNECTS:
                    self._unreachable(e)
            if failures > _RECONNECTS:
                raise Unavailable(
                    f"{self.service} keeps closing the stream. What you followed goes on; look"
                    " again in a moment",
                    url=self.service,
                )
            time.sleep(min(0.25 * 2**failures, 15))

    def _event_stream(
        self, path: str, query: Mapping[str, object] | None, last: str
    ) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if last:
            headers["Last-Event-ID"] = last
        response = self._open("GET", path, None, headers, query, read=_QUIET)
        with closing(response):
            yield from parse_events(lines(_pieces(response)))

    def _open(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
        query: Mapping[str, object] | None = None,
        read: float = _READ,
    ) -> urllib3.BaseHTTPResponse:
        given = {k: v for k, v in (query or {}).items() if v is not None}
        path += "?" + urlencode(given) if given else ""
        try:
            return self._send(method, path, body, headers, read)
        except Forbidden as e:
            if not (self._instead and "scope" in e.details):
                raise
            first, self.service, self._instead = self.service, self._instead, None
            try:
                return self._send(method, path, body, headers, read)
            except Forbidden:
                self._instead, self.service = self.service, first
                raise e from None

    def _send(
        self, method: str, path: str, body: Body, headers: Mapping[str, str], read: float
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, again when the service says that there were too many."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._send_once(method, path, body, headers, read)
            except TooManyRequests as e:
                wait = _seconds(e.details.get("retry_after"))
                if time.monotonic() + wait > until:
                    raise
                time.sleep(wait)

    def _send_once(
        self, method: str, path: str, body: Body, headers: Mapping[str, str], read: float
    ) -> urllib3.BaseHTTPResponse:
        # Waiting is ours: urllib3 would not say how long.
        retries = urllib3.Retry(
            3 if method == "GET" else 0,
            redirect=0,
            backoff_factor=0.2,
            respect_retry_after_header=False,
        )
        try:
            response = self._pool.request(
                method,
                f"{self.service}{path}",
                body=body() if callable(body) else body,
                headers={**self._headers, **headers},
                preload_content=False,
                redirect=False,
                retries=retries,
                timeout=urllib3.Timeout(connect=_CONNECT, read=read),
            )
        except HTTPError as e:
            self._unreachable(e)
        if response.status >= 300:
            with closing(response):
                self._refused(response)
        return response

    def _content(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read()
        except HTTPError as e:
            self._unreachable(e)

    def _unreachable(self, error: HTTPError | Unavailable) -> NoReturn:
        if isinstance(error, Unavailable):
            raise error
        reason: object = error.reason if isinstance(error, MaxRetryError) else error
        text = str(reason or error).rpartition(": ")[2] or type(error).__name__
        raise Unavailable(
            f"no answer from {self.service} ({text}). Is the Hub running? On this machine"
            " `kaos up` starts one; `kaos login URL` names another",
            url=self.service,
        ) from None

    def _refused(self, response: urllib3.BaseHTTPResponse) -> NoReturn:
        status, content = response.status, self._content(response)
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if isinstance(body, dict) and "code" in body:
            raise from_body(status, body)
        if status == 429:
            # A proxy before the service, perhaps.
            raise TooManyRequests(retry_after=response.headers.get("Retry-After"))
        raise self._foreign(status)

    def _foreign(self, status: int) -> KaosError:
        """The error for an answer that is not the service's own but the proxy's or the Hub's."""
        where = self.service
        if status in (502, 503, 504):
            return Unavailable(
                f"the Hub answers, but its kaos service at {where} does not (HTTP {status}). It may"
                " still be starting; try again in a moment, else see the Hub's log",
                url=where,
            )
        if status in (401, 403) or status < 400:
            hub = hub_base(where)
            return NotAuthenticated(f"{hub} wants a login (HTTP {status}). Run: kaos login {hub}")
        if status == 404:
            return NotFound(
                f"there is no kaos at {where}: is that the right Hub? If it was just started, try"
                " again in a moment; another one: kaos login URL",
                url=where,
            )
        return from_body(status, {"message": f"{where} answered HTTP {status}"})


def _seconds(said: object) -> float:
    """Return the seconds to wait that a service asks for: 0.1 to 60, or 1 if it says none."""
    try:
        return min(max(float(str(said)), 0.1), 60.0)
    except ValueError:
        return 1.0


def _pool(service: str) -> urllib3.PoolManager:
    parts = urlsplit(service)
    inside = urlsplit(os.environ.get("KAOS_URL", ""))
    if parts.scheme == "https" and parts.netloc == inside.netloc:
        # In a notebook whose hub speaks TLS with it; of other hubs our certificate is no business.
        return urllib3.PoolManager(maxsize=8, ssl_context=tls.of_environment())
    proxy = getproxies().get(parts.scheme)
    # This machine is never behind a proxy, whatever the environment says.
    here = re.fullmatch(r"localhost|127\..*|::1", parts.hostname or "")
    if proxy and not here and not proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, maxsize=8)
    return urllib3.PoolManager(maxsize=8)


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body as it arrives: a chunk is passed on at once, not when a buffer is full."""
    if getattr(response, "chunked", False):
        yield from response.stream()
        return
    while piece := response.read1(1 << 16):
        yield piece
