"""A server of git repositories: git's own, behind a small web server, which can want a login,
lead elsewhere, or make trouble."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.work_server import Quiet


@dataclass
class GitServer:
    """Repositories below a folder, over HTTP."""

    root: Path
    port: int = 0
    host: str = "127.0.0.1"
    login: tuple[str, str] | None = None
    """Name and password that it wants, if any."""
    moved: dict[str, str] = field(default_factory=dict)
    """Beginning of a path → what to put in its place."""
    status: int | None = None
    """With which everything is answered."""
    well_after: int | None = None
    """So many requests are answered so, and no more."""
    old: bool = False
    """It knows only the first version of the protocol, and cannot leave a history out."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Unset, nothing is answered."""
    asked: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)
    """What each request had as ``Authorization``."""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def repository(self, name: str, files: dict[str, str | bytes]) -> "Work":
        """A new repository with one commit on `main`; its address is ``url/<name>.git``."""
        bare = self.root / f"{name}.git"
        work = Work(self.root / f"{name}.work", bare)
        git(self.root, "init", "-q", "--bare", "-b", "main", str(bare))
        git(self.root, "clone", "-q", str(bare), str(work.folder))
        git(work.folder, "switch", "-q", "-C", "main")
        if files:
            work.commit(files)
        return work

    def of(self, name: str) -> str:
        """The address of a repository."""
        return f"{self.url}/{name}.git"


@dataclass
class Work:
    """A clone in which commits are made."""

    folder: Path
    bare: Path

    def commit(self, files: dict[str, str | bytes], branch: str = "main") -> str:
        """Commit and push; the id of the commit."""
        git(self.folder, "switch", "-q", "-C", branch)
        for name, content in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", "more")
        return self.push()

    def push(self) -> str:
        """Push all branches and tags; the id of the last commit."""
        git(self.folder, "push", "-q", "--all", "origin")
        git(self.folder, "push", "-q", "--tags", "origin")
        return git(self.folder, "rev-parse", "HEAD")


def git(folder: Path, *words: str) -> str:
    """Run git, as nobody in particular."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))}  # fmt: skip
    environ = given | who | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"git {words}: {done.stderr}"
    return done.stdout.strip()


def _handler(server: GitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(b"")

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def answer(self, body: bytes) -> None:
            server.asked.append(self.path)
            server.logins.append(self.headers.get("Authorization"))
            server.gate.wait(60)
            if server.well_after is not None and len(server.asked) > server.well_after:
                server.status = None
            for begin, other in server.moved.items():
                if self.path.startswith(begin):
                    self.plain(302, {"Location": other + self.path.removeprefix(begin)})
                    return
            if server.status is not None:
                self.plain(server.status)
            elif server.login and self.headers.get("Authorization") != _basic(*server.login):
                self.plain(401, {"WWW-Authenticate": 'Basic realm="git"'})
            elif server.old and b"deepen " in body:
                kind = {"Content-Type": "application/x-git-upload-pack-result"}
                self.plain(200, kind, b"001fERR this cannot be left out")
            else:
                self.backend(body)

        def plain(
            self, status: int, headers: dict[str, str] | None = None, content: bytes = b""
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def backend(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            environ = {
                "GIT_PROJECT_ROOT": str(server.root), "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                "CONTENT_LENGTH": str(len(body)),
                "GIT_PROTOCOL": "" if server.old else self.headers.get("Git-Protocol") or "",
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*", "PATH": os.environ["PATH"],
            }  # fmt: skip
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environ, capture_output=True
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            said = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            self.send_response(int(said.pop("Status", "200").split()[0]))
            for name, value in {**said, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """What was asked is in `asked`."""

    return Handler


def _basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@contextmanager
def git_server(root: Path, host: str = "127.0.0.1") -> Iterator[GitServer]:
    """A server of repositories, on a free port."""
    if shutil.which("git") is None:
        pytest.skip("there is no git to serve repositories with")
    root.mkdir(parents=True, exist_ok=True)
    server = GitServer(root, host=host)
    with Quiet((host, 0), _handler(server)) as web:
        server.port = web.server_address[1]
        thread = threading.Thread(target=web.serve_forever, args=[0.05], daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            web.shutdown()
