"""Settings of the engine ``docker``."""

import hashlib
import os
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Enum, Int, List, Unicode

from kaos_hub.engines.docker.builds.bases import Registries
from kaos_hub.engines.docker.builds.builder import Confinement
from kaos_hub.engines.supervised.supervised import SupervisedEngine
from kaos_hub.installation.logins import ENGINE, ISOLATED
from kaos_hub.schemas import Resources
from kaos_hub.util.quantities import parse_memory


class DockerSettings(SupervisedEngine):
    """The settings."""

    uid = Int(
        os.geteuid() or 1000,
        min=1,
        help="User and group id of what runs in containers, and of the homes they write to.",
    ).tag(config=True)

    pids_limit = Int(4096, min=16, help="How many processes a job may have at once.").tag(
        config=True
    )

    shared_memory = Unicode(
        "1g",
        help=(
            "Size of /dev/shm of a job, which counts as its memory. Docker's own 64m is too little"
            " for what loads data in parallel."
        ),
    ).tag(config=True)

    runtime_volume = Unicode(
        help="Volume with the Python of our own programs in containers; by default this release's."
    ).tag(config=True)

    stop_grace = Int(5, min=0, help="Seconds between SIGTERM and SIGKILL.").tag(config=True)

    builder = Enum(
        [ISOLATED, ENGINE],
        ISOLATED,
        help=(
            "What builds images. `isolated`: each build in a container of its own, which has"
            " nothing of other users in its reach. `engine`: the Docker Engine's builder, for all"
            " users together; a build can then take any image, cache or address that the Engine"
            " has. So it is refused at the start unless the configuration shows that one person"
            " alone can log in. Neither ever takes the other's place by itself."
        ),
    ).tag(config=True)

    builder_image = Unicode(
        help=(
            "The image in which isolated builds run; by default this release's, which is made from"
            " $KAOS_BUILDER_BASE (debian:trixie-slim) when it is not there. For machines that"
            " cannot make it."
        )
    ).tag(config=True)

    build_network = Unicode(
        help=(
            "Network of build steps, instead of their owner's: a name of the Engine's, or `none`."
        )
    ).tag(config=True)

    build_processes = Int(
        2048, min=16, help="How many processes an isolated build may have at once."
    ).tag(config=True)

    build_storage = Unicode(
        "20Gi",
        help=(
            "Bytes that an isolated build may fill, with the cache of its owner. It is measured"
            " every few seconds, so a fast writer gets further before it is ended. A cache that is"
            " larger begins anew."
        ),
    ).tag(config=True)

    build_cache_days = Int(
        30, min=1, help="Days after which the cache of an owner who builds nothing is deleted."
    ).tag(config=True)

    pip_index_url = Unicode(
        help=(
            "Index that pip uses in isolated builds, unless a base image has another in"
            " /etc/pip.conf or a variable. Default: pip's own."
        )
    ).tag(config=True)

    ca_file = Unicode(
        help=(
            "File of this machine with certificates that isolated builds trust: pip, and what ADD"
            " fetches."
        )
    ).tag(config=True)

    build_args = Dict(
        help="Build arguments of every isolated build, for Dockerfiles that declare them."
    ).tag(config=True)

    registries = List(
        Unicode(),
        help=(
            "Registries that may be asked for images though their address is not public, as in"
            " `registry.local:5000`. The Engine asks from this machine, so any other name could"
            " mean whatever listens here or beside it. Default: none."
        ),
    ).tag(config=True)

    resync = Int(
        30, min=1, help="Seconds after which a watched container is looked at without any event."
    ).tag(config=True)

    link_trees = Bool(
        True,
        help=(
            "Lay trees out as hard links into the store. Safe, since containers see them through"
            " read-only mounts and never get CAP_SYS_ADMIN."
        ),
    ).tag(config=True)

    threads = Int(8, min=1, help="Simultaneous requests to the Engine.").tag(config=True)

    @property
    def _registries(self) -> Registries:
        return Registries(tuple(self.registries))

    @property
    def hub_prefix(self) -> str:
        """The beginning of the names of this hub's containers and volumes of builds."""
        return f"kaos-{hashlib.sha256(str(self._data.path).encode()).hexdigest()[:8]}"

    @property
    def _state(self) -> Path:
        """The folder with what is known of volumes of builds."""
        return self._data.path / "builds"

    def _confinement(self, resources: Resources, cores: int) -> dict[str, Any]:
        """Return a build's confinement, for JSON, on a machine with so many cores (0: unknown)."""
        return vars(
            Confinement(
                hub=self.hub_prefix,
                state=str(self._state),
                image=self.builder_image,
                memory=resources.memory,
                # The Engine refuses more than there is.
                cpu=min(resources.cpu, cores) if resources.cpu and cores else resources.cpu,
                processes=self.build_processes,
                storage=parse_memory(self.build_storage),
                pip_index_url=self.pip_index_url,
                ca_file=self.ca_file,
                build_args=dict(self.build_args),
            )
        )
