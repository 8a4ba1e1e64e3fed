"""Trainings and trials as people see them: rows, fields, tables."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kaos_hub.cli.terminal.output import age, moment, resources, show, show_fields, show_table
from kaos_hub.util.quantities import duration

if TYPE_CHECKING:
    from kaos_hub.schemas import BundleLink, Stage, Training, Trial, TrialComparison

_LONG = 60
"""Letters of a value in a table."""
_REASON = 60
"""Letters of a reason in a list."""


def link(bundle: "BundleLink | None") -> str:
    """A bundle's name and version."""
    return f"{bundle.name}@v{bundle.version}" if bundle else "-"


def figure(value: float | None) -> str:
    """A metric: six digits that count."""
    return "-" if value is None else f"{value:.6g}"


def took(started: datetime | None, finished: datetime | None) -> str:
    """Return how long something took, or takes already."""
    if started is None:
        return "-"
    return duration(((finished or datetime.now(UTC)) - started).total_seconds())


def list_row(each: "Training") -> tuple[object, ...]:
    """A training in `kaos train list`."""
    state = str(each.state)
    if not each.state.ended and each.progress:
        state += f" {each.progress}%"
    best = f"{each.goal.metric} {figure(each.best.score)}" if each.goal and each.best else "-"
    return (
        each.id, each.name, state + (f": {_cut(each.reason)}" if each.reason else ""),
        link(each.source), link(each.data), link(each.params), trials(each), best, each.author,
        took(each.started, each.finished), age(each.created),
    )  # fmt: skip


def _cut(reason: str) -> str:
    """Cut a reason to what a list has room for; ``info`` tells all of it."""
    return reason if len(reason) <= _REASON else reason[: _REASON - 1].rstrip() + "…"


def trials(each: "Training") -> str:
    """Return how many of its trials have run, and how many of them failed: ``7/12, 1 failed``."""
    counts = each.trials
    text = f"{counts.succeeded + counts.failed}/{counts.total}" if counts.total else "-"
    return text + (f", {counts.failed} failed" if counts.failed else "")


def show_training(found: "Training") -> None:
    """Print what a training is and how it goes."""
    goal = f"{found.goal.metric}, {found.goal.direction}imal" if found.goal else None
    best = f"trial {found.best.trial}: {figure(found.best.score)}" if found.best else None
    fields: list[tuple[str, object]] = [
        ("id", found.id),
        ("name", found.name),
        ("owner", found.owner),
        ("asked for by", found.author),
        *([("from notebook", found.notebook)] if found.notebook else []),
        ("state", found.state),
        ("reason", found.reason),
        *((stage.name, show_stage(stage)) for stage in found.stages),
        ("source", link(found.source)),
        ("data", link(found.data)),
        ("manifest", link(found.manifest) if found.manifest else None),
        ("params", link(found.params)),
        ("trials", trials(found)),
        ("at once", found.slots),
        ("resources", resources(found.resources)),
        ("deadline", duration(found.deadline) if found.deadline else None),
        ("goal", goal),
        ("best", best),
        ("metrics", ", ".join(found.metrics)),
        ("repeats", found.reproduces),
        ("created", moment(found.created)),
        ("started", moment(found.started)),
        ("finished", moment(found.finished)),
    ]
    show_fields(fields)


def show_stage(stage: "Stage") -> str:
    """A stage in a few words."""
    progress = f" {stage.progress}%" if 0 < stage.progress < 100 else ""
    time = ""
    if stage.started and stage.finished:
        time = f" in {duration((stage.finished - stage.started).total_seconds())}"
    return f"{stage.state}{progress}{time}" + (f": {stage.reason}" if stage.reason else "")


def show_trials(found: "Training", rows: "Sequence[Trial]", sort_by: str | None) -> None:
    """Print a table of trials: a column per parameter and metric."""
    if not rows:
        return
    params = list(dict.fromkeys(key for row in rows for key in row.params or {}))
    metrics = sorted({key for row in rows for key in row.metrics})
    first = (found.goal.metric if found.goal else None, sort_by)
    metrics.sort(key=lambda name: name not in first)
    reasons = any(row.reason for row in rows)
    header = ("trial", "state", *params, *metrics, "took", "model", *["reason"] * reasons)
    show("")
    show_table(
        header,
        [
            (
                row.number, row.state, *(value((row.params or {}).get(key)) for key in params),
                *(figure(row.metrics.get(key)) for key in metrics),
                took(row.started, row.finished), _model(row), *[row.reason] * reasons,
            )
            for row in rows
        ],
    )  # fmt: skip


def _model(trial: "Trial") -> str:
    if trial.output is None:
        return "-"
    return trial.model + (" (partial)" if trial.output.partial else "")


def value(of: Any) -> str:
    """A parameter's value: a text as it is, anything else as JSON."""
    text = of if isinstance(of, str) else json.dumps(of)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def show_trial(found: "Trial") -> None:
    """Print all there is of one trial."""
    from kaos_hub.util.quantities import show_memory

    output = None
    if found.output:
        output = f"{found.output.files:,} files, {show_memory(found.output.size)}"
        output += " (partial: it did not end well)" if found.output.partial else ""
    params, metrics = found.params or {}, found.metrics
    fields: list[tuple[str, object]] = [
        ("trial", f"{found.number} of {found.training}"),
        ("state", found.state),
        ("reason", found.reason),
        ("exit code", found.exit_code),
        ("attempt", found.attempt if found.attempt > 1 else None),
        ("params", "\n".join(f"{key} = {value(params[key])}" for key in params)),
        ("metrics", "\n".join(f"{key} = {figure(metrics[key])}" for key in sorted(metrics))),
        ("output", output),
        ("left out", "\n".join(found.output.skipped) if found.output else None),
        ("model", found.model if found.output else None),
        ("created", moment(found.created)),
        ("started", moment(found.started)),
        ("finished", moment(found.finished)),
        ("took", took(found.started, found.finished)),
    ]
    show_fields(fields)


def with_trials(found: "Training", rows: "Iterable[Trial]") -> dict[str, Any]:
    """A training for programs: its trials are those asked for, how many there are are counts."""
    document = found.model_dump(mode="json")
    document["counts"] = document.pop("trials")
    document["trials"] = [
        {"id": row.model, **row.model_dump(mode="json"), "model": row.model if row.output else None}
        for row in rows
    ]
    return document


def differences(compared: "Iterable[TrialComparison]") -> Iterator[tuple[object, ...]]:
    """Rows of trial, state, metric, before and after, for each metric that is another one now."""
    for each in compared:
        for metric in each.metrics:
            if metric.before != metric.after:
                before, after = figure(metric.before), figure(metric.after)
                yield each.trial, each.state, metric.metric, before, after
