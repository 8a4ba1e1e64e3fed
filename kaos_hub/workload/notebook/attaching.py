"""Attaching: a data bundle comes into a running notebook, as ``~/attached/<name>``.

A running container takes no new mounts, so the tree is fetched: by a program of its own, which can
be ended, with a ticket that is good for this tree only. What is there is read-only, and complete or
absent; another version of the same name takes its place when it is complete.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kaos_hub.errors import Conflict, KaosError, Unavailable
from kaos_hub.schemas import ErrandOrder, ErrandReport
from kaos_hub.workload.fetch.place import discard

PLACE = "attached"

_PROGRESS = re.compile(r"(\d+)% (.*)")
_PAUSE = 1.0


def attach(
    home: Path,
    order: ErrandOrder,
    url: str,
    tell: Callable[[ErrandReport], object],
    stopped: threading.Event,
) -> Path:
    """Bring a tree to ``<home>/attached/<name>``.

    Args:
        home: the notebook's.
        order: which tree, and the ticket for it.
        url: the service's.
        tell: tells the service how far it is.
        stopped: set when this server ends.

    Raises:
        KaosError: it cannot be had, or something of the user's is in its place. Nothing is changed.
        Over: the service has ended this errand; nothing is changed.
        OSError: it cannot be written.
    """
    assert order.digest is not None
    folder = home / PLACE
    folder.mkdir(mode=0o755, exist_ok=True)
    place, memory = folder / order.bundle, _AttachedMemory(home / ".kaos" / "attached.json")
    known = memory.load().get(order.bundle)
    if known is None and os.path.lexists(place):
        raise Conflict(
            f"~/{PLACE}/{order.bundle} is there already and is yours; rename it, then attach again."
        )
    if known != order.digest or not place.is_dir():
        fresh = folder / f".{order.bundle}.{order.digest[-64:-48]}"
        _fetch(order, url, fresh, home / ".kaos", tell, stopped)
        # Ours, but which version it is shall be known only when it is so.
        memory.note(order.bundle, "")
        if os.path.lexists(place):
            discard(place)
        fresh.rename(place)
        memory.note(order.bundle, order.digest)
    for left in folder.glob(f".{order.bundle}.{'[0-9a-f]' * 16}"):
        discard(left)
    tell(ErrandReport(note="attached", progress=100, done=True))
    return place


class _AttachedMemory:
    """The versions that lie there: name → digest; empty while one takes another's place."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, name: str, digest: str) -> None:
        text = json.dumps(self.load() | {name: digest})
        draft = self._file.with_name(self._file.name + ".new")
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        draft.write_text(text, "utf-8")
        draft.replace(self._file)


def _fetch(
    order: ErrandOrder,
    url: str,
    target: Path,
    private: Path,
    tell: Callable[[ErrandReport], object],
    stopped: threading.Event,
) -> None:
    private.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", prefix="ticket-", dir=private) as ticket:
        ticket.write(order.ticket)
        ticket.flush()
        command = [
            sys.executable, "-I", "-m", "kaos_hub.workload.fetch.fetch", "--no-sync", "--url", url,
            "--ticket", ticket.name, "--tree", f"{order.digest}={target}",
        ]  # fmt: skip
        with _running(command, dict(os.environ)) as process, _ended(process, stopped):
            _follow(process, tell)
            problem = process.stderr.read().strip() if process.stderr else ""
            code = process.wait()
    if code == 0:
        return
    if stopped.is_set() or code < 0 or "ended by signal" in problem:
        # It is in the server's own group, so what ends that reaches it, too.
        raise Unavailable("the notebook's server ended meanwhile; attach again")
    raise KaosError(problem.removeprefix("error: ") or f"fetching ended with exit code {code}")


@contextmanager
def _running(command: list[str], environ: dict[str, str]) -> "Iterator[subprocess.Popen[str]]":
    """A program that does not outlive the block."""
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()


@contextmanager
def _ended(process: "subprocess.Popen[str]", stopped: threading.Event) -> Iterator[None]:
    """End the program when the server ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stopped.wait(0.5):
                process.terminate()
                return

    threading.Thread(target=watch, daemon=True, name="kaos-attach").start()
    try:
        yield
    finally:
        over.set()


def _follow(process: "subprocess.Popen[str]", tell: Callable[[ErrandReport], object]) -> None:
    told = 0.0
    for line in process.stdout or ():
        match = _PROGRESS.match(line)
        now = time.monotonic()
        if match and now - told > _PAUSE:
            told = now
            note = f"fetching, {match[2].strip()}"
            tell(ErrandReport(note=note, progress=min(int(match[1]), 99)))
