"""The idle rule on a running hub: a cell that begins just before the deadline runs to its end."""

import time

from kaos_hub.client import Client
from kaos_hub.schemas import NotebookState
from tests.hub import RunningHub, wait_until
from tests.kernels import Kernel

TIMEOUT = 8
CELL = 12
"""Seconds that a cell takes: longer than the idle timeout."""


def test_a_cell_that_begins_just_before_the_deadline_runs_to_its_end(hub: RunningHub) -> None:
    """A websocket is all that tells of it. Afterwards the notebook stops, and says why."""
    token = hub.token("ada-who-computes")
    client = Client(hub.url, token)
    options = {"idle_timeout": TIMEOUT, "idle_type": "activity"}
    client.notebooks.deploy(name="late", **options).wait(120)  # type: ignore[arg-type]
    kernel = Kernel(client.notebooks.get("late").url, token)
    for before in (1.5, 0.6, 0.1):
        used = time.monotonic()
        kernel.run("1")
        time.sleep(max(0.0, used + TIMEOUT - before - time.monotonic()))
        began = time.monotonic()
        said = kernel.run(f"import time; time.sleep({CELL}); print('done')")
        assert said == "done\n" and time.monotonic() - began >= CELL
        assert client.notebooks.get("late").state is NotebookState.RUNNING
    ended = time.monotonic()

    def stopped() -> bool:
        return client.notebooks.get("late").state is NotebookState.STOPPED

    wait_until(stopped, 60, "the end of an idle notebook")
    assert time.monotonic() - ended >= TIMEOUT - 0.5
    assert client.notebooks.get("late").reason.startswith("idle for 8 s (nobody has written")
    client.notebooks.delete("late")
