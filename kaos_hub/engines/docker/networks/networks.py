"""A Docker network per owner, out of which nothing of other owners' is reached.

Each is a bridge whose name begins with its hub's prefix; the rules that match it are kept in force
by the hub's guard. Hub and service both ask for networks, at the same time, each in a process of
its own: what must not happen twice happens under a lock in the data directory.
"""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Iterator
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kaos_hub.engines.docker.client import answering, connect
from kaos_hub.engines.docker.networks import (
    guard as docker_guard,
    rules as rules,
    subnets as subnets,
)
from kaos_hub.engines.docker.networks.settings import NetworkSettings
from kaos_hub.engines.files import write_json
from kaos_hub.errors import EngineUnavailable, KaosError, Unsupported
from kaos_hub.installation.datadir import DataDir

if TYPE_CHECKING:
    from docker import DockerClient

log = logging.getLogger("kaos.networks")

LABEL = "kaos_hub.network"
"""The hub whose network it is."""
OWNER = "kaos_hub.owner"
SHARED = "bridge"
"""Docker's own network, which all share where owners have none of their own."""
OPEN = (
    "c.DockerNetworks.isolate is off: containers of all users share one network, and reach each"
    " other, this machine and private addresses."
)
_HUB_LETTERS, _OWNER_LETTERS = 4, 8
"""With ``kao`` fifteen, which is all that an interface's name may have."""
_TRIES = 20
_ROUND = 60.0
"""Seconds between two looks at rules and networks. A rule that vanishes is back long before."""
_BUILD_PATIENCE = 900
"""Seconds for an answer of the Engine, which may have to make an image first."""


class DockerNetworks(NetworkSettings):
    """Networks of owners on a Docker Engine."""

    _round: "asyncio.Task[None] | None" = None
    _unshut = ""

    # --- what people who start containers ask ---

    async def ensure(self, owner: str) -> str:
        """The network in which an owner's containers have to be started within :attr:`removal`.

        Made if it is not there. The rules that shut it in are in force when this returns.

        Args:
            owner: whose; a user, or a group.

        Returns:
            Its name; Docker's default network where owners are not kept apart.

        Raises:
            Unsupported: it cannot be had as it has to be: the rules cannot be put in force, or
                there is no address range left. Says what to do.
            EngineUnavailable: the Engine does not answer.
        """
        return await asyncio.to_thread(self.ensure_now, owner)

    def ensure_now(self, owner: str) -> str:
        """The same, blocking."""
        if not self.isolate:
            return SHARED
        with self._asking() as client:
            self._guarded(client)
            with self._locked():
                self._stamp(self.name(owner)).touch()
                return self._network(client, owner)

    async def start(self) -> None:
        """Look after rules and networks from now on, until :meth:`close`."""
        said = {"isolate": self.isolate, "pool": self.pool, "size": self.size}
        write_json(self._data.network_settings, said)
        if self.isolate:
            self._round = asyncio.create_task(self._keep())
        else:
            log.warning("%s", OPEN)

    async def close(self) -> None:
        """Look after them no more. They stay as they are."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait({self._round})

    def problems(self) -> list[str]:
        """List what is weaker here than promised."""
        return [self._unshut if self.isolate else OPEN] if self._unshut or not self.isolate else []

    async def _keep(self) -> None:
        while True:
            looking = asyncio.ensure_future(asyncio.to_thread(self.keep_now))
            try:
                await asyncio.shield(looking)
                self._unshut = ""
            except asyncio.CancelledError:
                # What goes on in the thread must not outlive us.
                await asyncio.wait({looking})
                raise
            except KaosError as e:
                self._unshut = e.message
                log.warning("Owners' networks: %s", e.message)
            except Exception:
                log.exception("Owners' networks: looking after them failed, trying again")
            await asyncio.sleep(_ROUND)

    def keep_now(self) -> None:
        """See to it that the rules are in force, and remove networks in which nothing runs.

        Where there is neither a Hub nor a network there is nothing to do. Blocks.

        Raises:
            Unsupported: the rules cannot be put in force.
            EngineUnavailable: the Engine does not answer.
        """
        with self._asking() as client:
            if self.hub_addresses or self.networks(client):
                self._guarded(client)
                self.sweep(client)

    def name(self, owner: str) -> str:
        """Return the name of an owner's network."""
        return f"kaos-{self.hub}-{self._letters(owner, _OWNER_LETTERS)}"

    @cached_property
    def hub(self) -> str:
        """The id of this hub among those that use the Engine."""
        return self._letters("", _HUB_LETTERS)

    # --- looking and clearing away ---

    def in_force(self, client: "DockerClient") -> bool:
        """Return whether the rules are in force now; False, too, where they are not meant to be."""
        return self.isolate and self._guard.in_force(client)

    def networks(self, client: "DockerClient") -> list[dict[str, Any]]:
        """This hub's networks, as the Engine describes them."""
        return list(client.api.networks(filters={"label": f"{LABEL}={self.hub}"}))

    def sweep(self, client: "DockerClient", older: float | None = None) -> list[str]:
        """Remove networks in which nothing runs or is about to; returns their names.

        Args:
            client: of the Engine.
            older: seconds since one was asked for; by default :attr:`removal`.
        """
        kept = float(self.removal if older is None else older)
        gone = []
        for name in sorted(str(network["Name"]) for network in self.networks(client)):
            with self._locked():
                if self._age(name) >= kept and not _in_use(client, name):
                    gone += _remove(client, name)
                    self._stamp(name).unlink(missing_ok=True)
        return gone

    def dismiss(self) -> None:
        """Remove everything of this hub's that nothing runs in: networks, then guard and rules.

        Raises:
            EngineUnavailable: the Engine does not answer.
        """
        with self._asking() as client:
            self.sweep(client, older=0)
            if not self.networks(client):
                with self._locked():
                    self._guard.dismiss(client)

    # --- the parts ---

    @cached_property
    def _data(self) -> DataDir:
        return DataDir(self.data_dir or None)

    @cached_property
    def _folder(self) -> Path:
        folder = self._data.networks
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def prefix(self) -> str:
        """The beginning of the names of this hub's bridges."""
        return f"kao{self.hub}"

    def _letters(self, owner: str, count: int) -> str:
        """Return a name that no user can foresee or choose: it depends on a secret of the hub's."""
        key = self._data.secret("networks").encode()
        digest = hmac.new(key, owner.encode(), hashlib.sha256).digest()
        return base64.b32encode(digest).decode().lower()[:count]

    @property
    def _guard(self) -> docker_guard.Guard:
        name_servers = rules.resolvers() if self.resolvers is None else sorted(self.resolvers)
        text = rules.ruleset(
            docker_guard.table(self.hub),
            self.prefix,
            [_target(url) for url in self.hub_addresses],
            [rules.parse_target(text) for text in self.reachable],
            name_servers,
            self.internet,
        )
        return docker_guard.Guard(self.hub, text, self.firewall_image, str(self._data.path))

    def _guarded(self, client: "DockerClient") -> None:
        guard = self._guard
        if not guard.in_force(client):
            with self._locked():
                guard.ensure(client)

    def _network(self, client: "DockerClient", owner: str) -> str:
        """The owner's network, made if it is not there."""
        from docker.errors import APIError, NotFound

        name = self.name(owner)
        refused: list[IPv4Network] = []
        for _ in range(_TRIES):
            try:
                found = client.api.inspect_network(name)
            except NotFound:
                subnet = self._free(client, refused)
                try:
                    self._create(client, owner, subnet)
                except APIError as e:
                    # Taken by another program that we do not see: another hub a moment ago, say.
                    if e.status_code not in (403, 409, 500) or "overlap" not in str(e.explanation):
                        raise
                    refused.append(subnet)
                continue
            self._check(found, owner)
            return name
        raise Unsupported(
            f"Docker refuses every address range for another owner's network ({refused[0]} first)."
            " c.DockerNetworks.pool can name ranges that are free on this machine."
        )

    def _free(self, client: "DockerClient", refused: list[IPv4Network]) -> IPv4Network:
        used = [*subnets.of_networks(client.api.networks()), *subnets.of_routes(), *refused]
        return subnets.first_free(self.pool, self.size, used)

    def _create(self, client: "DockerClient", owner: str, subnet: IPv4Network) -> None:
        from docker.types import IPAMConfig, IPAMPool

        client.api.create_network(
            self.name(owner),
            driver="bridge",
            check_duplicate=True,
            enable_ipv6=False,
            options={"com.docker.network.bridge.name": self._bridge(owner)},
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
            labels={LABEL: self.hub, OWNER: owner},
        )

    def _bridge(self, owner: str) -> str:
        return self.prefix + self._letters(owner, _OWNER_LETTERS)

    def _check(self, found: dict[str, Any], owner: str) -> None:
        """Refuse a network that the rules would not match, or that is another owner's."""
        name = (found.get("Options") or {}).get("com.docker.network.bridge.name")
        labels = found.get("Labels") or {}
        if name != self._bridge(owner) or labels.get(OWNER) != owner or found.get("EnableIPv6"):
            raise Unsupported(
                f"There is a Docker network {found['Name']} that kaos_hub did not make. Remove it:"
                f" docker network rm {found['Name']}"
            )

    def _stamp(self, name: str) -> Path:
        """A file whose time says when a network was last asked for."""
        return self._folder / name

    def _age(self, name: str) -> float:
        try:
            return time.time() - self._stamp(name).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _asking(self) -> Iterator["DockerClient"]:
        """A client for this one question.

        Raises:
            EngineUnavailable: the Engine does not answer, or fails.
        """
        import docker.errors

        client = connect(_BUILD_PATIENCE)
        try:
            with answering():
                yield client
        except docker.errors.APIError as e:
            raise EngineUnavailable(f"The Docker Engine failed: {e.explanation}") from None
        finally:
            client.close()


def _target(url: str) -> rules.Target:
    """Turn the URL at which a part of this hub listens into a target of the rules.

    Raises:
        Unsupported: the URL has no IPv4 address, or no port.
    """
    parts = urlsplit(url)
    try:
        network = ipaddress.IPv4Network(parts.hostname or "")
    except ValueError:
        network = None
    if network is None or parts.port is None:
        raise Unsupported(
            f"Containers cannot be let through to {url}: Hub and service must listen at an IPv4"
            " address and a port. KAOS_BRIDGE names that address."
        )
    return rules.Target(network, parts.port)


def _in_use(client: "DockerClient", name: str) -> bool:
    """Return whether a container runs in a network, or may be started in it."""
    states = ["created", "running", "restarting", "paused"]
    return bool(client.api.containers(all=True, filters={"network": name, "status": states}))


def _remove(client: "DockerClient", name: str) -> list[str]:
    from docker.errors import APIError

    try:
        client.api.remove_network(name)
    except APIError as e:
        if e.status_code not in (403, 404, 409):  # in use after all, or gone
            raise
        return []
    return [name]
