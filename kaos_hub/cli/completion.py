"""``kaos completion``, and what Tab offers: names and ids of what there is.

Whatever goes wrong offers nothing: a message in the middle of the line that the user types does not
help.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.terminal.output import clean, show, show_json
from kaos_hub.errors import KaosError

if TYPE_CHECKING:
    from kaos_hub.cli.selection import Listing
    from kaos_hub.schemas import Workspace

_PATIENCE = 1.5
"""Seconds that a Hub has for answering a Tab; then what was shown last is offered."""
_MOST = 200
"""Entries of a long list that are offered."""
_VARIABLE = "_KAOS_COMPLETE"

Offer = tuple[str, str]
"""A word that is offered, and what is said about it where the shell shows that."""


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print what makes Tab complete commands, options and names in your shell.

    \b
    Example:
        kaos completion bash > ~/.local/share/bash-completion/completions/kaos
        kaos completion zsh > ~/.zfunc/_kaos
        kaos completion fish > ~/.config/fish/completions/kaos.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    script = found(click.get_current_context().find_root().command, {}, "kaos", _VARIABLE).source()
    show_json({"shell": shell, "script": script}) if session.json else show(script)


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completer(
    ask: Callable[[Session], Iterable[Offer]], shown: "Callable[[], Listing] | None" = None
) -> Completer:
    """Return a completer that offers the answers to a question, asked live.

    Args:
        ask: asks the Hub.
        shown: the list that was shown last, for when the Hub does not answer soon.
    """

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        session = ctx.find_object(Session) or Session()
        # Importing the client takes its time on a busy machine; the Hub is not to pay for that.
        with suppress(KaosError, OSError):
            session.client  # noqa: B018 - it is made when it is asked for
        found = _in_time(lambda: list(ask(session)))
        if found is None and shown is not None:
            with suppress(KaosError, OSError):
                found = [(each, "") for each in shown().names_shown(session)]
        return [
            CompletionItem(value, help=clean(help))
            for value, help in (found or [])[:_MOST]
            # A shell would take apart what has blanks or quotes in it.
            if value.startswith(incomplete) and clean(value).isprintable() and _plain(value)
        ]

    return complete


def _plain(value: str) -> bool:
    return not set(value) & set(" \t\n\"'`$\\;&|<>()[]{}*?!#~")


def _in_time(ask: Callable[[], list[Offer]]) -> list[Offer] | None:
    """The answer, if there is one soon. Who still waits for it then ends with this process."""
    answers: list[list[Offer]] = []

    def run() -> None:
        with suppress(KaosError, OSError):
            answers.append(ask())

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return answers[0] if answers else None


def _notebooks() -> "Listing":
    from kaos_hub.cli.selection import NOTEBOOKS

    return NOTEBOOKS


def _trainings() -> "Listing":
    from kaos_hub.cli.selection import TRAININGS

    return TRAININGS


def _bundles(session: Session) -> Iterable[Offer]:
    found: dict[str, str] = {}
    for each in session.client.bundles.list(limit=_MOST):
        found.setdefault(each.name, f"{each.kind}, v{each.version}")
    return found.items()


def _versions(kind: str) -> Callable[[Session], Iterable[Offer]]:
    def ask(session: Session) -> Iterable[Offer]:
        found = session.client.bundles.list(kind=kind, limit=_MOST)
        return ((f"{v.name}@v{v.version}", f"{v.files} files") for v in found if v.current)

    return ask


def place_or(kind: str, files: bool = False) -> Completer:
    """Return a completer that offers folders (or files, too).

    Where none begins like this, it offers the bundles of a kind.
    """
    of_bundles = _completer(_versions(kind))

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if _begins_place(incomplete, files):
            return [CompletionItem(incomplete, type="file" if files else "dir")]
        return of_bundles(ctx, param, incomplete)

    return complete


def _begins_place(text: str, files: bool) -> bool:
    folder, begin = os.path.split(text)
    with suppress(OSError):
        places = (each for each in Path(folder).iterdir() if files or each.is_dir())
        return any(each.name.startswith(begin) for each in places)
    return False


def _shell_does(kind: str) -> Completer:
    """Return a completer that leaves it to the shell, which knows its own ``file`` and ``dir``."""
    return lambda ctx, param, incomplete: [CompletionItem(incomplete, type=kind)]


def variables(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of variables that are set here; their values are never shown."""
    return [CompletionItem(name) for name in sorted(os.environ) if name.startswith(incomplete)]


def _models(session: Session) -> Iterable[Offer]:
    found = session.client.models.list()
    names = {m.name.partition("@")[0]: "the newest of that name" for m in found if m.name}
    return [*names.items(), *((m.id, m.name or m.author) for m in found)]


def _groups(session: Session) -> "list[Workspace]":
    return [w for w in session.client.workspaces.list() if w.owner.startswith("group:")]


notebooks = _completer(
    lambda session: ((n.name, str(n.state)) for n in session.client.notebooks.list()), _notebooks
)
trainings = _completer(
    lambda session: [
        *((t.id, f"{t.name}, {t.state}") for t in session.client.trainings.list()),
        *((m.name, "a model's training") for m in session.client.models.list(named=True) if m.name),
    ],
    _trainings,
)
training_names = _completer(
    lambda session: {t.name: "" for t in session.client.trainings.list()}.items()
)
bundles = _completer(_bundles)
sources, data = place_or("source"), place_or("data")
contexts = place_or("context", files=True)
files, folders = _shell_does("file"), _shell_does("dir")
models = _completer(_models)
volumes = _completer(
    lambda session: ((v.name, ", ".join(v.notebooks)) for v in session.client.volumes.list())
)
sizes = _completer(lambda session: ((s.name, s.description) for s in session.client.info().sizes))
images = _completer(lambda session: ((i.name, i.description) for i in session.client.info().images))
pools = _completer(lambda session: ((pool, "") for pool in session.client.info().pools))
workspaces = _completer(lambda session: ((w.name, w.owner) for w in _groups(session)))
