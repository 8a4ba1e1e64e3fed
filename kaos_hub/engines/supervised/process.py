"""Supervised processes: work on this machine that outlives the process that started it.

Used by the local engine for everything, by the docker engine for what is a client of the Engine,
and by the local spawner for notebooks. :mod:`kaos_hub.engines.supervised.supervisor` tells what
lies in a workload's directory.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from kaos_hub.engines.base import Cause, Observation, Phase
from kaos_hub.engines.files import held, write_json
from kaos_hub.engines.supervised.supervisor import MARK
from kaos_hub.errors import EngineUnavailable, InvalidName
from kaos_hub.util.processes import marked, send

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_CHUNK = 1 << 16
_SLOWEST = 0.25
"""Seconds between two looks at a log that does not grow."""
_BEYOND_GRACE = 40.0
"""Seconds that ending may take after the grace; the supervisor gives up earlier than that."""

DEFAULT_CAP = 64 << 20
_BETTER = (Cause.OUT_OF_MEMORY, Cause.STORAGE, Cause.CONFIGURATION, Cause.TRANSFER)
"""Causes that work may give itself for its failure."""


class Processes:
    """Workloads as supervised processes, each in a directory of its own below ``directory``.

    Any number of these objects, in any number of processes, may look after the same directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        # Starting one takes some 50 ms of waiting; the loop's default threads are not ours to use.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="kaos-processes")

    def close(self) -> None:
        """Let go of the threads. The workloads go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def path(self, name: str) -> Path:
        """Return the folder of the workload's files.

        Raises:
            InvalidName: the name could not be a directory's.
        """
        if not _NAME.fullmatch(name):
            raise InvalidName(f"{name!r} cannot name a workload")
        return self._directory / name

    def names(self) -> list[str]:
        """All workloads that are there, running or ended."""
        # Those being removed have other names.
        there = (p.parent.name for p in self._directory.glob("*/spec.json"))
        return sorted(name for name in there if _NAME.fullmatch(name))

    async def submit(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | str | None = None,
        deadline: float | None = None,
        *,
        cap: int = DEFAULT_CAP,
        grace: float = 5.0,
        wrapped: bool = False,
    ) -> None:
        """Start it, or adopt the one of that name, running or ended.

        Args:
            name: lower-case letters, digits, ``-``, ``_`` and ``.``.
            argv: the command; its first word is looked for in the PATH of ``env``.
            env: the whole environment, but for ``KAOS_RESULT`` and ``KAOS_WORKLOAD``.
            cwd: where it starts; by default ``/``.
            deadline: seconds until it is ended with cause ``deadline``; none or 0 is never.
            cap: bytes of output kept. The work goes on when they are full.
            grace: seconds between SIGTERM and SIGKILL at its deadline.
            wrapped: ``argv`` is one of :func:`kaos_hub.engines.local.sandbox.wrap`, whose first
                process must not be signalled.

        Raises:
            EngineUnavailable: it cannot be started on this machine now; says why.
        """
        spec = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": str(cwd) if cwd else None,
            "deadline": deadline or None,
            "cap": cap,
            "grace": grace,
            "wrapped": wrapped,
        }
        await self._in_thread(self._submit, self.path(name), spec)

    def _submit(self, path: Path, spec: dict[str, Any]) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_once(path / "spec.json", spec)
            if (path / "started.json").exists() or held(path / "lock"):
                return
            _supervise(path)
        except OSError as e:
            raise EngineUnavailable(f"Cannot start {path.name} in {path.parent}: {e}") from None

    def observe(self, name: str) -> Observation:
        """Return the state of a workload. Cheap: a few system calls, no process is started."""
        path = self.path(name)
        ending = _read_json(path / "exit.json")
        if ending is None:
            if held(path / "lock"):
                return Observation(Phase.RUNNING, started=_started(path))
            ending = _read_json(path / "exit.json")
        if ending is not None:
            return _ended(ending)
        # Without this file it was never started: the next submit starts it.
        if not (path / "started.json").exists():
            return Observation(Phase.ABSENT)
        return Observation(Phase.LOST, Cause.LOST, _why_lost(path), started=_started(path))

    async def watch(self, name: str) -> AsyncIterator[Observation]:
        """The present observation, then each change, until an ended or absent one."""
        last = None
        while True:
            now = self.observe(name)
            if now != last:
                yield now
                last = now
            if now.phase.ended or now.phase is Phase.ABSENT:
                return
            await self._wait_for_end(name)

    async def cancel(self, name: str, grace: float = 5.0) -> None:
        """End it and everything it started: SIGTERM, after ``grace`` seconds SIGKILL.

        Returns when all is gone. One that is not there, or has ended, is no error.

        Raises:
            EngineUnavailable: it cannot be ended (a process stuck in the kernel).
        """
        path = self.path(name)
        if not path.is_dir():
            return
        if not self.observe(name).phase.ended:
            with contextlib.suppress(FileNotFoundError):
                write_json(path / "cancel.json", {"grace": grace})
            _knock(path / "control")
            await self._gone(name, grace + _BEYOND_GRACE)
        if self.observe(name).phase is Phase.LOST:
            await self._in_thread(_sweep, path)

    async def _gone(self, name: str, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while self.observe(name).phase is Phase.RUNNING:
                    await self._wait_for_end(name)
        except TimeoutError:
            raise EngineUnavailable(
                f"{name} does not end; is one of its processes stuck?"
            ) from None

    async def remove(self, name: str) -> None:
        """Forget it and its files; ends it first if it still runs."""
        await self.cancel(name)
        path = self.path(name)
        # Out of the way at once: a half-removed workload must not be taken for a lost one.
        gone = path.with_name(f".{name}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(gone)
            await self._in_thread(partial(shutil.rmtree, ignore_errors=True), gone)

    async def logs(self, name: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Whole stamped lines from byte ``offset`` on, followed until it has ended."""
        file = await self._open_log(name)
        if file is None:
            return
        with file:
            file.seek(offset)
            rest, pause = b"", 0.01
            while True:
                ended = self.observe(name).phase is not Phase.RUNNING
                data = file.read(_CHUNK)
                if data:
                    whole, rest = _whole_lines(rest + data)
                    pause = 0.01
                    if whole:
                        yield whole
                elif ended:
                    break
                else:
                    await asyncio.sleep(pause)
                    pause = min(_SLOWEST, pause * 2)
            if rest:
                yield rest

    async def _open_log(self, name: str) -> FileIO | None:
        """The log; None if there is no such workload. One just submitted may not have it yet."""
        while True:
            alive = self.observe(name).phase is Phase.RUNNING
            try:
                return FileIO(self.path(name) / "output.log")
            except FileNotFoundError:
                if not alive:
                    return None
            await asyncio.sleep(0.01)

    async def _wait_for_end(self, name: str) -> None:
        """Until the supervisor ends, or for a moment if it cannot be waited for."""
        path = self.path(name)
        pid = (_read_json(path / "started.json") or {}).get("supervisor")
        try:
            handle = os.pidfd_open(pid) if pid else -1
        except OSError:
            handle = -1
        # The process id is the supervisor's only if it still lives, now that the handle is ours.
        if handle < 0 or not held(path / "lock"):
            if handle >= 0:
                os.close(handle)
            await asyncio.sleep(0.02)
            return
        await _readable(handle)

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


async def _readable(handle: int) -> None:
    """Wait until ``handle`` has something to read, then close it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _supervise(path: Path) -> None:
    """Start the supervisor, and return when it has taken over (or another has)."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "kaos_hub.engines.supervised.supervisor", str(path)],
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise EngineUnavailable(f"Cannot start {path.name}: {complaint or 'its supervisor failed'}")


def _write_once(path: Path, value: dict[str, Any]) -> None:
    """Write the file unless it is there: the first of several writers wins, whole."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_json(draft, value)
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return value


def _knock(control: Path) -> None:
    try:
        fifo = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # No reader: it is gone, or about to look at cancel.json anyway.
        return
    try:
        os.write(fifo, b"!")
    except BlockingIOError:
        pass
    finally:
        os.close(fifo)


def _sweep(path: Path) -> None:
    """End what a killed supervisor could not: processes with its mark in their environment."""
    mark = f"{MARK}={path}".encode()
    for _ in range(100):
        left = marked(mark)
        if not left:
            return
        for process in left:
            send(process, 9)


def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
    cut = data.rfind(b"\n") + 1
    return data[:cut], data[cut:]


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _started(path: Path) -> datetime | None:
    return _time((_read_json(path / "started.json") or {}).get("started"))


def _why_lost(path: Path) -> str:
    try:
        complaint = (path / "supervisor.err").read_text(errors="replace").strip()
    except FileNotFoundError:
        complaint = ""
    if complaint:
        return f"its supervisor failed: {complaint.rpartition(chr(10))[2]}"
    return "its supervisor was killed, or the machine restarted"


def _ended(ending: dict[str, Any]) -> Observation:
    cause = Cause(ending["cause"])
    phase = Phase.SUCCEEDED if cause is Cause.NONE else Phase.FAILED
    result = dict(ending["result"])
    # A failing work may say better than its exit code why.
    message = phase is Phase.FAILED and cause is Cause.ERROR and result.get("message")
    if message and result.get("cause") in _BETTER:
        cause = Cause(result["cause"])
    return Observation(
        Phase.LOST if cause is Cause.LOST else phase,
        cause,
        str(message or ending["message"]),
        ending["exit_code"],
        _time(ending["started"]),
        _time(ending["finished"]),
        result,
    )
