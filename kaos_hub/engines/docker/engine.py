"""The engine of one Docker Engine: images are built, and commands run, in containers."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

from kaos_hub.engines import builder_image, runtime_image
from kaos_hub.engines.base import Build, Cause, JobSpec, Materialise, Observation, Phase, Run
from kaos_hub.engines.docker import (
    client as engine,
    containers as containers,
    leftovers as leftovers,
)
from kaos_hub.engines.docker.builds import bases as base_images, build as docker_build
from kaos_hub.engines.docker.events import Events
from kaos_hub.engines.docker.logs import Follower
from kaos_hub.engines.docker.networks.networks import DockerNetworks
from kaos_hub.engines.docker.settings import DockerSettings
from kaos_hub.engines.files import write_json
from kaos_hub.errors import EngineUnavailable, Unsupported
from kaos_hub.installation.logins import ISOLATED
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Capacity, Mount

if TYPE_CHECKING:
    from docker import DockerClient

T = TypeVar("T")


class DockerEngine(DockerSettings):
    """Work runs in containers, and so do builds.

    A build's client, and laying a tree out, are supervised processes of this machine: they outlive
    the service. So do containers.
    """

    name: ClassVar[str] = "docker"
    _libcs: ClassVar[dict[str, str]] = {}

    # --- talking to the Engine ---

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="kaos-docker")

    @cached_property
    def networks(self) -> DockerNetworks:
        """The networks in which owners' containers run."""
        return DockerNetworks(parent=self, data_dir=self.data_dir)

    @cached_property
    def _events(self) -> Events:
        return Events(engine.connect, containers.LABEL)

    @cached_property
    def _locks(self) -> "WeakValueDictionary[str, asyncio.Lock]":
        return WeakValueDictionary()

    @cached_property
    def _client(self) -> "DockerClient":
        # Only ever made in one of our threads: it asks the Engine for its version.
        return engine.connect()

    async def _ask(self, question: Callable[["DockerClient"], T]) -> T:
        """Ask the Engine something, in a thread of our own.

        Raises:
            EngineUnavailable: it does not answer, or fails. What it refuses passes through.
        """
        import docker.errors

        def ask() -> T:
            try:
                with engine.answering():
                    return question(self._client)
            except docker.errors.APIError as e:
                if e.status_code is not None and e.status_code < 500:
                    raise
                raise EngineUnavailable(f"The Docker Engine failed: {e.explanation}") from None

        return await asyncio.get_running_loop().run_in_executor(self._pool, ask)

    async def start(self) -> None:
        """See whether the Engine answers.

        Raises:
            EngineUnavailable: it does not; says what to look at.
        """
        self._info = await self._ask(lambda client: dict(client.info()))
        loop = asyncio.get_running_loop()
        self._buildx = await loop.run_in_executor(self._pool, engine.has_buildx)
        await self._sweep()
        await self.networks.start()
        await self._ask(self._clear_builds)

    def _clear_builds(self, client: "DockerClient") -> None:
        """Remove what builds left that are no more."""
        going = {n for n in self._processes.names() if self._processes.observe(n).phase.going}
        leftovers.sweep(client, self.hub_prefix, self._state, going, self.build_cache_days)

    async def close(self) -> None:
        """Let go of connections and threads. Containers and builds go on."""
        await self.networks.close()
        self._events.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await super().close()

    # --- submitting ---

    async def submit(self, spec: JobSpec) -> None:
        """Start the work, or adopt the workload of that name."""
        match spec.work:
            case Build() as build:
                await self._build(spec, build)
            case Materialise() as work:
                await self._materialise(spec, work, link=self.link_trees)
            case Run() as run:
                async with self._locks.setdefault(spec.name, asyncio.Lock()):
                    await self._run(spec, run)

    async def _build(self, spec: JobSpec, work: Build) -> None:
        network, cores = self.build_network, int((self._info or {}).get("NCPU") or 0)
        if not network:
            # The Engine's builder knows no networks of owners.
            network = await self.networks.ensure(spec.owner) if self.buildah else "default"
        order = {
            "name": spec.name,
            "owner": spec.owner,
            "source": str(self.places.path(work.source)),
            "context": work.context,
            "tag": work.image,
            "labels": {base_images.KEY: work.key, containers.OWNER: spec.owner},
            "bases": work.bases,
            "registries": self.registries,
            "network": network,
            "rules": self._confinement(spec.resources, cores) if self.buildah else None,
        }
        # In its environment, which others on this machine cannot read as they can arguments.
        more = {docker_build.ORDER: json.dumps(order)}
        if base := os.environ.get(builder_image.BASE):
            more[builder_image.BASE] = base
        await self._run_module(spec, docker_build.__name__, [], more)

    async def _run(self, spec: JobSpec, work: Run) -> None:
        if not work.image:
            raise Unsupported("The docker engine runs nothing without an image")
        if self._verdict(spec.name):
            return
        found = await self._inspect(spec.name)
        if found is not None and containers.observation(found).phase is not Phase.PENDING:
            return
        network = await self.networks.ensure(spec.owner)
        if found is None:
            await self._create(spec, work, network)
            found = await self._inspect(spec.name)
        if found is not None and containers.observation(found).phase is Phase.PENDING:
            await self._ask(partial(containers.start, name=spec.name))

    async def _create(self, spec: JobSpec, work: Run, network: str) -> None:
        import docker.errors

        try:
            given = await asyncio.to_thread(self._parameters, spec, work)
            given["network_mode"] = network
            if work.module:
                await self._ask(lambda client: client.api.inspect_volume(self._runtime))
            await self._ask(lambda client: client.containers.create(**given))
        except docker.errors.ImageNotFound:
            self._judge(spec.name, Cause.MISSING_IMAGE, f"the image {work.image} is not there")
        except docker.errors.NotFound:  # the Engine would make an empty one
            message = f"the runtime ({self._runtime}) is not on this Docker Engine"
            self._judge(spec.name, Cause.CONFIGURATION, message)
        except docker.errors.APIError as e:
            if e.status_code == 409:  # another process made it a moment ago: adopt it
                return
            raise Unsupported(f"The Docker Engine refuses {spec.name}: {e.explanation}") from None

    @cached_property
    def _runtime(self) -> str:
        return self.runtime_volume or runtime_image.volume()

    def _parameters(self, spec: JobSpec, work: Run) -> dict[str, Any]:
        mounts = [*self._scratch.make(spec.name, work, self._pass(spec, work)), *work.mounts]
        if work.module:
            mounts.append(Mount(source=self._runtime, target=runtime_image.ROOT))
        return containers.parameters(spec, work, mounts) | {
            "user": f"{self.uid}:{self.uid}",
            "pids_limit": self.pids_limit,
            "shm_size": self.shared_memory,
            "log_config": containers.log_config(self.log_limit),
        }

    # --- verdicts: what we did to a container, which its state does not tell ---

    def _verdict_path(self, name: str) -> Path:
        return self._processes.path(name) / "verdict.json"

    def _verdict(self, name: str) -> tuple[Cause, str] | None:
        try:
            found = json.loads(self._verdict_path(name).read_bytes())
        except FileNotFoundError:
            return None
        return Cause(found["cause"]), str(found["message"])

    def _judge(self, name: str, cause: Cause, message: str) -> None:
        path = self._verdict_path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, {"cause": cause.value, "message": message})

    # --- observing ---

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        import docker.errors

        try:
            found: dict[str, Any] = await self._ask(lambda c: c.api.inspect_container(name))
        except docker.errors.NotFound:
            return None
        return found if containers.LABEL in (found["Config"].get("Labels") or {}) else None

    def _supervised(self, name: str) -> bool:
        return self._processes.observe(name).phase is not Phase.ABSENT

    async def _observe(self, name: str) -> Observation:
        if self._supervised(name):
            return self._processes.observe(name)
        found = await self._inspect(name)
        late = containers.overdue(found, datetime.now(UTC)) if found else None
        if found and late is not None and late >= 0:
            await self._expire(name, found)
            found = await self._inspect(name)
        if found and containers.killed(found) and not self._verdict(name):
            told = await self._ask(partial(containers.out_of_memory, found=found))
            found["State"]["OOMKilled"] = told
        return self._judged(name, found)

    def _judged(self, name: str, found: dict[str, Any] | None) -> Observation:
        seen = containers.observation(found) if found else Observation(Phase.ABSENT)
        verdict = self._verdict(name)
        if verdict is None or seen.phase is Phase.RUNNING:
            return seen
        cause, message = verdict
        return Observation(
            Phase.FAILED, cause, message, seen.exit_code, seen.started, seen.finished
        )

    async def _expire(self, name: str, found: dict[str, Any]) -> None:
        message = f"its deadline of {containers.deadline(found)} s passed"
        self._judge(name, Cause.DEADLINE, message)
        await self._ask(partial(containers.stop, name=name, grace=self.stop_grace))

    async def watch(self, name: str) -> AsyncIterator[Observation]:
        """The present observation, then each change, until an ended or absent one."""
        if self._supervised(name):
            async for seen in self._processes.watch(name):
                yield seen
            return
        last = None
        with self._events.listen(name) as happened:
            while True:
                happened.clear()
                now = await self._observe(name)
                if now != last:
                    yield now
                    last = now
                if now.phase.ended or now.phase is Phase.ABSENT:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(happened.wait(), await self._patience(name))

    async def _patience(self, name: str) -> float:
        """Seconds until a container must be looked at even if nothing happens to it."""
        found = await self._inspect(name)
        late = containers.overdue(found, datetime.now(UTC)) if found else None
        resync = float(self.resync)
        return resync if late is None else min(resync, max(0.0, -late) + 0.05)

    # --- ending ---

    async def cancel(self, name: str) -> None:
        """End the work and everything it started. Returns when it is really gone."""
        if self._supervised(name):
            await self._processes.cancel(name)
            # Its client was to do that, and may have been killed.
            return await self._ask(partial(leftovers.clear, name=name))
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = await self._inspect(name)
            if found is None or containers.observation(found).phase.ended:
                return None
            self._judge(name, Cause.CANCELLED, "cancelled")
            await self._ask(partial(containers.stop, name=name, grace=self.stop_grace))
        return None

    async def remove(self, name: str) -> None:
        """Forget the workload, its container and logs; ends it first if it still runs."""
        supervised = self._supervised(name)
        await self._processes.remove(name)
        if supervised or await self._inspect(name):
            await self._ask(partial(leftovers.clear, name=name))
        await self._scratch.remove(name)

    async def logs(self, name: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The workload's output from a byte offset on, followed until it ends."""
        if self._supervised(name):
            async for piece in self._processes.logs(name, offset):
                yield piece
            return
        if await self._inspect(name) is None:
            return
        client = await self._ask(lambda client: client)
        follower = Follower(client, name, offset, self.log_limit)
        async with contextlib.aclosing(follower.lines()) as lines:
            async for piece in lines:
                yield piece

    # --- images and the machine ---

    @property
    def classic_builder(self) -> bool:
        """Return whether the Engine builds images itself, and without BuildKit."""
        return not self.buildah and not self._buildx

    @property
    def buildah(self) -> bool:
        """Return whether buildah builds the images."""
        return bool(self.builder == ISOLATED)

    async def resolve(self, image: str, pull: bool = False) -> str:
        """The id of the image that ``image`` means now; fetched if it is not here, or if told.

        Raises:
            NotFound: neither this machine nor the registry has it.
        """
        asked = self._registries
        return await self._ask(lambda c: base_images.resolve(c, image, pull, asked))

    async def has(self, result: dict[str, Any]) -> bool:
        """Return whether a built image is still there."""
        image = str(result.get("image") or "")
        return bool(image) and await self._ask(lambda c: engine.image_id(c, image)) is not None

    async def libc(self, image: str) -> str:
        """``musl`` or ``glibc``; looked up once, for an id never changes its meaning."""
        if image not in self._libcs:
            self._libcs[image] = str((await self.describe(image))["libc"])
        return self._libcs[image]

    async def is_built(self, image: str) -> bool:
        """Return whether an image has the label of what a build left."""
        return await self._ask(lambda c: base_images.is_built(c, image))

    async def triggers(self, image: str) -> list[str]:
        """The ONBUILD instructions of an image."""
        return await self._ask(lambda c: base_images.triggers(c, image))

    def owns(self, image: Reference) -> bool:
        """Return whether the name of an image is one that builds of kaos_hub give."""
        return image.repository.startswith("kaos-hub/")

    async def describe(self, image: str) -> dict[str, Any]:
        """Id, C library (``musl`` or ``glibc``), working directory and PATH of an image.

        Raises:
            NotFound: it is not on this machine.
        """
        return await self._ask(lambda c: engine.describe(c, image))

    async def gpus(self) -> int:
        """Count the GPUs of this machine; 0 if the Engine cannot hand them on."""
        return await self._ask(engine.gpus)

    async def capacity(self) -> Capacity:
        """Cores and memory of the machine that the Engine runs on."""
        return engine.capacity(self._info or {})

    _info: dict[str, Any] | None = None
    _buildx = False

    def problems(self) -> list[str]:
        """List what is weaker here than promised."""
        if self._info is None:
            return ["The Docker Engine has not answered yet."]
        found = engine.weaknesses(self._info, self.buildah)
        return found + self.networks.problems()
