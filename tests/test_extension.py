"""The start of a notebook and its server extension: real Jupyter servers, and a real browser."""

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import pytest_asyncio
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClientConnection, websocket_connect

from kaos_hub.schemas import Activity
from kaos_hub.workload.notebook.hook import NAME, NOTICE, Hook
from kaos_hub.workload.notebook.idle_watch import is_use

TOKEN = "the-servers-own-token"
CHROMIUM = "/usr/bin/chromium"


def digest(number: int) -> str:
    return f"blake3:{number:064x}"


@dataclass
class SmallKaosService:
    """A tiny real HTTP service that stands for the kaos service: it keeps what is reported."""

    url: str = ""
    reports: list[Activity] = field(default_factory=list)
    source: str | None = None
    tree: dict[str, str] = field(default_factory=dict)
    broken: bool = False
    """Answers every request with an error."""
    stop: str = ""
    """Why the server may end."""
    slow: float = 0.0
    """Seconds that an answer to a report takes."""
    streams: set["_EventsHandler"] = field(default_factory=set)
    refused: int = 0
    """Requests without the server's token."""

    def follow(self, number: int, **files: str) -> None:
        """From now on the notebook is to follow another source; say so to those who listen."""
        self.source = digest(number)
        self.tree = {name.replace("_", "."): text for name, text in files.items()}
        for stream in list(self.streams):
            stream.send()

    async def report(self, wanted: Callable[[Activity], bool], within: float = 15) -> Activity:
        """Wait for a report, of those yet to come, that is as wanted."""
        seen = len(self.reports)
        end = time.monotonic() + within
        while time.monotonic() < end:
            for report in self.reports[seen:]:
                if wanted(report):
                    return report
            seen = len(self.reports)
            await asyncio.sleep(0.05)
        raise AssertionError(f"no such report within {within} s; the last is {self.reports[-1:]}")


class _Handler(RequestHandler):
    service: SmallKaosService

    def initialize(self, service: SmallKaosService) -> None:
        self.service = service

    def prepare(self) -> None:
        if self.request.headers.get("Authorization") != f"token {TOKEN}":
            self.service.refused += 1
            self.send_error(401)
        elif self.service.broken:
            self.send_error(503)


class _ActivityHandler(_Handler):
    async def post(self) -> None:
        self.service.reports.append(Activity.model_validate_json(self.request.body))
        await asyncio.sleep(self.service.slow)
        self.finish(
            {
                "stop": self.service.stop,
                "verdict": {"idle": False, "reason": f"report {len(self.service.reports)}"},
                "source": self.service.source,
            }
        )


class _EventsHandler(_Handler):
    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.service.streams.add(self)
        try:
            while True:
                self.write(": still here\n\n")
                await self.flush()
                await asyncio.sleep(1)
        except StreamClosedError:
            self.service.streams.discard(self)

    def send(self) -> None:
        self.write('id: 1\nevent: notebook\ndata: {"id": 1}\n\n')
        self.flush()


class _SourceHandler(_Handler):
    def get(self) -> None:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for name, text in self.service.tree.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        self.finish(body.getvalue())


@pytest_asyncio.fixture
async def service() -> AsyncIterator[SmallKaosService]:
    found = SmallKaosService()
    given = {"service": found}
    base = "/services/kaos/api/v1/notebooks/nb"
    app = Application(
        [
            (f"{base}/activity", _ActivityHandler, given),
            (f"{base}/events", _EventsHandler, given),
            (f"{base}/source", _SourceHandler, given),
        ]
    )
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app)
    server.add_sockets([socket])
    found.url = f"http://127.0.0.1:{socket.getsockname()[1]}/services/kaos"
    yield found
    server.stop()
    await server.close_all_connections()


@dataclass
class JupyterServer:
    """A real Jupyter server with the extension, but without a Hub."""

    home: Path
    url: str
    process: "subprocess.Popen[bytes]"

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "token secret", "Content-Type": "application/json"}
        request = Request(self.url + path, data, headers, method=method)
        with urlopen(request, timeout=10) as answer:
            content = answer.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else content

    async def asked(self, path: str, method: str = "GET", body: object = None) -> Any:
        return await asyncio.to_thread(self.ask, path, method, body)

    async def connect(self, path: str) -> WebSocketClientConnection:
        return await websocket_connect(f"ws{self.url[4:]}{path}?token=secret")

    def log(self) -> str:
        return (self.home / "server.log").read_text()


def free_port() -> int:
    (socket,) = bind_sockets(0, "127.0.0.1")
    with closing(socket):
        return int(socket.getsockname()[1])


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
            return
        except HTTPError:
            return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def jupyter_environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {
        "HOME": str(home),
        "KAOS_HOME": str(home),
        "KAOS_NOTEBOOK": "nb",
        "KAOS_ACTIVITY_INTERVAL": "1",
        "JUPYTERHUB_API_TOKEN": TOKEN,
        **more,
    }


def start_server(home: Path, service_url: str, **more: str) -> JupyterServer:
    home.mkdir(exist_ok=True)
    (home / "work").mkdir(exist_ok=True)
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--ServerApp.base_url=/user/ada/",
        "--IdentityProvider.token=secret", f"--ServerApp.root_dir={home}",
        "--ServerApp.jpserver_extensions=kaos_hub.workload=True", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=jupyter_environment(home, KAOS_URL=service_url, **more),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
        )
    url = f"http://127.0.0.1:{port}/user/ada"
    wait_until_it_answers(f"{url}/api", process)
    return JupyterServer(home, url, process)


@pytest_asyncio.fixture
async def server(service: SmallKaosService, tmp_path: Path) -> AsyncIterator[JupyterServer]:
    found = await asyncio.to_thread(start_server, tmp_path / "home", service.url)
    yield found
    found.process.terminate()
    await asyncio.to_thread(found.process.wait, 20)


# --- what counts as use -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_line",
    [
        "GET lab", "GET lab/tree/work/a.ipynb", "GET doc/tree/a.ipynb", "GET tree",
        "PUT api/contents/a.ipynb", "POST api/contents/a/checkpoints", "PATCH api/contents/a",
        "DELETE api/contents/a", "POST api/kernels", "POST api/kernels/1/interrupt",
        "DELETE api/kernels/1", "POST api/sessions", "POST api/terminals", "GET nbconvert/html/a",
    ],
)  # fmt: skip
def test_what_is_use(request_line: str) -> None:
    method, path = request_line.split()
    assert is_use(method, path, 200, {})
    assert not is_use(method, path, 403, {})


@pytest.mark.parametrize(
    "request_line",
    [
        "GET api/kernels", "GET api/sessions", "GET api/terminals", "GET api/contents/work",
        "GET api/me", "GET api/status", "GET api", "GET lab/api/settings",
        "PUT lab/api/workspaces/a",
        "GET lab/extensions/x.js", "GET static/lab/main.js", "GET api/kernels/1/channels",
        "GET kaos/status", "GET metrics", "POST api/events", "GET labs", "GET api/kernelspecs",
    ],
)  # fmt: skip
def test_what_is_no_use(request_line: str) -> None:
    method, path = request_line.split()
    assert not is_use(method, path, 200, {})


def test_a_picture_within_a_page_is_no_use() -> None:
    assert is_use("GET", "files/a.png", 200, {"Sec-Fetch-Dest": "document"})
    assert not is_use("GET", "files/a.png", 200, {"Sec-Fetch-Dest": "image"})
    assert not is_use("GET", "lab", 302, {})


# --- reports ------------------------------------------------------------------------------------


async def test_reports_kernels_terminals_and_use(
    service: SmallKaosService, server: JupyterServer
) -> None:
    first = await service.report(lambda r: True)
    assert (first.kernels, first.terminals, first.source) == ([], [], None)

    await server.asked("/api/kernels")
    await server.asked("/api/contents/work")
    later = await service.report(lambda r: True)
    assert later.last_use == first.last_use

    before = datetime.now(UTC)
    await server.asked("/api/terminals", "POST", {})
    kernel = await server.asked("/api/kernels", "POST", {"name": "python3"})
    report = await service.report(lambda r: bool(r.kernels and r.terminals))
    assert report.last_use > before
    await silent_busy_kernel_is_use(service, server, kernel["id"])
    assert service.refused == 0


async def silent_busy_kernel_is_use(
    service: SmallKaosService, server: JupyterServer, kernel: str
) -> None:
    channel = await server.connect(f"/api/kernels/{kernel}/channels")
    await service.report(lambda r: r.kernels[0].connections == 1)
    await channel.write_message(execute("import time; time.sleep(4)"))
    first = await service.report(lambda r: r.kernels[0].execution_state == "busy")
    second = await service.report(lambda r: r.kernels[0].execution_state == "busy")
    assert second.last_use > first.last_use
    done = await service.report(lambda r: r.kernels[0].execution_state == "idle")
    channel.close()
    again = await server.connect(f"/api/kernels/{kernel}/channels")
    gone = await service.report(lambda r: r.kernels[0].connections == 1)
    again.close()
    assert gone.last_use == max(done.last_use, done.kernels[0].last_activity)


def execute(code: str) -> str:
    """A request to run code, as a browser sends it."""
    header = {
        "msg_id": "1", "username": "", "session": "s", "msg_type": "execute_request",
        "version": "5.3", "date": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    content = {
        "code": code, "silent": False, "store_history": True, "user_expressions": {},
        "allow_stdin": False, "stop_on_error": True,
    }  # fmt: skip
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    return json.dumps(message | {"channel": "shell", "buffers": []})


async def test_a_cell_is_reported_at_once_also_right_after_a_report(
    service: SmallKaosService, tmp_path: Path
) -> None:
    """Its websocket was open before. Nothing else is asked for meanwhile."""
    more = {"KAOS_ACTIVITY_INTERVAL": "30"}
    server = await asyncio.to_thread(start_server, tmp_path / "home", service.url, **more)
    kernel = await server.asked("/api/kernels", "POST", {"name": "python3"})
    channel = await server.connect(f"/api/kernels/{kernel['id']}/channels")
    await service.report(lambda r: bool(r.kernels))
    await channel.write_message(execute("import time; time.sleep(20)"))
    await service.report(lambda r: r.kernels[0].execution_state == "busy", within=8)
    server.process.terminate()
    await asyncio.to_thread(server.process.wait, 20)


async def test_it_ends_itself_unless_it_was_used_since_it_reported(
    service: SmallKaosService, server: JupyterServer
) -> None:
    kernel = await server.asked("/api/kernels", "POST", {"name": "python3"})
    channel = await server.connect(f"/api/kernels/{kernel['id']}/channels")
    await service.report(lambda r: bool(r.kernels) and r.kernels[0].execution_state == "idle")
    service.slow = 2
    quiet = await service.report(lambda r: r.kernels[0].execution_state == "idle")
    await channel.write_message(execute("import time; time.sleep(9)"))
    service.stop = "idle for long"  # said when that report is answered: the cell runs by then
    busy = await service.report(lambda r: r.last_use > quiet.last_use)
    assert busy.kernels[0].execution_state == "busy"
    await service.report(lambda r: r.kernels[0].execution_state == "busy")
    assert server.process.poll() is None
    code = await asyncio.to_thread(server.process.wait, 30)
    assert (code, "this server ends: idle for long" in server.log()) == (0, True)
    last = service.reports[-1]
    assert last.kernels[0].execution_state == "idle"


async def test_typing_into_a_terminal_is_use_and_its_output_is_not(
    service: SmallKaosService, server: JupyterServer
) -> None:
    terminal = await server.asked("/api/terminals", "POST", {})
    socket = await server.connect(f"/terminals/websocket/{terminal['name']}")
    await asyncio.sleep(1)
    # from here on it prints by itself
    await socket.write_message(json.dumps(["stdin", "while sleep 0.5; do date; done\r"]))
    await asyncio.sleep(9)  # the terminal's own clock has steps of 8 s
    quiet = await service.report(lambda r: True)
    prints = await service.report(lambda r: r.terminals[0].last_activity > quiet.last_use)
    assert prints.last_use == quiet.last_use
    typed = datetime.now(UTC)
    await socket.write_message(json.dumps(["stdin", "\x03"]))
    await socket.write_message(json.dumps(["stdin", "echo\r"]))
    report = await service.report(lambda r: r.last_use > quiet.last_use)
    assert abs((report.last_use - typed).total_seconds()) < 9
    socket.close()


async def test_a_service_that_is_away_is_told_once_and_waited_for(
    service: SmallKaosService, server: JupyterServer
) -> None:
    await service.report(lambda r: True)
    status = await server.asked("/kaos/status")
    assert status["verdict"]["reason"].startswith("report ")
    assert (status["source"], status["problem"]) == (None, "")
    with pytest.raises(HTTPError, match="403"):
        await asyncio.to_thread(urlopen, f"{server.url}/kaos/status", None, 10)

    service.broken = True
    while "503" not in (await server.asked("/kaos/status"))["problem"]:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.2)
    await asyncio.sleep(2)  # it has asked once more by then
    service.broken = False
    while "kaos answers again" not in server.log():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    assert server.log().count("kaos does not answer") == 1


# --- a redeploy on a running notebook -----------------------------------------------------------


async def test_redeployed_code_arrives_within_seconds(
    service: SmallKaosService, server: JupyterServer
) -> None:
    work = server.home / "work"
    service.follow(1, a_py="1", b_py="1")
    await service.report(lambda r: r.source == digest(1))
    assert (work / "a.py").read_text() == "1"

    (work / "a.py").write_text("mine")
    begun = time.monotonic()
    service.follow(2, a_py="2", b_py="2")
    await service.report(lambda r: r.source == digest(2))
    assert time.monotonic() - begun < 3
    assert (work / "a.py").read_text() == "mine"
    assert (work / "b.py").read_text() == "2"
    assert [p.read_text() for p in work.glob("a.new-*.py")] == ["2"]
    status = await server.asked("/kaos/status")
    assert any(line.startswith("kept your a.py") for line in status["update"])
    assert "1 of yours kept" in (server.home / ".kaos/updates.log").read_text()
    assert not list((server.home / ".kaos").glob("incoming-*"))


# --- a person in a browser ----------------------------------------------------------------------


EMPTY_NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "source": "", "metadata": {}, "outputs": [],
         "execution_count": None}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip


@pytest.mark.browser
@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed")
async def test_an_open_tab_is_no_use_and_saving_is(
    service: SmallKaosService, server: JupyterServer, tmp_path: Path
) -> None:
    from playwright.async_api import async_playwright

    notebook = server.home / "work/a.ipynb"
    notebook.write_text(json.dumps(EMPTY_NOTEBOOK))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = await browser.new_page()
        opened = datetime.now(UTC)
        await page.goto(f"{server.url}/lab/tree/work/a.ipynb?token=secret")
        await page.wait_for_selector(".jp-Notebook .cm-content", timeout=40_000)
        loaded = await service.report(lambda r: [k.connections for k in r.kernels] == [1])
        assert loaded.last_use > opened
        await asyncio.sleep(3)  # what a page does by itself while it settles
        settled = await service.report(lambda r: True)
        idle_for = float(os.environ.get("KAOS_TEST_IDLE_SECONDS") or 8)
        await asyncio.sleep(idle_for)
        idle = await service.report(lambda r: True)
        assert idle.last_use == settled.last_use >= loaded.last_use

        typed = datetime.now(UTC)
        await page.click(".jp-Notebook .cm-content")
        await page.keyboard.type("typed ")
        await page.keyboard.press("Control+s")
        saved = await service.report(lambda r: r.last_use > idle.last_use)
        assert saved.last_use > typed
        assert "typed" in notebook.read_text()
        await browser.close()


# --- the startup hook -----------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0.1, 10])
def test_a_hook_that_never_ends_is_ended(tmp_path: Path, patience: float) -> None:
    (tmp_path / NAME).write_text("echo begun; sleep 60; touch never\n")
    begun = time.monotonic()
    Hook(tmp_path, os.environ, timeout=1).run(patience)
    took = time.monotonic() - begun
    assert took < (1 if patience < 1 else 5)
    notice = tmp_path / NOTICE
    while not notice.exists():
        assert time.monotonic() - begun < 10
        time.sleep(0.05)
    assert "was ended after 1 s" in notice.read_text()
    assert "begun" in notice.read_text()


def test_a_notice_goes_when_the_hook_succeeds(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("exit 3\n")
    Hook(tmp_path, os.environ, timeout=5).run(5)
    assert "exit code 3" in (tmp_path / NOTICE).read_text()
    (tmp_path / NAME).write_text("true\n")
    Hook(tmp_path, os.environ, timeout=5).run(5)
    assert not (tmp_path / NOTICE).exists()


# --- the start of a notebook --------------------------------------------------------------------


class _HubHandler(RequestHandler):
    """As much of a Hub as a single-user server asks of it."""

    def get(self) -> None:
        self.set_header("X-JupyterHub-Version", "6.1.1")
        self.finish({"version": "6.1.1"})

    def post(self) -> None:
        self.finish({})


@pytest_asyncio.fixture
async def small_hub() -> AsyncIterator[str]:
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([(".*", _HubHandler)]))
    server.add_sockets([socket])
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/hub/api"
    server.stop()
    await server.close_all_connections()


@pytest.fixture
def start(tmp_path: Path, small_hub: str) -> Iterator[Callable[..., JupyterServer]]:
    """Starts notebooks as an engine does."""
    started: list[JupyterServer] = []

    def run(**environment: str) -> JupyterServer:
        home, port = tmp_path / "home", free_port()
        home.mkdir(exist_ok=True)
        env = jupyter_environment(
            home,
            KAOS_URL="http://127.0.0.1:1/services/kaos",
            JUPYTERHUB_CLIENT_ID="service-x",
            JUPYTERHUB_API_URL=small_hub,
            JUPYTERHUB_SERVICE_PREFIX="/user/ada/",
            JUPYTERHUB_SERVICE_URL=f"http://127.0.0.1:{port}/user/ada/",
            JUPYTERHUB_USER="ada",
            **environment,
        )
        with (home / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "kaos_hub.workload.notebook.start"],
                env=env, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        found = JupyterServer(home, f"http://127.0.0.1:{port}/user/ada", process)
        started.append(found)
        wait_until_it_answers(f"{found.url}/api", process)
        return found

    yield run
    for each in started:
        each.process.terminate()
        each.process.wait(20)


async def test_a_notebook_starts_with_its_code_and_hook(
    start: Callable[..., JupyterServer], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text("1")
    (source / "startup-hook.sh").write_text("echo hello from $PWD; touch made; sleep 300 &\n")
    server = await asyncio.to_thread(
        lambda: start(KAOS_SOURCE=str(source), KAOS_SOURCE_DIGEST=digest(1))
    )
    work = server.home / "work"
    assert (work / "a.py").read_text() == "1"
    assert (work / "made").exists()
    log = server.log()
    assert f"startup-hook.sh: hello from {work}" in log
    assert "kaos: working copy: 2 added" in log
    assert "kaos_hub.workload.notebook.extension | extension was successfully loaded" in log
    assert "jupyterlab | extension was successfully loaded" in log
    assert "/lab/tree/work" in log
    assert not (work / "startup-hook.failed.txt").exists()


async def test_a_failing_hook_is_shown_and_the_notebook_starts(
    start: Callable[..., JupyterServer], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "startup-hook.sh").write_text("echo about to fail\nexit 7\n")
    server = await asyncio.to_thread(lambda: start(KAOS_SOURCE=str(source)))
    assert "startup-hook.sh: failed with exit code 7" in server.log()
    notice = (server.home / "work/startup-hook.failed.txt").read_text()
    assert "failed with exit code 7" in notice and "about to fail" in notice


async def test_without_a_source_there_is_an_empty_folder(
    start: Callable[..., JupyterServer],
) -> None:
    server = await asyncio.to_thread(start)
    assert list((server.home / "work").iterdir()) == []
    assert "Traceback" not in server.log()


async def test_a_notebook_starts_even_if_its_working_copy_cannot_be_laid(
    start: Callable[..., JupyterServer], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/work").symlink_to(tmp_path)
    server = await asyncio.to_thread(lambda: start(KAOS_SOURCE=str(source)))
    assert "was left as it is" in server.log()
    assert (server.home / "work").is_symlink()
