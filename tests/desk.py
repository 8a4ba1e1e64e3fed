"""A Hub with our spawners and, in the service's place, a desk at which a test decides.

For what the real service cannot be made to do at the right moment: refuse with a given text, be
away, or answer late. The desk speaks the private admission listener's language over real HTTP.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import AdmissionRequest, Mount, NotebookSpec, ReleaseRequest, Resources
from tests.hub import ROOT, Answer, free_port, request, wait_until
from tests.networks import dismiss

CONFIG = """
load_subconfig({root!r})
c = get_config()
for service in c.JupyterHub.services:
    if service["name"] == "kaos":
        del service["command"]
c.JupyterHub.services.append({{"name": "tester", "display": False, "api_token": {token!r}}})
c.JupyterHub.load_roles.append(
    {{
        "name": "tester",
        "services": ["tester"],
        "scopes": ["admin:users", "admin:servers", "tokens"],
    }}
)
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.allowed_users = c.SharedPasswordAuthenticator.allowed_users
c.KaosSpawnerMixin.admission_patience = 2
c.Spawner.poll_interval = 1
"""
TOKEN = "test" * 16


class Desk:
    """The admission listener of a service, run in a thread of the test."""

    def __init__(self, data: DataDir, host: str = "127.0.0.1") -> None:
        self.data, self._host = data, host
        self.decide: Callable[[AdmissionRequest], NotebookSpec] = self.admit
        self.options: dict[str, Any] = {}
        self.pages: dict[str, bytes] = {}
        """What the public side of the service answers, by path; anything else is ``ok``."""
        self.delay = 0.0
        self.asked: list[AdmissionRequest] = []
        self.released: list[ReleaseRequest] = []
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._servers: list[HTTPServer] = []
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.open()

    def admit(self, request: AdmissionRequest) -> NotebookSpec:
        """Let everything in, with a home and an environment."""
        self._count += 1
        name = request.server or "default"
        return NotebookSpec(
            notebook=name,
            workload=f"kaos-notebook-{os.getpid()}-{id(self) % 10000}-{self._count}",
            owner=f"user:{request.user}",
            mounts=[
                Mount(source=str(self.data.homes / name), target="/home/kaos", read_only=False)
            ],
            environment={"KAOS_HOME": "/home/kaos", "KAOS_NOTEBOOK": name},
            resources=Resources.model_validate({"cpu": 1, "memory": "1Gi"}),
        )

    def refuse(self, error: KaosError) -> None:
        """From now on answer with this error."""

        def refusing(request: AdmissionRequest) -> NotebookSpec:
            raise error

        self.decide = refusing

    def close(self) -> None:
        """Be away."""

        async def stop() -> None:
            while self._servers:
                server = self._servers.pop()
                server.stop()
                await server.close_all_connections()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)

    def open(self) -> None:
        """Be there."""

        async def listen() -> None:
            private = web.Application([("/admission/(.*)", _Private, {"desk": self})])
            public = web.Application([("/.*", _Public, {"desk": self})])
            self._servers.append(private.listen(self.data.port("admission"), "127.0.0.1"))
            self._servers.append(public.listen(self.data.port("service", self._host), self._host))

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(5)

    def stop(self) -> None:
        """Be away for good."""
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)


class _Private(web.RequestHandler):
    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def prepare(self) -> None:
        expected = f"Bearer {self.desk.data.secret('admission')}"
        assert self.request.headers.get("Authorization") == expected

    async def post(self, verb: str) -> None:
        body = json.loads(self.request.body)
        if verb == "release":
            self.desk.released.append(ReleaseRequest.model_validate(body))
            self.finish({})
            return
        asked = AdmissionRequest.model_validate(body)
        self.desk.asked.append(asked)
        await asyncio.sleep(self.desk.delay)
        try:
            self.finish(self.desk.decide(asked).model_dump_json())
        except KaosError as e:
            self.set_status(e.status)
            self.finish(e.body())

    def get(self, verb: str) -> None:
        self.finish(self.desk.options)

    def log_exception(self, *args: Any) -> None:
        super().log_exception(*args)


class _Public(web.RequestHandler):
    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def get(self) -> None:
        self.finish(self.desk.pages.get(self.request.path, b"ok"))

    post = get


class HubAtDesk:
    """JupyterHub with our configuration, without our service."""

    def __init__(
        self, directory: Path, config: str = "", engine: str = "local", host: str = "127.0.0.1"
    ) -> None:
        self.data = DataDir(directory / "data")
        self.environment: dict[str, str] = {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "hub.log"
        self._config = directory / "config.py"
        root = str(ROOT / "jupyterhub_config.py")
        self._config.write_text(CONFIG.format(root=root, token=TOKEN) + config)
        self._engine, self._host = engine, host
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def me(self) -> str:
        """The OS user."""
        return self.data.user

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAOS_")}
        environment |= {
            "KAOS_DATA_DIR": str(self.data.path),
            "KAOS_PORT": str(self.port),
            "KAOS_ENGINE": self._engine,
            **self.environment,
        }
        if self._engine != "local":
            # Named, so that the Hub does not set out to build the real runtime.
            environment["KAOS_BRIDGE"] = self._host
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kaos_hub.hub.app", "-f", str(self._config)],
                cwd=self.log.parent,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, 120, "the Hub's first answer")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(OSError):
            # The proxy of a killed Hub may still be there: ask for what only a living one knows.
            return self.api("GET", "/users").status == 200
        return False

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)

    def api(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the Hub's API as an admin."""
        return request(method, f"{self.url}/hub/api{path}", TOKEN, body)

    def server(self, name: str = "") -> dict[str, Any]:
        """The model of one of the OS user's servers; empty if there is none."""
        servers = self.api("GET", f"/users/{self.me}").json["servers"]
        return dict(servers.get(name) or {})

    def path(self, name: str = "") -> str:
        """The API's path of one of the OS user's servers."""
        return f"/users/{self.me}/server" + (f"s/{name}" if name else "")

    def launch(self, name: str = "", options: dict[str, Any] | None = None) -> Answer:
        """Start a server and wait until it is ready; returns the answer to the first request."""
        answer = self.api("POST", self.path(name), options or {})
        if answer.status < 400:
            wait_until(lambda: self.server(name).get("ready"), 30, f"start of {name!r}")
        return answer

    def end(self, name: str = "") -> None:
        """Stop a server and wait until it is gone."""
        assert self.api("DELETE", self.path(name)).status < 300
        wait_until(lambda: not self.server(name).get("started"), 30, f"end of {name!r}")

    def browser(self, user: str) -> "Browser":
        """Somebody who is logged in."""
        return Browser(self.url, user)


class Browser:
    """Enough of a browser for the Hub's own pages: cookies, XSRF, forms."""

    def __init__(self, url: str, user: str, password: str = "x") -> None:
        self.url, self._cookies = url, {}  # type: str, dict[str, str]
        self.get("/hub/login")
        self.post("/hub/login", {"username": user, "password": password})

    def get(self, path: str) -> Answer:
        """Load a page."""
        return self._ask("GET", path, None)

    def post(self, path: str, form: dict[str, str]) -> Answer:
        """Send a form."""
        from urllib.parse import urlencode

        xsrf = urlencode({"_xsrf": self._cookies.get("_xsrf", "")})
        return self._ask("POST", f"{path}?{xsrf}", urlencode(form).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        import http.client

        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        headers = {
            "Cookie": "; ".join(f"{k}={v}" for k, v in self._cookies.items()),
            "Sec-Fetch-Mode": "navigate",
        }
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        for value in response.headers.get_all("Set-Cookie") or []:
            name, _, rest = value.partition("=")
            self._cookies[name] = rest.partition(";")[0]
        answer = Answer(response.status, dict(response.headers), response.read())
        connection.close()
        return answer


def events(answer: Answer) -> list[dict[str, Any]]:
    """The events of a finished SSE stream."""
    lines = answer.text.splitlines()
    return [json.loads(x.removeprefix("data:")) for x in lines if x.startswith("data:")]


@contextlib.contextmanager
def hub_at_desk(
    directory: Path,
    config: str = "",
    engine: str = "local",
    host: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """A running Hub and its desk: ``(hub, desk)``.

    Args:
        directory: where its data go.
        config: lines for the configuration, read last.
        engine: where notebooks run.
        host: the address at which those reach this machine.
        environment: more variables for the Hub.
    """
    host = host or (bridge() if engine == "docker" else "127.0.0.1")
    hub = HubAtDesk(directory, config, engine, host)
    hub.environment |= environment or {}
    desk = Desk(hub.data, host)
    try:
        hub.start()
        yield hub, desk
    finally:
        hub.stop()
        desk.stop()
        end_all_with(hub.data.path)
        if engine == "docker":
            dismiss(hub.data.path)


def end_all_with(path: Path) -> None:
    """End every process that names the directory: proxies, supervisors, notebooks."""
    for _ in range(20):
        found = [p for p in _processes() if str(path).encode() in _words(p)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.1)


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _words(pid: int) -> bytes:
    if pid == os.getpid():
        return b""
    try:
        entry = Path(f"/proc/{pid}")
        return (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
    except OSError:
        return b""
