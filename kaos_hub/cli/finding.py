"""The notebook that is meant by a user who names none, where nothing can be lost."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli.base import Session
from kaos_hub.errors import NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import Notebook

_MOST = 200
"""Folders that are remembered; of more, those used last."""


def find(session: Session) -> str:
    """Return the name of the notebook that is meant.

    It is the only one; else the only one that runs; else the one used last from this folder; else
    the user is asked.

    Args:
        session: the run of the command line.

    Raises:
        NotFound: there is none.
        click.UsageError: there are several, and no person can be asked.
    """
    found = session.client.notebooks.list()
    if not found:
        raise NotFound("there is no notebook yet; deploy one: kaos notebook deploy -s DIR")
    running = [each for each in found if each.state == "RUNNING"]
    chosen = _only(found) or _only(running) or _used_here(session, running or found)
    if chosen is None:
        return _ask(session, found)
    if len(found) > 1:
        session.note(f"Notebook {chosen.name}:")
    return chosen.name


def _only(found: "Sequence[Notebook]") -> "Notebook | None":
    return found[0] if len(found) == 1 else None


def _ask(session: Session, found: "Sequence[Notebook]") -> str:
    from kaos_hub.cli.selection import NOTEBOOKS

    if session.json or not session.can_ask:
        names = ", ".join(f"{each.name} ({each.state})" for each in found[:10])
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise click.UsageError(f"Which notebook? There are {names}{more}. Say -n NAME.")
    NOTEBOOKS.show(found)
    number = click.prompt("Which one", type=click.IntRange(1, len(found)), err=True)
    return found[number - 1].name


def remember_here(session: Session, used: "Notebook") -> None:
    """Remember that a notebook was deployed or started from the folder one is in."""
    from kaos_hub.transport.credentials import write_private

    known = _read()
    known.pop(_key(session), None)  # what is used last stands last
    known[_key(session)] = [used.name, used.created.isoformat()]
    kept = dict(list(known.items())[-_MOST:])
    try:
        write_private(_path(), json.dumps(kept))
    except OSError:
        return  # then one has to be named the next time, which is told then


def _used_here(session: Session, found: "Sequence[Notebook]") -> "Notebook | None":
    known = _read().get(_key(session))
    # With the time of creation: a notebook deleted and made again is another one.
    there = [each for each in found if [each.name, each.created.isoformat()] == known]
    return _only(there)


def _key(session: Session) -> str:
    return f"{session.client.credentials.url} {Path.cwd()}"


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kaos_hub" / "notebooks-used.json"


def _read() -> dict[str, Any]:
    try:
        data = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
