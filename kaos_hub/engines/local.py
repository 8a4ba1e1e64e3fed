"""The engine without containers: work runs as processes of the user who started kaos_hub."""

import asyncio
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import ClassVar

from traitlets import Bool, Int

from kaos_hub.engines import interpreters, sandbox
from kaos_hub.engines.base import Build, JobSpec, Materialise, Run
from kaos_hub.engines.supervised import ProcessEngine
from kaos_hub.errors import InvalidRequest

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class LocalEngine(ProcessEngine):
    """Builds virtual environments; runs commands in a sandbox where bubblewrap works."""

    name: ClassVar[str] = "local"
    images: ClassVar[bool] = False

    use_sandbox = Bool(
        True,
        help="Use bubblewrap if it works here. Without it the promised paths are only variables.",
    ).tag(config=True)

    interpreter_ttl = Int(
        60,
        min=0,
        help="Seconds for which it is remembered which Python of the machine stands for an image.",
    ).tag(config=True)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(2, thread_name_prefix="kaos-local")

    @cached_property
    def _resolved(self) -> dict[str, tuple[float, str]]:
        return {}

    async def start(self) -> None:
        """Find out about the sandbox now, not in the middle of a request."""
        await asyncio.get_running_loop().run_in_executor(self._threads, sandbox.why)

    async def close(self) -> None:
        """Let go of threads. Work goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await super().close()

    @property
    def sandboxed(self) -> bool:
        """Whether commands run in a sandbox."""
        return self.use_sandbox and sandbox.available()

    async def submit(self, spec: JobSpec) -> None:
        """Start the work, or adopt the workload of that name."""
        match spec.work:
            case Build() as build:
                await self._run_module(spec, "kaos_hub.engines.local_build", self._build(build))
            case Materialise() as work:
                # Whoever owns the files could write through a hard link into the store.
                await self._materialise(spec, work, link=self.sandboxed)
            case Run() as run:
                await self._run(spec, run)

    def _build(self, work: Build) -> list[str]:
        if not _KEY.fullmatch(work.key):
            raise InvalidRequest(f"{work.key!r} cannot be an environment's key")
        return [
            *("--source", str(self.places.path(work.source)), "--context", work.context),
            *("--target", str(self._data.environments / work.key)),
            *("--kernels", str(self._data.path / "kernels")),
        ]

    async def _run(self, spec: JobSpec, work: Run) -> None:
        environment = {"PATH": os.defpath} | work.environment
        argv, workdir = list(work.command), work.workdir
        if self.sandboxed:
            hidden = [self._data.path]
            argv, workdir = sandbox.wrap(argv, work.mounts, hidden, workdir=workdir), None
        await self._processes.submit(
            spec.name, argv, environment, workdir, spec.deadline,
            cap=self.log_limit, wrapped=self.sandboxed,
        )  # fmt: skip

    async def resolve(self, image: str, pull: bool = False) -> str:
        """The Python that would be used for ``image``, like ``python-3.13.1-cpython``."""
        when, found = self._resolved.get(image, (0.0, ""))
        if not found or pull or time.monotonic() - when > self.interpreter_ttl:
            loop = asyncio.get_running_loop()
            found = str(await loop.run_in_executor(self._threads, interpreters.find, image))
            self._resolved[image] = (time.monotonic(), found)
        return found

    def problems(self) -> list[str]:
        """What is weaker here than promised."""
        found = [
            "The local engine enforces no cpu or memory: a notebook may use the whole machine.",
            "The local engine runs no Dockerfile: it installs requirements.txt, no more.",
        ]
        if not self.use_sandbox:
            found.append("The sandbox is turned off: /kaos/source and others are only variables.")
        elif reason := sandbox.why():
            found.append(f"No sandbox: {reason}. /kaos/source and others are only variables.")
        return found
