"""The container that keeps a hub's rules in force.

It sees this machine's network and may change its rules, and has nothing else: no mount, no
socket, no other capability. It outlives Hub and service, comes back with the Engine, and puts the
rules back within a second if something removes them. Everything here blocks.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kaos_hub.engines import helper_images
from kaos_hub.errors import KaosError, Unsupported

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "kaos_hub.guard"
"""The hub whose rules it keeps."""
DATA = "kaos_hub.data"
"""That hub's data directory."""
RULES = "kaos_hub.rules"
"""A hash of what it keeps."""
_LIST = 'nft -s list table inet "$TABLE" 2>/dev/null'
_SAME = f'[ -s /run/wanted ] && [ "$({_LIST})" = "$(cat /run/wanted)" ]'
_KEEP = f"""
apply() {{ printf '%s\\n' "$RULES" | nft -f - && {_LIST} > /run/wanted.new && mv /run/wanted.new /run/wanted; }}
trap 'exit 0' TERM INT
trap 'nft delete table inet "$TABLE"; exit 0' USR1
apply || exit 1
while :; do
    sleep 1 & wait $!
    {_SAME} || apply || exit 1
done
"""  # noqa: E501
_PATIENCE = 10.0
"""Seconds within which rules have to be in force once it runs."""
_PAUSE = 0.1


@dataclass(frozen=True)
class Guard:
    """The guard of one hub.

    Args:
        hub: the hub's id; table and container are called by it.
        rules: what to keep, for ``nft -f``.
        image: an image with ``nft`` and ``sh``; empty: ours, made if it is not there.
        data: the hub's data directory, to tell whose it is.
    """

    hub: str
    rules: str
    image: str
    data: str

    @property
    def name(self) -> str:
        """Of the container."""
        return name(self.hub)

    @property
    def table(self) -> str:
        """Of nftables."""
        return table(self.hub)

    @property
    def _version(self) -> str:
        said = "\0".join((self.rules, self.image, _KEEP))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def in_force(self, client: "DockerClient") -> bool:
        """Return whether exactly these rules are in force now.

        Raises:
            docker.errors.DockerException: the Engine does not answer.
        """
        found = self._inspect(client)
        return found is not None and self._current(found) and same(client, self.name)

    def ensure(self, client: "DockerClient") -> None:
        """See to it that the rules are in force, from now on. One at a time, please.

        Raises:
            Unsupported: they cannot be; says why, and what to do.
            docker.errors.DockerException: the Engine does not answer.
        """
        found = self._inspect(client)
        if found is None or not self._current(found):
            self._make(client, found is not None)
        until = time.monotonic() + _PATIENCE
        while not same(client, self.name):
            if time.monotonic() > until:
                raise self._not_in_force(client)
            time.sleep(_PAUSE)

    def dismiss(self, client: "DockerClient") -> None:
        """Take the rules away, and the guard. Only where no network of this hub is left.

        Raises:
            docker.errors.DockerException: the Engine does not answer.
        """
        from docker.errors import APIError, NotFound

        try:
            guard = client.containers.get(self.name)
            never: Any = {"Name": "no"}
            guard.update(restart_policy=never)  # or it would be back, with the rules
            guard.kill("SIGUSR1")
            guard.wait(timeout=10)
        except NotFound:
            return
        except APIError as e:
            if e.status_code != 409:  # it does not run
                raise
        _remove(client, self.name)

    def _current(self, found: dict[str, Any]) -> bool:
        labels = found["Config"].get("Labels") or {}
        return labels.get(RULES) == self._version and bool(found["State"]["Running"])

    def _inspect(self, client: "DockerClient") -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            found: dict[str, Any] = client.api.inspect_container(self.name)
        except NotFound:
            return None
        return found

    def _make(self, client: "DockerClient", replace: bool) -> None:
        """Start it. Rules of one that is replaced stay until the new one changes them."""
        try:
            image = self.image or helper_images.ensure(client, "firewall")
        except KaosError as e:
            raise Unsupported(
                "The rules that keep users' containers apart cannot be made, so none is started:"
                f" {e.message}\nThe Engine must get debian:trixie-slim and Debian's packages, or"
                " c.DockerNetworks.firewall_image must name an image with `nft` and `sh`."
            ) from None
        if replace:
            _remove(client, self.name)
        client.containers.run(image, **self._parameters())

    def _parameters(self) -> dict[str, Any]:
        from docker.types import LogConfig

        return {
            "entrypoint": ["/bin/sh", "-c", _KEEP],
            "name": self.name,
            "detach": True,
            "environment": {"RULES": self.rules, "TABLE": self.table},
            "labels": {LABEL: self.hub, RULES: self._version, DATA: self.data},
            "user": "0:0",
            # The rules are this machine's, also where containers' root is another user of it.
            "network_mode": "host",
            "userns_mode": "host",
            "cap_drop": ["ALL"],
            "cap_add": ["NET_ADMIN"],
            "security_opt": ["no-new-privileges"],
            "read_only": True,
            "tmpfs": {"/run": "size=1m"},
            "mem_limit": "64m",
            "pids_limit": 32,
            "restart_policy": {"Name": "always"},
            "init": True,
            "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        }

    def _not_in_force(self, client: "DockerClient") -> Unsupported:
        from docker.errors import DockerException

        try:
            said = client.containers.get(self.name).logs(tail=5).decode(errors="replace").strip()
        except DockerException as e:
            said = str(e)
        return Unsupported(
            "The rules that keep users' containers apart are not in force, so none is started."
            f" The admin of the Hub finds more with `docker logs {self.name}`"
            + (f", which ends with: {said}" if said else ".")
        )


def name(hub: str) -> str:
    """Return the name of a hub's guard."""
    return f"kaos-guard-{hub}"


def table(hub: str) -> str:
    """Return the name of the table of a hub's rules."""
    return f"kaos_{hub}"


def found(client: "DockerClient") -> list[dict[str, str]]:
    """The labels of all hubs' guards on the Engine.

    Raises:
        docker.errors.DockerException: the Engine does not answer.
    """
    listed = client.api.containers(all=True, filters={"label": LABEL})
    return [dict(guard["Labels"]) for guard in listed]


def same(client: "DockerClient", name: str) -> bool:
    """Return whether the rules are as the guard of that name put them.

    Raises:
        docker.errors.DockerException: the Engine does not answer.
    """
    from docker.errors import APIError, NotFound

    try:
        asked = client.api.exec_create(name, ["/bin/sh", "-c", _SAME])["Id"]
        client.api.exec_start(asked)
        return bool(client.api.exec_inspect(asked)["ExitCode"] == 0)
    except NotFound:
        return False
    except APIError as e:
        if e.status_code != 409:  # it does not run, or runs again in a moment
            raise
        return False


def _remove(client: "DockerClient", name: str) -> None:
    from docker.errors import NotFound

    try:
        client.api.remove_container(name, force=True, v=True)
    except NotFound:
        return
