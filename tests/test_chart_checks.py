"""What the chart runs in the cluster: before an install, and for `helm test`."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests import databases


def run(name: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program of kaos_hub.doctor, as in its pod."""
    command = [sys.executable, "-m", f"kaos_hub.doctor.{name}", *words]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KAOS_")}
    environment = {"KAOS_CHECK_SECONDS": "0.1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment)


class Answering(HTTPServer):
    """Answers these paths, and 404 to all others."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path in self.server.paths  # type: ignore[attr-defined]
        self.send_response(200 if known else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to stderr."""


@pytest.fixture
def urls(tmp_path: Path) -> Path:
    """The folder in which the URLs of databases are mounted."""
    (tmp_path / "urls").mkdir()
    return tmp_path / "urls"


def test_all_is_well(urls: Path) -> None:
    registry = Answering("/v2/")
    plain = databases.postgresql_url(template=False).replace(
        "postgresql+psycopg://", "postgresql://"
    )
    (urls / "hub").write_text(f"{plain}\n")
    (urls / "service").write_text(f"sqlite:///{urls}/kaos.sqlite")
    done = run("before", KAOS_REGISTRY=f"{registry.host}/users", KAOS_SECRETS_DIR=str(urls))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✔ registry" in done.stdout and "✔ database of the hub: " in done.stdout
    assert "✔ database of the service" in done.stdout


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://hub:hush@127.0.0.1:1/hub", "✗ database of the hub: connection"),
        ("postgresql://hub:hush@nowhere.invalid/hub", "✗ database of the hub: "),
        ("what is hush?", "✗ database of the hub: The key hub of database.secret holds no URL"),
        ("nosuch://hub:hush@x/y", "✗ database of the hub: "),
    ],
)
def test_a_database_out_of_reach_is_said_without_its_password(
    urls: Path, url: str, said: str
) -> None:
    (urls / "hub").write_text(url)
    done = run("before", KAOS_SECRETS_DIR=str(urls))
    assert done.returncode == 1 and said in done.stdout and "→" in done.stdout
    assert "hush" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_passing_trouble_is_waited_for(urls: Path) -> None:
    (urls / "hub").write_text(f"sqlite:///{urls}/later/kaos.sqlite")
    threading.Timer(3, (urls / "later").mkdir).start()
    done = run("before", KAOS_SECRETS_DIR=str(urls), KAOS_CHECK_SECONDS="60")
    assert done.returncode == 0 and "✔ database of the hub" in done.stdout


def test_a_registry_out_of_reach_is_said() -> None:
    done = run("before", KAOS_REGISTRY="127.0.0.1:1/users")
    assert done.returncode == 1
    assert "✗ registry: 127.0.0.1:1 does not answer" in done.stdout


def test_without_registry_and_databases_there_is_nothing_wrong() -> None:
    done = run("before")
    assert done.returncode == 0 and "KAOS_REGISTRY" in done.stdout


def test_hub_and_service_answer() -> None:
    hub = Answering("/hub/health", "/services/kaos/health", "/hub/login")
    done = run("after", f"http://{hub.host}/")
    assert done.returncode == 0, done.stdout
    assert [line[0] for line in done.stdout.splitlines()] == ["✔"] * 3


def test_what_does_not_answer_is_named() -> None:
    hub = Answering("/hub/health", "/hub/login")
    done = run("after", f"http://{hub.host}")
    assert done.returncode == 1
    assert f"✗ service: http://{hub.host}/services/kaos/health: HTTP 404" in done.stdout
