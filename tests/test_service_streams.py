"""Streams of the service, what stands beside its API, and clients that misbehave."""

import io
import json
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from kaos_hub.bundles.archive import unpack_tar
from kaos_hub.errors import InvalidBundle
from tests.history import build, notebook, write
from tests.hub import RunningHub, request, wait_until
from tests.wire import digest, frame, refused, tree


@pytest.fixture(scope="module")
def ivan(hub: RunningHub) -> str:
    return hub.token("ivan")


@pytest.fixture(scope="module")
def mnist(hub: RunningHub) -> str:
    """A stopped notebook of ivan's, with a build log."""
    job = build(hub.data, "SUCCEEDED", "2026-01-31T12:00:00.000000Z built\n", "user:ivan")
    write(hub.data, [job])
    row = notebook("mnist", owner="user:ivan", build_job=job.id, build_state="SUCCEEDED")
    write(hub.data, [row])
    return "mnist"


# --- streams ---


def events_of(hub: RunningHub, path: str, token: str, **headers: str) -> Iterator[str]:
    """Lines of a stream of events."""
    address = urlsplit(hub.api)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        lines = [
            f"GET {address.path}{path} HTTP/1.1", "Host: x", f"Authorization: token {token}",
            "Accept: text/event-stream", *(f"{k}: {v}" for k, v in headers.items()), "", "",
        ]  # fmt: skip
        connection.sendall("\r\n".join(lines).encode())
        with connection.makefile("r", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")


def test_a_log_streams_with_offsets_and_ends(hub: RunningHub, ivan: str, mnist: str) -> None:
    text = hub.ask("GET", "/notebooks/mnist/build-log", ivan)
    assert text.body == b"2026-01-31T12:00:00.000000Z built\n"
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = list(_until_end(events_of(hub, "/notebooks/mnist/build-log", ivan)))
    assert f"id: {len(text.body)}" in lines
    assert "data: 2026-01-31T12:00:00.000000Z built" in lines
    again = {"Last-Event-ID": str(len(text.body))}
    lines = list(_until_end(events_of(hub, "/notebooks/mnist/build-log", ivan, **again)))
    assert "event: log" not in lines
    assert hub.ask("GET", "/notebooks/mnist/build-log?offset=28", ivan).body == b"built\n"


def _until_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line == "event: end":
            return


def test_events_begin_with_the_present_and_end_with_the_client(
    hub: RunningHub, ivan: str, mnist: str
) -> None:
    # Each notebook of another test that runs has one to the service.
    others = _metric(hub, "kaos_open_streams")
    streams = [events_of(hub, "/notebooks/events", ivan) for _ in range(3)]
    for stream in streams:
        lines: list[str] = []
        for line in stream:
            lines.append(line)
            if line.startswith("data: "):
                break
        assert "x-accel-buffering: no" in [line.lower() for line in lines]
        assert json.loads(lines[-1].removeprefix("data: "))["state"] == "STOPPED"
    wait_until(lambda: _metric(hub, "kaos_open_streams") == others + 3, what="three streams")
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: _metric(hub, "kaos_open_streams") == others, what="the streams' end")


# --- what stands beside the API ---


def _metrics(hub: RunningHub) -> str:
    headers = {"Authorization": f"Bearer {hub.secret('metrics')}"}
    return request("GET", hub.admission + "/metrics", headers=headers).text


def _metric(hub: RunningHub, name: str) -> float:
    lines = _metrics(hub).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))


def test_health_says_little_to_strangers(hub: RunningHub) -> None:
    answer = request("GET", hub.kaos + "/health")
    assert answer.json == {"status": "ok", "database": "ok", "engine": "ok"}


def test_metrics_count_without_naming(hub: RunningHub, ivan: str, mnist: str) -> None:
    hub.ask("GET", "/notebooks/mnist", ivan)
    hub.ask("POST", "/objects", ivan, frame(b"counted"))
    text = _metrics(hub)
    assert 'route="/notebooks/{name}"' in text
    assert "mnist" not in text and "ivan" not in text
    assert _metric(hub, 'kaos_notebooks{state="STOPPED"}') > 0
    assert _metric(hub, "kaos_upload_bytes_total") > 0


def test_admission_opens_only_to_its_secret(hub: RunningHub, ivan: str) -> None:
    body = {"user": "ivan", "server": "x"}
    for path in ("/admission/start", "/admission/release", "/admission/options", "/metrics"):
        for header in ({}, {"Authorization": f"token {ivan}"}, {"Authorization": "Bearer x"}):
            method = "POST" if path.endswith(("start", "release")) else "GET"
            answer = request(
                method, hub.admission + path, None, body if method == "POST" else None, header
            )
            refused(answer, 403, "forbidden")
    # who may gather metrics may not admit, nor the other way round
    for path, secret in (("/metrics", "admission"), ("/admission/options", "metrics")):
        header = {"Authorization": f"Bearer {hub.secret(secret)}"}
        refused(request("GET", hub.admission + path, headers=header), 403, "forbidden")
        assert request("GET", hub.kaos + path, ivan).status in (404, 405)
        assert request("GET", hub.url + path, ivan).headers["Server"] != "kaos"


def test_admission_tells_the_form_what_there_is(hub: RunningHub, mnist: str) -> None:
    url = hub.admission + "/admission/options?user=ivan&server=mnist"
    answer = request("GET", url, headers={"Authorization": f"Bearer {hub.admission_secret}"})
    assert set(answer.json) == {
        "sources", "data", "contexts", "volumes", "mounts", "info", "limits", "usage", "notebook",
        "handed", "last", "ticket", "capacity", "offered",
    }  # fmt: skip
    assert answer.json["notebook"]["name"] == "mnist"
    assert answer.json["info"]["sizes"][0]["name"] == "small"


def test_logs_hold_no_token_and_no_query(hub: RunningHub, ivan: str) -> None:
    hub.ask("GET", "/bundles?name=secret-name", ivan)
    line = "GET /services/kaos/api/v1/bundles (ivan)"
    wait_until(lambda: line in hub.log.read_text(), what="the log's line")
    log = hub.log.read_text()
    assert ivan not in log
    assert "secret-name" not in log


# --- clients and content that misbehave ---


def _service_memory_grows(hub: RunningHub, before: int) -> int:
    return (hub.service_memory() - before) >> 20


def test_a_large_upload_is_never_held(hub: RunningHub, ivan: str) -> None:
    content = b"0123456789abcdef" * (4 << 20)
    before = hub.service_memory()
    assert hub.ask("POST", "/objects", ivan, frame(content)).json == {"received": 1}
    assert _service_memory_grows(hub, before) < 24


def test_a_reader_that_takes_nothing_costs_nothing(hub: RunningHub, ivan: str) -> None:
    line = "2026-01-31T12:00:00.000000Z " + "x" * 971 + "\n"
    job = build(hub.data, "SUCCEEDED", line * 60_000, "user:ivan")
    write(hub.data, [job])
    row = notebook("chatty", owner="user:ivan", build_job=job.id, build_state="SUCCEEDED")
    write(hub.data, [row])
    # Each notebook of another test that runs has one to the service.
    others = _metric(hub, "kaos_open_streams")
    address, before = urlsplit(hub.api), hub.service_memory()
    sleepers = [socket.create_connection((address.hostname, address.port)) for _ in range(5)]
    for sleeper in sleepers:
        path = f"{address.path}/notebooks/chatty/build-log"
        sleeper.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: token {ivan}\r\n\r\n".encode()
        )
    wait_until(lambda: _metric(hub, "kaos_open_streams") == others + 5, what="five streams")
    began = time.monotonic()
    assert hub.ask("GET", "/info", ivan).status == 200
    assert time.monotonic() - began < 1
    assert _service_memory_grows(hub, before) < 24
    for sleeper in sleepers:
        sleeper.close()
    wait_until(lambda: _metric(hub, "kaos_open_streams") == others, what="the streams' end")


def test_an_archive_of_damaged_content_is_no_archive(hub: RunningHub, ivan: str) -> None:
    content = b"soon to be lost" * 1000
    node = tree("lost.txt", content)
    hub.ask("POST", "/objects", ivan, frame(content) + frame(node))
    body = {"kind": "data", "name": "damaged", "root": digest(node)}
    assert hub.ask("POST", "/bundles", ivan, body).status == 201
    hexadecimal = digest(content).removeprefix("blake3:")
    (hub.data / "store" / "objects" / hexadecimal[:2] / hexadecimal[2:]).unlink()
    answer = hub.ask("GET", "/bundles/data/damaged/current/archive", ivan)
    if answer.status == 200:
        with pytest.raises(InvalidBundle):
            unpack_tar(io.BytesIO(answer.body), hub.directory / "unpacked")
    else:
        assert answer.json["message"]


def test_no_part_of_the_service_complained(hub: RunningHub) -> None:
    log = hub.log.read_text()
    assert "Incident" not in log
    # the Hub logs some of its own, e.g. when somebody stops what is just starting
    ours = re.findall(r"kaos\] [^\n]*\n *Traceback.*?(?=\n\[)", log, re.DOTALL)
    assert ours == []
    assert "never retrieved" not in log
