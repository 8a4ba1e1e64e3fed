"""A person at a command line: in pipes, and on a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub import RunningHub

EXAMPLES = Path(__file__).parent.parent / "examples"
KAOS = [sys.executable, "-m", "kaos_hub.cli"]


@dataclass
class Shell:
    """A person at a command line, with a home of their own."""

    home: Path
    hub: RunningHub
    user: str

    def log_in(self) -> None:
        """Use the Hub with a token of the user."""
        token = self.hub.token(self.user)
        done = self.run("login", "--token-stdin", f"{self.hub.url}/hub/home", input=token)
        assert done.returncode == 0, done.stderr

    def environment(self) -> dict[str, str]:
        """Variables of every command."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAOS_", "JUPYTERHUB_"))}
        return {**kept, "HOME": str(self.home), "PYTHONPATH": str(EXAMPLES.parent)} | {
            f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ("CONFIG", "CACHE")
        }

    def run(
        self, *words: str, input: str = "", cwd: Path = EXAMPLES
    ) -> subprocess.CompletedProcess[str]:
        """A command whose output goes into pipes."""
        return subprocess.run(
            [*KAOS, *words],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            env=self.environment(),
        )

    def json(self, *words: str) -> Any:
        """The one document that a command prints."""
        done = self.run("--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def on_terminal(
        self,
        *words: str,
        answer: str = "",
        interrupt: str = "",
        question: str = "[y/N]",
        cwd: Path = EXAMPLES,
    ) -> tuple[int, str]:
        """A command on a terminal: answers its question, or presses Ctrl-C once it shows a word."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        process = subprocess.Popen(
            [*KAOS, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**self.environment(), "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(slave)
        seen = b""
        for piece in _read_until_closed(master, 120):
            seen += piece
            if answer and question.encode() in seen:
                os.write(master, f"{answer}\n".encode())
                answer = ""
            if interrupt and interrupt.encode() in seen:
                process.send_signal(signal.SIGINT)
                interrupt = ""
        os.close(master)
        return process.wait(10), seen.decode()


def _read_until_closed(descriptor: int, seconds: float) -> Iterator[bytes]:
    deadline = time.monotonic() + seconds
    while select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
        with contextlib.suppress(OSError):  # how Linux tells that the other end is closed
            piece = os.read(descriptor, 1 << 16)
            if piece:
                yield piece
                continue
        return
    raise AssertionError(f"the command did not end within {seconds:g} s")
