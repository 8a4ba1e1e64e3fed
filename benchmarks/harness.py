"""What the benchmarks share: alternating rounds, statistics, versions, a table.

Contestants take turns in every round, and who begins changes with each, so that a machine that
slows down or warms up does so for all of them. Ratios are taken within rounds for the same reason.
The very first turn of each is kept apart.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# With it, every start would compile all modules anew: not what anybody's users see.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_PACKAGES = ("kaos-hub", "jupyterhub", "jupyterlab", "jupyter-server", "tornado", "dockerspawner")


@dataclass(frozen=True)
class Contestant:
    """Somebody who takes a turn in each round."""

    name: str
    measure: Callable[[], float]
    """One turn: what it measured, with preparing and cleaning up left out."""


@dataclass(frozen=True)
class Series:
    """What one contestant came to."""

    name: str
    first: float
    """The first turn, which counts nowhere else if there is another."""
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle."""
        return median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between these lies half of all values; equal for a single one."""
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Comparison:
    """One thing, done by several in the same run."""

    title: str
    series: tuple[Series, ...]
    """The first is the one whom the others are compared with."""
    unit: str = "s"
    remarks: tuple[str, ...] = ()

    def ratios(self, series: Series) -> list[float]:
        """Round by round, a series over the first one."""
        pairs = zip(series.values, self.series[0].values, strict=True)
        return [ours / theirs for ours, theirs in pairs if theirs]

    def as_json(self) -> dict[str, Any]:
        """Everything measured, and the statistics."""
        found = []
        for series in self.series:
            ratios = self.ratios(series)
            found.append(
                asdict(series)
                | {"median": series.median, "quartiles": series.quartiles, "ratios": ratios}
                | {"ratio": median(ratios) if ratios else None}
            )
        head = {"title": self.title, "unit": self.unit, "remarks": self.remarks}
        return head | {"rounds": len(self.series[0].values), "series": found}


@dataclass
class Report:
    """What a run found out."""

    name: str
    versions: dict[str, str]
    comparisons: list[Comparison] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """What was not compared, and why."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def skip(self, title: str, reason: str) -> None:
        """Leave something out, and say so."""
        note(f"{title}: skipped, {reason}")
        self.skipped[title] = reason

    def show(self, as_json: bool) -> None:
        """Print it: a table in Markdown, or one JSON document."""
        self.machine["load at the end"] = load()
        if as_json:
            head: dict[str, Any] = {
                "benchmark": self.name,
                "began": self.began.isoformat(timespec="seconds"),
            }
            head |= {"machine": self.machine, "versions": self.versions, "skipped": self.skipped}
            found = [comparison.as_json() for comparison in self.comparisons]
            print(json.dumps(head | {"comparisons": found}, indent=2))
        else:
            print("\n".join(self._text()))

    def _text(self) -> Iterable[str]:
        yield f"## {self.name}, {self.began:%Y-%m-%d %H:%M} UTC"
        yield ""
        yield "; ".join(f"{k}: {v}" for k, v in self.machine.items())
        yield ""
        yield "; ".join(f"{k} {v}" for k, v in self.versions.items())
        for comparison in self.comparisons:
            yield ""
            yield from _table(comparison)
        for title, reason in self.skipped.items():
            yield ""
            yield f"{title}: skipped, {reason}"


def _table(comparison: Comparison) -> Iterable[str]:
    rounds = len(comparison.series[0].values)
    yield f"**{comparison.title}** ({comparison.unit}, {rounds} rounds)"
    yield ""
    yield "| | first | median | min–max | quartiles | ratio: median (min–max) |"
    yield "|---|---|---|---|---|---|"
    for series in comparison.series:
        ratios = comparison.ratios(series)
        ratio = "1" if series is comparison.series[0] else "–"
        if ratio != "1" and ratios:
            ratio = f"{median(ratios):.2g}× ({min(ratios):.2g}–{max(ratios):.2g})"
        low, high = series.quartiles
        spread = f"{_short(min(series.values))}–{_short(max(series.values))}"
        yield (
            f"| {series.name} | {_short(series.first)} | **{_short(series.median)}** | {spread}"
            f" | {_short(low)}–{_short(high)} | {ratio} |"
        )
    yield from ("", *comparison.remarks) if comparison.remarks else ()


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def alternate(contestants: Sequence[Contestant], rounds: int, title: str) -> tuple[Series, ...]:
    """Let the contestants take turns.

    Args:
        contestants: who takes part.
        rounds: turns of each that count; there is one more, the first. With none, that counts.
        title: what to tell people who wait.

    Returns:
        The series, in the contestants' order.
    """
    found: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for step in range(len(contestants)):
            who = (number + step) % len(contestants)
            value = contestants[who].measure()
            found[who].append(value)
            when = f"round {number} of {rounds}" if number else "first"
            note(f"{title}, {when}: {contestants[who].name} {_short(value)}")
    return tuple(
        Series(each.name, values[0], tuple(values[1:] or values))
        for each, values in zip(contestants, found, strict=True)
    )


def seconds(do: Callable[[], object]) -> float:
    """How long something takes."""
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


def note(text: str) -> None:
    """Tell people who wait; what is found goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def arguments(description: str, parts: Sequence[str]) -> argparse.Namespace:
    """The command line that all benchmarks have.

    Args:
        description: what is measured.
        parts: what ``--only`` can choose.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (10)")
    parser.add_argument("--only", action="append", choices=parts, help="leave the others out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--smoke", action="store_true", help="as little as possible, to see that it works"
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    given.only = given.only or list(parts)
    given.rounds -= given.smoke  # there, the first turn is enough
    return given


# --- where and with what ---


def machine() -> dict[str, Any]:
    """What kind of machine this is, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{os.cpu_count()} vCPU {platform.machine()}, {memory:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "load at the beginning": load(),
    }


def load() -> float:
    """The load average of the last minute: who else was there."""
    return round(os.getloadavg()[0], 2)


def versions(*packages: str) -> dict[str, str]:
    """What took part: Python, Jupyter, this repository's commit, and more packages of ours."""
    found = {"commit": _commit(), "Python": platform.python_version()}
    for package in (*_PACKAGES, *packages):
        found[package] = metadata.version(package)
    lock = json.loads((ROOT / "kaos_hub/deployment/proxy/package-lock.json").read_text())
    proxy = lock["packages"]["node_modules/configurable-http-proxy"]
    return found | {"configurable-http-proxy": proxy["version"]}


def _commit() -> str:
    said = output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or "unknown"
    changed = output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{said} with changes" if changed else said


def output(*command: str) -> str:
    """What a command prints, or nothing if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
