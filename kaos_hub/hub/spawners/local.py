"""Notebooks as processes of this machine: for one person, on one's own computer."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jupyterhub.utils import random_port
from traitlets import Bool, Unicode, default

from kaos_hub.engines.base import Phase
from kaos_hub.engines.local import sandbox
from kaos_hub.engines.scratch import Scratch
from kaos_hub.engines.supervised.process import Processes
from kaos_hub.errors import Forbidden
from kaos_hub.hub.spawners.homes import make_home
from kaos_hub.hub.spawners.mixin import Ending, KaosSpawnerMixin
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import Mount, NotebookSpec
from kaos_hub.transport.certified import DIRECTORY

# What tools need of the Hub's environment to reach package indexes and the network as it does.
_NETWORK = (
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_INDEX_URL",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_TLS = "tls"


class KaosLocalSpawner(KaosSpawnerMixin):
    """Runs a notebook as a supervised process, which a restarted Hub finds again.

    JupyterLab comes from kaos_hub's own environment, the kernel from the notebook's.
    """

    data_dir = Unicode(config=True, help="The kaos data directory.")
    trust_all_users = Bool(
        False,
        config=True,
        help="Let all users of the Hub run code as the OS user who started it, who can then read"
        " each other's files. By default only that OS user may.",
    )

    @default("env_keep")
    def _what_tools_need(self) -> list[str]:
        return ["PATH", "LANG", "LC_ALL", "TZ", *_NETWORK]

    @default("args")
    def _root_may(self) -> list[str]:
        # Who starts the Hub as root has decided so already; Jupyter would refuse.
        return ["--allow-root"] if os.geteuid() == 0 else []

    @property
    def _processes(self) -> Processes:
        return processes(self.data_dir)

    async def launch(self, spec: NotebookSpec) -> str:
        """Start the process under its supervisor.

        Raises:
            Forbidden: another user than the one who started the Hub.
            EngineUnavailable: this machine cannot start it now.
        """
        self._refuse_others()
        make_home(spec)
        self.port = random_port()
        self.address = f"{self.scheme}://127.0.0.1:{self.port}"
        self.remember()
        if self.internal_ssl:
            spec = self._with_certificates(spec)
        # Isolated, or a file in the user's folder could take the place of one of our modules.
        argv = [sys.executable, "-I", "-m", "kaos_hub.workload.notebook.start", *self.get_args()]
        wrapped = await asyncio.to_thread(sandbox.available)
        env = self.get_env() | {"HOME": sandbox.HOME if wrapped else str(Path.home())}
        if wrapped:
            argv = _sandboxed(argv, spec, DataDir(self.data_dir))
        else:
            env = {name: _host_path(value, spec.mounts) for name, value in env.items()}
        await self._processes.submit(self.workload, argv, env, wrapped=wrapped)
        return self.address

    def _with_certificates(self, spec: NotebookSpec) -> NotebookSpec:
        """The same, with a folder that has the server's certificate.

        Raises:
            EngineUnavailable: it cannot be written.
        """
        files = self.certificate_files("127.0.0.1")
        folder = Scratch(DataDir(self.data_dir).scratch).keep(self.workload, _TLS, files)
        mount = Mount(source=str(folder), target=DIRECTORY)
        return spec.model_copy(update={"mounts": [*spec.mounts, mount]})

    def _refuse_others(self) -> None:
        me = DataDir(self.data_dir).user
        if self.user.name != me and not self.trust_all_users:
            raise Forbidden(
                f"On this Hub notebooks run as {me}'s own processes, so only {me} may start them."
                " `kaos up --trust-all-users` lets everybody who can log in; `kaos up --engine"
                " docker` keeps users apart."
            )

    async def look(self) -> Ending | None:
        """Return how the process ended, or None while it runs."""
        seen = self._processes.observe(self.workload)
        if seen.phase in (Phase.PENDING, Phase.RUNNING):
            return None
        if seen.phase is Phase.SUCCEEDED:
            return Ending(0, seen.message or "it ended by itself")
        return Ending(seen.exit_code or 1, seen.message)

    async def halt(self, now: bool) -> None:
        """End the process and all that it started."""
        await self._processes.cancel(self.workload, grace=1 if now else 10)


def _sandboxed(argv: Sequence[str], spec: NotebookSpec, data: DataDir) -> list[str]:
    """The command in a sandbox that sees of the data directory only what is the notebook's own."""
    home = next((Path(m.source) for m in spec.mounts if m.target == sandbox.HOME), None)
    mounts = [m for m in spec.mounts if m.target != sandbox.HOME]
    return sandbox.wrap(argv, mounts, hide=[data.path], home=home)


def _host_path(value: str, mounts: Sequence[Mount]) -> str:
    """Return the host's path of what only a sandbox would show at its promised place."""
    for mount in sorted(mounts, key=lambda m: len(m.target), reverse=True):
        if value == mount.target or value.startswith(f"{mount.target}/"):
            return mount.source + value.removeprefix(mount.target)
    return value


_known: dict[str, Processes] = {}


def processes(data_dir: str) -> Processes:
    """The supervised processes of a data directory; one object, since it owns threads."""
    if data_dir not in _known:
        _known[data_dir] = Processes(DataDir(data_dir).workloads)
    return _known[data_dir]
