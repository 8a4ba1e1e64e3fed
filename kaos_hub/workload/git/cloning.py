"""Has a notebook's repository cloned beside its server, by a program of its own.

Standard library only: each start of a notebook passes here, and most have nothing to clone.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from kaos_hub.workload.git import record

DRAFT = "clone-"
"""Prefix of the folders in ``~/.kaos`` in which clones are made."""

_lock = threading.Lock()
_under_way: dict[str, "Cloning"] = {}


def at_start(home: Path, order: str | None) -> "Cloning | None":
    """Begin to clone what a notebook that starts is to have; None: there is nothing to do.

    Args:
        home: the notebook's.
        order: a :class:`~kaos_hub.schemas.CloneOrder` as JSON.
    """
    for left in (home / ".kaos").glob(f"{DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)
    if order is None:
        return None
    said = json.loads(order)
    if said["cloned"] and record.find(home / "work", said["repository"]):
        return None
    return begin(home, said["repository"], order)


def begin(home: Path, repository: str, order: str) -> "Cloning":
    """Begin to clone a repository; if that is under way, nothing more is begun."""
    with _lock:
        known = _under_way.get(repository)
        if known is None or not known.thread.is_alive():
            known = _under_way[repository] = Cloning(home, order)
            known.thread.start()
        return known


class Cloning:
    """A clone that is under way."""

    def __init__(self, home: Path, order: str) -> None:
        self._home, self._order = home, order
        self.thread = threading.Thread(target=self._run, name="git-clone", daemon=True)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; whether it came."""
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _run(self) -> None:
        environ = {**os.environ, "KAOS_GIT": self._order, "KAOS_HOME": str(self._home)}
        command = [sys.executable, "-I", "-m", "kaos_hub.workload.git.clone"]
        try:
            # It writes to the log of the notebook.
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
        except OSError as e:
            self._failed(f"it could not be started: {e}")
            return
        end = atexit.register(lambda: _end(process))
        code = process.wait()
        atexit.unregister(end)
        if code:
            by = f"signal {-code}; there may be too little memory" if code < 0 else f"code {code}"
            self._failed(f"it was ended by {by}")

    def _failed(self, problem: str) -> None:
        """Tell what the program itself could not tell any more."""
        from kaos_hub.schemas import CloneOrder, parse_repository
        from kaos_hub.workload.git.told import Teller

        order = CloneOrder.model_validate_json(self._order)
        Teller(self._home, parse_repository(order.repository)).failed(problem)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(OSError, subprocess.TimeoutExpired):
        process.terminate()
        process.wait(3)
