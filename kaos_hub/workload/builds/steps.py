"""The common part of build steps that ask registries: access to these, and their last words."""

import json
import os
import sys
from pathlib import Path

from kaos_hub.errors import EngineUnavailable, KaosError
from kaos_hub.registry.names import Ways, logins
from kaos_hub.registry.registries import Registries

LONGEST = 2000
"""Characters of a message: Kubernetes keeps 4096 bytes of a container's last words."""
TROUBLE = (KaosError, OSError, ValueError, KeyError, TypeError, LookupError)
"""Errors that answers of registries, and content that builds have left, may cause."""


def registries() -> Registries:
    """Registries as the environment says (``KAOS_WAYS``, ``KAOS_LOGIN``).

    Raises:
        EngineUnavailable: the login or the certificates it names are none.
    """
    ways = json.loads(os.environ.get("KAOS_WAYS") or "{}")
    login = os.environ.get("KAOS_LOGIN")
    if login and not Path(login).exists():
        setting = ways.get("login_setting", "")
        raise EngineUnavailable(
            f"There is no secret of type kubernetes.io/dockerconfigjson of the name that {setting}"
            " gives: the admin has to make it",
            setting=setting,
        )
    return Registries(Ways(**ways, logins=logins(Path(login)) if login else {}))


def failed(error: Exception) -> int:
    """Say why a step failed, to people and to the engine; the exit code."""
    message = error.message if isinstance(error, KaosError) else f"{type(error).__name__}: {error}"
    details = error.details if isinstance(error, KaosError) else {}
    told = {"message": message[:LONGEST]}
    # The engine then knows that trying again is of no use.
    told |= {k: str(v) for k, v in details.items() if k == "setting"}
    print(message, file=sys.stderr, flush=True)
    Path(os.environ["KAOS_RESULT"]).write_text(json.dumps(told))
    return 1
