"""``kaos notebook …``: everything but ``deploy``."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli.account import open_browser
from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.notebook import deploy as _deploy, files as _files
from kaos_hub.cli.notebook.git import clone_line
from kaos_hub.cli.notebook.options import deploy_options, read, said
from kaos_hub.cli.outcome import going_on
from kaos_hub.cli.selection import NOTEBOOKS, select, selection
from kaos_hub.cli.terminal.output import (
    age,
    moment,
    on_terminal,
    resources,
    show,
    show_fields,
    show_json,
    show_log_lines,
    show_table,
)
from kaos_hub.errors import NotFound, Unavailable
from kaos_hub.util.quantities import duration

if TYPE_CHECKING:
    from kaos_hub.schemas import BundleLink, IdlePolicy, Notebook, Stage

_STOP_PATIENCE = 60
"""Seconds: as long as a pod of a cluster is given to end, and a little more."""

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.group(cls=Group)
def notebook() -> None:
    """Deploy notebooks and look after them.

    A notebook is named with -n NAME, or with -i INDEX from the list shown last.
    """


notebook.add_command(_deploy.deploy)
notebook.add_command(_files.save)
notebook.add_command(_files.attach)


@notebook.command("list")
@pass_session
def list_notebooks(session: Session) -> None:
    """List your notebooks.

    \b
    Example:
        kaos notebook list
    """
    notebooks = session.client.notebooks.list()
    NOTEBOOKS.remember(session, notebooks, {})
    if session.json:
        show_json(notebooks)
    elif not notebooks:
        session.note("No notebooks yet. Deploy one: kaos notebook deploy -s DIR")
    else:
        show_notebooks(notebooks)


def show_notebooks(found: "Sequence[Notebook]", err: bool = False) -> None:
    """Print the numbered list; ``err``: as a remark."""
    described = any(each.display_name for each in found)
    heads = ("#", "name", *(["description"] * described))
    show_table(
        (*heads, "state", "source", "data", "resources", "age", "url"),
        [_row(index, each, described) for index, each in enumerate(found, 1)],
        err=err,
    )


def _row(index: int, each: "Notebook", described: bool) -> tuple[object, ...]:
    state = str(each.state) + (f": {each.reason}" if each.reason else "")
    if not each.state.settled and each.progress:
        state = f"{each.state} {each.progress}%" + (f": {each.reason}" if each.reason else "")
    return (
        index, each.name, *([each.display_name] * described), state,
        _link(each.source), _link(each.data), resources(each.resources), age(each.created),
        each.url,
    )  # fmt: skip


def _link(bundle: "BundleLink | None") -> str:
    return f"{bundle.name}@v{bundle.version}" if bundle else "-"


@notebook.command()
@selection
@pass_session
def info(session: Session, notebook: str | None, name: str | None, index: int | None) -> None:
    """Show one notebook: both stages, bundles, resources, idle rule, address.

    \b
    Example:
        kaos notebook info -n example
    """
    found = session.client.notebooks.look(select(session, notebook, name, index))
    if session.json:
        show_json(found)
    else:
        show_fields(_fields(found))


def _fields(found: "Notebook") -> list[tuple[str, object]]:
    return [
        ("name", found.name),
        ("description", found.display_name),
        ("state", found.state),
        ("reason", found.reason),
        ("url", found.url),
        ("build", _stage(found.build)),
        ("host", _stage(found.host)),
        ("source", _link(found.source)),
        ("data", _link(found.data)),
        ("context", _link(found.context)),
        ("run", found.run),
        ("image", found.image),
        ("git", clone_line(found.git)),
        ("resources", resources(found.resources)),
        ("pool", found.pool),
        ("environment", ", ".join(found.environment)),
        *(("mount", _mount(m.host_path, m.container_path, m.read_only)) for m in found.bind_mounts),
        *(("volume", _mount(m.volume, m.path, m.read_only)) for m in found.volumes),
        ("idle", _idle(found.idle)),
        ("", found.verdict.reason if found.verdict else ""),
        ("created", moment(found.created)),
        ("started", moment(found.started)),
        ("stopped", moment(found.stopped)),
    ]


def _mount(what: str, place: str, read_only: bool) -> str:
    return f"{what} at {place}{', read-only' if read_only else ''}"


def _stage(stage: "Stage") -> str:
    progress = f" {stage.progress}%" if 0 < stage.progress < 100 else ""
    took = ""
    if stage.started and stage.finished:
        took = f" in {duration((stage.finished - stage.started).total_seconds())}"
    return f"{stage.state}{progress}{took}" + (f": {stage.reason}" if stage.reason else "")


def _idle(policy: "IdlePolicy") -> str:
    if not policy.timeout:
        return "never stopped for being idle"
    return f"stopped after {duration(policy.timeout)} idle ({policy.type})"


@notebook.command("open")
@selection
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@pass_session
def open_notebook(
    session: Session, notebook: str | None, name: str | None, index: int | None, no_browser: bool
) -> None:
    """Print the notebook's address, and open it if this is a terminal.

    If none is named, it is the only one that runs, or the one used last from this folder.

    \b
    Example:
        kaos notebook open
        kaos notebook open -n example
    """
    found = session.client.notebooks.look(select(session, notebook, name, index))
    if session.json:
        show_json(found)
    else:
        show(found.url)
    if found.state != "RUNNING":
        session.note(
            f"{found.name} is {found.state}; start it: kaos notebook start -n {found.name}"
        )
    elif not no_browser and on_terminal():
        open_browser(found.url)


@notebook.command()
@selection
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until the notebook ends.")
@pass_session
def logs(
    session: Session, notebook: str | None, name: str | None, index: int | None, follow: bool
) -> None:
    """Print the log of the Host stage: what the notebook's server says.

    \b
    Example:
        kaos notebook logs -n example --follow
    """
    chosen = select(session, notebook, name, index)
    with going_on(f"Notebook {chosen}", f"kaos notebook logs -n {chosen} -f", follow):
        show_log_lines(session.client.notebooks.logs(chosen, follow), session.json)


@notebook.command("build-logs")
@selection
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until the build ends.")
@pass_session
def build_logs(
    session: Session, notebook: str | None, name: str | None, index: int | None, follow: bool
) -> None:
    """Print the log of the Build stage. It is kept, whatever became of the build.

    \b
    Example:
        kaos notebook build-logs -n example
    """
    chosen = select(session, notebook, name, index)
    with going_on("The build", f"kaos notebook build-logs -n {chosen} -f", follow):
        show_log_lines(session.client.notebooks.build_logs(chosen, follow), session.json)


@notebook.command()
@deploy_options
@selection
@click.option("--detach", is_flag=True, help="Do not wait for it.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@pass_session
def start(
    session: Session,
    /,
    notebook: str | None,
    name: str | None,
    index: int | None,
    detach: bool,
    no_browser: bool,
    **options: Any,
) -> None:
    """Start a new notebook; or, named, one that you have, with the files it had.

    Options say what it is made of, as for `kaos notebook deploy`; what has a name starts with that
    changed. One that runs already: kaos notebook open

    \b
    Example:
        kaos notebook start
        kaos notebook start --context my_dir --gpu 0
        kaos notebook start -n example
    """
    from kaos_hub.cli.follow import follow_to_the_end

    if notebook is not None and ("/" in notebook or "." in notebook) and Path(notebook).exists():
        raise click.UsageError(
            f"{notebook!r} is no notebook's name. To start a new one with it: kaos notebook start"
            f" --context {shlex.quote(notebook)}; if there is a Dockerfile in it, with -s"
        )
    named = any(given is not None for given in (notebook, name, index))
    chosen = select(session, notebook, name, index) if named else None
    if chosen is None or said(options):
        own = {"name": chosen, "detach": detach, "no_browser": no_browser}
        _deploy.carry_out(session, read(options | own), new=chosen is None)
        return
    try:
        found = session.client.notebooks.start(chosen)
    except NotFound as e:
        raise NotFound(f"{e.message} To make it: kaos notebook deploy -n {chosen}") from None
    follow_to_the_end(session, found, detach=detach, browser=not no_browser)


@notebook.command()
@selection
@click.option("--detach", is_flag=True, help="Do not wait until it has stopped.")
@pass_session
def stop(
    session: Session, notebook: str | None, name: str | None, index: int | None, detach: bool
) -> None:
    """Stop a notebook in good order. Its files are kept; kernels end.

    \b
    Example:
        kaos notebook stop -n example
    """
    chosen = select(session, notebook, name, index, sure=True)
    found = session.client.notebooks.stop(chosen)
    if not detach:
        # What it holds is free only then: the next command may want it.
        stopping = going_on("The stop", f"kaos notebook info -n {chosen}")
        with contextlib.suppress(Unavailable), stopping:
            found = session.client.notebooks.follow(chosen, timeout=_STOP_PATIENCE)
    what = "has stopped" if found.state == "STOPPED" else "is stopping"
    _done(session, found, f"{what}; its files are kept")


@notebook.command()
@selection
@_yes
@pass_session
def kill(
    session: Session, notebook: str | None, name: str | None, index: int | None, yes: bool
) -> None:
    """End a notebook at once: its server, or the build it waits for.

    \b
    Example:
        kaos notebook kill -n example
    """
    chosen = select(session, notebook, name, index, sure=True)
    session.confirm(
        f"End notebook {chosen} at once? Its kernels and what they hold in memory are lost; its"
        " files, bundles and logs are kept.",
        yes,
        f"kaos notebook kill -n {chosen} -y",
    )
    _done(session, session.client.notebooks.kill(chosen), "was killed; its files are kept")


@notebook.command()
@selection
@_yes
@pass_session
def delete(
    session: Session, notebook: str | None, name: str | None, index: int | None, yes: bool
) -> None:
    """Delete a notebook with its home and all files in it.

    \b
    Example:
        kaos notebook delete -n example
    """
    chosen = select(session, notebook, name, index, sure=True)
    found = session.client.notebooks.look(chosen)
    session.confirm(
        f"Delete notebook {chosen} with its home and every file in it, also edited ones?"
        " The bundles it was deployed from are kept.",
        yes,
        f"kaos notebook delete -n {chosen} -y",
    )
    session.client.notebooks.delete(chosen)
    _done(session, found, "was deleted; the bundles it was deployed from are kept")


def _done(session: Session, found: "Notebook", what: str) -> None:
    if session.json:
        show_json(found)
    else:
        session.note(f"Notebook {found.name} {what}.")
