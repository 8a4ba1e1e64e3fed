"""What a deploy may say of a notebook besides its bundles and its size."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from kaos_hub.errors import InvalidRequest
from kaos_hub.models.base import Model

NOTHING = "-"
"""Given for what is to be taken away again: a pool, a context, an image."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_OURS = ("KAOS_", "JUPYTERHUB_", "JUPYTER_", "JPY_", "LD_")
_THE_SERVERS = frozenset(
    {"DATA_REPO", "HOME", "PATH", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONUSERBASE"}
)
_THE_USERS = frozenset({"KAOS_HOOK_TIMEOUT", "LD_LIBRARY_PATH"})
_MOST_VARIABLES = 200
_LONGEST_VALUE = 32 << 10
_LARGEST_ENVIRONMENT = 256 << 10


def variable_name(name: str) -> str:
    """Check the name of a variable that a user sets in a notebook.

    Raises:
        InvalidRequest: it is none, or the notebook's server depends on it.
    """
    if not _VARIABLE.fullmatch(name):
        raise InvalidRequest(
            f"environment: {name!r} cannot name a variable: letters, digits and '_', not beginning"
            " with a digit"
        )
    ours = name in _THE_SERVERS or name.upper().startswith(_OURS)
    if ours and name not in _THE_USERS:
        raise InvalidRequest(
            f"environment: {name} is set by the Hub or needed by the notebook's own server; choose"
            " another name, or set it in startup-hook.sh and in what you start"
        )
    return name


def _environment(values: dict[str, str]) -> dict[str, str]:
    if len(values) > _MOST_VARIABLES:
        raise InvalidRequest(f"environment: more than {_MOST_VARIABLES} variables")
    for name, value in values.items():
        variable_name(name)
        # The values are never repeated: they may be secrets.
        if "\0" in value:
            raise InvalidRequest(f"environment: the value of {name} has a character NUL in it")
        if len(value.encode()) > _LONGEST_VALUE:
            raise InvalidRequest(
                f"environment: the value of {name} has more than {_LONGEST_VALUE >> 10} KiB; put"
                " it into a file, as part of a context or of the data"
            )
    if sum(map(len, values.values())) > _LARGEST_ENVIRONMENT:
        raise InvalidRequest(f"environment: more than {_LARGEST_ENVIRONMENT >> 10} KiB in all")
    return values


Variables = Annotated[dict[str, str], AfterValidator(_environment)]
"""Variables of a notebook, by name."""


class NotebookOptions(Model):
    """What a notebook's row keeps of its wish, so that a stop and a start change nothing."""

    environment: Variables = Field(default={}, description="variables of kernels and terminals")
