"""``kaos train get``, ``metrics`` and ``provenance``: what leaves the hub."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.selection import select_training, training_selection
from kaos_hub.cli.terminal.output import show, show_fields, show_json, show_table
from kaos_hub.cli.terminal.progress import Bar
from kaos_hub.cli.train.show import figure, value
from kaos_hub.errors import InvalidRequest

if TYPE_CHECKING:
    from kaos_hub.schemas import MetricPoint, Provenance, Training

_trial = click.option("--trial", type=click.IntRange(1), help="Its trial with this number.")
_MOST = 1000
"""Rows of a table; who wants more wants a file."""


@click.command(cls=Command, context_settings={"help_option_names": ["--help"]})
@training_selection
@click.option("-c", "--code", is_flag=True, help="The source bundle.")
@click.option("-d", "--data", is_flag=True, help="The data bundle.")
@click.option("-m", "--model", is_flag=True, help="What the trials left.")
@click.option("-h", "--params", is_flag=True, help="The hyperparameters.")
@click.option("--trial", type=click.IntRange(1), help="Params and model of this trial alone.")
@click.option("-o", "--out", type=click.Path(path_type=Path),
              help="Folder to make; else ./NAME-ID is made.")  # fmt: skip
@pass_session
def get(
    session: Session, training: str | None, job: str | None, index: int | None, code: bool,
    data: bool, model: bool, params: bool, trial: int | None, out: Path | None,
) -> None:  # fmt: skip
    """Fetch code, data, params and model, each into a folder that can be deployed again.

    Without -c, -d, -m and -h it is code, model and, if there are any, params.

    \b
    Example:
        kaos train get -i 1 -o run
        kaos train get -i 1 -m --trial 3
    """
    chosen, number = select_training(session, training, job, index)
    found = session.client.trainings.look(chosen)
    named = [("code", code), ("data", data), ("params", params), ("model", model)]
    parts = [part for part, wanted in named if wanted]
    if not parts:
        parts = ["code", *(["params"] if found.params else []), "model"]
    number = trial or number
    target = out or Path(f"{found.name}-{chosen}" + (f".{number}" if number else ""))
    with Bar(f"Fetching {found.name}", not session.quiet) as bar:
        session.client.trainings.archive(chosen, target, parts, number, bar)
    session.note(f"{', '.join(parts).capitalize()} of training {chosen} {_are(parts)} in {target}")
    if session.json:
        show_json({"training": chosen, "trial": number, "parts": parts, "folder": str(target)})
    else:
        show(str(target))


def _are(parts: list[str]) -> str:
    return "are" if len(parts) > 1 or parts == ["params"] else "is"


@click.command(cls=Command)
@training_selection
@_trial
@click.option("--csv", "as_csv", is_flag=True, help="As CSV: every point, every digit.")
@pass_session
def metrics(
    session: Session, training: str | None, job: str | None, index: int | None,
    trial: int | None, as_csv: bool,
) -> None:  # fmt: skip
    """Show the metrics of trials, moment by moment, also while they run; then what they left.

    \b
    Example:
        kaos train metrics -i 1 --trial 3
        kaos train metrics -i 1 --csv
    """
    chosen, number = select_training(session, training, job, index)
    points = session.client.trainings.history(chosen, trial or number)
    if session.json:
        show_json(points)
    elif as_csv:
        show(as_text(points).rstrip("\n"))
    elif not points:
        session.note("No metrics. A trial tells them with kaos_hub.log(loss=0.1), or leaves"
                     " metrics/metrics.json in its output.")  # fmt: skip
    else:
        if len(points) > _MOST:
            session.note(f"The last {_MOST:,} of {len(points):,}; all of them: --csv")
        _table(points[-_MOST:])


def _names(points: "Iterable[MetricPoint]") -> list[str]:
    return sorted({name for point in points for name in point.values})


def _table(points: "list[MetricPoint]") -> None:
    names = _names(points)
    show_table(
        ("trial", "step", "at", *names),
        [
            (
                p.trial, "-" if p.step is None else f"{p.step:g}",
                f"{p.at.astimezone():%Y-%m-%d %H:%M:%S}",
                *(figure(p.values.get(name)) for name in names),
            )
            for p in points
        ],
    )  # fmt: skip


def as_text(points: "list[MetricPoint]") -> str:
    """Points as CSV, with a column per metric."""
    names = _names(points)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "step", "at", *names])
    for p in points:
        step = "" if p.step is None else repr(p.step)
        writer.writerow([p.trial, step, p.at.isoformat(), *(p.values.get(n, "") for n in names)])
    return text.getvalue()


@click.command(cls=Command)
@training_selection
@_trial
@click.option("--dot", is_flag=True, help="As a graph in the language of Graphviz.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the JSON, or with --dot the graph, to this file.")  # fmt: skip
@pass_session
def provenance(
    session: Session, training: str | None, job: str | None, index: int | None,
    trial: int | None, dot: bool, out: Path | None,
) -> None:  # fmt: skip
    """Show all that made a model: bundles, image, params, who and when.

    \b
    Example:
        kaos train provenance -i 1 --trial 3
        kaos train provenance -i 1 --dot -o model.dot
    """
    chosen, number = select_training(session, training, job, index)
    number = trial or number or only_trial(session, session.client.trainings.look(chosen))
    show_provenance(session, f"{chosen}.{number}", dot, out)


def only_trial(session: Session, found: "Training") -> int:
    """The trial that is meant if none is named: the only one, else the best.

    Raises:
        InvalidRequest: there are several, and none is the best.
    """
    if found.trials.total <= 1:
        return 1
    if found.best is None:
        raise InvalidRequest(
            f"training {found.id} has {found.trials.total:,} trials; say which one, as in"
            f" {found.id}.1"
        )
    session.note(f"Trial {found.best.trial}, the best:")
    return found.best.trial


def show_provenance(session: Session, model: str, dot: bool, out: Path | None) -> None:
    """Print or write what made a model."""
    if dot:
        text = session.client.models.provenance_dot(model)
        _write(out, text) if out else show(text.rstrip("\n"))
        return
    found = session.client.models.provenance(model)
    if out:
        _write(out, found.model_dump_json(indent=2) + "\n")
    elif session.json:
        show_json(found)
    else:
        show_fields(_fields(found))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as e:
        raise InvalidRequest(
            f"{file} cannot be written: {e.strerror}. Another file: -o FILE"
        ) from None


def _fields(found: "Provenance") -> list[tuple[str, object]]:
    from kaos_hub.cli.terminal.output import moment, resources

    model = found.model
    lines: list[tuple[str, object]] = [("model", model.id), ("name", model.name)]
    for role in ("source", "data", "manifest", "params"):
        version = getattr(found, role)
        if version:
            text = f"{version.name}@v{version.version}, by {version.author}"
            lines.append((role, f"{text}, {moment(version.created)}\n{version.digest}"))
    values = model.params or {}
    return [
        *lines,
        ("with", "\n".join(f"{key} = {value(values[key])}" for key in values)),
        ("metrics", "\n".join(f"{k} = {figure(v)}" for k, v in sorted(model.metrics.items()))),
        ("engine", found.engine),
        ("image", found.image),
        ("environment", found.environment),
        ("packages", "\n".join(found.packages)),
        ("built by", found.build_job),
        ("resources", resources(found.resources)),
        ("repeats", found.reproduces),
        ("output", model.output.digest),
        ("asked for by", model.author),
        ("created", moment(model.created)),
    ]
