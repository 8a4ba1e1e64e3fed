"""The other end of a worker's line: a real server of the protocol, which remembers everything.

What it does is what the service does (leases given once and again, ends counted once, logs by
offset, ends refused whose output is not there); what a test makes go wrong is in :class:`Desk`.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, stream_request_body

from kaos_hub.bundles import tree
from kaos_hub.bundles.walk import load
from kaos_hub.errors import MissingObjects
from kaos_hub.schemas import (
    Beat,
    BeatAnswer,
    Lease,
    LeaseAnswer,
    LeaseRequest,
    LogAnswer,
    MetricPoint,
    MissingAnswer,
    MissingRequest,
    TrialEnd,
    parse_request,
)
from tests.hub import ROOT

EMPTY = tree.EMPTY
TICKET = "a-ticket"
_KEPT_WHOLE = 1 << 20


@dataclass
class Desk:
    """What the service knows, and what goes wrong."""

    waiting: list[Lease] = field(default_factory=list)
    running: Lease | None = None
    ends: dict[int, TrialEnd] = field(default_factory=dict)
    told: int = 0
    """How often an end was told, the same ones too."""
    logs: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    objects: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    points: dict[int, list[MetricPoint]] = field(default_factory=lambda: defaultdict(list))
    beats: list[Beat] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    cancel: bool = False
    dead: bool = False
    """Whether the ticket is worth nothing any more."""
    full: str = ""
    """Why objects are refused."""
    lose_answers: int = 0
    """So many answers to leases get lost on their way."""
    port: int = 0
    _server: HTTPServer | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/kaos/"

    def lease(self, request: LeaseRequest) -> LeaseAnswer:
        if request.ended is not None:
            self.told += 1
            end = request.ended
            if self.running is not None and end.trial == self.running.trial:
                if end.output is not None and end.output.digest not in self.sizes:
                    raise MissingObjects
                if end.output is not None:
                    self.files(end)
                self.ends.setdefault(end.trial, end)
                self.running = None
        if self.running is None and self.waiting:
            self.running = self.waiting.pop(0)
        return LeaseAnswer(lease=self.running)

    def files(self, end: TrialEnd) -> dict[str, bytes | str | None]:
        """What a trial left: path → content of files, target of links, None of folders.

        The content of large files was not kept: their bytes are, as text.
        """
        assert end.output is not None
        found = load(end.output.digest, lambda digest: [self.objects[digest]])
        assert found.objects.keys() <= self.sizes.keys(), "an object was not sent"
        assert (found.size, found.files) == (end.output.size, end.output.files)
        return {
            item.path: item.target
            if item.target is not None
            else self.objects.get(item.entry.digest, str(item.entry.size))
            if item.entry.kind.value != "directory"
            else None
            for item in found.items
        }

    def text(self, trial: int = 1) -> str:
        """A trial's log without the stamps."""
        lines = self.logs[trial].decode().splitlines()
        return "".join(f"{line.partition('Z ')[2]}\n" for line in lines)

    # --- the server, which can go and come back ---

    def call(self, do: Callable[[], Any]) -> None:
        done = threading.Event()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: (do(), done.set()))
        assert done.wait(10)

    def listen(self) -> None:
        def start() -> None:
            sockets = bind_sockets(self.port, "127.0.0.1")
            self.port = sockets[0].getsockname()[1]
            self._server = HTTPServer(_application(self), max_body_size=1 << 40)
            self._server.add_sockets(sockets)

        self.call(start)

    def go(self) -> None:
        """Break off all connections, and answer no more."""

        def stop() -> None:
            assert self._server is not None
            self._server.stop()
            for connection in list(self._server._connections):
                connection.stream.close()

        self.call(stop)


def _application(desk: Desk) -> Application:
    names = {"lease": _Lease, "beat": _Beat, "log": _Log, "missing": _Missing, "objects": _Objects}
    rules = [
        (f"/services/kaos/work/v1/{name}", kind, {"desk": desk}) for name, kind in names.items()
    ]
    return Application(rules, log_function=lambda _: None)


class _Handler(RequestHandler):
    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    async def prepare(self) -> None:
        self.desk.requests.append(self.request.path.rpartition("/")[2])
        if self.desk.dead or self.request.headers.get("Authorization") != f"Bearer {TICKET}":
            self.refuse(404, "not_found", "There is nothing.")

    def refuse(self, status: int, code: str, message: str) -> None:
        self.set_status(status)
        self.finish({"code": code, "message": message, "details": {}})

    def said(self, model: Any) -> Any:
        return parse_request(model, json.loads(self.request.body))

    def answer(self, model: Any) -> None:
        self.finish(model.model_dump_json())


class _Lease(_Handler):
    def post(self) -> None:
        try:
            answer = self.desk.lease(self.said(LeaseRequest))
        except MissingObjects as e:
            self.refuse(e.status, e.code, e.message)
            return
        if self.desk.lose_answers:
            self.desk.lose_answers -= 1
            self.request.connection.stream.close()
            return
        self.answer(answer)


class _Beat(_Handler):
    def post(self) -> None:
        beat = self.said(Beat)
        self.desk.beats.append(beat)
        self.desk.points[beat.trial] += beat.points
        self.answer(BeatAnswer(cancel=self.desk.cancel))


class _Log(_Handler):
    def post(self) -> None:
        log = self.desk.logs[int(self.get_query_argument("trial"))]
        offset = int(self.get_query_argument("offset"))
        if offset <= len(log):
            log += self.request.body[len(log) - offset :]
        self.answer(LogAnswer(size=len(log)))


class _Missing(_Handler):
    def post(self) -> None:
        asked = self.said(MissingRequest).objects
        self.answer(MissingAnswer(missing=[d for d in asked if d not in self.desk.sizes]))


@stream_request_body
class _Objects(_Handler):
    async def prepare(self) -> None:
        await super().prepare()
        self.rest, self.left, self.hash, self.content = b"", -1, blake3(), bytearray()
        if self.desk.full:
            self.refuse(507 if "disk" in self.desk.full else 403, "limit_exceeded", self.desk.full)

    def data_received(self, data: bytes) -> None:
        while data or self.left == 0:
            if self.left < 0:
                head, newline, data = (self.rest + data).partition(b"\n")
                self.rest = b"" if newline else head
                if not newline:
                    return
                digest, size = head.decode().split(" ")
                self.digest, self.size, self.left = f"blake3:{digest}", int(size), int(size)
            piece, data = data[: self.left], data[self.left :]
            self.hash.update(piece)
            self.left -= len(piece)
            if self.size <= _KEPT_WHOLE:
                self.content += piece
            if self.left == 0:
                assert f"blake3:{self.hash.hexdigest()}" == self.digest
                self.desk.sizes[self.digest] = self.size
                if self.size <= _KEPT_WHOLE:
                    self.desk.objects[self.digest] = bytes(self.content)
                self.left, self.hash, self.content = -1, blake3(), bytearray()

    def post(self) -> None:
        assert self.left < 0
        self.finish({"received": 1})


@contextmanager
def open_desk() -> Iterator[Desk]:
    """A desk that answers."""
    desk, ready = Desk(), threading.Event()

    async def serve() -> None:
        desk._loop, stop = asyncio.get_running_loop(), asyncio.Event()
        desk.close = stop.set  # type: ignore[attr-defined]
        ready.set()
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    desk.listen()
    try:
        yield desk
    finally:
        desk.go()
        desk.call(desk.close)  # type: ignore[attr-defined]
        thread.join(10)


@dataclass
class Worker:
    """The program, with a root of its own."""

    root: Path
    desk: Desk
    environment: dict[str, str | None] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None

    @property
    def code(self) -> Path:
        """The folder whose content is the trial's code."""
        folder = self.root / "kaos/source/model"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def train(self, text: str | bytes, mode: int = 0o755) -> None:
        """Let this be the trial's program."""
        file = self.code / "train"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)

    def start(self) -> "subprocess.Popen[str]":
        ticket = self.root / "kaos/ticket"
        ticket.parent.mkdir(parents=True, exist_ok=True)
        ticket.write_text(TICKET)
        environment = {
            "PATH": os.environ["PATH"],
            "KAOS_WORK_URL": self.desk.url,
            "KAOS_ROOT": str(self.root),
            "KAOS_DATA": "/kaos/data",
            "KAOS_CONTEXT": "model",
            "KAOS_TRAINING": "0123456789abcdef",
            **self.environment,
        }
        given = {name: value for name, value in environment.items() if value is not None}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kaos_hub.workload.trial.trials"],
            cwd=ROOT, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self.process

    def finish(self, code: int = 0, timeout: float = 60) -> str:
        """Wait for its end. Returns what it printed."""
        assert self.process is not None
        said, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == code, said
        assert "Traceback" not in said
        return said

    def end(self) -> None:
        """End it, if it still runs; not by a kill, so that it ends what it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=60)

    def run(self, *params: dict[str, Any] | None, deadline: int = 60) -> TrialEnd:
        """Run trials with these parameters (one without any). Returns the end of the first."""
        for number, each in enumerate(params or (None,), start=1):
            lease = Lease(trial=number, attempt=1, params=each, deadline=deadline)
            self.desk.waiting.append(lease)
        self.start()
        self.finish()
        return self.desk.ends[1]


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A service."""
    with open_desk() as opened:
        yield opened


@pytest.fixture
def worker(desk: Desk, tmp_path: Path) -> Iterator[Worker]:
    """A worker that is not started yet."""
    made = Worker(tmp_path / "root", desk)
    yield made
    made.end()


def ours(mark: str) -> list[str]:
    """Command lines of living processes with this in them."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Wait for something to be so."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
