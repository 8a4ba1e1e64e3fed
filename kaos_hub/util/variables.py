"""The environment of the user's image, kept apart from that of our own programs.

A program of ours is started with what kaos_hub and the Hub told it, and nothing else. Whatever
image, bundle or user set beside that waits as ``KAOS_USER_<NAME>``: :func:`users` is the
environment for what the program starts on the user's behalf. Standard library only.
"""

import os
import shutil
from collections.abc import Mapping, MutableMapping

PREFIX = "KAOS_USER_"
GIVEN = "KAOS_GIVEN"
"""Names the variables that are meant for our program, separated by commas."""

_ALWAYS = ("HOME", "PATH", GIVEN)
_USUAL = ("KAOS_", "JUPYTERHUB_", "JPY_")
"""Prefixes of our variables where nothing says which are ours: no spawner of ours started it."""
_SERVERS = (
    GIVEN, "JUPYTERHUB_SINGLEUSER_APP", "JUPYTER_CONFIG_PATH", "JUPYTER_PATH", "LC_CTYPE",
)  # fmt: skip
"""Set in the server's process for itself; LC_CTYPE by Python, where there is no locale."""
_NO_SHELLS = ("false", "nologin", "true")


def apart(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is told ``ours`` and starts others with ``theirs``."""
    found = {**ours, **{PREFIX + name: value for name, value in theirs.items()}}
    return found | {GIVEN: ",".join(sorted(ours))}


def put_aside(environ: MutableMapping[str, str]) -> None:
    """Hide from the program that is started with ``environ`` what is not meant for it."""
    given = environ.get(GIVEN)
    names = None if given is None else given.split(",")
    for name in list(environ):
        if name in _ALWAYS or name.startswith(PREFIX):
            continue
        if name not in names if names is not None else not name.startswith(_USUAL):
            environ.setdefault(PREFIX + name, environ.pop(name))


def users(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment, out of that of a program of ours."""
    found = {n: v for n, v in environ.items() if n not in _SERVERS and not n.startswith(PREFIX)}
    theirs = {n.removeprefix(PREFIX): v for n, v in environ.items() if n.startswith(PREFIX)}
    return found | theirs


def give(environ: MutableMapping[str, str], changes: Mapping[str, str]) -> None:
    """Change the user's environment, and not that of the program itself."""
    before = users(environ)
    for name, value in changes.items():
        if before.get(name) != value:
            environ[PREFIX + name] = value


def shell(environ: Mapping[str, str]) -> list[str]:
    """The command of a terminal: the user's shell, else the best that the image has."""
    wanted = environ.get("SHELL")
    candidates = [wanted] if wanted and os.path.basename(wanted) not in _NO_SHELLS else []  # noqa: PTH119
    for name in [*candidates, "bash", "sh"]:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return [found]
    return ["/bin/sh"]
