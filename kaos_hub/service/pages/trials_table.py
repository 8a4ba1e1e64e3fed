"""The table of a training's trials: its columns, their sort keys, and the page that is shown."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from kaos_hub.schemas import Direction, Model, Training, Trial, TrialState
from kaos_hub.util.quantities import plural

PAGE = 50
"""Trials of one page."""
_PARAMS, _METRICS = 6, 5
"""The numbers of columns at first. Others are chosen on the page."""
_MOST_COLUMNS = 60
_LONGEST = 200


class TrialsQuery(Model):
    """The trials that a page shows, and their order."""

    sort: str = Field("number", max_length=200)
    order: str | None = Field(None, pattern="^(asc|desc)$")
    state: TrialState | None = None
    after: int = Field(0, ge=0, le=10**9)
    column: list[str] = Field([], max_length=200)
    """Columns, as ``params.rate`` or ``metrics.loss``; empty: the most informative ones."""


def show_number(value: float) -> str:
    """Return a number as exactly as people read it: ``0.981481``, ``12000``, ``1.5e-07``."""
    if isinstance(value, int) or (abs(value) < 1e15 and value == int(value)):
        return str(int(value))
    return f"{value:.6g}"


def show_value(value: Any) -> str:
    """Return a parameter: text as it is, all else as JSON."""
    if isinstance(value, float):
        return show_number(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def seconds_of(thing: Training | Trial) -> float | None:
    """Return the seconds that it took, or has been running; None if it has not started."""
    if thing.started is None:
        return None
    return max(0.0, ((thing.finished or datetime.now(UTC)) - thing.started).total_seconds())


@dataclass(frozen=True)
class Column:
    """A column and the key that sorts by it."""

    label: str
    sort: str
    cell: Callable[[Trial], str]
    numeric: bool = False
    kind: str = ""
    """``parameter`` or ``metric``: both may have the same name."""
    key: str = ""
    """The key that chooses it: ``params.rate``, ``metrics.loss``."""
    shown: bool = True


@dataclass(frozen=True)
class Step:
    """A link to another page of the table."""

    label: str
    after: int
    possible: bool


class TrialsTable:
    """The table of a training's trials on a page.

    Args:
        training: the training of the trials.
        trials: the trials of this page.
        query: the query that chose them.
    """

    def __init__(self, training: Training, trials: Sequence[Trial], query: TrialsQuery) -> None:
        self.training, self.trials, self.query = training, trials, query
        found = [*_param_columns(trials), *_metric_columns(training, query.sort)]
        if query.column:
            found = [replace(column, shown=column.key in query.column) for column in found]
        self.choices = found
        self.columns = [column for column in found if column.shown][:_MOST_COLUMNS]

    @property
    def said(self) -> str:
        """The number of columns shown: ``6 of 10 parameters and 5 of 12 metrics shown``."""
        parts = []
        for kind in ("parameter", "metric"):
            of_kind = [column for column in self.choices if column.kind == kind]
            shown = sum(column.kind == kind for column in self.columns)
            if of_kind:
                parts.append(f"{shown} of {plural(len(of_kind), kind)}")
        return f"{' and '.join(parts)} shown"

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """The kinds of the columns shown, in their order, and how many there are of each."""
        counts = dict.fromkeys((column.kind for column in self.columns), 0)
        for column in self.columns:
            counts[column.kind] += 1
        return [(f"{kind.capitalize()}s", count) for kind, count in counts.items()]

    @property
    def total(self) -> int:
        """The number of trials that were chosen, on all pages."""
        counts, state = self.training.trials, self.query.state
        return counts.total if state is None else int(getattr(counts, state.value.lower()))

    @property
    def range(self) -> str:
        """The trials of this page: ``51–100 of 1,000``."""
        first = self.query.after + 1
        return f"{first:,}–{first + len(self.trials) - 1:,} of {self.total:,}"

    @property
    def steps(self) -> list[Step]:
        """The links to other pages; empty if all trials fit on one."""
        after, last = self.query.after, max(0, (self.total - 1) // PAGE * PAGE)
        if not after and self.total <= PAGE:
            return []
        return [
            Step("First", 0, after > 0),
            Step("Previous", max(0, after - PAGE), after > 0),
            Step("Next", after + PAGE, after + PAGE < self.total),
            Step("Last", last, after < last),
        ]

    @property
    def states(self) -> list[tuple[str, int]]:
        """The states that trials are in, and the number of trials in each."""
        counts = self.training.trials
        named = [(state.value, int(getattr(counts, state.value.lower()))) for state in TrialState]
        return [(name, count) for name, count in named if count]

    def asks(self, **changed: Any) -> dict[str, Any]:
        """Return the query of a link, with some values changed. Defaults are left out."""
        query = self.query
        state = query.state.value if query.state else None
        values: dict[str, Any] = {
            "sort": query.sort, "order": query.order, "state": state, "after": query.after,
            "column": query.column,
        }  # fmt: skip
        values.update(changed)
        if values["sort"] == "number" and values["order"] == "asc":
            values["order"] = None
        return {
            name: value
            for name, value in values.items()
            if value and (name, value) != ("sort", "number")
        }

    def sorted_by(self, sort: str) -> str:
        """Return ``ascending``, ``descending`` or ``none``, as screen readers are told."""
        query, goal = self.query, self.training.goal
        order = query.order
        if query.sort == "score" and goal and sort == f"metrics.{goal.metric}":
            order = order or ("desc" if goal.direction is Direction.MAX else "asc")
        elif not sort or query.sort != sort:
            return "none"
        return "descending" if order == "desc" else "ascending"

    def turned(self, sort: str) -> dict[str, Any]:
        """Return the query of a column's link: it sorts by the column, or reverses the order."""
        goal = self.training.goal
        best_first = (
            "desc"
            if goal and sort == f"metrics.{goal.metric}" and goal.direction is Direction.MAX
            else "asc"
        )
        if self.query.sort != sort:
            return self.asks(sort=sort, order=best_first, after=0)
        order = "asc" if self.query.order == "desc" else "desc"
        return self.asks(order=order, after=0)

    @property
    def sorts(self) -> list[tuple[str, str]]:
        """The sort keys, and their labels."""
        # The name first: it is what one types to choose.
        metrics = [(_sort("metrics", name), f"{name} (metric)") for name in self.training.metrics]
        params = [(c.sort, f"{c.label} (param)") for c in self.choices if c.kind == "parameter"]
        score = [("score", "score")] if self.training.goal else []
        known = [("number", "number"), *score, ("duration", "duration"), ("state", "state")]
        return [(sort, label) for sort, label in [*known, *metrics, *params] if sort]


def _sort(kind: str, name: str) -> str:
    """Return the key that sorts by a metric or parameter; empty for the few names without one."""
    sayable = name.isprintable() and not {'"', "\\"} & set(name)
    return f"{kind}.{name}" if sayable and len(name) <= 180 else ""


def _first(names: Iterable[str], wanted: Iterable[str | None], most: int) -> list[str]:
    """Return at most so many of the names: those wanted first, the others as they come."""
    names = list(names)
    ahead = [name for name in wanted if name in names]
    return list(dict.fromkeys([*ahead, *names]))[:most]


def _param_columns(trials: Sequence[Trial]) -> list[Column]:
    keys = dict.fromkeys(key for trial in trials for key in trial.params or {})
    numeric = {
        key: all(isinstance((t.params or {}).get(key, 0), int | float) for t in trials)
        for key in keys
    }
    varying = [k for k in keys if len({json.dumps((t.params or {}).get(k)) for t in trials}) > 1]
    shown = set(_first(keys, varying, _PARAMS))

    def cell(key: str) -> Callable[[Trial], str]:
        return lambda t: show_value(t.params[key]) if t.params and key in t.params else ""

    return [
        Column(
            key, _sort("params", key), cell(key), numeric[key], "parameter", f"params.{key}",
            key in shown,
        )
        for key in keys
    ]  # fmt: skip


def _metric_columns(training: Training, sort: str) -> list[Column]:
    goal = training.goal.metric if training.goal else None
    wanted = (goal, sort.removeprefix("metrics.") if sort.startswith("metrics.") else None)

    def cell(name: str) -> Callable[[Trial], str]:
        return lambda t: show_number(t.metrics[name]) if name in t.metrics else ""

    shown = _first(training.metrics, wanted, _METRICS)
    rest = [name for name in training.metrics if name not in shown]
    return [
        Column(
            name, _sort("metrics", name), cell(name), True, "metric", f"metrics.{name}",
            name in shown,
        )
        for name in (*shown, *rest)
    ]  # fmt: skip
