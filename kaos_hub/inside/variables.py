"""The environment variables of the user's image, kept apart from those of our own programs.

What could disturb our programs (``LD_LIBRARY_PATH`` and the like) waits as ``KAOS_USER_<NAME>``
while they start; :func:`restore` gives it back, in the running server, to whatever that starts.
"""

import shutil
from collections.abc import Mapping, MutableMapping

PREFIX = "KAOS_USER_"
DISTURBING = ("LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")
"""Variables that change how a program, or a Python, finds its own parts."""


def put_aside(environ: MutableMapping[str, str]) -> None:
    """Hide the disturbing variables from the programs that are started with ``environ``."""
    for name in DISTURBING:
        if name in environ:
            environ[PREFIX + name] = environ.pop(name)


def restore(environ: MutableMapping[str, str]) -> None:
    """Undo :func:`put_aside`; harmless where nothing was put aside."""
    for name in [n for n in environ if n.startswith(PREFIX)]:
        environ[name.removeprefix(PREFIX)] = environ.pop(name)


def shell(environ: Mapping[str, str]) -> list[str]:
    """The command of a terminal: the user's shell, else the best that the image has."""
    wanted = environ.get("SHELL")
    candidates = [wanted] if wanted else []
    for name in [*candidates, "bash", "sh"]:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return [found]
    return ["/bin/sh"]
