"""HTTP as it goes wrong: each server here is named after the trouble it makes."""

import json
from typing import Any, ClassVar

import pytest

from kaos_hub.errors import (
    KaosError,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    RestartRequired,
    Unavailable,
)
from kaos_hub.schemas import Whoami
from kaos_hub.transport.events import ServerEvent, parse_events
from kaos_hub.transport.http import Transport, parse
from tests.troubled import Trouble, serving


class ServiceThatRefuses(Trouble):
    """Answers with the error body in the query."""

    bodies: ClassVar[dict[str, tuple[int, dict[str, Any]]]] = {
        "limit": (403, {"code": "limit_exceeded", "message": "2 of 2", "details": {"held": 2}}),
        "restart": (409, {"code": "restart_required", "message": "new environment"}),
        "newer": (404, {"code": "of_a_newer_service", "message": "gone"}),
        "odd": (418, {"code": "teapot", "message": "short and stout"}),
    }

    def trouble(self) -> None:
        status, body = self.bodies[self.path.rpartition("/")[2]]
        self.answer(status, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("what", "cls"),
    [
        ("limit", LimitExceeded),
        ("restart", RestartRequired),
        ("newer", NotFound),
        ("odd", KaosError),
    ],
)
def test_errors_come_back_as_their_classes(what: str, cls: type[KaosError]) -> None:
    """Message and details too; unknown codes become the nearest class."""
    with serving(ServiceThatRefuses) as transport, pytest.raises(KaosError) as error:
        transport.json("POST", f"/api/v1/{what}", {})
    assert type(error.value) is cls
    assert error.value.message == ServiceThatRefuses.bodies[what][1]["message"]
    assert error.value.details == ServiceThatRefuses.bodies[what][1].get("details", {})


class HubWithoutKaos(Trouble):
    """Says things in HTML that are not the service's."""

    def trouble(self) -> None:
        status = int(self.path.rpartition("/")[2])
        self.answer(status, b"<html>", Location="http://127.0.0.1:1/hub/login")


@pytest.mark.parametrize(
    ("status", "cls", "text"),
    [
        (503, Unavailable, "the Hub answers, but its kaos service"),
        (302, NotAuthenticated, "kaos login"),
        (404, NotFound, "is that the right Hub"),
        (200, Unavailable, "not of kaos"),
    ],
)
def test_answers_of_others_are_told_apart(status: int, cls: type[KaosError], text: str) -> None:
    """A proxy's 503, a redirect to a login page (not followed with our token), a page."""
    with serving(HubWithoutKaos) as transport, pytest.raises(cls, match=text):
        transport.json("POST", f"/{status}", {})
    assert len(HubWithoutKaos.asked) == 1


class ServiceThatHangsUp(Trouble):
    """Closes the connection twice before it answers."""

    def trouble(self) -> None:
        if len(self.asked) < 3:
            self.close_connection = True
            return
        self.answer(200, b"[]")


def test_only_what_is_harmless_to_repeat_is_repeated() -> None:
    """A GET survives a broken connection; a POST may have been done, so it is not sent again."""
    with serving(ServiceThatHangsUp) as transport:
        assert transport.json("GET", "/x") == []
    with serving(ServiceThatHangsUp) as transport, pytest.raises(Unavailable, match="no answer"):
        transport.json("POST", "/x", {})
    assert len(ServiceThatHangsUp.asked) == 1


def test_nobody_there() -> None:
    """The URL and what to do are in the message."""
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1.*kaos up"):
        Transport("http://127.0.0.1:1", None).json("POST", "/x", {})


class ServiceThatRestarts(Trouble):
    """Breaks its event stream off in the middle of an event, then goes on where asked to."""

    def trouble(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        after = int(self.headers.get("Last-Event-ID") or 0)
        for number in range(after + 1, after + 3):
            self.chunk(f"id: {number}\nevent: log\ndata: line {number}\ndata: more\n\n")
        if after < 2:
            self.chunk("id: 3\nevent: log\ndata: half a li")
            self.close_connection = True
            return
        self.chunk(": keep-alive\n\nevent: end\ndata:\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def test_a_broken_stream_is_resumed() -> None:
    """Each event comes once, half an event never, and the stream ends with its end event."""
    with serving(ServiceThatRestarts) as transport:
        events = [e for e in transport.events("/log") if e.event == "log"]
    assert [(e.id, e.data) for e in events] == [(str(n), f"line {n}\nmore") for n in (1, 2, 3, 4)]
    assert len(ServiceThatRestarts.asked) == 2


def test_event_streams_are_parsed_as_the_standard_says() -> None:
    """Comments, fields without a space, several data lines, ids that stay."""
    lines = [": hello", "id:7", "event:log", "data:a", "data:  b", "", "data: c", ""]
    comment, first, second = parse_events(lines)
    assert comment.event == "comment"
    assert first == ServerEvent("7", "log", "a\n b")
    assert second == ServerEvent("7", "message", "c")


def test_an_answer_of_another_version_is_no_traceback() -> None:
    """The error names the field; unknown fields are ignored."""
    good = {"user": "ada", "owner": "user:ada", "limits": {}, "usage": {}, "of_next_year": 1}
    assert parse(Whoami, good).user == "ada"
    with pytest.raises(Unavailable, match="owner"):
        parse(Whoami, {**good, "owner": "nobody"})
