"""``kaos model …``: what trials left."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.terminal.output import age, moment, show, show_fields, show_json, show_table
from kaos_hub.cli.terminal.progress import Bar
from kaos_hub.cli.train.get import show_provenance
from kaos_hub.cli.train.show import figure, link, value

if TYPE_CHECKING:
    from kaos_hub.schemas import TrainedModel

_model = click.argument("model", metavar="MODEL", shell_complete=completion.models)
_SHOWN = 3
"""Metrics of a model that fit into a list."""


@click.group(cls=Group)
def model() -> None:
    """Models: what trials left, with all that made them.

    MODEL is an id (training and trial, as in 1f3a5c7e9b2d4f60.2), a name, or one version of it:
    mnist@v3.
    """


@model.command("list")
@click.option("--named", is_flag=True, help="Only those that have a name.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="At most so many.")  # fmt: skip
@pass_session
def list_models(session: Session, named: bool, limit: int) -> None:
    """List models, newest first.

    \b
    Example:
        kaos model list --named
    """
    from kaos_hub.util.quantities import show_memory

    models = session.client.models.list(named, limit)
    if session.json:
        show_json(models)
    elif not models:
        session.note(
            "No model has a name yet. Give one: kaos model name MODEL NAME"
            if named
            else "No models yet. A training leaves them: kaos train deploy -s DIR -d DIR"
        )
    else:
        show_table(
            ("model", "name", "source", "data", "params", "metrics", "size", "who", "age"),
            [
                (
                    m.id, m.name or "-", link(m.source), link(m.data), _params(m), _metrics(m),
                    show_memory(m.output.size), m.author, age(m.created),
                )
                for m in models
            ],
        )  # fmt: skip


def _params(found: "TrainedModel") -> str:
    params = found.params or {}
    return ", ".join(f"{key}={value(params[key])}" for key in params) or "-"


def _metrics(found: "TrainedModel") -> str:
    names = sorted(found.metrics)
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([f"{n}={figure(found.metrics[n])}" for n in names[:_SHOWN]] + more) or "-"


@model.command()
@_model
@pass_session
def info(session: Session, model: str) -> None:
    """Show one model.

    \b
    Example:
        kaos model info mnist@v3
    """
    found = session.client.models.look(model)
    if session.json:
        show_json(found)
    else:
        show_fields(_fields(found))


def _fields(found: "TrainedModel") -> list[tuple[str, object]]:
    from kaos_hub.util.quantities import show_memory

    params, metrics, output = found.params or {}, found.metrics, found.output
    size = f"{output.files:,} files, {show_memory(output.size)}"
    return [
        ("model", found.id),
        ("name", found.name),
        ("owner", found.owner),
        ("training", found.training),
        ("trial", found.trial),
        ("source", link(found.source)),
        ("data", link(found.data)),
        ("params", "\n".join(f"{key} = {value(params[key])}" for key in params)),
        ("metrics", "\n".join(f"{key} = {figure(metrics[key])}" for key in sorted(metrics))),
        ("output", size + (" (partial: its trial did not end well)" if output.partial else "")),
        ("left out", "\n".join(output.skipped)),
        ("digest", output.digest),
        ("asked for by", found.author),
        ("created", moment(found.created)),
    ]


@model.command()
@_model
@click.option("-o", "--out", type=click.Path(path_type=Path),
              help="Folder to make; else one with the model's name is made.")  # fmt: skip
@pass_session
def get(session: Session, model: str, out: Path | None) -> None:
    """Fetch a model's files into a new folder.

    \b
    Example:
        kaos model get mnist@v3 -o mnist-model
    """
    target = out or Path(model.replace("@", "-"))
    with Bar(f"Fetching {model}", not session.quiet) as bar:
        found = session.client.models.download(model, target, bar)
    session.note(f"Model {found.name or found.id} is in {target}")
    if session.json:
        show_json(found)
    else:
        show(str(target))


@model.command()
@_model
@click.argument("name")
@pass_session
def name(session: Session, model: str, name: str) -> None:
    """Name a model. The same name again makes a new version of it.

    \b
    Example:
        kaos model name 1f3a5c7e9b2d4f60.2 mnist
    """
    found = session.client.models.name(model, name)
    if session.json:
        show_json(found)
    else:
        session.note(f"Model {found.id} is {found.name} now.")


@model.command()
@click.argument("model", metavar="NAME[@vN]", shell_complete=completion.models)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, model: str, yes: bool) -> None:
    """Take a name, or one version of it, from its models. What the trials left stays with them.

    \b
    Example:
        kaos model delete mnist@v3
    """
    found = session.client.models.look(model)
    versions = "" if "@" in model else " with all of its versions"
    session.confirm(
        f"Delete the name {model}{versions}? The trials keep what they left.",
        yes,
        f"kaos model delete {model} -y",
    )
    session.client.models.delete(model)
    if session.json:
        show_json(found)
    else:
        session.note(f"The name {model} was deleted; trial {found.id} keeps what it left.")


@model.command()
@_model
@click.option("--dot", is_flag=True, help="As a graph in the language of Graphviz.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the JSON, or with --dot the graph, to this file.")  # fmt: skip
@pass_session
def provenance(session: Session, model: str, dot: bool, out: Path | None) -> None:
    """Show all that made a model: bundles, image, params, who and when.

    \b
    Example:
        kaos model provenance mnist@v3
        kaos model provenance mnist --dot -o mnist.dot
    """
    show_provenance(session, model, dot, out)
