"""Under which address containers see this machine."""

import ipaddress

from kaos_hub.errors import EngineUnavailable


def bridge(network: str = "bridge") -> str:
    """The address of this machine on a network of the Docker Engine.

    Raises:
        EngineUnavailable: the Engine does not answer, or the network has no address of ours.
    """
    # On use only: the local engine needs no Docker.
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=10)
        try:
            ipam = client.networks.get(network).attrs["IPAM"]["Config"] or []
        finally:
            client.close()
    except DockerException as e:
        raise EngineUnavailable(
            f"The Docker Engine does not answer ({e}). Is it running, and may you use it?"
            " `docker info` should work without sudo."
        ) from None
    for part in ipam:
        if part.get("Gateway"):
            return str(part["Gateway"])
        if part.get("Subnet"):
            # Engines up to 20.10 do not say it of the default network; it is the first address.
            return str(next(ipaddress.ip_network(part["Subnet"]).hosts()))
    raise EngineUnavailable(
        f"Docker's network {network!r} has no address of this machine; KAOS_BRIDGE can name one."
    )
