"""A watch for processes in this container that the kernel ends for want of memory.

Jupyter only sees that a kernel died. The number of such ends is in the container's control group:
``oom_kill`` in ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

_PLACES = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


class MemoryWatch:
    """Looks when asked, and remembers when the number last grew.

    Args:
        places: the files that may hold the number; the first that does is taken.
    """

    def __init__(self, places: Sequence[Path] = _PLACES) -> None:
        self._places = places
        self._seen = self._count()
        self._last: datetime | None = None

    def last_end(self) -> datetime | None:
        """Return when one was last ended since this server began, as far as that was noticed."""
        count = self._count()
        if count > self._seen:
            self._seen, self._last = count, datetime.now(UTC)
        return self._last

    def _count(self) -> int:
        for place in self._places:
            try:
                lines = place.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(" ")
                if name == "oom_kill" and value.isdigit():
                    return int(value)
        return 0
