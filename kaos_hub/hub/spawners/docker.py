"""Notebooks as containers of a Docker Engine, each in the user's own, untouched image."""

import io
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount
from dockerspawner import DockerSpawner
from requests.exceptions import RequestException
from traitlets import Integer, Unicode, default

from kaos_hub.engines import runtime_image
from kaos_hub.engines.docker.networks.networks import SHARED, DockerNetworks
from kaos_hub.errors import EngineUnavailable, KaosError, NotFound as Missing, Unsupported
from kaos_hub.hub.spawners.homes import make_home
from kaos_hub.hub.spawners.mixin import Ending, KaosSpawnerMixin
from kaos_hub.schemas import NotebookSpec
from kaos_hub.transport.certified import DIRECTORY
from kaos_hub.util.quantities import show_memory

_THREADS = 8


class KaosDockerSpawner(KaosSpawnerMixin, DockerSpawner):
    """Runs a notebook in a container named by its workload; a restarted Hub finds it by that name.

    The container is stopped, never removed here: the service keeps its log first, then removes it.
    """

    pids_limit = Integer(
        4096, config=True, help="Processes and threads a notebook may have; stops fork bombs."
    )
    shared_memory = Unicode(
        "1g",
        config=True,
        help="Size of /dev/shm, which counts as the notebook's memory. Docker's own 64m is too"
        " little for what loads data in parallel.",
    )
    runtime_volume = Unicode(
        config=True, help="Volume with what notebooks run; by default the one of this release."
    )

    _own_executor: ThreadPoolExecutor | None = None

    @default("runtime_volume")
    def _volume_of_this_release(self) -> str:
        return runtime_image.volume()

    @default("use_internal_ip")
    def _reached_directly(self) -> bool:
        # Docker itself would answer a published port before the server inside listens.
        return True

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Our own threads: the stock spawner has one, so a slow start would delay all others."""
        cls = KaosDockerSpawner
        if cls._own_executor is None:
            cls._own_executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="kaos-docker")
        return cls._own_executor

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier Hub started."""
        super().load_state(state)
        if self.workload:
            self.object_name = self.workload
            # That Hub may have died before it was told the id, and without one JupyterHub would not
            # start at all. The Engine takes a name as well.
            self.object_id = str(state.get("object_id") or self.workload)

    # --- the three steps -------------------------------------------------------------------------

    async def launch(self, spec: NotebookSpec) -> str:
        """Create the container, start it and find its address.

        Raises:
            NotFound: its image, or the runtime, is gone.
            Unsupported: the Engine has no such GPUs, or the owner's network cannot be had.
            EngineUnavailable: the Engine does not answer, or refuses.
        """
        self.image = spec.image or ""
        self.object_name = spec.workload  # after the image, which sets it to something else
        make_home(spec)
        with _explained(spec):
            await self._check_runtime()
            await self._enter_network(spec)
            try:
                container = await self.create_object()
                self.object_id = container[self.object_id_key]
            except APIError as e:
                if e.status_code != 409:
                    raise
                await self.get_object()  # the name is taken: by a launch that we did not see end
            await self.start_object()
            address = await self._find()
            await self._certify(address)
            return address

    async def get_url(self) -> str:
        """Return the server's URL, even if an earlier Hub died before it knew the address."""
        if not self.address:
            self.address = await self._find()
            await self._certify(self.address)
        return self._whole(self.address)

    async def _find(self) -> str:
        ip, port = await self.get_ip_and_port()
        return f"{self.scheme}://{ip}:{port}"

    async def _certify(self, address: str) -> None:
        """Put the server's certificate into its container, where parts of the hub speak TLS.

        The server waits for it. It cannot be made earlier: it is for the address that the container
        got when it started. It is nowhere else, and goes with the container.
        """
        if not self.internal_ssl:
            return
        container = await self.docker("inspect_container", self.workload)
        uid = int(str(container["Config"]["User"]).partition(":")[0])
        files = self.certificate_files(urlsplit(address).hostname or "")
        await self.docker("put_archive", self.workload, "/", _packed(files, uid))

    async def _enter_network(self, spec: NotebookSpec) -> None:
        """Choose the network of the notebook's owner, which shuts others out.

        Raises:
            Unsupported: it cannot be had, or the admin has named one that all would share.
            EngineUnavailable: the Engine does not answer.
        """
        networks = DockerNetworks(parent=self)
        if not networks.isolate:
            return
        if self._shared:
            raise Unsupported(
                f"c.DockerSpawner.network_name names {self._shared!r}, which users would share."
                " Leave it out, or set c.DockerNetworks.isolate = False."
            )
        self.network_name = await networks.ensure(spec.owner)

    @cached_property
    def _shared(self) -> str:
        """The network that the admin has named for all notebooks, if there is one."""
        return "" if self.network_name == SHARED else str(self.network_name)

    def get_network_ip(self, network_settings: dict[str, Any]) -> str:
        """The container's address, in whichever network it was started."""
        found = [str(n["IPAddress"]) for n in network_settings["Networks"].values()]
        if not any(found):
            raise EngineUnavailable("The container has no address in any network.")
        return next(filter(None, found))

    async def _check_runtime(self) -> None:
        """An absent volume would be made, empty, by the Engine."""
        try:
            await self.docker("inspect_volume", self.runtime_volume)
        except NotFound:
            raise Missing(
                f"The runtime of notebooks ({self.runtime_volume}) is not on this Docker Engine."
                " `kaos up --engine docker` makes it."
            ) from None

    async def look(self) -> Ending | None:
        """Return how the container ended, or None while it runs.

        Raises:
            EngineUnavailable: the Engine does not answer.
        """
        try:
            container = await self.docker("inspect_container", self.workload)
        except NotFound:
            return Ending(1, "its container was removed by somebody")
        except (DockerException, RequestException) as e:
            raise EngineUnavailable(f"The Docker Engine does not answer: {e}") from None
        state = container["State"]
        if state["Running"] or state.get("Restarting"):
            return None
        return Ending(int(state.get("ExitCode") or 0), self._reason(container))

    def _reason(self, container: dict[str, Any]) -> str:
        state = container["State"]
        if state.get("OOMKilled"):
            limit = container["HostConfig"].get("Memory") or None
            return f"it used more memory than it had ({show_memory(limit)})"
        code = int(state.get("ExitCode") or 0)
        if state.get("Error"):
            return str(state["Error"])
        if code > 128 and code - 128 in set(signal.Signals):
            return f"it was killed ({signal.Signals(code - 128).name}), not by kaos_hub"
        return f"it ended with exit code {code}" if code else "it ended by itself"

    async def halt(self, now: bool) -> None:
        """Stop the container; its log stays readable.

        Raises:
            EngineUnavailable: the Engine does not answer.
        """
        try:
            await self.docker("stop", self.workload, timeout=1 if now else 10)
        except NotFound:
            return
        except (DockerException, RequestException) as e:
            raise EngineUnavailable(f"The container cannot be stopped: {e}") from None

    # --- the container ---------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """Return the variables of all notebooks, and a home: the image's user may have none."""
        env = super().get_env()
        return env | {"HOME": env.get("KAOS_HOME", "/home/kaos")}

    @default("use_internal_hostname")
    def _reached_by_address(self) -> bool:
        return False  # this machine does not know containers by name

    @property
    def volume_binds(self) -> dict[str, Any]:
        """The admin's volumes, without the one that would have all certificates of a user."""
        binds: dict[str, Any] = super().volume_binds
        return {volume: bind for volume, bind in binds.items() if bind["bind"] != "/certs"}

    async def get_command(self) -> list[str]:
        """Nothing: our command takes the place of the image's entry point."""
        return []

    @default("extra_create_kwargs")
    def _what_runs(self) -> Any:
        return lambda spawner: spawner.create_kwargs()

    @default("extra_host_config")
    def _how_it_is_confined(self) -> Any:
        return lambda spawner: spawner.host_config()

    def create_kwargs(self) -> dict[str, Any]:
        """Return the container's entrypoint, user, labels and (disabled) health check."""
        spec = self._admitted
        user = 1000 if spec.uid is None else spec.uid
        return {
            "entrypoint": [runtime_image.COMMAND],
            # With its own group, or Docker would give it root's.
            "user": f"{user}:{user}",
            "labels": dict(spec.labels),
            "healthcheck": {"test": ["NONE"]},
        }

    def host_config(self) -> dict[str, Any]:
        """Return what the container may use, and what it may not do."""
        resources = self._admitted.resources
        config: dict[str, Any] = {
            # As process 1 a server that is just starting would be deaf to a request to end, and no
            # process would reap what its kernels and terminals leave behind.
            "init": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": self.pids_limit,
            "shm_size": self.shared_memory,
            # Logs are kept by the service; here they must not fill the disk.
            "log_config": {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "2"}},
        }
        if self.mem_limit:
            config["memswap_limit"] = self.mem_limit  # memory means memory, not swap
        if resources.gpu:
            config["device_requests"] = [DeviceRequest(count=resources.gpu, capabilities=[["gpu"]])]
        return config

    @property
    def mount_binds(self) -> list[Mount]:
        """The admin's mounts, the runtime, and what was admitted."""
        runtime = Mount(
            runtime_image.ROOT, self.runtime_volume, type="volume", read_only=True, no_copy=True
        )
        admitted = [
            Mount(m.target, m.source, type="bind", read_only=m.read_only)
            for m in self._admitted.mounts
        ]
        return [*super().mount_binds, runtime, *admitted]

    @property
    def _admitted(self) -> NotebookSpec:
        if self.spec is None:
            raise KaosError("A container cannot be made before it was admitted.")
        return self.spec


def _packed(files: dict[str, str], uid: int) -> bytes:
    """Files of :data:`DIRECTORY` as an archive; they are the user's who runs the server, alone."""
    folder = tarfile.TarInfo(DIRECTORY.lstrip("/"))
    folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o500, uid, uid
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(folder)
        for name, text in files.items():
            file = tarfile.TarInfo(f"{folder.name}/{name}")
            file.mode, file.uid, file.gid, file.size = 0o400, uid, uid, len(text)
            archive.addfile(file, io.BytesIO(text.encode("ascii")))
    return packed.getvalue()


@contextmanager
def _explained(spec: NotebookSpec) -> Iterator[None]:
    """Turn what the Engine says into something that the notebook's owner can use."""
    try:
        yield
    except ImageNotFound:
        raise Missing(
            f"The image of notebook {spec.notebook} is no longer on this Docker Engine. Deploy the"
            " notebook again; the image is then built anew."
        ) from None
    except APIError as e:
        said = str(e.explanation or e)
        if "device driver" in said or "nvidia" in said.lower():
            raise Unsupported(
                f"This Docker Engine has no GPUs to give (asked for: {spec.resources.gpu}): {said}"
            ) from None
        raise EngineUnavailable(f"The Docker Engine could not start the notebook: {said}") from None
    except (TimeoutError, DockerException, RequestException) as e:
        raise EngineUnavailable(f"The Docker Engine does not answer: {e}") from None
