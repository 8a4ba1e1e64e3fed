"""The client of one image build: run as ``python -m`` under a supervisor, to outlive the service.

Builds in a container (:mod:`kaos_hub.engines.docker.builds.builder`), or, where the admin wants it
so, with the Engine's own builder: by ``docker buildx`` where that is installed, else the classic
one.
That works for as long as its client is connected. So ending this process ends the running step,
which no cancel of the SDK does.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kaos_hub.engines.base import Cause
from kaos_hub.engines.docker.builds.bases import Registries, fetch, have
from kaos_hub.engines.docker.builds.builder import Confinement, ContainerBuilder, Ended, Task
from kaos_hub.engines.docker.builds.context import context_tar, dockerfile_name
from kaos_hub.engines.docker.client import answering, connect, describe, has_buildx, image_id, split
from kaos_hub.errors import BuildFailed, EngineUnavailable, KaosError
from kaos_hub.registry.names import Reference

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import Response

_CONTAINER = re.compile(r" ---> Running in ([0-9a-f]{12,64})")


ORDER = "KAOS_BUILD"
"""Variable with what to build, as JSON."""


@dataclass(frozen=True)
class Order(Task):
    """A task with its limits: the order that the engine gives to this process."""

    registries: Sequence[str] = ()
    """Registries that may be asked though their address is not public."""
    rules: Confinement | None = None
    """The confinement of the build; None: the Engine's own builder builds."""

    @classmethod
    def read(cls, text: str) -> "Order":
        """Read the order that the engine wrote as JSON."""
        said = json.loads(text)
        said["source"] = Path(said["source"])
        said["rules"] = Confinement(**said["rules"]) if said["rules"] else None
        return cls(**said)

    @property
    def directory(self) -> Path:
        """The build context."""
        return self.source / self.context

    @property
    def dockerfile(self) -> Path:
        """It stands beside the context, or in it where the context is the whole bundle."""
        return self.source / "Dockerfile"


def say(text: str) -> None:
    """A line for the build's log."""
    print(text, flush=True)


def build(order: Order) -> dict[str, Any]:
    """Build the image and tell what became of it.

    Raises:
        KaosError: it could not be built; the log has all the builder said.
    """
    client, registries = connect(), Registries(order.registries)
    with answering():
        if order.rules:
            for line in have(client, order.bases.items(), registries):
                say(line)
            ContainerBuilder(client, order, order.rules, say).build()
            return describe(client, order.tag)
        pin_bases(client, order.bases, registries)
        if has_buildx():
            _buildx(order)
        else:
            _Classic(client, order).build()
        return describe(client, order.tag)


# --- base images ---


def pin_bases(
    client: "DockerClient", bases: Mapping[str, str], registries: Registries
) -> None:  # fmt: skip
    """See to it that each base image means what it meant when the environment's key was made.

    The Engine's builder looks bases up by their names.

    Raises:
        BuildFailed: it means something else by now.
    """
    for reference, wanted in bases.items():
        if not wanted.startswith("sha256:"):
            continue
        have = image_id(client, reference)
        if have is None and image_id(client, wanted):
            client.api.tag(wanted, *split(reference))
            have = wanted
        elif have is None:
            for line in fetch(client, Reference.parse(reference), registries):
                say(line)
            have = image_id(client, reference)
        if have != wanted:
            raise BuildFailed(
                f"{reference} is another image by now ({have or 'none'}) than the one this"
                f" environment was pinned to ({wanted}). Deploy with --pull to take the new one."
            )


# --- the classic builder ---


class _Classic:
    """One build by the Engine itself."""

    def __init__(self, client: "DockerClient", order: Order) -> None:
        self._client = client
        self._order = order
        self._containers: list[str] = []

    def build(self) -> None:
        api = self._client.api
        order = self._order
        dockerfile = dockerfile_name(order.directory)
        response = api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params=self._parameters(dockerfile),
            data=context_tar(order.directory, order.dockerfile, dockerfile),
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            timeout=None,
        )
        try:
            _check(response)
            for line in response.iter_lines():
                self._tell(json.loads(line))
        except BaseException:
            # Hang up first: that is what ends the running step.
            response.close()
            self._clear()
            raise

    def _parameters(self, dockerfile: str) -> dict[str, Any]:
        order = self._order
        parameters: dict[str, Any] = {
            "dockerfile": dockerfile,
            "t": order.tag,
            "rm": 1,
            "forcerm": 1,
            "labels": json.dumps(dict(order.labels)),
            "networkmode": order.network,
        }
        return parameters

    def _tell(self, event: dict[str, Any]) -> None:
        if "error" in event:
            raise BuildFailed(str(event["error"]).strip())
        text = str(event.get("stream", ""))
        self._containers += _CONTAINER.findall(text)
        if not text and "status" in event and not event.get("progressDetail"):
            text = " ".join(str(event[k]) for k in ("id", "status") if k in event) + "\n"
        # The builder paints what came from stderr.
        sys.stdout.write(text.replace("\x1b[91m", "").replace("\x1b[0m", ""))
        sys.stdout.flush()

    def _clear(self) -> None:
        """The builder forgets the container of a step when its client hangs up."""
        import docker.errors

        for container in self._containers[-1:]:
            with contextlib.suppress(docker.errors.APIError):
                self._client.api.remove_container(container, v=True, force=True)


def _check(response: "Response") -> None:
    import docker.errors
    import requests

    try:
        response.raise_for_status()
    except requests.HTTPError as e:
        try:
            docker.errors.create_api_error_from_http_exception(e)
        except docker.errors.APIError as refused:
            if refused.status_code != requests.codes.bad_request:
                raise
            # The Dockerfile, or what is asked for: in the Engine's own words.
            raise BuildFailed(str(refused.explanation or refused)) from None


# --- BuildKit ---


def _buildx(order: Order) -> None:
    labels = [word for k, v in order.labels.items() for word in ("--label", f"{k}={v}")]
    with subprocess.Popen(
        # The default builder is the Engine's own: it knows the images on this machine.
        ["docker", "buildx", "build", "--builder", "default", "--load", "--progress", "plain",
         "--network", order.network, "--file", str(order.dockerfile), "--tag", order.tag,
         *labels, str(order.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:  # fmt: skip
        why = ""
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            if line.startswith("ERROR: "):
                why = line.removeprefix("ERROR: ").removeprefix("failed to solve: ").strip()
    if process.returncode:
        raise BuildFailed(why or f"docker buildx build ended with exit code {process.returncode}")


# --- the command ---


def _stop(*_: object) -> NoReturn:
    # As an exception, so that the connection is closed and the step's container removed.
    sys.exit(1)


def main() -> int:
    """Build as the environment says, and leave the result where the supervisor looks for it."""
    import docker.errors

    order = Order.read(os.environ[ORDER])
    signal.signal(signal.SIGTERM, _stop)
    result = Path(os.environ["KAOS_RESULT"])
    try:
        found = build(order)
    except (KaosError, docker.errors.APIError, OSError) as e:
        message = e.message if isinstance(e, KaosError) else str(e)
        say(message)
        # An Engine that went away is no fault of the user's.
        away = {"cause": Cause.TRANSFER} if isinstance(e, EngineUnavailable) else {}
        cause = {"cause": e.cause} if isinstance(e, Ended) else away
        result.write_text(json.dumps({"message": message, **cause}))
        return 1
    say(f"Built {found['image']}")
    result.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
