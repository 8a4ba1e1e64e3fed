"""One image build in a container of its own, which reaches nothing of other users.

The container runs ``kaos-build`` (``images/builder``): buildah, without privileges, as in a
cluster. It sees the bundle, the stores of its base images (read-only) and the cache of its owner,
and has the owner's network. Base images are brought in by us, so it needs no registry; what it
leaves is checked (:mod:`kaos_hub.engines.docker.builds.result`) and loaded into the Engine.
Everything here blocks.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.engines import builder_image
from kaos_hub.engines.base import Cause
from kaos_hub.engines.builder_environment import environment
from kaos_hub.engines.docker import client as engine
from kaos_hub.engines.docker.builds.layers import Layers, LayersGone
from kaos_hub.engines.docker.builds.narrow import mounted, narrow
from kaos_hub.engines.docker.builds.result import Result
from kaos_hub.engines.docker.containers import LABEL, OWNER, out_of_memory
from kaos_hub.engines.docker.disk import Disk
from kaos_hub.engines.docker.leftovers import (
    BASE,
    BUILD,
    BUILDER,
    base_volume,
    cache_volume,
    clear,
    filling,
    is_there,
    locked,
    made,
    wait_for_end,
    write,
)
from kaos_hub.errors import BuildFailed
from kaos_hub.util.quantities import show_memory

if TYPE_CHECKING:
    from docker import DockerClient

_PROGRAMS = "/usr/local/bin"
_LONG = 24 * 3600
"""Seconds that the Engine may take to answer: to unpack an image, or to have more output."""
_MIB = 1 << 20
_CA = "/ca/ca.crt"
_FILLING_MEMORY = 1 << 30
_CANNOT = 70
"""Exit code of ``kaos-build`` where the machine does not let it work."""


@dataclass(frozen=True)
class Confinement:
    """The confinement of builds on a Docker Engine. The build's process gets it as JSON.

    Args:
        hub: what the names of all containers and volumes of this hub's builds begin with.
        image: the builder; empty: the one of this release, made if it is not there.
        memory, cpu, processes, storage: what a build may use: bytes, cores, number, bytes of disk.
        state: folder where is kept what is known of volumes.
        pip_index_url, ca_file, build_args: what every build is told.
    """

    hub: str
    state: str
    image: str = ""
    memory: int | None = None
    cpu: float | None = None
    processes: int = 2048
    storage: int = 20 << 30
    pip_index_url: str = ""
    ca_file: str = ""
    build_args: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """An image to build."""

    name: str
    """Of the container."""
    owner: str
    source: Path
    context: str
    tag: str
    network: str
    labels: Mapping[str, str]
    bases: Mapping[str, str]


class Ended(BuildFailed):
    """A build that did not end by itself.

    Args:
        message: for people.
        cause: why.
    """

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


class ContainerBuilder:
    """Builds one image.

    Args:
        client: of the Engine.
        task: what to build.
        rules: how builds are confined.
        say: told each line for the build's log that is not the builder's own.
    """

    def __init__(
        self, client: "DockerClient", task: Task, rules: Confinement, say: Callable[[str], None]
    ) -> None:
        self._client, self._task, self._rules, self._say = client, task, rules, say
        self._patient = engine.connect(_LONG)
        self._ids = sorted({pin for pin in task.bases.values() if pin != engine.SCRATCH})
        self._image = self._builder = ""
        self._seccomp = ""

    def build(self) -> None:
        """Build the image and have the Engine know it by its name.

        Raises:
            BuildFailed: it could not be built; the log has all the builder said.
            EngineUnavailable: the Engine does not answer.
        """
        import docker.errors

        self._builder = self._find_builder()
        self._seccomp = self._profile()
        clear(self._client, self._task.name)
        stores = {self._store(base): f"/bases/{number}" for number, base in enumerate(self._ids)}
        try:
            try:
                self._make(stores, Layers(self._client, self._ids, self._record()))
            except LayersGone:
                clear(self._client, self._task.name)
                self._make(stores, Layers(self._client, self._ids))
        except docker.errors.APIError as e:
            if e.status_code is None or e.status_code >= 500:
                raise
            raise self._unable(str(e.explanation or e)) from None
        finally:
            clear(self._client, self._task.name)

    def _find_builder(self) -> str:
        """The id of the builder. Nothing takes its place if it is not there."""
        if not self._rules.image:
            try:
                self._image = builder_image.ensure(self._patient, self._say)
            except BuildFailed as e:
                message = f"Images cannot be built, since their builder cannot be made: {e.message}"
                raise Ended(message, Cause.CONFIGURATION) from None
            return str(engine.image_id(self._client, self._image))
        self._image = self._rules.image
        found = engine.image_id(self._client, self._image)
        if found is None:
            raise Ended(
                f"Images cannot be built: {self._image}, the builder that"
                " c.DockerEngine.builder_image names, is not on this Docker Engine. The admin has"
                " to bring it there, or to leave the setting out.",
                Cause.CONFIGURATION,
            )
        return found

    def _profile(self) -> str:
        """The seccomp profile, asked for once per builder."""
        kept = Path(self._rules.state) / f"seccomp-{self._builder[7:23]}.json"
        if not kept.exists():
            found = builder_image.seccomp_profile(self._client, self._image)
            write(kept, found)
        return kept.read_text()

    # --- stores of base images ---

    def _store(self, base: str) -> str:
        """The volume with the store of a base image; made if it is not there."""
        volume = base_volume(base, self._builder)
        with locked(Path(self._rules.state) / f"{volume}.lock"):
            while not (is_there(self._client, made(volume)) and is_there(self._client, volume)):
                self._fill(volume, base)
        return volume

    def _fill(self, volume: str, base: str) -> None:
        """Fill a store, or wait for another hub of this Engine that does."""
        import docker.errors

        name, labels = filling(volume), {BASE: base, BUILDER: self._builder}
        command, mounts = [f"{_PROGRAMS}/kaos-base"], [mounted("/base", volume)]
        self._client.api.create_volume(volume, labels=labels)
        try:
            # Its name is the lock: there is only one of that name.
            self._create(name, command, mounts, "none", _FILLING_MEMORY)
        except docker.errors.APIError as e:
            if e.status_code != 409:
                raise
            # One of ours is what a killed process left: we have the lock of this hub.
            wait_for_end(self._client, name, self._rules.hub)
            return
        self._say(f"Preparing the base image {base[7:19]} for builds (once)")
        try:
            self._patient.api.put_archive(name, "/storage", self._patient.api.get_image(base))
            self._client.api.start(name)
            code = self._patient.api.wait(name)["StatusCode"]
            if code:
                said = self._client.api.logs(name, tail=5).decode(errors="replace").strip()
                raise (
                    self._unable(said)
                    if code == _CANNOT
                    else BuildFailed(
                        f"the base image {base[7:19]} cannot be prepared for builds: {said}"
                    )
                )
            self._client.api.create_volume(made(volume), labels=labels)
        finally:
            clear(self._client, name)

    def _unable(self, said: str) -> Ended:
        return Ended(
            f"Images cannot be built on this Docker Engine: {said[-500:]} `kaos doctor` tells the"
            " admin what is missing. On a hub that only one person can log in to, the Engine's own"
            " builder may do instead: c.DockerEngine.builder = 'engine'.",
            Cause.CONFIGURATION,
        )

    # --- the build ---

    def _create(
        self,
        name: str,
        command: list[str],
        mounts: list[Any],
        network: str,
        memory: int | None,
        **more: Any,
    ) -> None:
        """A container of the builder, as narrow as buildah can work in."""
        self._client.containers.create(
            self._image,
            command,
            name=name,
            **narrow(self._seccomp),
            # Volumes without a name: they go with the container.
            mounts=[*mounts, mounted("/storage"), mounted("/out")],
            network_mode=network,
            mem_limit=memory,
            # Equal to the memory: no swap beyond it.
            memswap_limit=memory,
            pids_limit=self._rules.processes,
            labels=self._labels(name),
            **more,
        )

    def _labels(self, name: str) -> dict[str, str]:
        return {LABEL: name, BUILD: self._rules.hub, OWNER: self._task.owner}

    def _record(self) -> Path:
        """Says when the cache of the owner was used last, and what was built of it."""
        return Path(self._rules.state) / f"{cache_volume(self._rules.hub, self._task.owner)}.used"

    def _make(self, stores: Mapping[str, str], layers: Layers) -> None:
        self._run(stores, layers)
        self._load(layers)

    def _run(self, stores: Mapping[str, str], layers: Layers) -> None:
        rules, task = self._rules, self._task
        cache = cache_volume(rules.hub, task.owner)
        self._client.api.create_volume(cache, labels={BUILD: rules.hub, OWNER: task.owner})
        self._record().touch()
        mounts = [mounted(place, volume, read_only=True) for volume, place in stores.items()]
        mounts += [mounted("/cache", cache), _file("/source", str(task.source))]
        if rules.ca_file:
            mounts.append(_file(_CA, rules.ca_file))
        self._create(
            task.name,
            [f"{_PROGRAMS}/kaos-build"],
            mounts,
            task.network,
            rules.memory,
            environment=self._environment(stores, layers),
            nano_cpus=int(rules.cpu * 1e9) if rules.cpu else None,
            log_config={"type": "json-file", "config": {"max-size": "64m", "max-file": "1"}},
        )
        self._client.api.start(task.name)
        disk = Disk(self._client, self._image, task.name, rules.storage, self._labels(task.name))
        with disk.watched():
            for piece in self._patient.api.logs(task.name, stream=True, follow=True):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            code = self._patient.api.wait(task.name)["StatusCode"]
        self._judge(int(code), disk.full)

    def _environment(self, stores: Mapping[str, str], layers: Layers) -> dict[str, str]:
        rules, task = self._rules, self._task
        places = dict(zip(self._ids, stores.values(), strict=True))
        bases = {name: places[pin] for name, pin in task.bases.items() if pin in places}
        found = environment(
            task.context,
            bases,
            rules.storage,
            rules.build_args,
            rules.pip_index_url,
            _CA if rules.ca_file else "",
            "/cache",
        )
        found["KAOS_SOURCE"] = "/source"
        found["KAOS_STORES"] = " ".join(stores.values())
        if layers.whole:
            found["KAOS_WHOLE"] = "yes"
        found["KAOS_HAVE"] = layers.text()
        return found

    def _judge(self, code: int, full: str) -> None:
        """Raises what is to be said of a build that did not succeed."""
        if full:
            raise Ended(f"the build has filled its disk: {full}", Cause.STORAGE)
        if code == 0:
            return
        if code == _CANNOT:
            said = self._client.api.logs(self._task.name, tail=5).decode(errors="replace").strip()
            raise self._unable(said)
        found = self._client.api.inspect_container(self._task.name)
        if found["State"].get("OOMKilled") or out_of_memory(self._client, found):
            limit = show_memory(self._rules.memory or 0)
            raise Ended(f"the build used more memory than {limit}", Cause.OUT_OF_MEMORY)
        raise BuildFailed(f"the build ended with exit code {code}")

    def _load(self, layers: Layers) -> None:
        task = self._task
        result = Result(layers.chains, task.tag, task.labels, self._rules.storage)
        stream, _ = self._patient.api.get_archive(task.name, "/out/layout")
        for event in self._patient.api.load_image(  # type: ignore[no-untyped-call]
            result.archive(stream)
        ):
            if "error" in event:
                layers.check()
                raise BuildFailed(f"the Docker Engine does not take the image: {event['error']}")
        self._say(f"{result.given} of {result.count} layers handed to the Docker Engine")
        layers.remember(str(engine.image_id(self._client, task.tag)))


def _file(target: str, source: str) -> Any:
    from docker.types import Mount

    return Mount(target, source, "bind", read_only=True)
