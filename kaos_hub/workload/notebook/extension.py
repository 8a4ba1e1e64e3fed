"""The server extension: reports use to the kaos service, brings redeployed code in.

It reads ``KAOS_URL``, ``KAOS_NOTEBOOK``, ``JUPYTERHUB_API_TOKEN`` and ``KAOS_HOME``; in a server
that lacks one of the first three it does nothing. ``KAOS_ACTIVITY_INTERVAL`` is seconds between
reports, 30 if not set. ``GET <base>/kaos/status`` tells the last verdict as JSON.
"""

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from kaos_hub.workload.notebook.idle_watch import IdleWatch
from kaos_hub.workload.notebook.service_link import ServiceLink

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_NEEDED = ("KAOS_URL", "KAOS_NOTEBOOK", "JUPYTERHUB_API_TOKEN")
_SETTING = "kaos_link"
_LATEST_END = 30.0
"""Seconds that the end of an idle server may take."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kaos_hub.workload.notebook.extension"}]


def _load_jupyter_server_extension(serverapp: "ServerApp") -> None:
    """Add the status page. Jupyter calls this while the server is made; nothing runs yet."""
    settings = serverapp.web_app.settings
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing or _SETTING in settings:
        if missing:
            serverapp.log.info("kaos: not a notebook of kaos, %s is not set", ", ".join(missing))
        return
    settings[_SETTING] = None
    path = url_path_join(serverapp.base_url, "kaos", "status")
    serverapp.web_app.add_handlers(".*$", [(path, StatusHandler)])


async def _start_jupyter_server_extension(serverapp: "ServerApp") -> None:
    """Begin to report to the service. Jupyter calls this when the server runs."""
    settings = serverapp.web_app.settings
    if _SETTING not in settings or settings[_SETTING] is not None:
        return
    watch = IdleWatch(serverapp)
    link = settings[_SETTING] = ServiceLink(
        os.environ["KAOS_URL"],
        os.environ["KAOS_NOTEBOOK"],
        os.environ["JUPYTERHUB_API_TOKEN"],
        Path(os.environ.get("KAOS_HOME") or Path.home()),
        watch.activity,
        _interval(),
        serverapp.log,
        _end,
    )
    # Not earlier: the Hub's own extension sets the hook that this one chains.
    watch.watch_requests(link.used)
    link.start()


def _end() -> None:
    """End this server in good order; and if something in it hangs, all the same."""
    os.kill(os.getpid(), signal.SIGTERM)
    late = threading.Timer(_LATEST_END, os.kill, (os.getpid(), signal.SIGKILL))
    late.daemon = True
    late.start()


def _interval() -> float:
    try:
        return max(1.0, float(os.environ.get("KAOS_ACTIVITY_INTERVAL") or 30))
    except ValueError:
        return 30.0


class StatusHandler(APIHandler):  # type: ignore[misc]
    """A page of the last idle verdict, the source, the last update, trouble with the service."""

    def update_api_activity(self) -> None:
        """Do not count a request for the status as activity: pages poll it."""

    @authenticated
    async def get(self) -> None:
        link: ServiceLink | None = self.settings.get(_SETTING)
        answer = link.answer if link else None
        self.finish(
            {
                "verdict": answer.verdict.model_dump(mode="json") if answer else None,
                "source": link.source if link else None,
                "update": link.update if link else [],
                "problem": link.problem if link else "",
            }
        )
