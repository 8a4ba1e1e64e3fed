"""At rest: memory and processor time of the kaos service, beside those of its Hub.

Both have nothing to do, nobody is logged in, no notebook runs. They are looked at in the same
windows of time, one window is a round.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Comparison, Report, Series, arguments, note, versions
from tests.hub import RunningHub, running_hub


@dataclass(frozen=True)
class Use:
    """What a process used."""

    rss: float
    """MB of memory in use, shared pages included."""
    pss: float
    """MB of memory, where a page that n processes share counts as 1/n."""
    cpu: float
    """Seconds of processor time since it began."""

    @classmethod
    def of(cls, pid: int) -> "Use":
        """Look at a process."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        found = {line.split()[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
        # In nanoseconds; the usual counters are hundredths of a second, too coarse for an idle one.
        times = [
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        return cls(found["Rss:"], found["Pss:"], sum(times) / 1e9)


def main() -> None:
    """Watch both and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["idle"])
    report = Report("service_idle", versions("SQLAlchemy", "pydantic"))
    window, settle = (1.0, 0.0) if given.smoke else (30.0, 20.0)
    with (
        tempfile.TemporaryDirectory(prefix="kaos-bench-", ignore_cleanup_errors=True) as directory,
        running_hub(Path(directory)) as hub,
    ):
        time.sleep(settle)
        report.comparisons += _watch(hub, given.rounds, window)
    report.show(given.json)


def _watch(hub: RunningHub, rounds: int, window: float) -> list[Comparison]:
    service = hub.service_pid()
    assert service is not None and hub.process is not None
    pids = {"Hub": hub.process.pid, "kaos service": service}
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pids}
    for number in range(rounds + 1):
        before = {name: Use.of(pid) for name, pid in pids.items()}
        begin = time.perf_counter()
        time.sleep(window)
        taken = time.perf_counter() - begin
        for name, pid in pids.items():
            after = Use.of(pid)
            percent = 100 * (after.cpu - before[name].cpu) / taken
            seen[name].append((after.rss, after.pss, percent))
            note(f"window {number} of {rounds}: {name} {after.rss:.0f} MB, {percent:.3f} %")
    titles = {"memory, RSS": "MB", "memory, PSS": "MB", "processor": "% of one core"}
    return [
        Comparison(f"at rest, {title}", _series(seen, which), unit)
        for which, (title, unit) in enumerate(titles.items())
    ]


def _series(seen: dict[str, list[tuple[float, float, float]]], which: int) -> tuple[Series, ...]:
    values = {name: [window[which] for window in windows] for name, windows in seen.items()}
    return tuple(
        Series(name, first, tuple(rest) or (first,)) for name, (first, *rest) in values.items()
    )


if __name__ == "__main__":
    main()
