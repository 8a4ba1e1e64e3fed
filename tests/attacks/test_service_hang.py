"""A service that hangs is ended and started again (cause 3 of the review)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import RunningHub, request, running_hub, wait_until

_BUSY = '''
import signal, sys

class LoopThatNeverTurns:
    """Computes without end in the event loop, as soon as it is told by SIGUSR1."""

    def __init__(self, *_):
        while True:
            pass

if "kaos_hub.service.app" in sys.modules or any("kaos" in part for part in sys.argv):
    signal.signal(signal.SIGUSR1, LoopThatNeverTurns)
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub of its own, whose service can be made to hang."""
    with running_hub(tmp_path_factory.mktemp("own"), config=_BUSY) as running:
        yield running


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGSTOP])
def test_a_service_that_hangs_is_started_again(own: RunningHub, number: signal.Signals) -> None:
    """Attack of cause 3: whatever made it hang, others wait for seconds, not for an admin."""
    token = own.token("bob")
    assert own.ask("GET", "/notebooks", token).status == 200
    before, began = own.service_pid(), time.monotonic()
    said = own.log.read_text().count("no sign of life for 10 seconds")
    own.end_service(number)
    wait_until(lambda: own.service_pid() not in (before, None), 60, "another service")
    wait_until(own.answers, 60, "its answer")
    assert time.monotonic() - began > 9
    assert own.ask("GET", "/notebooks", token).status == 200
    log = own.log.read_text()
    assert log.count("no sign of life for 10 seconds") == said + 1
    if number == signal.SIGUSR1:
        assert "LoopThatNeverTurns" in log or "__init__" in log


_BEATING = """
import asyncio, sys
from kaos_hub.service.process import beat

async def main():
    beat()
    await asyncio.sleep(14)

asyncio.run(main())
sys.exit(0)
"""


def test_who_was_stopped_with_it_blames_nobody(tmp_path: Path) -> None:
    """A machine that slept is no service that hangs."""
    code = (
        "import sys; from kaos_hub.service.watch import Watchdog;"
        "sys.exit(Watchdog([sys.executable, sys.argv[1]]).run())"
    )
    (tmp_path / "beating.py").write_text(_BEATING)
    watch = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "beating.py")],
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    time.sleep(3)
    os.killpg(watch.pid, signal.SIGSTOP)
    time.sleep(12)
    os.killpg(watch.pid, signal.SIGCONT)
    _, said = watch.communicate(timeout=60)
    assert watch.returncode == 0 and said == b"", said


def test_health_is_answered(own: RunningHub) -> None:
    """What was hung holds nothing afterwards."""
    assert request("GET", own.kaos + "/health").status == 200
