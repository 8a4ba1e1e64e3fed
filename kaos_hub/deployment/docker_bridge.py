"""Between the Hub on this machine and containers of its Docker Engine.

The client of Docker is imported on use: the engine ``local`` needs none.
"""

import contextlib
import ipaddress
import os
from collections.abc import Callable, Iterator
from typing import Any

from kaos_hub.errors import BuildFailed, EngineUnavailable


@contextlib.contextmanager
def engine(timeout: int = 10) -> Iterator[Any]:
    """A client of the Docker Engine.

    Args:
        timeout: seconds to wait for any one answer.

    Raises:
        EngineUnavailable: it does not answer; says what to check.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=timeout)
        try:
            yield client
        finally:
            client.close()
    except DockerException as e:
        raise EngineUnavailable(
            f"The Docker Engine does not answer ({e}). Is it running, and may you use it?"
            " `docker info` should work without sudo."
        ) from None


def bridge(network: str = "bridge") -> str:
    """The address of this machine as containers see it.

    ``$KAOS_BRIDGE`` if that is set, else what the Engine says of its network.

    Raises:
        EngineUnavailable: the Engine does not answer, or the network has no address of ours.
    """
    named = os.environ.get("KAOS_BRIDGE")
    if named:
        return named
    with engine() as client:
        parts = client.networks.get(network).attrs["IPAM"]["Config"] or []
    for part in parts:
        if part.get("Gateway"):
            return str(part["Gateway"])
        if part.get("Subnet"):
            # Engines up to 20.10 do not say it of the default network; it is the first address.
            return str(next(ipaddress.ip_network(part["Subnet"]).hosts()))
    raise EngineUnavailable(
        f"Docker's network {network!r} has no address of this machine; KAOS_BRIDGE can name one."
    )


def prepare(note: Callable[[str], None]) -> str:
    """Make what notebooks in containers need, if it is not there; returns :func:`bridge`.

    Args:
        note: told what takes long.

    Raises:
        EngineUnavailable: the Engine does not answer.
        BuildFailed: the runtime could not be built; says how far it came.
    """
    from kaos_hub.engines import builder_image, helper_images, runtime_image

    with engine(timeout=900) as client:
        try:
            if not client.images.list(name=helper_images.reference("firewall")):
                note("Making what keeps users' containers apart (once) …")
            helper_images.ensure(client, "firewall")
        except BuildFailed as e:
            # Not needed by all; who needs it refuses to start anything without, and says so.
            note(e.message)
        try:
            if not client.images.list(name=builder_image.reference()):
                note("Making what builds users' images (once; a minute) …")
            builder_image.ensure(client, lambda line: None)
            builder_image.prune(client)
        except BuildFailed as e:
            # The same: a hub of ready-made images needs none.
            note(e.message)
        if not client.images.list(name=runtime_image.reference()):
            note("Building what notebooks get on top of any image (once; a minute or two) …")
        volume = runtime_image.ensure(client, lambda line: None)
        runtime_image.prune(client)
    # what was made here is what this process and its children mount
    os.environ["KAOS_RUNTIME_VOLUME"] = volume
    return bridge()
