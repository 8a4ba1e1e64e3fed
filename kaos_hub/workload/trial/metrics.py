"""Metrics that a trial sends while it runs, through a pipe."""

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kaos_hub.schemas import MetricPoint

MOST_POINTS = 1000
"""Points that are told at once; more are thinned, evenly."""
_MOST_VALUES = 50_000
MOST_NAMES = 1000
LONGEST_NAME = 100
_LONGEST_LINE = 1 << 20

_Point = tuple[float, float | None, dict[str, float]]


def number(value: object) -> float | None:
    """A finite number, also one that is written as text; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


class Metrics:
    """Metrics from the pipe: JSON lines of :func:`kaos_hub.log`, or plain JSON objects.

    One thread feeds it, another takes from it.

    Args:
        trial: whose they are.
        note: is told in words what cannot be kept.
    """

    def __init__(self, trial: int, note: Callable[[str], object]) -> None:
        self._trial = trial
        self._note = note
        self._lock = threading.Lock()
        self._rest = b""
        self._points: list[_Point] = []
        self._newest: _Point | None = None
        self._stride, self._seen = 1, 0
        self._noted: set[str] = set()
        self.last: dict[str, float] = {}
        """The last value of each."""

    def feed(self, data: bytes, now: float) -> None:
        """Take more that came through the pipe."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= _LONGEST_LINE else b""
        lines = [line for line in lines if line and not line.isspace()]
        if lines:
            with self._lock:
                for said in _parse(lines):
                    if isinstance(said, dict):
                        self._take(said, now)
                    else:
                        text = str(said)[:100]
                        self._once(f"{text!r} is no JSON object with metrics; it is not kept")

    def _take(self, said: dict[str, Any], now: float) -> None:
        values = said.get("values")
        at = now
        if isinstance(values, dict):
            given = said.get("at")
            if type(given) is float and abs(given - now) < 86400:
                at = given
            step = said.get("step")
        else:
            values = {name: value for name, value in said.items() if name != "step"}
            step = said.get("step")
        numbers = {}
        for name, value in values.items():
            kept = value if type(value) is float and -1e308 < value < 1e308 else number(value)
            if kept is not None and 0 < len(name) <= LONGEST_NAME:
                numbers[name] = kept
            else:
                self._odd(name, value)
        if not numbers:
            return
        self._remember(numbers)
        self._newest = (at, number(step), numbers)
        if self._seen % self._stride == 0:
            self._points.append(self._newest)
            if len(self._points) >= 2 * MOST_POINTS:
                self._points = self._points[::2]
                self._stride *= 2
        self._seen += 1

    def _remember(self, numbers: dict[str, float]) -> None:
        if len(self.last) + len(numbers) <= MOST_NAMES or numbers.keys() <= self.last.keys():
            self.last.update(numbers)
            return
        for name, value in numbers.items():
            if name in self.last or len(self.last) < MOST_NAMES:
                self.last[name] = value
            else:
                self._once(f"there are more than {MOST_NAMES} metrics; {name!r} is not kept")

    def _odd(self, name: str, value: object) -> None:
        short = f"{name!r} is {str(value)!r}"[:200]
        self._once(f"metric {short}, which is not kept: only finite numbers are", name)

    def _once(self, text: str, name: str = "") -> None:
        if name not in self._noted and len(self._noted) < 100:
            self._noted.add(name)
            self._note(text)

    def take(self) -> list[MetricPoint]:
        """The points since the last time: evenly thinned, and the newest."""
        with self._lock:
            points, newest = self._points, self._newest
            self._points, self._newest, self._stride, self._seen = [], None, 1, 0
        if newest is not None and points[-1] is not newest:
            points.append(newest)
        room = max(1, min(MOST_POINTS, _MOST_VALUES // max(1, *(len(p[2]) for p in points), 1)))
        return [self._point(p) for p in thinned(points, room)]

    def give_back(self, points: list[MetricPoint]) -> None:
        """Take back points that could not be told: they come first the next time."""
        before = [(p.at.timestamp(), p.step, dict(p.values)) for p in points]
        with self._lock:
            self._points = before + self._points
            if self._newest is None and before:
                self._newest = before[-1]
            self._seen = len(self._points) * self._stride

    @property
    def waiting(self) -> bool:
        """True if there are points to tell."""
        return bool(self._points)

    def _point(self, point: _Point) -> MetricPoint:
        at, step, values = point
        when = datetime.fromtimestamp(at, UTC)
        return MetricPoint(trial=self._trial, at=when, step=step, values=values)


def thinned(points: list[_Point], most: int) -> list[_Point]:
    """At most so many of the points, evenly; the last is among them."""
    if len(points) <= most:
        return points
    count = len(points)
    return [points[(n + 1) * count // most - 1] for n in range(most)]


def _parse(lines: list[bytes]) -> Iterable[Any]:
    """All lines at once, which is quick; one by one where one of them is no JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        parsed: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
        if len(parsed) == len(lines):
            return parsed
    return [_parse_one(line) for line in lines]


def _parse_one(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line.decode(errors="replace")
