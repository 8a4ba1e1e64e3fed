"""Kernels and terminals that a Jupyter server starts for its user, in the user's environment.

The server's own environment stays clean, so nothing that an image sets reaches it, now or later.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from jupyter_server_terminals.app import TerminalsExtensionApp
from jupyter_server_terminals.terminalmanager import TerminalManager

from kaos_hub.util import variables
from kaos_hub.workload.notebook import kernels

KERNEL_MANAGER = "kaos_hub.workload.notebook.user_side.UserKernelManager"


class UserKernelManager(ServerKernelManager):  # type: ignore[misc]
    """The stock manager, but kernels of any kind start in the user's environment."""

    async def _async_pre_start_kernel(self, **kw: Any) -> tuple[list[str], dict[str, Any]]:
        given = dict(kw.get("env") or os.environ)
        changed = {**kw, "env": variables.users(given)}
        prepared: tuple[list[str], dict[str, Any]] = await super()._async_pre_start_kernel(
            **changed
        )
        # A restart begins with this again.
        self._launch_args["env"] = given
        return prepared

    pre_start_kernel = _async_pre_start_kernel


class UserTerminals(TerminalManager):
    """The stock manager, but terminals start in the user's environment."""

    def make_term_env(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        """The environment of a terminal; what it is capable of is the browser's to say."""
        environ: dict[str, str] = super().make_term_env(*args, **kwargs)
        known = {n: environ[n] for n in ("TERM", "COLUMNS", "LINES") if n in environ}
        return variables.users(environ) | known


def options() -> list[str]:
    """Return the options of the server's command line for it."""
    shell = variables.shell(configure())
    return [
        # Not a login shell: /etc/profile would throw the PATH away that leads to the user's Python.
        f"--ServerApp.terminado_settings={{'shell_command': {shell!r}}}",
        f"--AsyncMappingKernelManager.kernel_manager_class={KERNEL_MANAGER}",
    ]


@functools.cache
def configure() -> dict[str, str]:
    """Make this process a server for its user; returns the user's environment."""
    found = variables.users(os.environ)
    if not os.environ.get("KAOS_PYTHON"):
        kernels.prepare(found)
        variables.give(os.environ, found)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(_data_directories(found))
    # It has no setting for this.
    TerminalsExtensionApp.terminal_manager_class = UserTerminals
    return found


def _data_directories(environ: Mapping[str, str]) -> list[str]:
    """Return the directories where the user's environment has kernels, if they can be read."""
    named = environ.get("JUPYTER_PATH", "").split(os.pathsep)
    data = environ.get("JUPYTER_DATA_DIR")
    if not data and environ.get("XDG_DATA_HOME"):
        data = str(Path(environ["XDG_DATA_HOME"], "jupyter"))
    wanted = [place for place in (*named, data) if place]
    return [p for p in wanted if os.path.isdir(p) and os.access(p, os.R_OK | os.X_OK)]  # noqa: PTH112
