"""The machines that an ingest may ask: public ones, and those that the admin allows.

A name is looked up here, each of its addresses is judged, and the connection is made to an address
that was judged, not to the name: it cannot mean another machine in between.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from kaos_hub.errors import InvalidRequest

Address = IPv4Address | IPv6Address

_KEPT = 60.0
"""Seconds for which an answer of the name service is believed."""
_NAT64 = tuple(map(ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96")))
"""Packets to these go to the IPv4 address that is written in them."""
_TUNNELS = tuple(map(ip_network, ("2001::/32", "2002::/16", "::/96", "fec0::/10")))
"""Obsolete ways to IPv4 addresses, and local addresses of old."""
# Public by number, for some versions of Python; in clouds they answer with the machine's secrets.
_METADATA = tuple(map(ip_network, ("168.63.129.16/32", "192.0.0.0/24")))


class Wrong(Exception):
    """A file that cannot be had; trying again would not help."""


class Later(Exception):
    """A failure now; later it may work.

    Args:
        problem: for people.
        wait: seconds that the server wants us to wait.
    """

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


class Hosts:
    """Looks names up and judges addresses. Threads may share it.

    Args:
        allow: networks that may be reached though they are not public, like ``10.1.0.0/16``.
        setting: what the admin allows them with.

    Raises:
        InvalidRequest: one is no network.
    """

    def __init__(self, allow: Iterable[str], setting: str = "manifest_networks") -> None:
        self._setting = setting
        try:
            self._allow = [ip_network(one.strip(), strict=False) for one in allow]
        except ValueError as e:
            raise InvalidRequest(f"networks that may be reached ({setting}): {e}") from None
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def find(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be reached.

        Raises:
            Wrong: there is no such host, or none of its addresses may be reached.
            Later: the name service does not answer.
        """
        with self._lock:
            until, found = self._known.get((host, port), (0.0, []))
        if until > time.monotonic():
            return found
        addresses = _look_up(host, port)
        found = [str(one) for one in addresses if self.allows(one)]
        if not found:
            shown = "" if host == str(addresses[0]) else f" is {addresses[0]}, which"
            raise Wrong(
                f"{host}{shown} is not a public address; the admin can allow it ({self._setting})"
            )
        with self._lock:
            self._known[host, port] = (time.monotonic() + _KEPT, found)
        return found

    def allows(self, address: Address) -> bool:
        """Tell whether an address may be reached."""
        meant = _meant(address)
        if any(meant in network or address in network for network in self._allow):
            return True
        if any(meant in network for network in (*_TUNNELS, *_METADATA)):
            return False
        return meant.is_global and not (meant.is_multicast or meant.is_reserved)

    def hold(self, host: str, seconds: float) -> None:
        """Leave a host alone for a while: it said so."""
        with self._lock:
            self._until[host] = max(self._until.get(host, 0.0), time.monotonic() + seconds)

    def wait(self, host: str, stop: threading.Event) -> None:
        """Wait until a host may be asked."""
        while (left := self._until.get(host, 0.0) - time.monotonic()) > 0:
            if stop.wait(left):
                raise Wrong("ended")


def _look_up(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as e:
        if e.errno == socket.EAI_AGAIN:
            raise Later(f"the name of {host} cannot be looked up now") from None
        raise Wrong(f"there is no host called {host}") from None
    except (UnicodeError, OSError, OverflowError):
        raise Wrong(f"{host!r} is no name of a host") from None
    # A scope (fe80::1%eth0) is part of no address that could be allowed.
    texts = dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found)
    return [ip_address(text) for text in texts]


def _meant(address: Address) -> Address:
    """The address that packets to this one arrive at."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def host_header(host: str, port: int, standard: int) -> str:
    """Return the name of a host as requests give it."""
    with contextlib.suppress(ValueError):
        if isinstance(ip_address(host), IPv6Address):
            host = f"[{host}]"
    return host if port == standard else f"{host}:{port}"


def is_address(host: str) -> bool:
    """Tell whether a host is given by its address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
