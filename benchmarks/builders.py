"""What the builder of the engine `docker` costs, beside the Docker Engine's own: `rebuild` runs it.

Both get the same build jobs, as the service submits them, without its queue: so what is compared is
the builders, not what kaos_hub saves by knowing environments.
"""

import asyncio
import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from traitlets.config import Config

from benchmarks.harness import Comparison, Contestant, Series, alternate, output, seconds
from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines.base import Build, JobSpec, Phase
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.schemas import Resources
from tests.bundled import laid
from tests.networks import dismiss
from tests.test_engine_contract import end, forget_builds

_IMAGE = "python:3.13-slim"
_NAMES = {"engine": "the Engine's own", "isolated": "kaos_hub's, isolated"}
_REMARK = "Build jobs alone: without sending, queue and start. One job at a time."


class Builds:
    """Builds of one bundle, again and again, by one builder.

    Args:
        directory: for what an engine keeps.
        builder: ``isolated`` or ``engine``.
        make: makes a bundle at a path.
    """

    def __init__(self, directory: Path, builder: str, make: Callable[[Path], None]) -> None:
        self.data, self.bundle = directory / builder, directory / f"{builder}-bundle"
        make(self.bundle)
        networks = Config({"DockerNetworks": {"hub_addresses": [f"http://{bridge()}:1"]}})
        self._engine = DockerEngine(data_dir=str(self.data), config=networks, builder=builder)
        self._loop = asyncio.new_event_loop()
        self.owner = f"user:bench-{secrets.token_hex(4)}"
        self.repository = f"kaos-benchmark/{secrets.token_hex(4)}"
        self._loop.run_until_complete(self._engine.start())

    def build(self) -> None:
        """Build the bundle as it is now."""
        self._loop.run_until_complete(self._build())

    async def _build(self) -> None:
        name = f"kaos-build-{secrets.token_hex(4)}"
        bases = {_IMAGE: await self._engine.resolve(_IMAGE)}
        tag = f"{self.repository}:{name}"
        work = Build(laid(self.data, self.bundle), secrets.token_hex(8), tag, "model", bases)
        await self._engine.submit(JobSpec(name, self.owner, work, Resources(), deadline=900))
        seen = await end(self._engine, name, 900)
        assert seen.phase is Phase.SUCCEEDED, seen.message
        await self._engine.remove(name)

    def require(self, *packages: str) -> None:
        """Have the bundle need packages, as nobody has built it before."""
        lines = [f"# {secrets.token_hex(8)}", *packages, ""]
        (self.bundle / "model" / "requirements.txt").write_text("\n".join(lines))

    def cache(self) -> float:
        """Megabytes of disk that the builder keeps for the owner, beside the images."""
        listing = ["docker", "volume", "ls", "-q", "--filter"]
        volumes = output(*listing, f"label=kaos_hub.build={self._engine.hub_prefix}").split()
        if not volumes:
            return 0.0
        mounts = [word for volume in volumes for word in ("-v", f"{volume}:/{volume}:ro")]
        said = output(
            "docker", "run", "--rm", *mounts, _IMAGE, "du", "-smc", *map("/{}".format, volumes)
        )
        return float(said.splitlines()[-1].split()[0])

    def close(self) -> None:
        """Remove all that was made."""
        images = output("docker", "images", "-q", self.repository).split()
        if images:
            subprocess.run(["docker", "rmi", "-f", *set(images)], capture_output=True)
        forget_builds(self._engine)
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()
        dismiss(self.data)
        shutil.rmtree(self.data, ignore_errors=True)


def compare(
    directory: Path, make: Callable[[Path], None], change: Callable[[Path], None], rounds: int
) -> Iterator[Comparison]:
    """Both builders, side by side.

    Args:
        directory: for all that is made.
        make: makes a bundle at a path.
        change: changes one line of a bundle's code, to what it never was.
        rounds: turns of each that count.
    """
    with contextlib.ExitStack() as stack:
        both = {}
        for builder in _NAMES:
            both[builder] = Builds(directory, builder, make)
            stack.callback(both[builder].close)
        steps: dict[str, Callable[[Builds], Any]] = {
            "first": lambda of: of.require("numpy"),
            "nothing changed": lambda of: None,
            "code changed": lambda of: change(of.bundle),
            "one package more": lambda of: of.require("numpy", "idna"),
        }
        for title, before in steps.items():
            series = alternate(
                [Contestant(_NAMES[name], _turn(of, before)) for name, of in both.items()],
                rounds,
                title,
            )
            remarks = (_REMARK,) if title == "first" else ()
            yield Comparison(f"builders, {title}", series, remarks=remarks)
        kept = [Series(_NAMES[name], of.cache(), (of.cache(),)) for name, of in both.items()]
        yield Comparison("builders, disk kept for the owner beside images", tuple(kept), "MB")


def _turn(of: Builds, before: Callable[[Builds], Any]) -> Callable[[], float]:
    def turn() -> float:
        before(of)
        return seconds(of.build)

    return turn
