"""Attacks over the network, from a container of one owner on everything that is not theirs.

Cause 2 of the review: all containers shared one bridge, on which a build of bob's took alice's
token from the wire, and from which every port of the machine and of others was in reach. Each
attack is tried twice: out of an owner's network, and, to see that it is one, out of Docker's own.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines.base import JobSpec, Phase, Run
from kaos_hub.engines.docker.engine import DockerEngine
from tests.networks import PROBE, Echo, Listening, addresses, dismiss, neighbour
from tests.test_engine_contract import IMAGE, end, needs_docker, output, texts

pytestmark = [
    *needs_docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a neighbour of this machine: needs root"),
]
PRIVATE = {
    "a private address 10": "10.77.1.2",
    "a private address 172": "172.31.77.2",
    "a private address 192": "192.168.177.2",
    "a shared address 100": "100.64.77.2",
    "a benchmark address 198": "198.18.77.2",
    "the metadata address": "169.254.169.254",
    "a link-local address": "169.254.77.2",
}
OPENED, OTHERS, INTERNET = "10.77.1.3", "10.77.1.4", "198.51.100.200"
SERVE = ("python3", "-m", "http.server", "8888")
Target = tuple[str, str, str, int]


def job(name: str, owner: str, *command: str) -> JobSpec:
    return JobSpec(name, owner, Run(command, image=IMAGE), deadline=120)


class Hub:
    """What a hub has on the Engine: containers of owners, and two ports that they may reach."""

    def __init__(self, data: Path, ports: tuple[int, ...], reachable: list[str]) -> None:
        self.data, self.names = data, list[str]()
        networks = {
            "hub_addresses": [f"http://{bridge()}:{port}" for port in ports],
            "reachable": reachable,
        }
        config = Config({"DockerNetworks": networks})
        self.engine = DockerEngine(data_dir=str(data), stop_grace=1, config=config)

    async def start(self, owner: str, *command: str) -> str:
        """Start a container; returns its name."""
        name = f"kaos-train-{secrets.token_hex(4)}"
        self.names.append(name)
        await self.engine.submit(job(name, owner, *command))
        return name

    async def serve(self, owner: str) -> str:
        """An owner's notebook, as far as the network sees it; its address, once it answers."""
        host = address_of(await self.start(owner, *SERVE))
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(_answers, host):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.1)
        return host

    async def close(self) -> None:
        for name in self.names:
            await self.engine.remove(name)
        await self.engine.close()
        await asyncio.to_thread(dismiss, self.data)


def address_of(container: str) -> str:
    return _network(container, "IPAddress")


def gateway(container: str) -> str:
    """The machine's own address in a container's network."""
    return _network(container, "Gateway")


def _network(container: str, what: str) -> str:
    form = f"{{{{range .NetworkSettings.Networks}}}}{{{{.{what}}}}}{{{{end}}}}"
    told = subprocess.check_output(["docker", "inspect", "-f", form, container], text=True)
    return told.strip()


def _answers(host: str) -> bool:
    try:
        socket.create_connection((host, 8888), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def stranger() -> Iterator[tuple[str, int]]:
    """A container that is nobody's of ours, with a published port: its address, and that port."""
    name = f"kaos-test-{secrets.token_hex(4)}"
    command = ["docker", "run", "-d", "--rm", "--name", name, "-p", "8888", IMAGE, *SERVE]
    subprocess.run(command, check=True, capture_output=True)
    try:
        told = subprocess.check_output(["docker", "port", name, "8888/tcp"], text=True)
        yield address_of(name), int(told.splitlines()[0].rpartition(":")[2])
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True)


def of_version_six() -> list[str]:
    """The IPv6 addresses of this machine, other than loopback's."""
    told = json.loads(subprocess.check_output(["ip", "-j", "-6", "address", "show"]))
    found = [a for link in told for a in link.get("addr_info", []) if a["scope"] == "global"]
    return [str(a["local"]) for a in found]


def forbidden(at: dict[str, Any]) -> Iterator[Target]:
    """What is in reach of whoever shares Docker's own network."""
    for host in [*addresses(), *at["gateways"]]:
        yield f"a port of the machine at {host}", "tcp", host, at["tcp"]
        yield f"a datagram to the machine at {host}", "udp", host, at["udp"]
        yield f"a published port at {host}", "tcp", host, at["published"]
    for what, host in PRIVATE.items():
        yield what, "tcp", host, at["neighbour"]
    yield "a container that is not of kaos_hub", "tcp", at["stranger"], 8888
    yield "what was opened for another hub", "tcp", OTHERS, at["neighbour"]
    yield "the hub of another hub", "tcp", bridge(), at["other"]


def impossible(at: dict[str, Any]) -> Iterator[Target]:
    """What has to fail wherever one is."""
    yield "another owner's notebook", "tcp", at["bob"], 8888
    yield "a notebook of another hub", "tcp", at["carol"], 8888
    for number in (2375, 2376, at["proxy"], at["admission"]):
        yield f"port {number} of the machine", "tcp", bridge(), number
        yield f"port {number} of loopback", "tcp", "127.0.0.1", number
    yield "another port of an opened address", "tcp", OPENED, at["neighbour"] + 1
    yield "listening to the wire", "packet", "", 0
    yield "raw packets", "raw", "", 0
    yield "pretending to be the gateway", "spoof", bridge(), 0
    yield "another route", "route", "", 0
    for host in of_version_six():
        yield f"the machine over IPv6 at {host}", "tcp", host, at["six"]


def allowed(at: dict[str, Any]) -> Iterator[Target]:
    """What has to work."""
    yield "the hub", "tcp", bridge(), at["hub"]
    yield "the service", "tcp", bridge(), at["service"]
    yield "another of one's own", "tcp", at["alice"], 8888
    yield "the Internet", "tcp", INTERNET, at["neighbour"]
    yield "what was opened", "tcp", OPENED, at["neighbour"]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two hubs, owners on them, a neighbour, servers everywhere; how each attack went."""
    with contextlib.ExitStack() as stack:
        hosts = (*PRIVATE.values(), OPENED, OTHERS, INTERNET)
        at: dict[str, Any] = {"neighbour": stack.enter_context(neighbour(*hosts))}
        at["stranger"], at["published"] = stack.enter_context(stranger())
        for role in ("hub", "service", "other"):
            at[role] = stack.enter_context(Listening(bridge())).port
        for role in ("proxy", "admission"):
            at[role] = stack.enter_context(Listening("127.0.0.1")).port
        at["tcp"] = stack.enter_context(Listening("0.0.0.0")).port
        at["six"] = stack.enter_context(Listening("::")).port
        at["udp"] = stack.enter_context(contextlib.closing(Echo())).port
        yield asyncio.run(attacked(tmp_path_factory.mktemp("field"), at))


def targets(at: dict[str, Any]) -> str:
    return json.dumps([*forbidden(at), *impossible(at), *allowed(at)])


async def attacked(directory: Path, at: dict[str, Any]) -> dict[str, Any]:
    """Have alice's container try everything, and one in Docker's own network; what they saw."""
    ours = Hub(directory / "a", (at["hub"], at["service"]), [f"{OPENED}:{at['neighbour']}"])
    other = Hub(directory / "b", (at["other"],), [OTHERS])
    try:
        at["alice"], at["bob"] = await ours.serve("user:alice"), await ours.serve("user:bob")
        at["carol"] = await other.serve("user:carol")
        at["gateways"] = [await asyncio.to_thread(gateway, name) for name in ours.names]
        name = await ours.start("user:alice", "python3", "-c", PROBE, targets(at))
        shared = ["docker", "run", "--rm", "--cap-drop", "ALL", IMAGE, "python3", "-c", PROBE]
        control = await asyncio.to_thread(subprocess.check_output, [*shared, targets(at)])
        seen = await end(ours.engine, name, 250)
        said = texts(await output(ours.engine, name))
        assert seen.phase is Phase.SUCCEEDED, said
        return {"at": at, "owner": json.loads(said[-1]), "bridge": json.loads(control)}
    finally:
        await ours.close()
        await other.close()


def through(seen: dict[str, str], targets: Iterator[Target]) -> list[str]:
    return [target[0] for target in targets if seen[target[0]] == "through"]


def test_nothing_of_others_is_reached(field: dict[str, Any]) -> None:
    """Scan machine, neighbours, private ranges, metadata, published ports. Cause 2."""
    assert through(field["owner"], forbidden(field["at"])) == []


def test_out_of_dockers_own_network_all_of_it_is_reached(field: dict[str, Any]) -> None:
    """The same attacks, where nothing keeps them off: they are real ones."""
    tried = [target[0] for target in forbidden(field["at"])]
    assert through(field["bridge"], forbidden(field["at"])) == tried
    assert len(tried) > 20


def test_no_capability_helps(field: dict[str, Any]) -> None:
    """Spoof ARP, listen, change routes; loopback, Docker's socket ports, IPv6. Cause 2."""
    assert through(field["owner"], impossible(field["at"])) == []


def test_hub_service_and_what_is_opened_answer(field: dict[str, Any]) -> None:
    assert through(field["owner"], allowed(field["at"])) == [t[0] for t in allowed(field["at"])]


def test_what_is_refused_is_refused_at_once(field: dict[str, Any]) -> None:
    """A refusal that is only silence would hang whatever was misconfigured."""
    asked = [what for what, kind, _, _ in forbidden(field["at"]) if kind == "tcp"]
    assert [what for what in asked if "timed out" in field["owner"][what]] == []
