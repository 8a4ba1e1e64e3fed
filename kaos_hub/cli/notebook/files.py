"""``kaos notebook save`` and ``attach``: files out of, and into, a running notebook."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.outcome import going_on
from kaos_hub.cli.selection import select, selection
from kaos_hub.cli.terminal.output import say, show, show_json

if TYPE_CHECKING:
    from kaos_hub.schemas import Contents, Errand

_SKIPPED_SHOWN = 5


@click.command(cls=Command)
@click.argument("notebook", metavar="[NAME]", required=False, shell_complete=completion.notebooks)
@click.option(
    "-n", "name", metavar="NAME", help="The notebook's name.", shell_complete=completion.notebooks
)
@click.option("-i", "--index", type=int, help="Its number in `kaos notebook list`.")
@click.option(
    "--name",
    "bundle",
    metavar="BUNDLE",
    help="The bundle that gets the version; else the notebook's own source.",
    shell_complete=completion.bundles,
)
@click.option(
    "--requirements/--no-requirements",
    default=None,
    help="Add what was pip-installed to model/requirements.txt, or not; else asked.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be saved, change nothing.")
@pass_session  # fmt: skip
def save(
    session: Session,
    notebook: str | None,
    name: str | None,
    index: int | None,
    bundle: str | None,
    requirements: bool | None,
    dry_run: bool,
) -> None:
    """Save a running notebook's files as the next version of its source bundle.

    What is saved is ~/work; the notebook follows the new version from then on, so that deploying it
    again changes nothing. In a terminal of the notebook, nothing else need be said.

    \b
    Example:
        kaos notebook save -n example
        kaos notebook save -n scratch --name analysis --requirements
    """
    done = save_notebook(session, chosen_or_own(session, notebook, name, index), bundle,
                         requirements, dry_run)  # fmt: skip
    if session.json:
        show_json(done)
    elif done.version:
        show(f"{done.version.name}@v{done.version.version}")


def chosen_or_own(
    session: Session, notebook: str | None, name: str | None, index: int | None
) -> str:
    """The notebook that is meant; in a terminal of one, that, unless another is named."""
    own = os.environ.get("KAOS_NOTEBOOK")
    if own and not session.url and (notebook, name, index) == (None, None, None):
        return own
    return select(session, notebook, name, index)


def save_notebook(
    session: Session,
    chosen: str,
    bundle: str | None = None,
    requirements: bool | None = None,
    dry_run: bool = False,
) -> "Errand":
    """Save a notebook, and say what was saved. Asks about requirements, if nothing was said."""
    notebooks = session.client.notebooks
    if requirements is None and session.can_ask and not dry_run:
        found = notebooks.save(chosen, bundle, dry_run=True, on_news=_teller(session))
        requirements = _ask(found)
    with going_on("The notebook", f"kaos notebook save -n {chosen}", not dry_run):
        done = notebooks.save(
            chosen,
            bundle,
            requirements=bool(requirements),
            dry_run=dry_run,
            on_news=_teller(session),
        )
    if done.contents is not None:
        _explain(session, done, done.contents, requirements)
    return done


def _ask(found: "Errand") -> bool:
    lines = found.contents.installed if found.contents else []
    if not lines:
        return False
    say("You have installed what model/requirements.txt does not say:")
    for line in lines:
        say(f"    {line}")
    return click.confirm("Add it there?", default=False, err=True)


def _teller(session: Session) -> "Callable[[Errand], None]":
    last = ""

    def tell(errand: "Errand") -> None:
        nonlocal last
        if errand.note and errand.note != last:
            last = errand.note
            session.note(f"{errand.note[:1].upper()}{errand.note[1:]}…")

    return tell


def _explain(
    session: Session, done: "Errand", contents: "Contents", requirements: bool | None
) -> None:
    from kaos_hub.util.quantities import show_memory

    verb = "Would make" if done.dry_run else "Made"
    for path in contents.made:
        session.note(f"{verb} {path}, so that it is a source bundle.")
    if contents.skipped:
        more = len(contents.skipped) - _SKIPPED_SHOWN
        end = f" and {more} more" if more > 0 else ""
        session.note(f"Left out: {', '.join(contents.skipped[:_SKIPPED_SHOWN])}{end}")
    if contents.installed and contents.added:
        session.note(f"Added to model/requirements.txt: {', '.join(contents.installed)}")
    elif contents.installed and requirements is None:
        session.note(
            f"Installed, but not in model/requirements.txt: {', '.join(contents.installed)}."
            " To add that: --requirements"
        )
    for note in contents.notes:
        session.note(f"Note: {note}.")
    extent = f"{contents.files:,} files, {show_memory(contents.size)}"
    if done.dry_run:
        what = "something to save" if done.changed else "nothing to save: it is as its source"
        session.note(f"Notebook {done.notebook} has {what} ({extent}).")
    elif done.version:
        called = f"{done.version.name}@v{done.version.version}"
        how = f"is saved as {called}" if done.changed else f"is as it was in {called}"
        session.note(f"Notebook {done.notebook} {how} ({extent}).")


def save_first(session: Session, name: str, yes: bool, dry_run: bool) -> None:
    """Before a notebook's source is used elsewhere: save what a running one has that its source
    has not. On a terminal, asked.

    Args:
        session: the run of the command line.
        name: the notebook.
        yes: do not ask.
        dry_run: only say so.
    """
    notebooks = session.client.notebooks
    if notebooks.look(name).state != "RUNNING":
        return
    found = notebooks.save(name, dry_run=True, on_news=_teller(session))
    if not found.changed:
        return
    unsaved = f"Notebook {name} has files that are not saved"
    if dry_run:
        session.note(f"{unsaved}; they would be saved first.")
    elif yes or not session.can_ask or click.confirm(f"{unsaved}. Save first?", True, err=True):
        save_notebook(session, name, requirements=False if yes else None)
    else:
        session.note("Its source is used as it was saved last.")


@click.command(cls=Command)
@selection
@click.option("-d", "--data", "data_bundle", metavar="DIR", required=True,
              shell_complete=completion.data,
              help="Data bundle: any folder; or NAME@v2.")  # fmt: skip
@pass_session
def attach(
    session: Session, notebook: str | None, name: str | None, index: int | None, data_bundle: str
) -> None:
    """Bring data into a running notebook, without a restart.

    They appear, read-only, in ~/attached/NAME. From its next start on they are the notebook's data,
    in /kaos/data.

    \b
    Example:
        kaos notebook attach -n example -d mnist/data
    """
    from pathlib import Path

    from kaos_hub.cli.submitting import prepare, reference_to, submit
    from kaos_hub.client.submission import reference
    from kaos_hub.schemas import BundleKind

    chosen = chosen_or_own(session, notebook, name, index)
    bundles = session.client.notebooks.bundles
    if Path(data_bundle).is_dir():
        folder = prepare(session, bundles, Path(data_bundle), BundleKind.DATA)
        named = reference(submit(session, bundles, folder))
    else:
        named = reference_to(data_bundle)
    with going_on("The notebook", f"kaos notebook info -n {chosen}"):
        done = session.client.notebooks.attach(chosen, named, on_news=_teller(session))
    if session.json:
        show_json(done)
        return
    show(f"~/{done.place}")
    session.note(f"From the next start of {chosen} on, the data are in /kaos/data too.")
