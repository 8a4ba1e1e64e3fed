"""A real JupyterHub with the kaos service, on free ports and in a directory of its own, for tests.

It runs this repository's own ``jupyterhub_config.py``; a few lines read after it bring test users
(everybody logs in with their name, no password) and a way to mint tokens.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests import databases, kernel_sets, networks

ROOT = Path(__file__).resolve().parent.parent

_EXTRA = """
c = get_config()
c.KaosService.capacity = {"cpu": 64, "memory": "512Gi"}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"root"}
c.JupyterHub.services.append({"name": "tester", "display": False, "api_token": "%(token)s"})
c.JupyterHub.load_roles.append(
    {
        "name": "tester",
        "services": ["tester"],
        "scopes": ["admin:users", "admin:servers", "admin:groups", "tokens"],
    }
)
"""


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def request(
    method: str,
    url: str,
    token: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Answer:
    """One HTTP request. ``body`` is bytes, or something to send as JSON."""
    head = dict(headers or {})
    if token:
        head["Authorization"] = f"token {token}"
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, method=method, headers=head)
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as e:
        with e:
            return Answer(e.code, e.headers, e.read())


def wait_until(
    true: Callable[[], Any], seconds: float = 30, what: str = "it", pause: float = 0.1
) -> Any:
    """Look until something is true, and return that.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


@dataclass
class RunningHub:
    """A Hub of its own. Use :func:`running_hub`, or start and stop it by hand."""

    directory: Path
    engine: str = "local"
    config: str = ""
    """Lines for the configuration, read last."""
    environment: Mapping[str, str] = field(default_factory=dict)
    trust_all: bool = True
    password: str = "x"
    """With which everybody may log in."""

    def __post_init__(self) -> None:
        self.port = free_port()
        self.data = self.directory / "data"
        self.log = self.directory / "hub.log"
        self._admin_token = secrets.token_hex(32)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The Hub as people reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def kaos(self) -> str:
        """The service as people reach it."""
        return f"{self.url}/services/kaos"

    @property
    def train(self) -> str:
        """The service ``kaos-train`` as people reach it: the same process."""
        return f"{self.url}/services/kaos-train"

    @property
    def api(self) -> str:
        """The service's REST API."""
        return f"{self.kaos}/api/v1"

    @property
    def admission(self) -> str:
        """The private listener."""
        ports = json.loads((self.data / "ports.json").read_text())
        return f"http://127.0.0.1:{ports['admission']}"

    @property
    def admission_secret(self) -> str:
        """What opens the private listener."""
        return (self.data / "secrets" / "admission").read_text()

    def secret(self, name: str) -> str:
        """One of the secrets in the data directory."""
        return (self.data / "secrets" / name).read_text()

    def start(self, seconds: float = 180) -> None:
        """Start it and wait until the service answers through the proxy."""
        self.launch()
        try:
            wait_until(self.answers, seconds, "the kaos service's first answer", pause=0.3)
        except AssertionError:
            self.stop()
            raise AssertionError(f"the Hub did not start:\n{self.tail()}") from None

    def launch(self) -> None:
        """Start it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        databases.prepare(self.data)
        kernel_sets.give(self.data / "kernels")
        extra = self.directory / "extra_config.py"
        extra.write_text(_EXTRA % {"token": self._admin_token} + self.config)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "kaos_hub.hub.app",
                    "-f",
                    str(ROOT / "jupyterhub_config.py"),
                ],
                cwd=self.directory,
                env=self._environment(extra),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, extra: Path) -> dict[str, str]:
        given = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "KAOS_"))}
        return {
            **given,
            "KAOS_DATA_DIR": str(self.data),
            "KAOS_ENGINE": self.engine,
            "KAOS_PORT": str(self.port),
            "KAOS_EXTRA_CONFIG": str(extra),
            "KAOS_TRUST_ALL_USERS": "1" if self.trust_all else "0",
            **self.environment,
        }

    def answers(self) -> bool:
        """Whether the service is well, asked through the proxy."""
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the Hub ended:\n{self.tail()}")
        try:
            return request("GET", f"{self.kaos}/health", timeout=5).status == 200
        except OSError:
            return False

    def service_pid(self) -> int | None:
        """The process id of the service, which it writes into its lock."""
        try:
            return int((self.data / "lock").read_text() or 0) or None
        except (OSError, ValueError):
            return None

    def service_memory(self) -> int:
        """Bytes of memory that the service uses."""
        status = Path(f"/proc/{self.service_pid()}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) << 10

    def end_service(self, number: int = signal.SIGKILL) -> None:
        """Send the service a signal. After a crash it comes back by itself."""
        pid = self.service_pid()
        assert pid is not None
        os.kill(pid, number)

    def kill(self) -> None:
        """End the Hub with SIGKILL: it can do nothing more. Proxy and notebooks stay behind."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the Hub as Ctrl-C would, and whatever of its own is left."""
        if self.process is None:
            return
        kernel_sets.keep(self.data / "kernels")
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.kill()
        self._end_left_behind()
        self.process = None

    def _end_left_behind(self) -> None:
        """What is this Hub's own names its directory: in environment, command or mounts."""
        if self.engine == "docker":
            for home in (self.data / "homes").iterdir():
                ours = ["docker", "ps", "-aq", "--filter", f"volume={home}"]
                for container in subprocess.check_output(ours, text=True).split():
                    subprocess.run(["docker", "rm", "-f", container], capture_output=True)
            networks.dismiss(self.data)
        for pid in _processes_of(self.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def tail(self, lines: int = 40) -> str:
        """The end of the log of Hub and service."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # --- users ---

    def hub_api(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the Hub's own API as somebody who may do everything with users and servers."""
        return request(method, f"{self.url}/hub/api{path}", self._admin_token, body)

    def token(self, user: str, scopes: Sequence[str] | None = None) -> str:
        """A new token of a user, who is made if there is none; all the user's scopes by default."""
        path = f"/users/{quote(user, safe='')}"
        made = self.hub_api("POST", path)
        assert made.status in (201, 409), made.text
        body: dict[str, Any] = {"note": "test", "expires_in": 3600}
        if scopes is not None:
            body["scopes"] = list(scopes)
        answer = self.hub_api("POST", f"{path}/tokens", body)
        assert answer.status == 201, answer.text
        return str(answer.json["token"])

    def ask(self, method: str, path: str, token: str | None, body: Any = None) -> Answer:
        """Ask the service's REST API."""
        return request(method, self.api + path, token, body)

    def ask_train(
        self, method: str, path: str, token: str | None, body: Any = None, owner: str = ""
    ) -> Answer:
        """Ask the REST API of ``kaos-train``, perhaps for a group."""
        headers = {"X-Kaos-Owner": quote(owner, safe=":")} if owner else {}
        return request(method, f"{self.train}/api/v1{path}", token, body, headers)

    def put_into(self, group: str, *users: str) -> None:
        """Make users and put them into a group, which is made if there is none."""
        path = f"/groups/{quote(group, safe='')}"
        for user in users:
            assert self.hub_api("POST", f"/users/{quote(user, safe='')}").status in (201, 409)
        assert self.hub_api("POST", path).status in (201, 409)
        assert self.hub_api("POST", f"{path}/users", {"users": users}).status == 200


class Browser:
    """A browser without scripts: keeps cookies, follows redirects.

    Args:
        hub: the Hub to visit.
        user: logs in as, if given.
    """

    def __init__(self, hub: RunningHub, user: str | None = None) -> None:
        self.hub = hub
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        if user is not None:
            self.log_in(user)

    def log_in(self, user: str) -> None:
        """Log in at the Hub and let the service know."""
        self.get(f"{self.hub.url}/hub/login")
        form = {"username": user, "password": self.hub.password, "_xsrf": self.xsrf("/hub/")}
        self.post(f"{self.hub.url}/hub/login", form)
        page = self.get(f"{self.hub.kaos}/")
        assert page.status == 200 and "<h1>Notebooks</h1>" in page.text, page.text[:500]

    def xsrf(self, path: str = "/services/kaos/") -> str:
        """The XSRF token that pages below a path have."""
        return next(c.value or "" for c in self.cookies if c.name == "_xsrf" and c.path == path)

    def cookie(self, name: str) -> str | None:
        """The value of a cookie."""
        return next((c.value for c in self.cookies if c.name == name), None)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Look at a page."""
        return self._send(urllib.request.Request(url, headers=dict(headers or {})))

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form."""
        data = urllib.parse.urlencode(form).encode()
        return self._send(urllib.request.Request(url, data=data, headers=dict(headers or {})))

    def send(self, url: str, body: bytes, media_type: str) -> Answer:
        """Send a body of another kind."""
        headers = {"Content-Type": media_type}
        return self._send(urllib.request.Request(url, data=body, headers=headers))

    def _send(self, asked: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(asked, timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as e:
            with e:
                return Answer(e.code, e.headers, e.read())


def _processes_of(data: Path) -> Iterator[int]:
    mark, inside = f"KAOS_DATA_DIR={data}".encode(), f"{data}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                named = mark in (entry / "environ").read_bytes().split(b"\0")
                if named or inside in (entry / "cmdline").read_bytes():
                    yield int(entry.name)


@contextlib.contextmanager
def running_hub(directory: Path, **options: Any) -> Iterator[RunningHub]:
    """A Hub that runs while you use it; options as of :class:`RunningHub`."""
    hub = RunningHub(directory, **options)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()
