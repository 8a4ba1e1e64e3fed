"""The REST API of the service, behind a real Hub and its proxy."""

import io
import json
import socket
import tarfile
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from blake3 import blake3

from kaos_hub.bundles.archive import unpack_tar
from kaos_hub.errors import InvalidBundle, from_body
from kaos_hub.service.api_table import all_routes
from kaos_hub.service.auth import Right
from kaos_hub.service.login import Logins
from kaos_hub.service.openapi import openapi
from kaos_hub.service.routes import Route, by_path
from tests.history import build, notebook, write
from tests.hub import Answer, Browser, RunningHub, request, wait_until

ROUTES = all_routes(Logins(), "/services/kaos/api/v1")
ACCESS = "access:services!service=kaos"


def digest(content: bytes) -> str:
    return f"blake3:{blake3(content).hexdigest()}"


def frame(content: bytes) -> bytes:
    """An object as it is sent."""
    return f"{blake3(content).hexdigest()} {len(content)}\n".encode() + content


def tree(name: str, content: bytes) -> bytes:
    """The node of a directory with one file."""
    return f"kaos tree 1\nf {blake3(content).hexdigest()} {len(content)} {name}\n".encode()


def sized(*contents: bytes) -> dict[str, int]:
    return {digest(c): len(c) for c in contents}


def refused(answer: Answer, status: int, code: str) -> str:
    """Check how something was refused; the message."""
    assert (answer.status, answer.json["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert from_body(answer.status, answer.json).code == code
    return str(answer.json["message"])


@pytest.fixture(scope="module")
def ada(hub: RunningHub) -> str:
    return hub.token("ada")


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> str:
    return hub.token("bob")


# --- who may ask ---


def test_info_needs_no_login(hub: RunningHub) -> None:
    answer = hub.ask("GET", "/info", None)
    assert answer.status == 200
    assert answer.json["engine"] == "local"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_without_or_with_a_wrong_token_nothing_is_said(hub: RunningHub) -> None:
    for token in (None, "0" * 32):
        assert "kaos login" in refused(hub.ask("GET", "/whoami", token), 401, "not_authenticated")


def test_a_token_needs_the_right_to_use_the_service(hub: RunningHub) -> None:
    token = hub.token("ada", ["read:users!user"])
    assert ACCESS in refused(hub.ask("GET", "/whoami", token), 403, "forbidden")


def test_token_and_bearer_are_the_same(hub: RunningHub, ada: str) -> None:
    answer = request("GET", hub.api + "/whoami", headers={"Authorization": f"Bearer {ada}"})
    assert answer.json["user"] == "ada"
    assert hub.ask("GET", "/whoami", ada).json == answer.json


def test_a_token_in_the_address_is_ignored(hub: RunningHub, ada: str) -> None:
    assert request("GET", f"{hub.api}/whoami?token={ada}").status == 401


def test_tokens_need_no_xsrf_but_cookies_do(hub: RunningHub, ada: str) -> None:
    # tornado's own XSRF check comes before anybody knows who asks: token requests would be 403
    assert hub.ask("POST", "/bundles/missing", ada, {"objects": {}}).json == {"missing": []}
    browser, url = Browser(hub, "ada"), hub.api + "/bundles/missing"
    assert "XSRF" in refused(browser.post(url, {}), 403, "forbidden")
    fetched = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    refused(browser.get(hub.api + "/whoami", fetched), 403, "forbidden")
    fetched["X-XSRFToken"] = browser.xsrf()
    assert browser.get(hub.api + "/whoami", fetched).json["user"] == "ada"
    assert browser.get(hub.api + "/whoami").json["user"] == "ada"  # looked at, not fetched


def test_a_wrong_token_beside_a_cookie_stays_wrong(hub: RunningHub) -> None:
    browser = Browser(hub, "ada")
    answer = browser.post(hub.api + "/bundles", {}, {"Authorization": "token nonsense"})
    assert answer.status in (401, 403)


# --- requests that make no sense ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "says"),
    [
        ("GET", "/nothing/here", None, 404, "not_found", "not part of this API"),
        ("DELETE", "/info", None, 405, "invalid_request", "GET"),
        ("POST", "/whoami", b"x" * 100, 405, "invalid_request", "GET"),
        ("GET", "/bundles?colour=red", None, 400, "invalid_request", "colour"),
        ("GET", "/bundles?limit=0", None, 400, "invalid_request", "limit"),
        ("GET", "/bundles/source/none/current", None, 404, "not_found", "none"),
        ("GET", "/bundles/sauce/none/current", None, 404, "not_found", "sauce"),
        ("GET", "/bundles/source/none/v1", None, 404, "not_found", "v1"),
        ("GET", "/notebooks/none", None, 404, "not_found", "none"),
        ("GET", "/notebooks/none/events", None, 404, "not_found", "none"),
        ("GET", "/notebooks/none/build-log", None, 404, "not_found", "none"),
        ("POST", "/notebooks", b"{not json", 400, "invalid_request", "JSON"),
        ("POST", "/notebooks", {"nmae": "x"}, 400, "invalid_request", "nmae"),
        ("POST", "/notebooks", {"name": "A b"}, 400, "invalid_name", "lower-case"),
        ("POST", "/notebooks", {"cpu": "-1"}, 400, "invalid_resources", "cpu"),
        ("POST", "/notebooks", b"[" * (2 << 20), 413, "too_large", "1Mi"),
        ("POST", "/objects", b"nonsense\n", 400, "invalid_request", ""),
    ],
)  # fmt: skip
def test_nonsense_is_explained(
    hub: RunningHub, ada: str, method: str, path: str, body: object, status: int, code: str,
    says: str,
) -> None:  # fmt: skip
    assert says in refused(hub.ask(method, path, ada, body), status, code)


def test_a_wrong_event_id_is_refused(hub: RunningHub, ada: str) -> None:
    answer = request(
        "GET", hub.api + "/notebooks/events", ada, headers={"Last-Event-ID": "x\u00b2"}
    )
    refused(answer, 400, "invalid_request")


# --- bundles ---


def test_a_bundle_comes_back_as_it_was_sent(hub: RunningHub, ada: str) -> None:
    content = b"x = 1\n" * 100_000
    node = tree("a.csv", content)
    objects = {"objects": sized(content, node)}
    assert sorted(hub.ask("POST", "/bundles/missing", ada, objects).json["missing"]) == sorted(
        objects["objects"]
    )
    sent = hub.ask("POST", "/objects", ada, frame(content) + frame(node))
    assert (sent.status, sent.json) == (200, {"received": 2})
    made = hub.ask(
        "POST", "/bundles", ada, {"kind": "data", "name": "numbers", "root": digest(node)}
    )
    assert (made.status, made.json["version"], made.json["owner"]) == (201, 1, "user:ada")
    assert hub.ask("GET", "/bundles?kind=data", ada).json == [made.json]
    assert hub.ask("GET", "/bundles?kind=data&after=1", ada).json == []
    one = "/bundles/data/numbers"
    assert hub.ask("GET", f"{one}/current", ada).json == made.json
    assert hub.ask("GET", f"{one}/1/entries", ada).json == [
        {"kind": "file", "digest": digest(content), "size": len(content), "name": "a.csv"}
    ]
    archive = hub.ask("GET", f"{one}/1/archive", ada)
    assert archive.headers["Content-Disposition"] == 'attachment; filename="numbers-v1.tar"'
    assert "sandbox" in archive.headers["Content-Security-Policy"]
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        member = tar.extractfile("a.csv")
        assert member is not None and member.read() == content


def test_a_commit_of_what_was_not_sent_names_it(hub: RunningHub, ada: str) -> None:
    body = {"kind": "data", "name": "ghost", "root": digest(b"never sent")}
    answer = hub.ask("POST", "/bundles", ada, body)
    refused(answer, 409, "missing_objects")
    assert answer.json["details"]["missing"] == [digest(b"never sent")]


@pytest.mark.parametrize("known", [True, False])
def test_whoever_is_refused_mid_upload_hears_why(hub: RunningHub, ada: str, known: bool) -> None:
    # The first object is wrong, and megabytes follow: a server that just closed would show the
    # client a broken pipe, and the proxy an error page of its own.
    wrong = b"0" * 64 + b" 5\nhello" + b"0" * (24 << 20)
    answer = hub.ask("POST", "/objects", ada if known else None, wrong)
    refused(answer, *((400, "invalid_request") if known else (401, "not_authenticated")))


def test_a_client_that_vanishes_leaves_nothing_half(hub: RunningHub, ada: str) -> None:
    content = b"never arrives whole" * 400_000
    address = urlsplit(hub.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST /services/kaos/api/v1/objects HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: token {ada}\r\nContent-Length: {len(frame(content))}\r\n\r\n"
        )
        connection.sendall(head.encode() + frame(content)[:4_000_000])
        incoming = hub.data / "store" / "tmp"
        wait_until(lambda: any(incoming.iterdir()), what="the upload's beginning")
    wait_until(lambda: not any(incoming.iterdir()), what="cleaning up")
    asked = {"objects": sized(content)}
    assert hub.ask("POST", "/bundles/missing", ada, asked).json["missing"] == [digest(content)]


# --- one's own things are nobody else's ---


@pytest.fixture(scope="module")
def mnist(hub: RunningHub, ada: str) -> str:
    """A stopped notebook of ada's, with a build log."""
    job = build(hub.data, "SUCCEEDED", "2026-01-31T12:00:00.000000Z built\n")
    write(hub.data, [job])
    row = notebook("mnist", build_job=job.id, build_state="SUCCEEDED")
    write(hub.data, [row])
    return "mnist"


_BODIES = {"/notebooks/{name}/activity": {"last_use": "2026-01-31T12:00:00Z"}}
_OWNED = [route for route in ROUTES if route.parameters]


@pytest.mark.parametrize("route", _OWNED, ids=lambda r: f"{r.method} {r.path}")
def test_what_is_not_mine_does_not_exist(
    hub: RunningHub, ada: str, bob: str, mnist: str, route: Route
) -> None:
    def ask(token: str, name: str) -> Answer:
        path = route.path.format(name=name, kind="data", version=1)
        return hub.ask(route.method, path, token, _BODIES.get(route.path))

    own_server = ["access:servers!server=bob/mnist", ACCESS, "read:users:name!user"]
    token = hub.token("bob", own_server) if route.right is Right.REPORT else bob
    real = "numbers" if "kind" in route.parameters else mnist
    theirs, nobodys = ask(token, real), ask(token, "mnist" if real == "numbers" else "numbers")
    refused(theirs, 404 if route.right is not Right.REPORT else theirs.status, theirs.json["code"])
    assert theirs.status in (403, 404)
    if route.right is not Right.REPORT:
        assert theirs.text.replace(real, "X") == nobodys.text.replace(
            "mnist" if real == "numbers" else "numbers", "X"
        )


def test_lists_hold_only_mine(hub: RunningHub, bob: str, mnist: str) -> None:
    assert hub.ask("GET", "/notebooks", bob).json == []
    assert hub.ask("GET", "/bundles", bob).json == []


def test_a_digest_of_somebody_elses_opens_nothing(hub: RunningHub, bob: str) -> None:
    content = b"x = 1\n" * 100_000
    node = tree("a.csv", content)
    asked = {"objects": sized(content, node)}
    assert len(hub.ask("POST", "/bundles/missing", bob, asked).json["missing"]) == 2
    body = {"kind": "data", "name": "stolen", "root": digest(node)}
    refused(hub.ask("POST", "/bundles", bob, body), 409, "missing_objects")


# --- a notebook's own token ---


@pytest.fixture(scope="module")
def servers_token(hub: RunningHub, ada: str) -> str:
    """As the token that ada's notebook mnist would have."""
    return hub.token("ada", ["access:servers!server=ada/mnist", "users:activity!user", ACCESS])


def test_a_notebooks_token_reads_but_destroys_nothing(
    hub: RunningHub, servers_token: str, mnist: str
) -> None:
    assert hub.ask("GET", "/notebooks/mnist", servers_token).status == 200
    for method, path in (("DELETE", ""), ("POST", "/kill")):
        answer = hub.ask(method, f"/notebooks/mnist{path}", servers_token)
        assert "token of notebook 'mnist'" in refused(answer, 403, "forbidden")
    refused(hub.ask("POST", "/notebooks/other/stop", servers_token), 403, "forbidden")
    body = {"name": "other", "restart": True}
    refused(hub.ask("POST", "/notebooks", servers_token, body), 403, "forbidden")


def test_only_the_server_itself_reports_activity(
    hub: RunningHub, ada: str, servers_token: str, mnist: str
) -> None:
    body = {"last_use": "2026-01-31T12:00:00Z"}
    refused(hub.ask("POST", "/notebooks/mnist/activity", ada, body), 403, "forbidden")
    refused(hub.ask("POST", "/notebooks/other/activity", servers_token, body), 403, "forbidden")
    answer = hub.ask("POST", "/notebooks/mnist/activity", servers_token, body)
    assert "not running" in refused(answer, 404, "not_found")


def test_a_notebooks_token_lets_nobody_in(hub: RunningHub, servers_token: str) -> None:
    headers = {"Authorization": f"token {servers_token}"}
    page = request("GET", f"{hub.kaos}/login?code=BCDF-GHJK", headers=headers)
    assert page.status == 403


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


def test_a_log_streams_with_offsets_and_ends(hub: RunningHub, ada: str, mnist: str) -> None:
    text = hub.ask("GET", "/notebooks/mnist/build-log", ada)
    assert text.body == b"2026-01-31T12:00:00.000000Z built\n"
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = list(_until_end(events_of(hub, "/notebooks/mnist/build-log", ada)))
    assert f"id: {len(text.body)}" in lines
    assert "data: 2026-01-31T12:00:00.000000Z built" in lines
    again = {"Last-Event-ID": str(len(text.body))}
    lines = list(_until_end(events_of(hub, "/notebooks/mnist/build-log", ada, **again)))
    assert "event: log" not in lines
    assert hub.ask("GET", "/notebooks/mnist/build-log?offset=28", ada).body == b"built\n"


def _until_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line == "event: end":
            return


def test_events_begin_with_the_present_and_end_with_the_client(
    hub: RunningHub, ada: str, mnist: str
) -> None:
    streams = [events_of(hub, "/notebooks/events", ada) for _ in range(3)]
    for stream in streams:
        lines: list[str] = []
        for line in stream:
            lines.append(line)
            if line.startswith("data: "):
                break
        assert "x-accel-buffering: no" in [line.lower() for line in lines]
        assert json.loads(lines[-1].removeprefix("data: "))["state"] == "STOPPED"
    wait_until(lambda: _metric(hub, "kaos_open_streams") == 3, what="three streams")
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: _metric(hub, "kaos_open_streams") == 0, what="the streams' end")


# --- what stands beside the API ---


def _metrics(hub: RunningHub) -> str:
    headers = {"Authorization": f"Bearer {hub.admission_secret}"}
    return request("GET", hub.admission + "/metrics", headers=headers).text


def _metric(hub: RunningHub, name: str) -> float:
    lines = _metrics(hub).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))


def test_health_says_little_to_strangers(hub: RunningHub) -> None:
    answer = request("GET", hub.kaos + "/health")
    assert answer.json == {"status": "ok", "database": "ok", "engine": "ok"}


def test_metrics_count_without_naming(hub: RunningHub, ada: str, mnist: str) -> None:
    hub.ask("GET", "/notebooks/mnist", ada)
    text = _metrics(hub)
    assert 'route="/notebooks/{name}"' in text
    assert "mnist" not in text and "ada" not in text
    assert 'kaos_notebooks{state="STOPPED"} 1.0' in text
    assert _metric(hub, "kaos_upload_bytes_total") > 0


def test_admission_opens_only_to_its_secret(hub: RunningHub, ada: str) -> None:
    body = {"user": "ada", "server": "x"}
    for path in ("/admission/start", "/admission/release", "/admission/options", "/metrics"):
        for header in ({}, {"Authorization": f"token {ada}"}, {"Authorization": "Bearer x"}):
            method = "POST" if path.endswith(("start", "release")) else "GET"
            answer = request(
                method, hub.admission + path, None, body if method == "POST" else None, header
            )
            refused(answer, 403, "forbidden")
        assert request("GET", hub.kaos + path, ada).status in (404, 405)
        assert request("GET", hub.url + path, ada).headers["Server"] != "kaos"


def test_admission_tells_the_form_what_there_is(hub: RunningHub, mnist: str) -> None:
    url = hub.admission + "/admission/options?user=ada&server=mnist"
    answer = request("GET", url, headers={"Authorization": f"Bearer {hub.admission_secret}"})
    assert [d["name"] for d in answer.json["data"]] == ["numbers"]
    assert answer.json["notebook"]["name"] == "mnist"
    assert answer.json["info"]["sizes"][0]["name"] == "small"


def test_logs_hold_no_token_and_no_query(hub: RunningHub, ada: str) -> None:
    hub.ask("GET", "/bundles?name=secret-name", ada)
    log = hub.log.read_text()
    assert ada not in log
    assert "GET /services/kaos/api/v1/bundles (ada)" in log
    assert "secret-name" not in log


# --- OpenAPI ---


def test_every_route_is_described() -> None:
    document = openapi(ROUTES, "/services/kaos/api/v1")
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["summary"] and operation["description"]
        assert {p["name"] for p in operation["parameters"]} >= set(route.parameters)
        assert str(route.status) in operation["responses"]
        if route.right is not Right.ANYONE:
            assert {"401", "403"} <= set(operation["responses"])
        if route.method == "POST" and route.body is not None:
            assert "requestBody" in operation
    ids = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openapi(ROUTES, "/services/kaos/api/v1")
    text = json.dumps(document)
    known = document["components"]["schemas"]
    for reference in text.split('"$ref": "#/components/schemas/')[1:]:
        assert reference.split('"')[0] in known


def test_the_served_document_is_that_one(hub: RunningHub) -> None:
    served = hub.ask("GET", "/openapi.json", None).json
    assert served == json.loads(json.dumps(openapi(ROUTES, "/services/kaos/api/v1")))


def test_two_routes_for_one_thing_are_refused() -> None:
    with pytest.raises(ValueError, match="two routes"):
        by_path([*ROUTES, ROUTES[0]])


# --- clients and content that misbehave ---


def _service_memory_grows(hub: RunningHub, before: int) -> int:
    return (hub.service_memory() - before) >> 20


def test_a_large_upload_is_never_held(hub: RunningHub, ada: str) -> None:
    content = b"0123456789abcdef" * (4 << 20)
    before = hub.service_memory()
    assert hub.ask("POST", "/objects", ada, frame(content)).json == {"received": 1}
    assert _service_memory_grows(hub, before) < 24


def test_a_reader_that_takes_nothing_costs_nothing(hub: RunningHub, ada: str) -> None:
    line = "2026-01-31T12:00:00.000000Z " + "x" * 971 + "\n"
    job = build(hub.data, "SUCCEEDED", line * 60_000)
    write(hub.data, [job])
    row = notebook("chatty", build_job=job.id, build_state="SUCCEEDED")
    write(hub.data, [row])
    address, before = urlsplit(hub.api), hub.service_memory()
    sleepers = [socket.create_connection((address.hostname, address.port)) for _ in range(5)]
    for sleeper in sleepers:
        path = f"{address.path}/notebooks/chatty/build-log"
        sleeper.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: token {ada}\r\n\r\n".encode()
        )
    wait_until(lambda: _metric(hub, "kaos_open_streams") == 5, what="five streams")
    began = time.monotonic()
    assert hub.ask("GET", "/info", ada).status == 200
    assert time.monotonic() - began < 1
    assert _service_memory_grows(hub, before) < 24
    for sleeper in sleepers:
        sleeper.close()
    wait_until(lambda: _metric(hub, "kaos_open_streams") == 0, what="the streams' end")


def test_an_archive_of_damaged_content_is_no_archive(hub: RunningHub, ada: str) -> None:
    content = b"soon to be lost" * 1000
    node = tree("lost.txt", content)
    hub.ask("POST", "/objects", ada, frame(content) + frame(node))
    body = {"kind": "data", "name": "damaged", "root": digest(node)}
    assert hub.ask("POST", "/bundles", ada, body).status == 201
    hexadecimal = digest(content).removeprefix("blake3:")
    (hub.data / "store" / "objects" / hexadecimal[:2] / hexadecimal[2:]).unlink()
    answer = hub.ask("GET", "/bundles/data/damaged/current/archive", ada)
    if answer.status == 200:
        with pytest.raises(InvalidBundle):
            unpack_tar(io.BytesIO(answer.body), hub.directory / "unpacked")
    else:
        assert answer.json["message"]


def test_no_part_of_the_service_complained(hub: RunningHub) -> None:
    log = hub.log.read_text()
    assert "Incident" not in log
    assert "never retrieved" not in log and "Traceback" not in log
