"""Curves of the metrics that a trial reported while it ran."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaos_hub.service.web import sse

WIDTH, HEIGHT = 300, 80
_MOST_CURVES = 12
_MOST_CORNERS = 400
_MOST_BYTES = 8 << 20
_PATIENCE = 0.5
"""Seconds for finding a trial's points among those of all trials: a page must not wait for long."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """The course of one metric."""

    name: str
    corners: str
    """Points as in SVG's polylines, in a box of :data:`WIDTH` × :data:`HEIGHT`."""
    low: float
    high: float
    last: float
    points: int
    until: str
    """The label at the right end: ``step 200``, ``35 s``."""


async def read_points(pieces: AsyncIterator[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """Return the points of a trial, as many as are found soon."""
    found = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            async for _, piece in pieces:
                found += piece
                if len(found) > _MOST_BYTES:
                    break
    await sse.close(pieces)
    return [json.loads(line) for line in found.splitlines()]


def draw(points: Sequence[dict[str, Any]], first: str | None = None) -> list[Curve]:
    """Return a curve for each metric with more than one point, up to ``_MOST_CURVES``.

    The metric ``first`` comes before the others.
    """
    names = dict.fromkeys(name for point in points for name in point["values"])
    ordered = sorted(names, key=lambda name: (name != first, name))
    curves = (_curve(name, points) for name in ordered)
    return [curve for curve in curves if curve is not None][:_MOST_CURVES]


def _curve(name: str, points: Iterable[dict[str, Any]]) -> Curve | None:
    told = [point for point in points if name in point["values"]]
    if len(told) < 2:
        return None
    stepped = all(point.get("step") is not None for point in told)
    begun = _seconds(told[0])
    xs = [float(p["step"]) if stepped else _seconds(p) - begun for p in told]
    ys = [float(p["values"][name]) for p in told]
    until = f"step {xs[-1]:g}" if stepped else f"{xs[-1]:.0f} s"
    line = _scaled(_thinned(list(zip(xs, ys, strict=True))))
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    return Curve(name, corners, min(ys), max(ys), ys[-1], len(ys), until)


def _seconds(point: dict[str, Any]) -> float:
    return datetime.fromisoformat(point["at"]).timestamp()


def _thinned(points: list[Point]) -> list[Point]:
    """Return the points thinned to about ``_MOST_CORNERS`` or fewer, including the last one."""
    step = -(-len(points) // _MOST_CORNERS)
    return [*points[:-1:step], points[-1]]


def _scaled(points: list[Point]) -> Iterable[Point]:
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    for x, y in points:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        # a line at the very edge would be half as thick
        yield across * WIDTH, 2 + (1 - up) * (HEIGHT - 4)
