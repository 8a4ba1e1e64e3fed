"""Reports of trials while they run: a file of lines per training, of a bounded size."""

import math
from collections.abc import AsyncIterator, Iterable

from kaos_hub.schemas import MetricPoint
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.trainings.records import plain, points_name

ALL = 2000
"""Points of a trial of which each is kept; of the next as many as came before every second, and so
on: however many there are, what is kept shows the whole course."""
FULL = 256 << 20
"""Bytes of the file beyond which nothing is kept any more; the last values are in the database."""


def stride(seen: int) -> int:
    """Return the distance of points that are kept after so many were seen.

    A point is kept if its number can be divided by this.
    """
    return 1 if seen < ALL else 2 ** int(math.log2(seen / ALL) + 1)


def keep(
    logs: LogStore, training: str, trial: int, before: int, points: Iterable[MetricPoint]
) -> None:
    """Write down points of a trial, of which ``before`` were seen."""
    name = points_name(training)
    if logs.size(name) > FULL:
        return
    lines = []
    for number, point in enumerate(points, before):
        if number % stride(number):
            continue
        values = {plain(k, 100): v for k, v in point.values.items() if math.isfinite(v)}
        step = point.step if point.step is not None and math.isfinite(point.step) else None
        if values:
            told = MetricPoint(trial=trial, at=point.at, step=step, values=values)
            lines.append(told.model_dump_json() + "\n")
    if lines:
        logs.append(name, "".join(lines).encode())


async def read(
    logs: LogStore, training: str, trial: int | None, offset: int, follow: bool
) -> AsyncIterator[tuple[int, bytes]]:
    """Whole lines from ``offset`` on, of one trial or all, each piece with the offset after it."""
    begin = b"" if trial is None else b'{"trial":%d,' % trial
    rest = b""
    async for end, piece in logs.read(points_name(training), offset, follow):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        lines = (whole + newline).splitlines(keepends=True)
        wanted = b"".join(line for line in lines if line.startswith(begin))
        if wanted:
            yield end - len(rest), wanted
