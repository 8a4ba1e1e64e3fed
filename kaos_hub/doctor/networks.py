"""Owners' networks on a Docker Engine: are they shut in, is there room, is something left over."""

import json
from pathlib import Path
from typing import Any

from kaos_hub.deployment.launch import running
from kaos_hub.doctor.finding import BAD, GOOD, WEAK, Finding
from kaos_hub.engines.docker.networks import guard as docker_guard, subnets as subnets
from kaos_hub.engines.docker.networks.networks import LABEL, OPEN, DockerNetworks
from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir

_NAME = "docker networks"
_SCARCE = 10
"""Networks that have to be left."""


def checks(data: DataDir, client: Any) -> list[Finding]:
    """Return the findings on the networks of a data directory's hub.

    Args:
        data: the data directory.
        client: of the Engine.
    """
    settings = _settings(data)
    if settings is None or not data.has_secret("networks"):
        found = [Finding(_NAME, GOOD, "owners get one each; the first is made when it is needed")]
    elif not settings["isolate"]:
        found = [Finding(_NAME, WEAK, OPEN, "Leave c.DockerNetworks.isolate out.")]
    else:
        found = [_rules(data, client), *_room(settings, client)]
    return [*found, *_left_over(client)]


def _settings(data: DataDir) -> dict[str, Any] | None:
    """Return the network settings of the hub's last start; None if it never started."""
    try:
        return dict(json.loads(data.network_settings.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _rules(data: DataDir, client: Any) -> Finding:
    hub = DockerNetworks(data_dir=str(data.path)).hub
    guard = docker_guard.name(hub)
    if docker_guard.same(client, guard):
        count = len(client.api.networks(filters={"label": f"{LABEL}={hub}"}))
        return Finding(_NAME, GOOD, f"owners are kept apart ({count} networks, rules in force)")
    if running(data) is None:
        return Finding(_NAME, GOOD, "the rules between owners are made when the Hub starts")
    text = "The rules between owners are not in force; nothing is started until they are."
    return Finding(_NAME, BAD, text, f"Read: docker logs {guard}")


def _room(settings: dict[str, Any], client: Any) -> list[Finding]:
    """Check that further owners find an address range."""
    name = "docker addresses"
    try:
        pool = list(subnets.parse_pool(settings["pool"], settings["size"]))
    except KaosError as e:
        return [Finding(name, BAD, e.message)]
    used = [*subnets.of_networks(client.api.networks()), *subnets.of_routes()]
    left = sum(1 for part in pool if not any(part.overlaps(other) for other in used))
    if left < _SCARCE:
        text = f"{left} of {len(pool)} owners' networks in {settings['pool']} are left."
        return [Finding(name, WEAK, text, "Give more: c.DockerNetworks.pool")]
    return [Finding(name, GOOD, f"{left} more owners find room in {settings['pool']}")]


def _left_over(client: Any) -> list[Finding]:
    """Guards of hubs whose data directory is gone."""
    found = []
    for labels in docker_guard.found(client):
        data = labels.get(docker_guard.DATA, "")
        if data and not Path(data).exists():
            guard = docker_guard.name(labels[docker_guard.LABEL])
            text = f"{guard} is of a hub whose data directory is gone ({data})."
            advice = (
                f"docker update --restart=no {guard}; docker kill -s USR1 {guard};"
                f" docker rm -f {guard}; docker network prune"
            )
            found.append(Finding("docker guard", WEAK, text, advice))
    return found
