"""The rules between owners' networks, as nftables has them.

They match the bridges of one hub by the prefix of their names, so no rule changes when a network
comes or goes. A packet that is dropped here is dropped for good, whatever rules Docker or others
have; one that is accepted still has to pass those.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from kaos_hub.errors import Unsupported

SHUT = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
"""Addresses that are not the Internet.

They are this machine, private and shared ranges, link-local with the metadata addresses of clouds,
multicast and reserved."""
_PRIORITY = -10
"""Before Docker's own rules, which are at 0."""
_REFUSE = "counter reject with icmpx type admin-prohibited"
"""Said at once, so that what is refused does not hang."""
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_ENTRY = re.compile(r"(?P<range>[0-9.]+(?:/\d+)?)(?::(?P<port>\d+))?")


@dataclass(frozen=True, order=True)
class Target:
    """Addresses that owners reach, on all ports or on one."""

    range: IPv4Network
    port: int | None = None

    @property
    def rules(self) -> list[str]:
        """The rules that let packets to it through."""
        where = f"ip daddr {self.range}"
        if self.port is None:
            return [f"{where} accept"]
        return [f"{where} {protocol} dport {self.port} accept" for protocol in ("tcp", "udp")]


def parse_target(text: str) -> Target:
    """A target as settings have it: ``10.1.2.3``, ``10.1.0.0/16`` or either with ``:PORT``.

    Raises:
        Unsupported: it is none.
    """
    match = _ENTRY.fullmatch(text.strip())
    try:
        if not match:
            raise ValueError("it is neither an address nor a range")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise ValueError("a port is a number from 1 to 65535")
        return Target(IPv4Network(match["range"], strict=False), port)
    except ValueError as e:
        raise Unsupported(
            f"c.DockerNetworks.reachable has {text!r}: {e}. Write IPv4 addresses or ranges, with"
            " or without a port: 10.1.2.3:5432, 10.1.0.0/16"
        ) from None


def resolvers(texts: Iterable[str] | None = None) -> list[str]:
    """The name servers that containers of this machine ask, by their IPv4 addresses.

    One on the loopback address is asked by the Engine itself, so containers need no way to it.

    Args:
        texts: of files like ``resolv.conf``; by default of this machine's.
    """
    if texts is None:
        texts = [path.read_text(errors="replace") for path in _RESOLVERS if path.exists()]
    found: set[str] = set()
    for line in (line for text in texts for line in text.splitlines()):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = ipaddress.IPv4Address(words[1])
            except ValueError:
                continue
            if not address.is_loopback:
                found.add(str(address))
    return sorted(found)


def ruleset(
    table: str,
    prefix: str,
    hub: Sequence[Target],
    reachable: Sequence[Target],
    name_servers: Sequence[str],
    internet: bool,
) -> str:
    """All rules of a hub, for ``nft -f``; they replace earlier ones in one step.

    Args:
        table: what the table is called.
        prefix: with which the names of the hub's bridges begin.
        hub: where Hub and service listen on this machine.
        reachable: what owners reach beyond that and the Internet.
        name_servers: addresses that may be asked for names.
        internet: whether owners reach what is not private.
    """
    names = [f"ip daddr {a} meta l4proto {{ tcp, udp }} th dport 53 accept" for a in name_servers]
    opened = [rule for target in sorted(reachable) for rule in target.rules]
    # Ranges are of the network; of this machine, owners reach what an entry names by its address.
    here = [rule for t in sorted(reachable) if t.range.prefixlen == 32 for rule in t.rules]
    ours = [f"ip daddr {t.range} tcp dport {t.port} accept" for t in sorted(hub)]
    answers = "ct state established,related accept"
    chains = {
        f"input {{ type filter hook input priority {_PRIORITY}; policy accept;": [
            f'iifname "{prefix}*" jump machine'
        ],
        f"forward {{ type filter hook forward priority {_PRIORITY}; policy accept;": [
            f'iifname "{prefix}*" jump outward',
            f'oifname "{prefix}*" jump inward',
        ],
        "machine {": [answers, *ours, *names, *here, _REFUSE],
        "outward {": [
            answers,
            # What stays in the network it came from is its owner's own business.
            "fib daddr . iif oif exists accept",
            *names,
            *opened,
            *([f"ip daddr != {{ {', '.join(SHUT)} }} accept"] if internet else []),
            _REFUSE,
        ],
        "inward {": [answers, "counter drop"],
    }
    return "\n".join(_table(table, chains))


def _table(table: str, chains: dict[str, list[str]]) -> Iterator[str]:
    # Made if it is not there, so that deleting it never fails.
    yield f"table inet {table}"
    yield f"delete table inet {table}"
    yield f"table inet {table} {{"
    # Chains come before those that jump to them.
    for head, rules in sorted(chains.items(), key=lambda chain: "hook" in chain[0]):
        yield f"chain {head}"
        yield from rules
        yield "}"
    yield "}"
