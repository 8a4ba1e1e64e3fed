"""Bodies of all kinds hurt nobody but their sender (causes 7, 8, 11 and 15 of the review)."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.routes import Route
from kaos_hub.service.api.table import all_routes, training_routes
from tests.attacks.victims import Victim
from tests.hub import RunningHub, request, wait_until


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> str:
    return hub.token("bob")


@pytest.fixture(scope="module")
def mallory(hub: RunningHub) -> str:
    return hub.token("mallory")


def connect(url: str) -> socket.socket:
    """A connection to where a URL leads."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def send(url: str, method: str, body: bytes = b"", **headers: str) -> bytes:
    """One request of any method, as it is; the head of the answer."""
    head = [f"{method} {urlsplit(url).path} HTTP/1.1", "Host: x", "Connection: close"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with connect(url) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


# --- cause 7: an answer before the body was looked for ---

_STRANGE = ["TRACE", "QUERY", "PROPFIND", "PUT", "DELETE", "POST", "HEAD", "OPTIONS", "GET", "X"]
_ADDRESSES = ["api/v1/notebooks", "bundles/upload", "api/v1/objects", "work/v1/lease", ""]


def closes_properly(answer: bytes) -> bool:
    """Whether a connection that ends after the answer is said to."""
    return b"\r\nconnection: close\r\n" in answer.partition(b"\r\n\r\n")[0].lower() + b"\r\n"


@pytest.mark.parametrize("address", _ADDRESSES)
@pytest.mark.parametrize("method", _STRANGE)
def test_what_ends_with_an_answer_says_so(hub: RunningHub, method: str, address: str) -> None:
    """Attack of cause 7, at the service itself: a proxy must not use such a connection again."""
    ports = urlsplit(service_of(hub))
    url = f"http://{ports.hostname}:{ports.port}/services/kaos/{address}"
    with connect(url) as connection:
        head = f"{method} {urlsplit(url).path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        connection.sendall(head)
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 ")
        if closes_properly(answer):
            return
        # It says nothing of an end, so the next request is answered, too.
        connection.settimeout(20)
        if method != "HEAD":
            answer = answer.partition(b"\r\n\r\n")[0].lower()
            assert b"content-length" in answer or b"304" in answer or b"chunked" in answer
        connection.sendall(head.replace(method.encode(), b"GET", 1))
        assert connection.recv(1 << 16)


def service_of(hub: RunningHub) -> str:
    """The service's own address, behind the proxy."""
    ports = json.loads((hub.data / "ports.json").read_text())
    return f"http://127.0.0.1:{ports['service']}"


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("TRACE", "api/v1/notebooks"),
        ("QUERY", "api/v1/notebooks"),
        ("PROPFIND", "api/v1/info"),
        ("GET", "bundles/upload"),
        ("PUT", "bundles/upload"),
        ("PUT", "api/v1/notebooks"),
    ],
)
def test_strangers_make_nobody_elses_request_fail(
    hub: RunningHub, bob: str, method: str, address: str
) -> None:
    """Attack of cause 7: 18 of 100 requests of the victim were answered 503."""
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            send(f"{hub.kaos}/{address}", method)

    attackers = [threading.Thread(target=attack) for _ in range(2)]
    with Victim(hub, bob) as victim:
        for attacker in attackers:
            attacker.start()
        wait_until(lambda: len(victim.times) > 60, 120, "sixty answers")
        over.set()
        for attacker in attackers:
            attacker.join()
    victim.check(20)


# --- cause 15: JSON of every kind ---

KINDS = {
    "null": b"null",
    "true": b"true",
    "number": b"17",
    "huge number": b"9" * 5000,
    "text": b'"text"',
    "list": b"[]",
    "list of lists": b"[" * 50_000 + b"]" * 50_000,
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "not a number": b'{"limit": NaN, "cpu": Infinity}',
    "too large": b'{"cpu": 1e999}',
    "twice": b'{"name": "a", "name": "b"}',
    "half a character": b'{"name": "\\ud800"}',
    "the other half": b'{"kind": "source", "name": "a\\udc00b"}',
    "nul": b'{"name": "a\\u0000b"}',
    "nul as a name": b'{"a\\u0000": 1}',
    "no unicode": b'{"name": "\xff\xfe"}',
    "another encoding": '{"name": "a"}'.encode("utf-16"),
    "cut off": b'{"name": ',
    "nothing but a brace": b"{",
    "many unknown": json.dumps({f"field{n}": n for n in range(60_000)}).encode(),
    "null everywhere": b'{"name": null, "kind": null, "root": null, "objects": null}',
    "lists everywhere": b'{"name": [], "kind": [], "root": [], "objects": []}',
    "numbers everywhere": b'{"name": 1, "kind": 1e30, "root": -1, "objects": 0}',
}


def _writing() -> Iterator[Any]:
    """Every route of both tables that takes a body."""
    tables = {"kaos": all_routes, "kaos-train": training_routes}
    for service, table in tables.items():
        for route in table(Logins(), f"/services/{service}/api/v1"):
            if route.method in ("POST", "PUT", "PATCH"):
                yield pytest.param(service, route, id=f"{service} {route.method} {route.path}")


def filled(route: Route) -> str:
    """The route's path, with something in it that could be there."""
    path = route.path
    for name in route.parameters:
        known = {"kind": "source", "version": "1", "id": "a" * 12, "number": "1"}
        path = path.replace("{" + name + "}", known.get(name, "a"))
    return path


@pytest.mark.parametrize(("service", "route"), list(_writing()))
def test_json_of_every_kind_is_refused(
    hub: RunningHub, mallory: str, service: str, route: Route
) -> None:
    """Attack of cause 15: ``null`` was an inner error of 14 routes."""
    url = f"{hub.url}/services/{service}/api/v1{filled(route)}"
    for kind, body in KINDS.items():
        began = time.monotonic()
        answer = request(route.method, url, mallory, body, timeout=60)
        # Without a body of its own a route may do what it does, whatever else was sent.
        allowed = 400 <= answer.status < 500 if route.body or route.reader else answer.status < 500
        assert allowed and answer.status != 429, (kind, answer.status, answer.text[:300])
        assert len(answer.body) < 20_000, kind
        assert time.monotonic() - began < 3, kind


@pytest.mark.parametrize(
    "path",
    ["/notebooks/%00", "/notebooks/a%00b", "/bundles/source/a%00/1", "/bundles?name=%00",
     "/bundle-names?search=a%00b", "/notebooks/%ff", "/bundles/data/%ed%a0%80/1",
     "/bundles?name=%ff"],
)  # fmt: skip
def test_odd_characters_in_addresses_are_refused(hub: RunningHub, mallory: str, path: str) -> None:
    """Attack of cause 17: NUL, which PostgreSQL does not take, and what is no text at all. In
    queries the web server leaves NUL out.
    """
    status = request("GET", f"{service_of(hub)}/services/kaos/api/v1{path}", mallory).status
    assert status in ((200,) if "?" in path and "00" in path else (400, 404))


def test_nothing_of_all_that_was_an_inner_error(hub: RunningHub) -> None:
    """Cause 15: the log was filled with tracebacks, also without a login."""
    assert "Incident" not in hub.log.read_text()


# --- cause 11: one allowed request that freezes everybody ---


def test_a_million_digests_are_refused(hub: RunningHub, bob: str, mallory: str) -> None:
    """Attack of cause 11: 80 MB, during which nobody was answered for 26 seconds."""
    objects = {f"blake3:{n:064x}": 1 for n in range(1_000_000)}
    body = json.dumps({"objects": objects}).encode()
    with Victim(hub, bob) as victim:
        assert request("POST", hub.api + "/bundles/missing", mallory, body).status == 413
    victim.check()


def test_as_many_as_are_allowed_hold_nobody_up(hub: RunningHub, bob: str, mallory: str) -> None:
    """Attack of cause 11, within what is allowed: again and again, from several connections."""
    objects = {f"blake3:{n:064x}": 1 for n in range(50_000)}
    body = json.dumps({"objects": objects}).encode()
    statuses: list[int] = []

    def attack() -> None:
        for _ in range(4):
            url = hub.api + "/bundles/missing"
            statuses.append(request("POST", url, mallory, body, timeout=120).status)

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    with Victim(hub, bob) as victim:
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join()
    assert set(statuses) == {200}
    victim.check(4)


def test_a_large_form_is_not_held(hub: RunningHub) -> None:
    """Attack of cause 11 without a login: a hundred megabytes in memory, for any address."""
    before = hub.service_memory()
    url = f"{service_of(hub)}/services/kaos/notebooks/a/start"
    body = b"x" * (64 << 20)
    with pytest.raises(OSError):
        for _ in range(3):
            answer = send(url, "POST", body, Content_Length=str(len(body)))
            if b" 400 " in answer[:20] or b" 413 " in answer[:20]:
                raise ConnectionError("refused")
    assert hub.service_memory() - before < 32 << 20


# --- cause 8: bodies that never end ---


def test_slow_bodies_are_ended(hub: RunningHub, bob: str, mallory: str) -> None:
    """Attack of cause 8: hundreds of bodies, a byte now and then, were all alive after a minute."""
    url = f"{service_of(hub)}/services/kaos/api/v1/objects"
    head = f"POST {urlsplit(url).path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
    slow = [connect(url) for _ in range(60)]
    for number, connection in enumerate(slow):
        login = f"Authorization: token {mallory}\r\n" if number % 2 else ""
        connection.sendall(f"{head}{login}\r\n".encode() + b"a")
    over: list[float] = []
    began = time.monotonic()
    while slow and time.monotonic() - began < 90:
        for connection in list(slow):
            try:
                connection.sendall(b"a")
                connection.settimeout(0.02)
                if not connection.recv(1 << 16):
                    raise ConnectionError
            except TimeoutError:
                continue
            except OSError:
                pass
            over.append(time.monotonic() - began)
            slow.remove(connection)
            connection.close()
        time.sleep(0.2)
    assert not slow, f"{len(slow)} are alive"
