"""``kaos_hub.log(loss=0.1, step=3)``: metrics of a trial while it runs.

The one file of kaos_hub that runs in the user's own Python, any Python 3: in trials it is there
under the name ``kaos_hub`` even if nothing of that name is installed (workload/trial/places.py).
Standard library only. Outside of a trial it does nothing, so that the same code runs anywhere.
"""

import json
import math
import os
import time
import warnings

_LONGEST = 4000
"""Bytes of a line: a pipe takes up to 4096 at once, however many processes write to it."""

_open = {}  # type: dict[int, int | None]
"""By process: the descriptor that it writes to; None: there is nowhere to write."""
_warned = set()  # type: set[str]


def log(*values: "dict[str, object]", step: "float | None" = None, **metrics: object) -> None:
    """Tell how a trial is doing: numbers by name, now and then with a step.

    Anything that ``float()`` understands is a number: of numpy, torch, a string. The same names
    appear in ``kaos train metrics`` and on the run's page a few seconds later; the last value of
    each is a metric of the trial. Costs some microseconds, and outside of a trial does nothing.

    Args:
        values: dictionaries, for names that are no Python names: ``log({"val/loss": 0.2})``.
        step: an epoch, a batch, or whatever counts.
        metrics: name=number.
    """
    file = _file()
    if file is None:
        return
    numbers = {}
    for given in (*values, metrics):
        for name, value in given.items():
            number = _number(str(name), value)
            if number is not None:
                numbers[str(name)] = number
    point = {"at": time.time(), "values": numbers}
    if step is not None:
        point["step"] = _number("step", step)
    _write(file, point)


def _number(name: str, value: object) -> "float | str | None":
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        _warn(f"kaos_hub.log: {name} is no number: {value!r:.60}")
        return None
    # JSON has no nan or inf; who reads it notes them by name
    return number if math.isfinite(number) else str(number)


def _write(file: int, point: "dict[str, object]") -> None:
    line = json.dumps(point).encode() + b"\n"
    values = point["values"]
    if len(line) > _LONGEST and isinstance(values, dict) and len(values) > 1:
        names = list(values)
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            _write(file, dict(point, values={name: values[name] for name in half}))
        return
    if len(line) > _LONGEST:
        _warn("kaos_hub.log: the name of a metric is too long")
        return
    try:
        os.write(file, line)
    except OSError:
        _open[os.getpid()] = None


def _file() -> "int | None":
    """Return the descriptor to write to, opened once in each process; None if there is none."""
    pid = os.getpid()
    if pid not in _open:
        _open.clear()
        _open[pid] = None
        path = os.environ.get("KAOS_METRICS")
        if path:
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
            try:
                # a pipe without a reader is an error then, and not a wait without end
                _open[pid] = os.open(path, flags | getattr(os, "O_CREAT", 0), 0o644)
                os.set_blocking(_open[pid], True)  # type: ignore[arg-type]
            except (OSError, AttributeError):
                pass
    return _open[pid]


def _warn(text: str) -> None:
    if text not in _warned and len(_warned) < 100:
        _warned.add(text)
        warnings.warn(text, stacklevel=4)
