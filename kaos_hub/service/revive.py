"""Brings the service back at once when it was killed.

The Hub looks after its services every 30 seconds, and no setting makes that less. Half a minute of
failed requests is long for whoever waits, so a small process stands between: it starts the service,
and starts it again if a signal ended it. A service that ends by itself, well or not, is left to the
Hub.
"""

import os
import signal
import subprocess
import sys
import time

from kaos_hub.errors import KaosError
from kaos_hub.service.process import die_with_parent

WORKER = "KAOS_SERVICE_WORKER"
_OFTEN = 5
_SOON = 60.0
"""So many deaths within so many seconds are no accident: the Hub shall see them."""


def main() -> int:
    """Run the service until it ends by itself or we are told to end; its exit code."""
    try:
        die_with_parent()
    except KaosError as e:
        print(f"kaos service: {e.message}", file=sys.stderr)
        return 1
    # the service binds its life to ours, as ours is bound to the Hub's
    environment = {**os.environ, WORKER: "1", "KAOS_HUB_PID": str(os.getpid())}
    deaths: list[float] = []
    while True:
        worker = subprocess.Popen(
            [sys.executable, "-m", "kaos_hub.service", *sys.argv[1:]], env=environment
        )
        code = _await(worker)
        if code >= 0 or code in (-signal.SIGTERM, -signal.SIGINT):
            return max(code, 0)
        now = time.monotonic()
        deaths = [t for t in deaths if now - t < _SOON] + [now]
        if len(deaths) >= _OFTEN:
            return 1
        print(f"kaos service: killed by signal {-code}; starting it again", file=sys.stderr)


def _await(worker: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of the worker, handing on what tells us to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: worker.send_signal(number))
    return worker.wait()
