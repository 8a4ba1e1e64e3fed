"""Ports of this machine: which are free. Needs only the standard library."""

import errno
import random
import socket
from collections.abc import Container

from kaos_hub.errors import KaosError

# Below the range from which Linux takes ports for outgoing connections: a port that we remember
# must not be taken by another program's download while we are down.
_PORTS = range(20_000, 32_000)


def free_port(host: str, taken: Container[int]) -> int:
    """A port on which one could listen now, and on which nothing of ours does at other times.

    Args:
        host: the address to listen on.
        taken: ports that something of ours has.

    Raises:
        KaosError: there is none.
    """
    for port in random.sample(_PORTS, k=200):
        if port not in taken and is_free(host, port):
            return port
    raise KaosError(f"No free port found on {host}")


def is_free(host: str, port: int) -> bool:
    """Return whether one could listen there now."""
    return not obstacle(host, port)


def obstacle(host: str, port: int) -> str:
    """Return why one could not listen there now, as the end of a sentence; empty if one could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose last connections are fading counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return "may only be used by root, as all below 1024"
        except OSError as e:
            taken = e.errno == errno.EADDRINUSE
            return "is taken by another program" if taken else f"cannot be used: {e.strerror}"
        return ""
