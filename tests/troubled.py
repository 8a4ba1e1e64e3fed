"""HTTP servers that make trouble: the base of those in the tests of the client."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from kaos_hub.transport.http import Transport


class Trouble(BaseHTTPRequestHandler):
    """Remembers what was asked; a subclass answers."""

    asked: ClassVar[list[str]]
    protocol_version = "HTTP/1.1"

    def __init_subclass__(cls) -> None:
        cls.asked = []

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        self.close_connection = len(self.body) < size
        if not self.close_connection:
            self.trouble()

    do_POST = do_GET

    def trouble(self) -> None:
        """Answer, or not."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serving(handler: type[Trouble]) -> Iterator[Transport]:
    """A transport to a server of that kind."""
    handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        transport = Transport(f"http://127.0.0.1:{server.server_port}/services/kaos", "t")
        try:
            yield transport
        finally:
            transport.close()
            server.shutdown()
