"""Settings of owners' networks on a Docker Engine."""

from traitlets import Bool, Int, List, Unicode
from traitlets.config import LoggingConfigurable


class NetworkSettings(LoggingConfigurable):  # type: ignore[misc]
    """Settings of :class:`~kaos_hub.engines.docker.networks.networks.DockerNetworks`."""

    isolate = Bool(
        True,
        help=(
            "Whether each owner's containers run in a network of their own, from which they reach"
            " Hub, service and the Internet, but neither other owners nor private addresses. Off,"
            " all share Docker's default network: only for people who trust each other."
        ),
    ).tag(config=True)

    pool = Unicode(
        "10.213.0.0/16",
        help=(
            "IPv4 range from which owners' networks are cut. Another, if this machine has to reach"
            " addresses in it; ranges of other Docker networks and routes are left out by itself."
        ),
    ).tag(config=True)

    size = Int(
        26,
        min=8,
        max=29,
        help=(
            "Length of the prefix of one owner's network: 26 lets 61 containers of an owner run at"
            " once, and 1,024 owners fit into the default pool. Changes nothing of networks that"
            " are there."
        ),
    ).tag(config=True)

    internet = Bool(
        True,
        help=(
            "Whether owners' containers reach the Internet. Without, they reach Hub, service, name"
            " servers and what `reachable` has."
        ),
    ).tag(config=True)

    reachable = List(
        Unicode(),
        help=(
            "What owners' containers reach beyond Hub, service and the Internet: IPv4 addresses or"
            ' ranges, with or without a port, as ["10.1.2.3:5432", "10.8.0.0/16"]. A database, say,'
            " or a package index. Addresses of this machine itself count one by one, not by range."
        ),
    ).tag(config=True)

    resolvers = List(
        Unicode(),
        default_value=None,
        allow_none=True,
        help=(
            "Name servers that containers may ask (port 53), by IPv4 address. By default those in"
            " this machine's resolv.conf; others, if the Engine is told so by its setting `dns`."
        ),
    ).tag(config=True)

    firewall_image = Unicode(
        help=(
            "Image with `nft` and `sh`, for the one container that keeps the rules in force. By"
            " default one that is made at the first start, of debian:trixie-slim and Debian's"
            " package nftables; name another where those cannot be reached."
        )
    ).tag(config=True)

    removal = Int(
        600,
        min=60,
        help=(
            "Seconds for which the network of an owner is kept when nothing runs in it. At least a"
            " minute, since what is about to start has it, too; making one takes half a second."
        ),
    ).tag(config=True)

    hub_addresses = List(
        Unicode(),
        help=(
            "Where Hub and service listen for containers, as URLs. Set by the Hub's configuration."
        ),
    ).tag(config=True)

    data_dir = Unicode(
        help="Directory in which everything of this kaos_hub lies. Set by the Hub's configuration."
    ).tag(config=True)
