"""The bundle's ``startup-hook.sh``: run in the working copy before the server starts.

Its output is in the notebook's log. A failure is told there and in a file beside the code, where
the user sees it; the notebook starts all the same. So it does when the hook takes long: it then
goes on beside the server, until its time is up.
"""

import atexit
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

NAME = "startup-hook.sh"
NOTICE = "startup-hook.failed.txt"
_SHOWN = 40


class Hook:
    """One run of the hook of a working copy."""

    def __init__(self, work: Path, environ: Mapping[str, str], timeout: float) -> None:
        self._work, self._environ, self._timeout = work, environ, timeout
        self._last: deque[str] = deque(maxlen=_SHOWN)

    def run(self, patience: float) -> None:
        """Run it; return when it has ended, or after ``patience`` seconds while it goes on."""
        if not (self._work / NAME).is_file():
            return
        thread = threading.Thread(target=self._watch, name="startup-hook", daemon=True)
        thread.start()
        thread.join(patience)
        if thread.is_alive():
            self._say("still running; the notebook starts meanwhile")

    def _watch(self) -> None:
        shell = shutil.which("bash", path=self._environ.get("PATH")) or "/bin/sh"
        try:
            process = subprocess.Popen(
                [shell, NAME],
                cwd=self._work,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as e:
            self._tell(f"could not be started: {e}")
            return
        atexit.register(_kill, process.pid)
        self._tell(self._outcome(process))
        atexit.unregister(_kill)

    def _outcome(self, process: "subprocess.Popen[bytes]") -> str:
        """Follow the process to its end; what went wrong, or nothing."""
        # What it leaves in the background keeps the pipe open, so the end is that of the process.
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            code = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            process.wait()
            return f"was ended after {self._timeout:g} s; KAOS_HOOK_TIMEOUT sets that limit"
        reader.join(1)
        return f"failed with exit code {code}" if code else ""

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            self._last.append(line.decode(errors="replace").rstrip("\n"))
            self._say(self._last[-1])

    def _tell(self, problem: str) -> None:
        notice = self._work / NOTICE
        with suppress(OSError):
            notice.unlink()
        if not problem:
            return
        self._say(problem)
        text = "\n".join([f"{NAME} {problem}. The end of its output:", "", *self._last, ""])
        with suppress(OSError), notice.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def _say(self, text: str) -> None:
        print(f"{NAME}: {text}", flush=True)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
