"""The choice of a thing by name or id, or by its number in the list that was shown last."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Session
from kaos_hub.errors import Conflict, NotFound

if TYPE_CHECKING:
    from datetime import datetime

_TRAINING = re.compile(r"[0-9a-f]{16}(?:\.|$)")
"""The beginning of an id: of a training, or of a trial and its model."""
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
Query = Mapping[str, Any]


class _Made(Protocol):
    @property
    def created(self) -> "datetime": ...


@dataclass(frozen=True)
class Listing:
    """A list that is shown with numbers, by which its entries can be named until it changes.

    Attributes:
        noun: what stands in it.
        command: what shows it.
        attribute: what an entry is called by.
        fetch: the list as it is now, asked for as it was when it was shown.
        show: prints it to standard error.
    """

    noun: str
    command: str
    attribute: str
    fetch: Callable[[Session, Query], Sequence[Any]]
    show: Callable[[Sequence[Any]], None]

    def remember(self, session: Session, shown: Sequence[_Made], query: Query) -> None:
        """Remember what was shown, so that an index can only mean what the person saw."""
        from kaos_hub.transport.credentials import write_private

        path = self._path()
        entry = {"query": dict(query), "rows": self._fingerprint(shown)}
        try:
            write_private(path, json.dumps(self._cache() | {_place(session): entry}))
        except OSError as e:
            session.note(f"{path} cannot be written ({e.strerror}): -i INDEX will not work.")

    def at(self, session: Session, index: int) -> str:
        """The name or id of the entry with a number.

        Raises:
            Conflict: the list has changed since it was shown: a number may mean another one now.
                What it is now has been shown, and a number is one of that from now on.
            NotFound: there is no such number.
        """
        shown = self._cache().get(_place(session))
        if not isinstance(shown, dict):
            raise Conflict(f"an index is a number of the list shown last; run: {self.command}")
        present = self.fetch(session, shown["query"])
        rows = self._fingerprint(present)
        if shown["rows"] != rows:
            self._show_again(session, present, shown["query"])
            raise Conflict(
                f"the list has changed since it was shown, so {index} may be another {self.noun}"
                f" now. Nothing was done. As it is now: {self.command}"
            )
        if not 1 <= index <= len(rows):
            there_are = f"the list goes from 1 to {len(rows)}" if rows else "the list is empty"
            raise NotFound(f"there is no {self.noun} {index}; {there_are}: {self.command}")
        return rows[index - 1][0]

    def _show_again(self, session: Session, present: Sequence[_Made], query: Query) -> None:
        # For a program nothing is shown, so nothing may be taken for seen.
        if not session.json and present:
            self.show(present)
            self.remember(session, present, query)

    def names_shown(self, session: Session) -> list[str]:
        """Return the names in the list when it was shown last: for offering, never for acting."""
        shown = self._cache().get(_place(session))
        return [str(row[0]) for row in shown["rows"]] if isinstance(shown, dict) else []

    def _fingerprint(self, entries: Sequence[_Made]) -> list[list[str]]:
        # With the time of creation: a notebook deleted and made again is another one.
        return [[str(getattr(e, self.attribute)), e.created.isoformat()] for e in entries]

    def _path(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "kaos_hub" / f"{self.noun}s-shown.json"

    def _cache(self) -> dict[str, Any]:
        try:
            data = json.loads(self._path().read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}


def _place(session: Session) -> str:
    workspace = session.client.workspaces.current
    return session.client.credentials.url + (f" {workspace}" if workspace else "")


def _show_notebooks(found: Sequence[Any]) -> None:
    from kaos_hub.cli.notebook.commands import show_notebooks

    show_notebooks(found, err=True)


def _show_trainings(found: Sequence[Any]) -> None:
    from kaos_hub.cli.train.commands import show_trainings

    show_trainings(found, err=True)


NOTEBOOKS = Listing(
    "notebook", "kaos notebook list", "name",
    lambda session, _: session.client.notebooks.list(), _show_notebooks,
)  # fmt: skip
TRAININGS = Listing(
    "training", "kaos train list", "id",
    lambda session, query: session.client.trainings.list(**query), _show_trainings,
)  # fmt: skip


def selection(function: AnyFunction) -> AnyFunction:
    """Give a command the parameters NAME, ``-n`` and ``-i``; see :func:`select`."""
    for parameter in (
        click.option("-i", "--index", type=int, help="Its number in `kaos notebook list`."),
        click.option("-n", "--name", help="Its name.", shell_complete=completion.notebooks),
        click.argument(
            "notebook", metavar="[NAME]", required=False, shell_complete=completion.notebooks
        ),
    ):
        function = parameter(function)
    return function


def select(
    session: Session,
    notebook: str | None,
    name: str | None,
    index: int | None,
    sure: bool = False,
) -> str:
    """The name of the notebook that is meant.

    Args:
        session: the run of the command line.
        notebook: the name, given as an argument.
        name: the name, given with ``-n``.
        index: its number in the list, given with ``-i``.
        sure: something may be lost, so it must have been named; else it is found, see
            :func:`kaos_hub.cli.finding.find`.

    Raises:
        click.UsageError: more than one of them was given, or none where one is needed.
        Conflict: the list has changed since it was shown: a number may mean another one now.
        NotFound: there is no such number, or no notebook.
    """
    given = [value for value in (notebook, name, index) if value is not None]
    if len(given) > 1:
        raise click.UsageError("-n NAME and -i INDEX are mutually exclusive: name one notebook.")
    if index is not None:
        return NOTEBOOKS.at(session, index)
    if given:
        return str(given[0])
    if sure:
        raise click.UsageError(
            "Which notebook? Say -n NAME, or -i INDEX from `kaos notebook list`."
        )
    from kaos_hub.cli.finding import find

    return find(session)


def training_selection(function: AnyFunction) -> AnyFunction:
    """Give a command the parameters JOB, ``-j`` and ``-i``; see :func:`select_training`."""
    for parameter in (
        click.option("-i", "--index", type=int, help="Its number in `kaos train list`."),
        click.option(
            "-j",
            "--job",
            help="Its id; with .N, its trial N. Or a model's name: that one's.",
            shell_complete=completion.trainings,
        ),
        click.argument(
            "training", metavar="[JOB]", required=False, shell_complete=completion.trainings
        ),
    ):
        function = parameter(function)
    return function


def select_training(
    session: Session, training: str | None, job: str | None, index: int | None, sure: bool = False
) -> tuple[str, int | None]:
    """The id of the training that is meant, and the number of its trial if one was named.

    Args:
        session: the run of the command line.
        training: the id, given as an argument.
        job: the id, given with ``-j``.
        index: its number in the list, given with ``-i``.
        sure: something may be lost, so it must have been named; else it is the newest one.

    Raises:
        click.UsageError: more than one of them was given, or none where one is needed.
        Conflict: the list has changed since it was shown: a number may mean another one now.
        NotFound: there is no such number, or no training.
    """
    given = [value for value in (training, job, index) if value is not None]
    if len(given) > 1:
        raise click.UsageError("-j JOB and -i INDEX are mutually exclusive: name one training.")
    if index is not None:
        return TRAININGS.at(session, index), None
    if given:
        return training_of(session, str(given[0]))
    if sure:
        raise click.UsageError("Which training? Say -j JOB, or -i INDEX from `kaos train list`.")
    newest = session.client.trainings.list(limit=1)
    if not newest:
        raise NotFound("there is no training yet; start one: kaos train deploy -s DIR -d DIR")
    session.note(f"Training {newest[0].id}, the newest:")
    return newest[0].id, None


def training_of(session: Session, text: str) -> tuple[str, int | None]:
    """The training, and the trial, that ``ID``, ``ID.N`` or the name of a model means.

    Raises:
        NotFound: there is no such trial or model.
    """
    if _TRAINING.match(text):
        return split_model(text)
    try:
        found = session.client.models.look(text)
    except NotFound:
        raise NotFound(
            f"there is no training and no model {text!r}; trainings are called by their id"
            " (kaos train list), models by their name (kaos model list --named)"
        ) from None
    return found.training, found.trial


def split_model(text: str) -> tuple[str, int | None]:
    """A training's id, and the number of a trial if there is one: ``ID`` or ``ID.N``."""
    training, _, number = text.partition(".")
    if not number:
        return training, None
    if not number.isdecimal():
        raise NotFound(f"there is no trial {text!r}; trials are called ID.1, ID.2 and so on")
    return training, int(number)
