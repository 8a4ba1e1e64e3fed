"""The REST API of the service, behind a real Hub and its proxy."""

import io
import json
import socket
import tarfile
from urllib.parse import urlsplit

import pytest

from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.openapi import openapi
from kaos_hub.service.api.routes import Route, by_path
from kaos_hub.service.api.table import all_routes
from kaos_hub.service.auth.auth import Right
from tests.history import build, notebook, write
from tests.hub import Answer, Browser, RunningHub, request, wait_until
from tests.wire import digest, frame, refused, sized, tree

ROUTES = all_routes(Logins(), "/services/kaos/api/v1")
ACCESS = "access:services!service=kaos"


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


_BODIES = {
    "/notebooks/{name}/activity": {"last_use": "2026-01-31T12:00:00Z"},
    "/notebooks/{name}/attach": {"data": "numbers"},
    "/notebooks/{name}/git": {"repository": "https://x/y", "state": "CLONED"},
    "/notebooks/{name}/git/credentials": {"repository": "https://x/y"},
    "/owners/{id}/hand-over": {"to": "user:bob"},
}
_QUERIES = {"file": "?path=x"}
_OWNED = [route for route in ROUTES if route.parameters]


@pytest.mark.parametrize("route", _OWNED, ids=lambda r: f"{r.method} {r.path}")
def test_what_is_not_mine_does_not_exist(
    hub: RunningHub, ada: str, bob: str, mnist: str, route: Route
) -> None:
    def ask(token: str, name: str) -> Answer:
        path = route.path.format(name=name, id=name, kind="data", version=1, errand="0" * 16)
        path += _QUERIES.get(path.rpartition("/")[2], "")
        return hub.ask(route.method, path, token, _BODIES.get(route.path))

    own_server = ["access:servers!server=bob/mnist", ACCESS, "read:users:name!user"]
    token = hub.token("bob", own_server) if route.right is Right.REPORT else bob
    real = "numbers" if "kind" in route.parameters else mnist
    theirs, nobodys = ask(token, real), ask(token, "mnist" if real == "numbers" else "numbers")
    # What an admin alone may do, or a server about itself, is refused whatever is named.
    refused(theirs, theirs.status, theirs.json["code"])
    admins = route.path.startswith("/owners/")
    allowed = (403, 404) if route.right is Right.REPORT else (403,) if admins else (404,)
    assert theirs.status in allowed
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
