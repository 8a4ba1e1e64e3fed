"""Finding and signalling processes, sure that they are the ones meant.

Needs only the standard library.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process; its start time (clock ticks since boot) tells it from a later one of that id."""

    pid: int
    parent: int
    group: int
    start: int


def _read(pid: str) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, and may itself hold brackets and spaces.
    state, parent, group, *rest = stat[stat.rfind(b")") + 2 :].split()
    if state in (b"Z", b"X"):
        return None
    return Process(int(pid), int(parent), int(group), int(rest[16]))


def _all() -> list[Process]:
    return [p for name in os.listdir("/proc") if name.isdigit() and (p := _read(name))]  # noqa: PTH208


def descendants(pid: int) -> list[Process]:
    """Every living process below ``pid``; complete if that one is a child subreaper."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [p.pid for p in below]
    return found


def marked(entry: bytes) -> list[Process]:
    """Every living process of ours started with ``entry`` (``NAME=value``) in its environment."""
    found = []
    for process in _all():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if entry in environment.split(b"\0"):
            found.append(process)
    return found


def send(process: Process, number: int = signal.SIGTERM) -> None:
    """Signal that very process; nothing if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # From here on the handle means one process; is it still the one we saw?
        now = _read(str(process.pid))
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        return
    finally:
        os.close(handle)
