"""A trial's main process and all that it starts: begun, listened to, ended."""

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kaos_hub.schemas import EndedBy
from kaos_hub.util.processes import descendants, send
from kaos_hub.workload.trial.command import Command, by_shell, explained

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
LEFTOVER_GRACE = 0.5
"""Seconds that processes get which outlive the main one: to write what they have in hand."""
GIVE_UP = 30.0
"""Seconds after SIGKILL until a process counts as unkillable (stuck in the kernel)."""
_ROUND = 0.05
_CHUNK = 1 << 20
_ENOEXEC = 8


class Unkillable(Exception):
    """Something of the trial is still there, whatever we do."""


@dataclass(frozen=True)
class Ending:
    """The end of the main process."""

    by: EndedBy
    code: int
    """As the system says it: negative is a signal."""


class Waker:
    """Wakes the loop from a signal handler or another thread."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wake(self) -> None:
        """Wake it."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Forget all calls of :meth:`wake`: the loop is awake."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.read, 4096)) == 4096:
                pass


class Process:
    """One trial's processes.

    Args:
        waker: wakes the loop.
        on_output: takes what they print.
        metrics: descriptor of the pipe for metrics.
        on_metrics: takes what comes through it.
    """

    def __init__(
        self,
        waker: Waker,
        on_output: Callable[[bytes], None],
        metrics: int,
        on_metrics: Callable[[bytes, float], None],
    ) -> None:
        self._waker = waker
        self._on_output, self._on_metrics = on_output, on_metrics
        self._metrics = metrics
        self._output = -1
        self._poll = select.poll()
        self._pid = 0
        self._status: int | None = None
        self._alone = False
        self._by = EndedBy.ITSELF
        self._wish: tuple[EndedBy, float] | None = None
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._later: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Have something done, in the loop, if the trial runs for so long."""
        self._later.append((time.monotonic() + seconds, do))
        self._later.sort(key=lambda each: each[0])

    def end(self, by: EndedBy, grace: float = GRACE) -> None:
        """Let it be ended. May be called in any thread; the first call counts."""
        self._wish = self._wish or (by, grace)
        self._waker.wake()

    def run(self, command: Command, code: Path, environment: Mapping[str, str]) -> Ending:
        """Run it to its end, and the end of everything it started.

        Raises:
            NotStarted: it cannot be executed.
            Unkillable: something of it does not end.
        """
        self._output, into = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._start(command, code, environment, into)
            finally:
                os.close(into)
            self._listen()
            while self._status is None or not self._alone:
                self._turn()
            self._drain()
        finally:
            os.close(self._output)
        return Ending(self._by, os.waitstatus_to_exitcode(self._status))

    def kill(self, grace: float = 0) -> None:
        """End everything, and wait until it is gone; what it prints is lost.

        Raises:
            Unkillable: it does not go.
        """
        began = time.monotonic()
        self._reap()
        if grace and not self._alone and self._pid and self._status is None:
            os.killpg(self._pid, signal.SIGTERM)
        while not self._alone:
            waited = time.monotonic() - began
            if waited > grace + GIVE_UP:
                raise Unkillable
            if waited >= grace or self._status is not None:
                _kill_all()
            select.select([self._waker.read], [], [], _ROUND)
            self._waker.clear()
            self._reap()

    # --- starting ---

    def _start(
        self, command: Command, code: Path, environment: Mapping[str, str], into: int
    ) -> None:
        os.chdir(code)
        try:
            self._pid = _spawn(command, environment, into)
        except OSError as e:
            if e.errno != _ENOEXEC:
                raise explained(code, command.program, e) from None
            # A text without an interpreter.
            shell = by_shell(code, command.arguments[-1])
            try:
                self._pid = _spawn(shell, environment, into)
            except OSError as again:
                raise explained(code, shell.program, again) from None
        with contextlib.suppress(OSError):
            # Where memory runs out, it is not we who should go.
            Path(f"/proc/{self._pid}/oom_score_adj").write_text("1000")

    def _listen(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _CHUNK)
        os.set_blocking(self._output, False)
        for descriptor in (self._waker.read, self._output, self._metrics):
            self._poll.register(descriptor, select.POLLIN)

    # --- what can happen ---

    def _turn(self) -> None:
        happened = {descriptor for descriptor, _ in self._poll.poll(self._patience())}
        if self._output in happened and not self._read_output():
            self._poll.unregister(self._output)
        if self._metrics in happened:
            self._read_metrics()
        if self._waker.read in happened:
            self._waker.clear()
        self._reap()
        self._do_what_is_due()

    def _patience(self) -> float | None:
        """Milliseconds until something must be done even if nothing happens."""
        due = [when for when, _ in self._later[:1]]
        if self._kill_at is not None:
            due.append(self._kill_at)
        if not due:
            return None
        left = min(due) - time.monotonic()
        return max(left, _ROUND if self._give_up_at is not None else 0) * 1000 + 1

    def _read_output(self) -> bool:
        """Take what was printed; False at the end."""
        try:
            data = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return True
        if data:
            self._on_output(data)
        return bool(data)

    def _read_metrics(self) -> bool:
        try:
            self._on_metrics(os.read(self._metrics, _CHUNK), time.time())
        except BlockingIOError:
            return False
        return True

    def _drain(self) -> None:
        """Read what is in the pipes: all processes have ended, so it is all there will be.

        Unless a stranger was handed one and goes on writing: then for a second at most.
        """
        until = time.monotonic() + 1
        with contextlib.suppress(BlockingIOError):
            while time.monotonic() < until and (data := os.read(self._output, _CHUNK)):
                self._on_output(data)
        while time.monotonic() < until and self._read_metrics():
            pass

    def _reap(self) -> None:
        self._alone = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                return
            if not pid:
                return
            if pid == self._pid:
                self._status = status

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        while self._later and now >= self._later[0][0]:
            self._later.pop(0)[1]()
        if self._wish is not None and self._status is None and self._by is EndedBy.ITSELF:
            self._by, grace = self._wish
            self._kill_at = now + grace
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGTERM)
        if self._status is not None and not self._alone:
            soon = now if self._by is not EndedBy.ITSELF else now + LEFTOVER_GRACE
            self._kill_at = soon if self._kill_at is None else min(self._kill_at, soon)
        if self._kill_at is not None and now >= self._kill_at and not self._alone:
            self._give_up_at = self._give_up_at or now + GIVE_UP
            if now > self._give_up_at:
                raise Unkillable
            _kill_all()


def _spawn(command: Command, environment: Mapping[str, str], into: int) -> int:
    """Start it in a session of its own, with all signals as in a fresh login."""
    return os.posix_spawn(
        command.program,
        command.arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, into, 1),
            (os.POSIX_SPAWN_DUP2, into, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_ORDINARY,
    )


_ORDINARY = [
    number
    for number in signal.valid_signals()
    if number not in (signal.SIGKILL, signal.SIGSTOP) and number < signal.SIGRTMIN
]


def _has_its_own_processes() -> bool:
    """Tell whether all processes that we can see are this one and an init: a container."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
    return pids <= {1, os.getpid()}


_CONTAINED = _has_its_own_processes()
"""True in a container. Asked before any trial begins: all later processes are theirs."""


def _kill_all() -> None:
    """Send SIGKILL to everything that the trial has started and that lives."""
    if _CONTAINED:
        # All but ourselves and the init, at one stroke: nothing forks away from it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
        return
    left = descendants(os.getpid())
    # Whole groups at one stroke: what forks and dies without end is gone when we look at it.
    for group in {process.group for process in left} - {os.getpgrp(), 0}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for process in left:
        send(process, signal.SIGKILL)
