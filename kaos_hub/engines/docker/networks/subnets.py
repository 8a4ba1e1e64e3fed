"""The address ranges that are left for owners' networks."""

import ipaddress
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kaos_hub.errors import Unsupported

_ROUTES = Path("/proc/net/route")


def first_free(pool: str, size: int, used: Iterable[IPv4Network]) -> IPv4Network:
    """The first range of the pool that overlaps with nothing in use.

    Args:
        pool: an IPv4 range, as ``10.213.0.0/16``.
        size: length of the prefix of one network.
        used: ranges that must not be touched.

    Raises:
        Unsupported: there is none; says what the admin can do.
    """
    taken = list(used)
    for candidate in parse_pool(pool, size):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise Unsupported(
        f"There is no address range left for another owner's network: all of {pool} is in use (in"
        f" parts of /{size}). Stop what is not needed, or let the admin of the Hub give more:"
        " c.DockerNetworks.pool"
    )


def parse_pool(pool: str, size: int) -> Iterator[IPv4Network]:
    """The parts of a pool.

    Raises:
        Unsupported: pool or size make no sense; says what would.
    """
    try:
        whole = ipaddress.IPv4Network(pool)
    except ValueError as e:
        raise Unsupported(
            f"c.DockerNetworks.pool is {pool!r}, which is no IPv4 range ({e}). Write one like"
            " 10.213.0.0/16"
        ) from None
    if not whole.prefixlen <= size <= 29:
        raise Unsupported(
            f"c.DockerNetworks.size is {size}; networks cut from {pool} have a prefix between"
            f" {whole.prefixlen} and 29"
        )
    return whole.subnets(new_prefix=size)


def of_networks(networks: Iterable[dict[str, Any]]) -> Iterator[IPv4Network]:
    """The IPv4 ranges of networks, as the Engine lists them."""
    for network in networks:
        for part in (network.get("IPAM") or {}).get("Config") or []:
            subnet = str(part.get("Subnet") or "")
            if subnet and ":" not in subnet:
                yield ipaddress.IPv4Network(subnet, strict=False)


def of_routes(text: str | None = None) -> Iterator[IPv4Network]:
    """Yield the ranges to which this machine has routes, other than the default one.

    Args:
        text: as in ``/proc/net/route``, which is read if not given.
    """
    if text is None:
        text = _ROUTES.read_text() if _ROUTES.exists() else ""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[7] != "00000000":
            target, mask = (_address(fields[i]) for i in (1, 7))
            yield ipaddress.IPv4Network((target, mask))


def _address(hexadecimal: str) -> str:
    """An address as the kernel writes it there: its bytes in reverse."""
    return ".".join(str(byte) for byte in bytes.fromhex(hexadecimal)[::-1])
