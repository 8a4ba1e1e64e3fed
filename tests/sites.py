"""Web sites that hold files, and make trouble as they are told."""

import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.work_server import Quiet


@dataclass
class Page:
    """What a path answers with."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cut: int | None = None
    """Bytes of the body after which the connection is cut."""
    length: bool = True
    """Whether it says how long it is."""
    chunked: bool = False


Reply = Callable[[int], Page]
"""Given how often the path was asked for, the page."""


class Site:
    """A site and what was asked of it."""

    def __init__(self) -> None:
        self.pages: dict[str, Page | Reply] = {}
        self.asked: list[str] = []
        """Paths."""
        self.requests: list[dict[str, str]] = []
        """Headers of each request, and its ``path``."""
        self.port = 0
        self.busiest = 0
        """Requests that were answered at the same time."""
        self.gate = threading.Event()
        """Unset, nothing is answered."""
        self.gate.set()
        self._busy = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, content: bytes, **page: Any) -> str:
        """Publish something; its URL."""
        self.pages[path] = Page(content, **page)
        return self.url + path

    def page(self, handler: BaseHTTPRequestHandler) -> Page:
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            self.asked.append(handler.path)
            self.requests.append({**handler.headers, "path": handler.path})
        self.gate.wait(30)
        found = self.pages.get(handler.path, Page(b"<html>no such page</html>", 404))
        return found if isinstance(found, Page) else found(self.asked.count(handler.path))

    def done(self) -> None:
        with self._lock:
            self._busy -= 1


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            page = site.page(self)
            try:
                self.answer(page)
            finally:
                site.done()

        def answer(self, page: Page) -> None:
            body, status, headers = page.content, page.status, dict(page.headers)
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            valid = self.headers.get("If-Range") in (None, page.headers.get("ETag"))
            if wanted and page.ranges and valid and status == 200:
                status, start = 206, int(wanted[1])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if page.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif page.length:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
                self.send_header("Connection", "close")
            self.end_headers()
            self.send(page, body)

        def send(self, page: Page, body: bytes) -> None:
            if page.chunked:
                for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
                self.wfile.write(b"0\r\n\r\n" if page.cut is None else b"")
                self.close_connection = page.cut is not None
            else:
                self.wfile.write(body[: page.cut])
            if page.cut is not None and page.cut < len(body):
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving(host: str = "127.0.0.1", certificate: Path | None = None) -> Iterator[Site]:
    """A site that is there; with a certificate (and its key in the same file), by https."""
    site = Site()
    server = Quiet((host, 0), _handler(site))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield site
    finally:
        site.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Ftp(socketserver.StreamRequestHandler):
    """So much of FTP as it takes to fetch a file."""

    def handle(self) -> None:
        files: dict[str, bytes] = self.server.files  # type: ignore[attr-defined]
        self.say("220 hello")
        start, data = 0, socket.create_server(("127.0.0.1", 0))
        with data:
            while line := self.rfile.readline().decode().strip():
                verb, _, said = line.partition(" ")
                if verb in ("USER", "TYPE"):
                    self.say("230 fine")
                elif verb == "PASV":
                    port = data.getsockname()[1]
                    # Another machine, where nobody is to go.
                    self.say(f"227 here (10,0,0,1,{port >> 8},{port & 255})")
                elif said not in files and verb in ("SIZE", "RETR"):
                    self.say("550 no such file")
                elif verb == "SIZE":
                    self.say(f"213 {len(files[said])}")
                elif verb == "REST":
                    start = int(said)
                    self.say("350 from there")
                elif verb == "RETR":
                    self.say("150 comes")
                    with data.accept()[0] as out:
                        # The first time it breaks off.
                        out.sendall(files[said][start:] if start else files[said][:1000])
                    self.say("226 done" if start else "426 broken")
                else:
                    self.say("502 what?")

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


@contextmanager
def ftp(files: dict[str, bytes]) -> Iterator[str]:
    """A site that speaks FTP; its URL."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Ftp) as server:
        server.files = files  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"ftp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
