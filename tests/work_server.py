"""A service as workers see it: ``work/v1/``, with objects in a folder, and trouble on demand."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from blake3 import blake3

from kaos_hub.bundles import walk
from kaos_hub.errors import KaosError
from kaos_hub.schemas import IngestEnd, IngestOrder, IngestPart

CUT = -1
"""As the status of an answer: the connection is cut instead."""

Answer = tuple[int, Any] | Any
"""JSON; or a status and JSON."""


class WorkServer:
    """What the service has, was told and was asked.

    Args:
        folder: where to keep objects.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ticket = "a-ticket"
        self.order: IngestOrder | None = None
        self.ended: list[IngestEnd] = []
        self.parts: list[IngestPart] = []
        self.asked: list[str] = []
        """Method and path, without ``work/v1/`` and query."""
        self.received = 0
        """Objects that came, those that were there already, too."""
        self.trouble: Callable[[str, int], Answer | None] = lambda path, number: None
        """Given the path and how often it was asked, what is answered instead."""
        self.routes: dict[str, Callable[[dict[str, str], bytes], Answer]] = {}
        """Further POSTs: path → what becomes of query and body."""
        self.url = ""

    def path(self, digest: str) -> Path:
        """Where an object lies."""
        return self.folder / digest.removeprefix("blake3:")

    def read(self, digest: str) -> Path:
        """The same, as readers of trees want it."""
        return self.path(digest)

    def put(self, content: bytes) -> str:
        """Let the owner hold something; its digest."""
        digest = f"blake3:{blake3(content).hexdigest()}"
        self.path(digest).write_bytes(content)
        return digest

    def tree(self, root: str) -> dict[str, bytes]:
        """The files of a tree, all of whose objects must be there: path → content."""
        items = walk.load(root, self.read).items
        return {
            i.path: self.path(i.entry.digest).read_bytes()
            for i in items
            if i.entry.kind != "directory"
        }

    def times(self, path: str) -> int:
        """How often something was asked."""
        return sum(one.split()[1].partition("/")[0] == path for one in self.asked)

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        """The JSON for a request whose body is JSON."""
        if path in self.routes:
            return self.routes[path](query, body)
        if path == "missing":
            wanted: Mapping[str, int] = json.loads(body)["objects"]
            return {"missing": [d for d in wanted if not self.path(d).exists()]}
        if path == "order" and self.order:
            return self.order.model_dump(mode="json")
        if path == "ingested":
            self.ended.append(IngestEnd.model_validate_json(body))
            return {}
        if path == "fetched":
            self.parts.append(IngestPart.model_validate_json(body))
            return {}
        return 404, {"code": "not_found", "message": "There is nothing here."}

    def take(self, body: Any, size: int) -> Answer:
        """Take objects as they come; what is complete when the stream breaks is kept."""
        while size:
            head = body.readline(200)
            digest, _, length = head.decode().strip().partition(" ")
            left = int(length)
            size -= len(head) + left
            seen, partial = blake3(), self.folder / f".{digest}.{threading.get_ident()}"
            with partial.open("wb") as file:
                while left:
                    piece = body.read(min(left, 1 << 16))
                    if not piece:
                        return CUT, None
                    left -= len(piece)
                    seen.update(piece)
                    file.write(piece)
            if seen.hexdigest() != digest:
                return 400, KaosError("not what its digest says").body()
            partial.rename(self.folder / digest)
            self.received += 1
        return {"received": 1}


def _handler(work: WorkServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/services/kaos/work/v1/")
            work.asked.append(f"{self.command} {path}")
            size = int(self.headers.get("Content-Length") or 0)
            twisted = work.trouble(path, work.times(path.partition("/")[0]))
            if twisted is not None:
                self.close_connection = True
                self.say(twisted)
            elif self.headers["Authorization"] != f"Bearer {work.ticket}":
                self.rfile.read(size)
                self.say((404, {"code": "not_found", "message": "no such ticket"}))
            elif path == "objects":
                self.say(work.take(self.rfile, size))
            elif path.startswith("object/"):
                self.send(200, work.path(path.removeprefix("object/")).read_bytes())
            else:
                query = {name: v[0] for name, v in parse_qs(parts.query).items()}
                self.say(work.answer(path, query, self.rfile.read(size)))

        do_POST = do_GET

        def say(self, answer: Answer) -> None:
            status, said = answer if isinstance(answer, tuple) else (200, answer)
            if status == CUT:
                self.close_connection = True
            else:
                self.send(status, said if isinstance(said, bytes) else json.dumps(said).encode())

        def send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def log_error(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def work_server(folder: Path) -> Iterator[WorkServer]:
    """A service that runs."""
    work = WorkServer(folder)
    with _serving(_handler(work)) as port:
        work.url = f"http://127.0.0.1:{port}/services/kaos/"
        yield work


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that go away; takes many at once."""

    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
