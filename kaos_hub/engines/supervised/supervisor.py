"""The process beside each local workload: starts it, keeps its output, ends it, says how it ended.

Run as ``python -I -m kaos_hub.engines.supervised.supervisor DIRECTORY``, where ``spec.json`` lies
already. It detaches itself, so it outlives the service and the Hub; its parent returns once it has
taken over.

=============== ====================================================================================
``spec.json``   what to run: argv, env, cwd, deadline, cap, grace, wrapped
``lock``        locked as long as the supervisor lives: the one sign of life; process ids are reused
``started.json`` when, and the supervisor's process id
``control``     a FIFO; any byte makes the supervisor look for ``cancel.json``
``cancel.json`` a request to end it, with the grace in seconds
``output.log``  stamped lines
``result.json`` what the work may leave, a JSON object; its path is in ``$KAOS_RESULT``
``exit.json``   how it ended; written whole, and last
=============== ====================================================================================

Needs only the standard library.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kaos_hub.engines.files import take, write_json
from kaos_hub.util.log_lines import CappedLog, Stamper, stamp
from kaos_hub.util.processes import Process, descendants, send

MARK = "KAOS_WORKLOAD"
"""Variable with the workload's directory: by it processes are found that outlive a supervisor."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CHUNK = 1 << 16
_LEFTOVER_GRACE = 2.0
"""Seconds that processes get which outlive the main one."""
_GIVE_UP = 30.0
"""Seconds after SIGKILL until a process counts as unkillable (stuck in the kernel) and is left."""
_RESULT_LIMIT = 1 << 20
_LONGEST_SLEEP = 3600.0
"""Seconds. The system cannot be asked to wait for more than some weeks at once."""


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Supervisor:
    """One workload from its start to its end. Single-threaded: one loop over what can happen."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._spec: dict[str, Any] = json.loads((directory / "spec.json").read_bytes())
        self._log = CappedLog(directory / "output.log", self._spec["cap"])
        self._stamper = Stamper()
        self._events = selectors.DefaultSelector()
        self._started = time.time()
        self._deadline = self._after(self._spec["deadline"])
        self._child = 0
        self._output = -1
        self._status: int | None = None
        self._cause = ""
        self._message = ""
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._warned_leftover = False
        self._told_to_stop = False

    @staticmethod
    def _after(seconds: float | None) -> float | None:
        return time.monotonic() + seconds if seconds else None

    def run(self, ready: Callable[[], None]) -> None:
        """Do all of it; returns when ``exit.json`` is written.

        Args:
            ready: called when the work has been started.
        """
        self._listen()
        write_json(
            self._dir / "started.json", {"started": self._started, "supervisor": os.getpid()}
        )
        self._look_for_cancel()
        if not self._cause:
            self._start()
        ready()
        while self._child and not self._over():
            for key, _ in self._events.select(self._patience()):
                key.data()
            self._reap()
            self._end_what_must_end()
        self._drain()
        self._write_exit()

    # --- what can happen ---

    def _listen(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        self._events.register(wake, selectors.EVENT_READ, lambda: os.read(wake, _CHUNK))
        control = self._dir / "control"
        with contextlib.suppress(FileExistsError):
            os.mkfifo(control, 0o600)
        # Opened for both, so that it never reads as closed.
        fifo = os.open(control, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._events.register(fifo, selectors.EVENT_READ, lambda: self._on_control(fifo))

    def _on_control(self, fifo: int) -> None:
        os.read(fifo, _CHUNK)
        self._look_for_cancel()

    def _look_for_cancel(self) -> None:
        try:
            wish = json.loads((self._dir / "cancel.json").read_bytes())
        except FileNotFoundError:
            return
        self._end("cancelled", "cancelled", float(wish["grace"]))

    def _on_terminate(self, *_: object) -> None:
        self._told_to_stop = True

    def _on_output(self) -> None:
        try:
            data = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._events.unregister(self._output)
            self._output = -1
            return
        now = time.time()
        self._log.write(self._stamper.feed(data, now), now)

    def _drain(self) -> None:
        """Everything has ended: what is in the pipe is all there will be.

        Unless a stranger was handed the pipe and goes on writing: then not for long.
        """
        until = time.monotonic() + 1
        while self._output >= 0 and _readable(self._output) and time.monotonic() < until:
            self._on_output()
        now = time.time()
        self._log.write(self._stamper.finish(now), now)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._child:
                self._status = status

    def _patience(self) -> float | None:
        """Seconds until something must be done even if nothing happens."""
        if self._ending:
            return 0.1
        if self._deadline is None:
            return None
        # a selector takes no more than some weeks
        return min(max(0.0, self._deadline - time.monotonic()), 86400)

    # --- starting ---

    def _start(self) -> None:
        output, into = os.pipe2(os.O_CLOEXEC)
        failure, failed = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._child = os.fork()
        if not self._child:
            self._become_work(into, failed, parent)
        os.close(into)
        os.close(failed)
        os.set_blocking(output, False)
        self._output = output
        self._events.register(output, selectors.EVENT_READ, self._on_output)
        with os.fdopen(failure, "rb") as file:
            message = file.read().decode(errors="replace")
        if message:
            self._cause, self._message = "error", message
            self._log.write(stamp(time.time()) + message.encode() + b"\n", time.time())

    def _become_work(self, output: int, failed: int, parent: int) -> NoReturn:
        """In the child: become the work, or tell why not."""
        what = self._spec["argv"][0]
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            os.setsid()
            _reset_signals()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            if self._spec["cwd"]:
                what = f"in {self._spec['cwd']}"
                os.chdir(self._spec["cwd"])
                what = self._spec["argv"][0]
            ours = {"KAOS_RESULT": str(self._dir / "result.json"), MARK: str(self._dir)}
            os.execvpe(self._spec["argv"][0], self._spec["argv"], self._spec["env"] | ours)  # noqa: S606
        except (OSError, ValueError) as e:
            why = getattr(e, "strerror", None) or e
            os.write(failed, f"cannot start {what}: {why}".encode(errors="replace"))
        finally:
            os._exit(127)

    # --- ending ---

    @property
    def _ending(self) -> bool:
        return bool(self._cause) or self._status is not None

    def _end(self, cause: str, message: str, grace: float) -> None:
        if self._ending:
            return
        self._cause, self._message = cause, message
        self._kill_at = time.monotonic() + grace
        if self._child:
            self._terminate(self._group())

    def _group(self) -> list[Process]:
        """The main process and those it keeps in its group: they get the first SIGTERM.

        What moved to a group of its own (a kernel, under a notebook server) is the main process's
        to end well. A wrapper (bubblewrap) would die of SIGTERM, and what it wraps with it, at
        once; it ends by itself when that has ended, so it is spared.
        """
        spared = self._child if self._spec["wrapped"] else 0
        below = descendants(os.getpid())
        group = [p for p in below if p.group == self._child and p.pid != spared]
        return group or [p for p in below if p.pid == self._child]

    @staticmethod
    def _terminate(processes: list[Process], number: int = signal.SIGTERM) -> None:
        for process in processes:
            send(process, number)

    def _end_what_must_end(self) -> None:
        now = time.monotonic()
        if self._told_to_stop:
            # No process of ours does that: the machine is going down.
            self._end("lost", "ended from outside: its supervisor was told to stop", 1.0)
        if not self._ending and self._deadline is not None and now >= self._deadline:
            message = f"its deadline of {self._spec['deadline']:g} s passed"
            self._end("deadline", message, self._spec["grace"])
        if self._status is not None and not self._warned_leftover:
            self._warned_leftover = True
            leftover = now + min(_LEFTOVER_GRACE, self._spec["grace"])
            self._kill_at = min(leftover, self._kill_at or leftover)
            self._terminate(descendants(os.getpid()))
        if self._kill_at is not None and now >= self._kill_at:
            self._give_up_at = self._give_up_at or now + _GIVE_UP
            self._terminate(descendants(os.getpid()), signal.SIGKILL)
            self._reap()

    def _over(self) -> bool:
        if not self._ending:
            return False
        if not descendants(os.getpid()):
            self._reap()
            return True
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    # --- telling ---

    def _write_exit(self) -> None:
        result, complaint = self._result()
        ending_status = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        number = -ending_status if ending_status is not None and ending_status < 0 else None
        code = None if number else ending_status
        if not self._cause and (number or code):
            self._cause = "error"
        ending = {
            "exit_code": code,
            "signal": number,
            "cause": self._cause,
            "message": self._message or _describe(code, number) or complaint,
            "started": self._started,
            "finished": time.time(),
            "result": result,
        }
        until = time.monotonic() + 60
        while True:
            try:
                return write_json(self._dir / "exit.json", ending)
            except OSError:
                # Disk full: rather be late than lost.
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    def _result(self) -> tuple[dict[str, Any], str]:
        """Read the result that the work left; return it, and what is wrong with it."""
        try:
            with (self._dir / "result.json").open("rb") as file:
                result = json.loads(file.read(_RESULT_LIMIT))
        except FileNotFoundError:
            return {}, ""
        except (OSError, ValueError) as e:
            return {}, f"its result cannot be read: {e}"
        return (result, "") if isinstance(result, dict) else ({}, "its result is no JSON object")


def _readable(descriptor: int) -> int:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return len(selector.select(0))


def _describe(code: int | None, number: int | None) -> str:
    if number == signal.SIGKILL:
        return "killed (SIGKILL), not by kaos_hub; perhaps the machine ran out of memory"
    if number:
        names = {int(known): known.name for known in signal.Signals}
        return f"killed by {names.get(number, f'signal {number}')}"
    return f"exit code {code}" if code else ""


def _reset_signals() -> None:
    """As in a fresh login: a Hub under nohup ignores SIGINT, Python ignores SIGPIPE."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # The C library keeps two of the real-time signals for itself.
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _detach(directory: Path) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    complaints = os.open(
        directory / "supervisor.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
    )
    for source, target in ((null, 0), (null, 1), (complaints, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(complaints)


def main(directory: Path) -> int:
    """Start supervising unless another does or did; returns when that is sure."""
    lock = take(directory / "lock")
    if lock is None or (directory / "started.json").exists():
        return 0
    ready, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    supervisor = Supervisor(directory)
    _detach(directory)
    supervisor.run(ready=lambda: _tell(tell))
    return 0


def _tell(pipe: int) -> None:
    # The process that started us may be dead by now, and its pipe closed.
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, b"1")
    os.close(pipe)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
