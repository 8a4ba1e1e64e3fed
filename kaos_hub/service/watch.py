"""The process that starts the service, and starts it again if it crashes or hangs.

The Hub restarts its services as well, but looks only every half minute; requests meanwhile would be
refused; and it never notices that a service hangs. This process stays in memory beside the service,
so it needs little more than the standard library.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from kaos_hub.errors import KaosError
from kaos_hub.service.process import PULSE, die_with_parent

_SOON, _LATER = 0.2, 30.0
"""Seconds until a crashed service is started again: more, the more often it crashes."""

_STEADY = 10.0
"""Seconds of life after which a crash counts as the first one."""

_SILENT = 10
"""Seconds without a sign of life after which a service that has given some counts as hung."""

_LAST_WORDS = 2.0
"""Seconds that a hung service has to print where it is."""

_SAID_WHY = (0, 1)
"""Exit codes of a service that ended on purpose, or said why it cannot start."""


class Watchdog:
    """A watch over one service at a time, until it is told to end.

    Args:
        command: the command that starts the service.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._told = False
        self._delay = _SOON

    def run(self) -> int:
        """Start the service, wait, and start it again. Return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        while not self._told:
            began = time.monotonic()
            code = self._run_once()
            if code in _SAID_WHY:
                return code
            if not self._told:
                self._pause(code, time.monotonic() - began)
        return 0

    def _run_once(self) -> int:
        reading, writing = os.pipe()
        # The service is to die with us, as we with the Hub.
        environment = {**os.environ, "KAOS_HUB_PID": str(os.getpid()), PULSE: str(writing)}
        try:
            self._child = subprocess.Popen(self._command, env=environment, pass_fds=[writing])
            os.close(writing)
            if self._told:
                self._child.terminate()
            self._listen(self._child, reading)
            return self._child.wait()
        finally:
            os.close(reading)

    def _listen(self, child: subprocess.Popen[bytes], pulse: int) -> None:
        """Wait until a service ends; end one that hangs."""
        # Counted, not measured: if we were stopped together with the service, it is not to blame.
        silent: int | None = None
        while True:
            ready, _, _ = select.select([pulse], [], [], 1)
            if ready:
                if not os.read(pulse, 4096):
                    return
                silent = 0
            elif silent is not None and not self._told:
                silent += 1
                if silent >= _SILENT:
                    self._end_hung(child)
                    return

    def _end_hung(self, child: subprocess.Popen[bytes]) -> None:
        print(
            f"kaos service: hangs: no sign of life for {_SILENT} seconds; ending it. It was here:",
            file=sys.stderr,
            flush=True,
        )
        child.send_signal(signal.SIGABRT)
        try:
            child.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            child.kill()

    def _pause(self, code: int, lived: float) -> None:
        self._delay = _SOON if lived > _STEADY else min(2 * self._delay, _LATER)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        print(f"kaos service: ended with {how}; starting it again", file=sys.stderr, flush=True)
        until = time.monotonic() + self._delay
        while time.monotonic() < until and not self._told:
            time.sleep(0.1)

    def _pass_on(self, number: int, _frame: object) -> None:
        self._told = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def main() -> int:
    """Watch over a service with our own arguments."""
    try:
        die_with_parent()
    except KaosError as e:
        print(f"kaos service: {e.message}", file=sys.stderr)
        return 1
    return Watchdog([sys.executable, "-m", "kaos_hub.service.serve", *sys.argv[1:]]).run()
