"""Repositories that notebooks begin with: what is shown of them, and credentials of private ones,
asked for or read from where no command line shows them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.terminal.output import on_terminal
from kaos_hub.errors import InvalidRequest

if TYPE_CHECKING:
    from kaos_hub.schemas import Clone

ASK = "ask"
"""The value that ``--git-credentials`` alone stands for."""

_LARGEST = 1 << 14


def credentials(where: str) -> dict[str, str]:
    """The fields of credentials.

    Args:
        where: :data:`ASK`; ``env:NAME`` for a variable; else a file, ``-`` for what is piped in.
            What is read is ``NAME:PASSWORD``, or a token alone.

    Raises:
        InvalidRequest: there are none. What was said is not repeated: it may be a token.
    """
    if where == ASK:
        return _asked()
    if where.startswith("env:"):
        name = where.removeprefix("env:")
        text = os.environ.get(name)
        if not text:
            raise InvalidRequest(
                "--git-credentials env:NAME: that variable is not set here, or is empty"
            )
        return _split(text)
    try:
        if where == "-":
            return _split(sys.stdin.read(_LARGEST))
        with Path(where).expanduser().open(encoding="utf-8") as file:
            return _split(file.read(_LARGEST))
    except (OSError, ValueError):
        raise InvalidRequest(
            "--git-credentials: what is said there is no file that can be read. Say it alone, to be"
            " asked, or with env:NAME or a FILE; a token itself does not belong on a command line,"
            " where others see it"
        ) from None


def _asked() -> dict[str, str]:
    if not on_terminal() or not sys.stdin.isatty():
        raise InvalidRequest(
            "--git-credentials: there is no terminal to ask at; say --git-credentials env:NAME, or"
            " a FILE"
        )
    name = click.prompt("Name (none with a token)", default="", show_default=False, err=True)
    password = click.prompt("Password or token (not shown)", hide_input=True, err=True)
    return {"password": password} | ({"username": name} if name else {})


def _split(text: str) -> dict[str, str]:
    text = text.strip()
    if not text or "\n" in text:
        raise InvalidRequest(
            "--git-credentials: there must be one line, NAME:PASSWORD or a token alone"
        )
    name, colon, password = text.partition(":")
    if not colon:
        return {"password": text}
    return {"username": name, "password": password} if name else {"password": password}


def clone_line(git: "Clone | None") -> str | None:
    """A notebook's repository, and what became of it."""
    if git is None:
        return None
    where = f" in ~/{git.place}" if git.place else ""
    commit = f" at {git.commit[:12]}" if git.commit else ""
    return f"{git}: {git.state}{where}{commit}{f'; {git.note}' if git.note else ''}"
