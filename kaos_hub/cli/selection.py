"""Which notebook is meant: by name, or by its number in the list that was shown last."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kaos_hub.cli.base import Session
from kaos_hub.errors import Conflict, NotFound

if TYPE_CHECKING:
    from kaos_hub.models import Notebook

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def selection(function: AnyFunction) -> AnyFunction:
    """Give a command the parameters NAME, ``-n`` and ``-i``; see :func:`select`."""
    for parameter in (
        click.option("-i", "--index", type=int, help="Its number in `kaos notebook list`."),
        click.option("-n", "--name", help="Its name."),
        click.argument("notebook", metavar="[NAME]", required=False),
    ):
        function = parameter(function)
    return function


def select(
    session: Session, notebook: str | None, name: str | None, index: int | None, sure: bool = False
) -> str:
    """The name of the notebook that is meant.

    Args:
        session: the run of the command line.
        notebook: the name, given as an argument.
        name: the name, given with ``-n``.
        index: its number in the list, given with ``-i``.
        sure: something may be lost, so it must have been named; else the only one will do.

    Raises:
        click.UsageError: more than one of them was given, or none where one is needed.
        Conflict: the list has changed since it was shown: a number may mean another one now.
        NotFound: there is no such number.
    """
    given = [value for value in (notebook, name, index) if value is not None]
    if len(given) > 1:
        raise click.UsageError("-n NAME and -i INDEX are mutually exclusive: name one notebook.")
    if index is not None:
        return _by_index(session, index)
    if given:
        return str(given[0])
    if not sure:
        names = [n.name for n in session.client.notebooks.list()]
        if len(names) == 1:
            return names[0]
    raise click.UsageError("Which notebook? Say -n NAME, or -i INDEX from `kaos notebook list`.")


def _by_index(session: Session, index: int) -> str:
    present = session.client.notebooks.list()
    shown = _cache().get(session.client.credentials.url)
    if shown is None:
        raise Conflict("an index is a number of the list shown last; run: kaos notebook list")
    if shown != _fingerprint(present):
        raise Conflict(
            f"the list has changed since it was shown, so {index} may be another notebook now;"
            " run: kaos notebook list"
        )
    if not 1 <= index <= len(present):
        raise NotFound(f"there is no notebook {index}; the list goes from 1 to {len(present)}")
    return present[index - 1].name


def remember_list(session: Session, notebooks: "Sequence[Notebook]") -> None:
    """Remember what was shown, so that an index can only mean what the person saw."""
    from kaos_hub.client.credentials import write_private

    url = session.client.credentials.url
    path = _cache_path()
    try:
        write_private(path, json.dumps(_cache() | {url: _fingerprint(notebooks)}))
    except OSError as e:
        session.note(f"{path} cannot be written ({e.strerror}): -i INDEX will not work.")


def _fingerprint(notebooks: "Sequence[Notebook]") -> list[list[str]]:
    # With the time of creation: a notebook deleted and made again is another one.
    return [[n.name, n.created.isoformat()] for n in notebooks]


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kaos_hub" / "notebooks-shown.json"


def _cache() -> dict[str, Any]:
    try:
        data = json.loads(_cache_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
