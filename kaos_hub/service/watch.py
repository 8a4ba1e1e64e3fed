"""Starts the service, and at once again should it crash.

The Hub restarts its services, too, but looks only every half minute; whatever starts meanwhile
would be refused. This stays in memory beside the service, so it needs little more than the standard
library.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from kaos_hub.errors import KaosError
from kaos_hub.service.process import die_with_parent

_SOON, _LATER = 0.2, 30.0
"""Seconds until a crashed service is started again: soon, and longer the more often it crashes."""

_STEADY = 10.0
"""Seconds of life after which a crash counts as the first one."""

_SAID_WHY = (0, 1)
"""Exit codes of a service that ended on purpose, or told why it cannot start."""


class Watch:
    """One service at a time, until told to end.

    Args:
        command: what to start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._told = False
        self._delay = _SOON

    def run(self) -> int:
        """Start it, wait, start it again; the exit code."""
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
        # The service is to die with us, as we with the Hub.
        environment = {**os.environ, "KAOS_HUB_PID": str(os.getpid())}
        self._child = subprocess.Popen(self._command, env=environment)
        if self._told:
            self._child.terminate()
        return self._child.wait()

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
    return Watch([sys.executable, "-m", "kaos_hub.service.serve", *sys.argv[1:]]).run()
