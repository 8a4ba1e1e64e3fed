"""Files that several processes share. Needs only the standard library.

The lock is an open-file-description lock: like ``flock`` it passes to a forked child and dies with
it, but others can ask for it without taking it.
"""

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

_FLOCK = struct.Struct("hhqqi4x")


def take(path: Path) -> int | None:
    """Lock the file; the descriptor that holds the lock, or None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


def held(path: Path) -> bool:
    """Return whether a process holds the lock. Only asks: never gets in the way of :func:`take`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file of mode 0600 that is there whole or not at all, also after a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
