"""The client of one image build: run as ``python -m`` under a supervisor, to outlive the service.

The Engine works for as long as its client is connected. So ending this process ends the running
step, which no cancel of the SDK does. Uses ``docker buildx`` where that is installed, else the
classic builder.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kaos_hub.engines.docker_client import (
    answering,
    connect,
    describe,
    has_buildx,
    image_id,
    pull,
    split,
)
from kaos_hub.engines.docker_context import context_tar, dockerfile_name
from kaos_hub.errors import BuildFailed, KaosError

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import Response

_CONTAINER = re.compile(r" ---> Running in ([0-9a-f]{12,64})")
_PERIOD = 100_000


@dataclass(frozen=True)
class Order:
    """What to build."""

    source: Path
    context: str
    tag: str
    labels: dict[str, str]
    bases: dict[str, str]
    memory: int | None
    cpu: float | None
    network: str

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
    client = connect()
    with answering():
        pin_bases(client, order.bases)
        if has_buildx():
            _buildx(order)
        else:
            _Classic(client, order).build()
        return describe(client, order.tag)


# --- base images ---


def pin_bases(client: "DockerClient", bases: dict[str, str]) -> None:
    """See to it that each base image means what it meant when the environment's key was made.

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
            for line in pull(client, reference):
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
            "labels": json.dumps(order.labels),
            "networkmode": order.network,
        }
        if order.memory:
            # Equal to the memory: no swap beyond it.
            parameters |= {"memory": order.memory, "memswap": order.memory}
        if order.cpu:
            parameters |= {"cpuperiod": _PERIOD, "cpuquota": int(order.cpu * _PERIOD)}
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
        docker.errors.create_api_error_from_http_exception(e)


# --- BuildKit ---


def _buildx(order: Order) -> None:
    labels = [word for k, v in order.labels.items() for word in ("--label", f"{k}={v}")]
    done = subprocess.run(
        # The default builder is the Engine's own: it knows the images on this machine.
        ["docker", "buildx", "build", "--builder", "default", "--load", "--progress", "plain",
         "--network", order.network, "--file", str(order.dockerfile), "--tag", order.tag,
         *labels, str(order.directory)],
        stderr=subprocess.STDOUT,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildFailed(f"docker buildx build ended with exit code {done.returncode}")


# --- the command ---


def _pairs(values: list[str]) -> dict[str, str]:
    return dict(v.partition("=")[::2] for v in values)


def _parse() -> Order:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--context", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--base", action="append", default=[])
    parser.add_argument("--memory", type=int)
    parser.add_argument("--cpu", type=float)
    parser.add_argument("--network", default="default")
    given = parser.parse_args()
    return Order(
        given.source,
        given.context,
        given.tag,
        _pairs(given.label),
        _pairs(given.base),
        given.memory,
        given.cpu,
        given.network,
    )


def _stop(*_: object) -> NoReturn:
    # As an exception, so that the connection is closed and the step's container removed.
    sys.exit(1)


def main() -> int:
    """Build as the arguments say, and leave the result where the supervisor looks for it."""
    import docker.errors

    order = _parse()
    signal.signal(signal.SIGTERM, _stop)
    result = Path(os.environ["KAOS_RESULT"])
    try:
        found = build(order)
    except (KaosError, docker.errors.APIError, OSError) as e:
        message = e.message if isinstance(e, KaosError) else str(e)
        say(message)
        result.write_text(json.dumps({"message": message}))
        return 1
    say(f"Built {found['image']}")
    result.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
