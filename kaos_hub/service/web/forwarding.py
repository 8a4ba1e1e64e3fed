"""The origin of a request: the proxy alone is trusted to name it.

The Hub's proxy appends to ``X-Forwarded-For`` the address that it saw, and passes on whatever else
a client claims. So the last entry of that list counts that is not a proxy's own, and only if the
connection is from a proxy: from this machine, or from an address that the admin trusts. Of
``X-Forwarded-Proto`` the entry counts that came from the same proxy.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from kaos_hub.service.web.proxies import Proxies, parsed

_CLAIMS = ("X-Real-Ip", "X-Scheme")
"""Headers that tornado would believe as well, but that the Hub's proxy does not set."""


def public_server(
    application: HTTPServerConnectionDelegate, proxies: Proxies, **settings: Any
) -> HTTPServer:
    """Return a server behind the Hub's proxy.

    Args:
        application: answers the requests.
        proxies: the proxies besides those on this machine.
        settings: further ones of tornado's server.
    """
    return HTTPServer(_Forwarded(application, proxies), **settings)


class _Forwarded(HTTPServerConnectionDelegate):
    def __init__(self, application: HTTPServerConnectionDelegate, proxies: Proxies) -> None:
        self._application, self._proxies = application, proxies

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        delegate = self._application.start_request(server_conn, request_conn)
        return _Request(delegate, lambda headers: apply(request_conn, headers, self._proxies))

    def on_close(self, server_conn: object) -> None:
        self._application.on_close(server_conn)


class _Request(HTTPMessageDelegate):
    """A delegate that looks at the headers of a request before the application does."""

    def __init__(self, delegate: HTTPMessageDelegate, look: Callable[[HTTPHeaders], None]) -> None:
        self._look = look
        # All else is the application's own.
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]
        self._headers_received = delegate.headers_received

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Any:
        self._look(headers)
        return self._headers_received(start_line, headers)


def apply(connection: Any, headers: HTTPHeaders, proxies: Proxies) -> None:
    """Set the address that the request on a connection came from, and its scheme."""
    for name in _CLAIMS:
        headers.pop(name, None)
    context: _HTTPRequestContext = connection.context
    peer = parsed(context._orig_remote_ip)
    # One connection of the proxy's carries requests of many.
    context.remote_ip, context.protocol = context._orig_remote_ip, context._orig_protocol
    if peer is None or not (_here(peer, connection) or peer in proxies):
        return
    passed, origin = _origin(headers.get("X-Forwarded-For", ""), proxies)
    context.remote_ip = str(origin or peer)
    schemes = [each.strip() for each in headers.get("X-Forwarded-Proto", "").split(",")]
    scheme = schemes[max(-1 - passed, -len(schemes))]
    if scheme in ("http", "https"):
        context.protocol = scheme


def _origin(said: str, proxies: Proxies) -> tuple[int, IPv4Address | IPv6Address | None]:
    """Return the number of proxies behind the origin, and the origin.

    The origin is the last of the addresses that is not a proxy's; None if there is none.
    """
    passed = 0
    for text in reversed(said.split(",")):
        address = parsed(text.strip())
        if address is None:
            break
        if address not in proxies:
            return passed, address
        passed += 1
    return max(passed - 1, 0), None


def _here(peer: IPv4Address | IPv6Address, connection: Any) -> bool:
    """Return whether the peer is on this machine. The proxy reaches us at our own address."""
    if peer.is_loopback:
        return True
    socket = connection.stream.socket
    return socket is not None and peer == parsed(socket.getsockname()[0])
