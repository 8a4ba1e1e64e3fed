"""The engine without containers: work runs as processes of the user who started kaos_hub."""

import asyncio
import contextlib
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import ClassVar
from weakref import WeakValueDictionary

from traitlets import Bool, Int

from kaos_hub.engines.base import ROOT, Build, JobSpec, Materialise, Phase, Run
from kaos_hub.engines.local import interpreters, kernel_set, machine, sandbox
from kaos_hub.engines.supervised.supervised import ProcessEngine
from kaos_hub.errors import InvalidRequest
from kaos_hub.schemas import Capacity

_Prepared = tuple[list[str], dict[str, str], str | None]
"""Command, variables, and where it starts."""
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class LocalEngine(ProcessEngine):
    """Builds virtual environments; runs commands in a sandbox where one can be made."""

    name: ClassVar[str] = "local"
    images: ClassVar[bool] = False

    use_sandbox = Bool(
        True,
        help="Use a sandbox if one can be made here (by bubblewrap, else by kaos_hub itself)."
        " Without one the promised paths are only variables.",
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
    def _locks(self) -> "WeakValueDictionary[str, asyncio.Lock]":
        return WeakValueDictionary()

    @cached_property
    def _resolved(self) -> dict[str, tuple[float, str]]:
        return {}

    async def start(self) -> None:
        """Find out about the sandbox now, not in the middle of a request; tidy up."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, sandbox.why)
        with contextlib.suppress(OSError):  # notebooks then start kernels by the package's own
            kernels = self._data.path / "kernels"
            await loop.run_in_executor(self._threads, kernel_set.keep_launcher, kernels)
        await self._sweep()

    async def close(self) -> None:
        """Let go of threads. Work goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await super().close()

    @property
    def sandboxed(self) -> bool:
        """Return whether commands run in a sandbox."""
        return self.use_sandbox and sandbox.available()

    async def submit(self, spec: JobSpec) -> None:
        """Start the work, or adopt the workload of that name."""
        match spec.work:
            case Build() as build:
                await self._run_module(spec, "kaos_hub.engines.local.build", self._build(build))
            case Materialise() as work:
                # Unsandboxed work could write through a hard link into the store.
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
            # What has no version (``-e folder``) could not be asked for.
            *("--packages", *(each for each in work.packages if not each.startswith("-"))),
        ]

    async def _run(self, spec: JobSpec, work: Run) -> None:
        async with self._locks.setdefault(spec.name, asyncio.Lock()):
            # What a workload has begun to use is not made again.
            if self._processes.observe(spec.name).phase is not Phase.ABSENT:
                return
            prepare = self._wrapped if self.sandboxed else self._linked
            argv, environment, workdir = await asyncio.to_thread(prepare, spec, work)
            own = self._environment() if work.module else {}
            await self._processes.submit(
                spec.name, argv, {"PATH": os.defpath} | own | environment, workdir, spec.deadline,
                cap=self.log_limit, wrapped=self.sandboxed,
            )  # fmt: skip

    def _wrapped(self, spec: JobSpec, work: Run) -> _Prepared:
        """In a sandbox it sees everything where it should be, and no data directory."""
        mounts = [*self._scratch.make(spec.name, work, self._pass(spec, work)), *work.mounts]
        argv = sandbox.wrap(self._command(work), mounts, [self._data.path], workdir=work.workdir)
        return argv, work.environment, None

    def _linked(self, spec: JobSpec, work: Run) -> _Prepared:
        """Without one, everything is below a directory of which a variable tells."""
        root = self._scratch.make_one_root(spec.name, work, self._pass(spec, work))
        there = root / (work.workdir or "").lstrip("/")
        workdir = str(there) if work.workdir and there.is_dir() else work.workdir
        return self._command(work), {**work.environment, ROOT: str(root)}, workdir

    def _command(self, work: Run) -> list[str]:
        ours = [sys.executable, "-I", "-u", "-m", work.module] if work.module else []
        return [*ours, *work.command]

    async def resolve(self, image: str, pull: bool = False) -> str:
        """The Python that would be used for ``image``, like ``python-3.13.1-cpython``."""
        when, found = self._resolved.get(image, (0.0, ""))
        if not found or pull or time.monotonic() - when > self.interpreter_ttl:
            loop = asyncio.get_running_loop()
            found = str(await loop.run_in_executor(self._threads, interpreters.find, image))
            self._resolved[image] = (time.monotonic(), found)
        return found

    def substitution(self, image: str, resolved: str) -> str:
        """Return a note if the Python's minor version is not the image's; else nothing."""
        return interpreters.mismatch(image, resolved.split("-")[1])

    async def capacity(self) -> Capacity:
        """Cores and memory of this machine."""
        return machine.capacity()

    @property
    def lacks(self) -> str:  # type: ignore[override]
        """Without a sandbox: the promised paths."""
        if self.sandboxed:
            return ""
        why = sandbox.why() if self.use_sandbox else "it is turned off"
        return (
            f"There is no sandbox here ({why}): paths such as /kaos/data and /pfs/data do not"
            " exist, only the variables that name them"
        )

    def problems(self) -> list[str]:
        """List what is weaker here than promised."""
        found = [
            "The local engine enforces no cpu or memory: a notebook may use the whole machine.",
            "The local engine runs no Dockerfile: it installs requirements.txt, no more.",
        ]
        return [*found, *filter(None, [self.lacks])]
