"""Proxies that are trusted to name a request's origin, by address, network or host name."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Networks = Sequence[IPv4Network | IPv6Network]
_LOOK_UP = 10.0
"""Seconds between looks at the addresses of names: a proxy that was restarted has another one."""


class Proxies:
    """The trusted proxies, besides those on this machine.

    Args:
        networks: addresses and networks.
        names: host names, whose addresses are looked up again and again, since pods come and go.
    """

    def __init__(self, networks: Networks = (), names: Iterable[str] = ()) -> None:
        self._networks = networks
        self._named: dict[str, frozenset[str]] = dict.fromkeys(names, frozenset())

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        named = str(address)
        return any(named in found for found in self._named.values()) or any(
            address in network for network in self._networks
        )

    async def look_up(self) -> None:
        """Look all names up once. A name that cannot be resolved now keeps its addresses."""
        for name in self._named:
            found = await _addresses(name)
            self._named[name] = found or self._named[name]

    async def follow(self) -> None:
        """Look names up until cancelled."""
        while self._named:
            await self.look_up()
            await asyncio.sleep(_LOOK_UP)


async def _addresses(name: str) -> frozenset[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(str(parsed(str(each[4][0]))) for each in found)


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, or None if the text is not one.

    An IPv4 address within IPv6 becomes that of IPv4.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
