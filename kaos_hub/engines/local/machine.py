"""The capacity of this machine: cores and bytes, as far as this process may use them."""

import os
from pathlib import Path

from kaos_hub.schemas import Capacity

_CGROUP = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Below :data:`_CGROUP`, where a container's limit stands: of cgroup v2, and of v1."""


def capacity(cgroup: Path = _CGROUP) -> Capacity:
    """Cores and memory of the machine; in a container those that the container may have."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, period = [*_words(cgroup / "cpu.max"), "max", "max"][:2]
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _MEMORY_LIMITS:
        for word in _words(cgroup / name):
            memory = min(memory, int(word)) if word.isdigit() else memory
    return Capacity(cpu=cores, memory=memory)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text("ascii").split()
    except OSError:
        return []
