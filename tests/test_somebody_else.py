"""Where a name leads to an address of yesterday, somebody else answers: that is no answer."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kaos_hub.errors import HubUnavailable, NotFound, Unavailable
from kaos_hub.hub.spawners.admission import Admission
from kaos_hub.schemas import ReleaseRequest
from kaos_hub.service.hub_client import Hub

GONE = ReleaseRequest(user="ada", server="one", workload="w", stopped_by_hub=False)


class SomebodyElse(ThreadingHTTPServer):
    """Knows nothing of what it is asked, and says so without a word.

    After ``asked`` times it is who was meant, and says so with ``words``.
    """

    def __init__(self) -> None:
        self.words, self.asked = b"", 0
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server: Any = self.server
        server.asked -= 1
        words = server.words if server.asked < 0 else b""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(404)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing to stderr."""


@pytest.fixture
def other() -> Iterator[SomebodyElse]:
    server = SomebodyElse()
    yield server
    server.shutdown()
    server.server_close()


async def test_a_notebook_is_not_gone_because_somebody_else_does_not_know_it(
    other: SomebodyElse,
) -> None:
    hub = Hub(other.url, "token")
    try:
        for question in (hub.server("ada", "one"), hub.owners(["ada"]), hub.active()):
            with pytest.raises(HubUnavailable, match="is not the Hub"):
                await question
        other.words = b'{"status": 404, "message": "Not Found"}'
        assert await hub.server("ada", "one") is None
    finally:
        await hub.close()


async def test_spawners_ask_again_until_it_is_the_service(other: SomebodyElse) -> None:
    admission = Admission(other.url, "secret", patience=20)
    other.asked = 2
    other.words = b'{"code": "not_found", "message": "There is none.", "details": {}}'
    with pytest.raises(NotFound, match="There is none"):
        await admission.release(GONE)
    assert other.asked == -1


async def test_it_does_not_ask_for_ever(other: SomebodyElse) -> None:
    admission = Admission(other.url, "secret", patience=0.3)
    with pytest.raises(Unavailable, match="HTTP 404 of somebody else"):
        await admission.release(GONE)
