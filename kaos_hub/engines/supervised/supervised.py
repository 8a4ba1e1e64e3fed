"""Base classes of engines that run (some of) their work as supervised processes."""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from traitlets import List, Unicode

from kaos_hub.engines.base import IDENTITY, JobSpec, Materialise, Observation, Phase
from kaos_hub.engines.configurable import ConfigurableEngine
from kaos_hub.engines.places import MachinePlaces
from kaos_hub.engines.scratch import Pass, Scratch
from kaos_hub.engines.supervised.process import Processes
from kaos_hub.util import tls


class SupervisedEngine(ConfigurableEngine):
    """Base of the engines of one machine."""

    job_environment = List(
        Unicode(),
        [
            "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "XDG_*_HOME",
            "PIP_*", "UV_*", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
            "*_PROXY", "*_proxy", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS",
            "DOCKER_*", "BUILDX_*", "BUILDKIT_*",
        ],
        help=(
            "Which of the service's environment variables (shell patterns) builds and other jobs on"
            " this machine see. The service's secrets must not be among them."
        ),
    ).tag(config=True)  # fmt: skip

    @cached_property
    def places(self) -> MachinePlaces:
        """The places where trees and homes lie: in the data directory."""
        return MachinePlaces(self._data.trees, self._data.homes, self._data.volumes)

    @cached_property
    def _processes(self) -> Processes:
        return Processes(self._data.workloads)

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch(self._data.scratch, self.uid)

    async def _sweep(self) -> None:
        """Delete what workloads wrote that are gone: the process that was to do it has died."""
        for name in self._scratch.names():
            left = self._scratch.forgotten(name)
            if left or (await self._observe(name)).phase is Phase.ABSENT:
                await self._scratch.remove(name)

    async def close(self) -> None:
        """Let go of threads. Work goes on."""
        self._processes.close()

    def _environment(self, source: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Of the service's environment what a job may see."""
        return {
            name: value
            for name, value in source.items()
            if any(fnmatch(name, pattern) for pattern in self.job_environment)
        }

    async def _run_module(
        self,
        spec: JobSpec,
        module: str,
        arguments: Sequence[str],
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Run a module of ours as the workload, with more variables than others have."""
        argv = [sys.executable, "-I", "-m", module, *arguments]
        environment = self._environment() | {"PYTHONUNBUFFERED": "1", **more}
        await self._processes.submit(
            spec.name, argv, environment, deadline=spec.deadline, cap=self.log_limit
        )

    async def _materialise(self, spec: JobSpec, work: Materialise, link: bool) -> None:
        """Lay a tree out. Hard links are only for where no workload can write through them."""
        target = str(self.places.path(work.digest))
        if not work.store.startswith("http"):
            arguments = [work.digest, work.store, target, *(["--link"] if link else [])]
            await self._run_module(spec, "kaos_hub.stores.layout", arguments)
            return
        given = Pass(self._ticket(spec, [work.digest]), self._identity(spec))
        ticket = self._scratch.keep_ticket(spec.name, given)
        arguments = ["--url", work.store, "--ticket", str(ticket), f"--tree={work.digest}={target}"]
        identity = str(ticket.with_name(PurePosixPath(IDENTITY).name))
        more = {tls.VARIABLE: identity} if given.identity else {}
        await self._run_module(spec, "kaos_hub.workload.fetch.fetch", arguments, more)


class ProcessEngine(SupervisedEngine):
    """An engine all of whose workloads are supervised processes."""

    async def _observe(self, name: str) -> Observation:
        return self._processes.observe(name)

    def watch(self, name: str) -> AsyncIterator[Observation]:
        """The present observation, then each change, until an ended one."""
        return self._processes.watch(name)

    async def cancel(self, name: str) -> None:
        """End the work and everything it started."""
        await self._processes.cancel(name)

    async def remove(self, name: str) -> None:
        """Forget the workload; ends it first if it still runs."""
        await self._processes.remove(name)
        await self._scratch.remove(name)

    def logs(self, name: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Its output, from a byte offset on."""
        return self._processes.logs(name, offset)

    async def has(self, result: dict[str, Any]) -> bool:
        """Return whether a built environment is whole and its Python still there."""
        python = Path(str(result.get("python") or "/-"))
        return os.access(python, os.X_OK) and (python.parent.parent / "kaos.json").exists()
