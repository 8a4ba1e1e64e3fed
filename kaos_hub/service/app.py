"""The service's process: settings in, parts together, two listeners, a clean end.

Order of start: bind our life to the Hub's, be alone on the data directory, open store and database,
start the engine, take up what was going on, and only then listen.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traitlets import TraitError
from traitlets.config import Configurable, PyFileConfigLoader
from traitlets.config.loader import ConfigFileNotFound

from kaos_hub.errors import KaosError
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir, Held
from kaos_hub.service.config.service import ServiceConfig
from kaos_hub.service.process import beat, die_with_parent, know_hub, take_lock
from kaos_hub.service.web.proxies import Proxies

_GRACE = 3.0
"""Seconds that answers under way get when the service ends."""

_CHUNK = 256 << 10
"""Bytes of an upload that are handed on at once."""

_FORM = 1 << 20
"""Bytes of a form without files."""
_FORM_TIME = 60.0
"""Seconds that a form without files may take."""


class KaosService(ServiceConfig):
    """The kaos service."""

    classes: list[type[Configurable]] = []

    def initialize(self, argv: list[str] | None = None) -> None:
        """Read the command line, then the file it names; the command line wins.

        Raises:
            KaosError: the file cannot be read; says where it is wrong.
        """
        self.parse_command_line(argv)
        if self.config_file:
            from_command_line = self.cli_config.copy()
            self.update_config(_read_config(Path(self.config_file)))
            self.update_config(from_command_line)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            KaosError: it could not start.
        """
        die_with_parent()
        know_hub(DataDir(self.data_dir, create=False))
        url = _service_url()
        data = DataDir(self.data_dir)
        lock = take_lock(data)
        # Only now: what follows costs a second and most of our memory.
        from kaos_hub.service.assembly import Parts

        parts = Parts(self, data)
        try:
            await parts.start()
            proxies = self.proxies()
            servers, application = self._listen(parts, data, url, proxies)
            following = asyncio.create_task(proxies.follow(), name="proxies")
            beat()
            _log().info("Ready: %s engine, data in %s", self.engine, data.path)
            await _until_told_to_end()
            following.cancel()
            await _end(servers, application.settings["streams"])
        finally:
            await parts.close()
            _let_go(lock)

    def _listen(
        self, parts: Any, data: DataDir, url: str, proxies: Proxies
    ) -> tuple[list[Any], Any]:
        from tornado.httpserver import HTTPServer

        from kaos_hub.service.admission import admission_app
        from kaos_hub.service.health import Health
        from kaos_hub.service.metrics import Metrics
        from kaos_hub.service.public import public_app
        from kaos_hub.service.web.forwarding import public_server

        metrics, health = Metrics(), Health(parts.core)
        certificates = Certificates.of_service()
        private = HTTPServer(
            admission_app(parts.core, data, metrics, health),
            ssl_options=certificates.admission_server() if certificates else None,
            max_body_size=1 << 20,
        )
        application = public_app(self, parts.core, data, metrics, health)
        public = public_server(
            application,
            proxies,
            ssl_options=certificates.service_server() if certificates else None,
            chunk_size=_CHUNK,
            # Of what is read whole; handlers of streams say what they take.
            max_body_size=_FORM,
            body_timeout=_FORM_TIME,
        )
        _bind(private, self.admission_url, "the admission listener")
        _bind(public, url, "the service")
        return [public, private], application


def _service_url() -> str:
    needed = ("JUPYTERHUB_SERVICE_URL", "JUPYTERHUB_API_URL", "JUPYTERHUB_API_TOKEN")
    if not all(os.environ.get(name) for name in needed):
        raise KaosError(
            "The service is started by JupyterHub, not by hand. Run `kaos up`, or"
            " `jupyterhub -f jupyterhub_config.py`."
        )
    return os.environ["JUPYTERHUB_SERVICE_URL"]


def _bind(server: Any, url: str, what: str) -> None:
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    try:
        server.listen(port, address=host)
    except OSError as e:
        raise KaosError(
            f"{what.capitalize()} cannot listen on {host}:{port}: {e.strerror or e}."
            " Is something else using that port?"
        ) from None


async def _until_told_to_end() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


async def _end(servers: list[Any], streams: Collection[Any]) -> None:
    """Stop accepting requests, end open streams, and wait for answers under way.

    Answers under way get a few seconds. The clients of streams resume them later.
    """
    for server in servers:
        server.stop()
    # Ended, not cut: a proxy may keep a client waiting on a connection that was cut behind it.
    for stream in list(streams):
        stream.end_stream()
    await asyncio.sleep(0.1)
    _log().info("Ending; jobs and notebooks go on")
    try:
        async with asyncio.timeout(_GRACE):
            await asyncio.gather(*(server.close_all_connections() for server in servers))
    except TimeoutError:
        _log().warning("Some connections did not close in time")


def _let_go(lock: Held) -> None:
    lock.close()


def _read_config(path: Path) -> Any:
    try:
        return PyFileConfigLoader(path.name, path=str(path.parent.absolute())).load_config()
    except ConfigFileNotFound:
        raise KaosError(f"There is no configuration file {path}") from None
    except SyntaxError as e:
        raise KaosError(f"{path}:{e.lineno}: {e.msg}") from None
    except Exception as e:  # the file is a program: it may raise anything
        raise KaosError(f"{path}:{_line_in(path, e)}: {type(e).__name__}: {e}") from None


def _line_in(path: Path, error: Exception) -> str:
    """Return the line of the file that an error came from, or ``?`` if it is not known."""
    line, traceback = "?", error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).name == path.name:
            line = str(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line


def _log() -> logging.Logger:
    return logging.getLogger("kaos.service")


def _set_up_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="[%(levelname).1s %(asctime)s kaos] %(message)s",
        stream=sys.stderr,
    )
    # These say at INFO and WARNING what is everyday life here.
    for name in ("tornado.application", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def main(argv: list[str] | None = None) -> int:
    """Run the service. An error that prevents its start is one line on stderr and exit code 1."""
    _set_up_logging()
    try:
        app = KaosService()
        app.initialize(argv)
        asyncio.run(app.run())
    except KaosError as e:
        problem = e.message
    except TraitError as e:
        problem = f"A setting is wrong: {e}"
    except Exception as e:  # a failed start must not need a traceback to be understood
        _log().debug("Start failed", exc_info=True)
        problem = f"{type(e).__name__}: {e}"
    else:
        return 0
    print(f"kaos service: {problem}", file=sys.stderr)
    return 1
