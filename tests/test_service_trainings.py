"""Trainings and models over REST, behind a real Hub and its proxy."""

import io
import json
import tarfile
import urllib.request
from urllib.parse import quote

import pytest

from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.openapi import openapi
from kaos_hub.service.api.routes import Route
from kaos_hub.service.api.table import training_routes
from kaos_hub.service.auth.auth import Right
from tests.history import write
from tests.hub import RunningHub, request
from tests.training_history import bundles, inputs, training, trials_of
from tests.wire import digest, frame, refused, tree

ROUTES = training_routes(Logins(), "/services/kaos-train/api/v1")
MINE, TEAMS, NOBODYS, OLD = (f"{number:016x}" for number in (0x91, 0x92, 0x93, 0x94))
TEAM = "group:rowing"


@pytest.fixture(scope="module")
def rex(hub: RunningHub) -> str:
    """The token of somebody with trainings of his own, and in a group that has one."""
    hub.put_into("rowing", "rex")
    token, nodes = hub.token("rex"), [tree("weights", b"1 2 3"), tree("other", b"1 2 3")]
    objects = b"".join(map(frame, [*nodes, b"1 2 3"]))
    for owner, first, number in (("user:rex", 9100, 0x91), (TEAM, 9200, 0x92)):
        sent = hub.ask_train("POST", "/objects", token, objects, owner)
        assert sent.status == 200, sent.text
        row = training(
            number, owner, 12, author="rex", goal_metric="accuracy", goal_direction="max",
            best_trial=12, best_score=12.0, **inputs(first),
        )  # fmt: skip
        write(hub.data, bundles(owner, first))
        write(hub.data, [row])
        trials = trials_of(row, output=digest(nodes[0]))
        trials[1].output = digest(nodes[1])
        write(hub.data, trials)
    write(hub.data, [training(0x94, "user:rex", state="FAILED", reason="the build failed")])
    return token


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> str:
    """The token of a stranger."""
    hub.put_into("chess", "bob")
    return hub.token("bob")


# --- looking ---


@pytest.mark.parametrize("what", ["metrics", "trials/1/log"])
def test_who_follows_what_says_nothing_yet_is_answered(hub: RunningHub, what: str) -> None:
    """Not only when it says something: clients and proxies give up what does not begin."""
    number = 0x95 + len(what)
    row = training(number, "user:quinn", trials=1, state="TRAINING")
    write(hub.data, [row])
    write(hub.data, trials_of(row, state="RUNNING"))
    url = f"{hub.train}/api/v1/trainings/{number:016x}/{what}?follow=true"
    asked = urllib.request.Request(url, headers={"Authorization": f"token {hub.token('quinn')}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.status == 200
        with pytest.raises(TimeoutError):
            answer.read(1)


def test_lists_are_narrowed_and_paged(hub: RunningHub, rex: str) -> None:
    def ids(query: str, owner: str = "") -> list[str]:
        answer = hub.ask_train("GET", f"/trainings{query}", rex, owner=owner)
        assert answer.status == 200, answer.text
        return [each["id"] for each in answer.json]

    assert ids("") == [OLD, MINE]
    assert ids("", TEAM) == [TEAMS]
    assert ids("?state=FAILED,CANCELLED") == [OLD]
    assert ids("?limit=1") == [OLD] and ids(f"?limit=1&after={OLD}") == [MINE]
    said = refused(hub.ask_train("GET", "/trainings?state=DONE", rex), 400, "invalid_request")
    assert "DONE" in said and "SUCCEEDED" in said


def test_trials_are_sorted_as_asked(hub: RunningHub, rex: str) -> None:
    def numbers(query: str) -> list[int]:
        answer = hub.ask_train("GET", f"/trainings/{MINE}/trials?{query}", rex)
        assert answer.status == 200, answer.text
        return [each["number"] for each in answer.json]

    assert numbers("limit=3") == [1, 2, 3]
    assert numbers("sort=score&limit=2") == [12, 11]
    assert numbers("sort=metrics.loss&order=desc&limit=2&after=1") == [2, 3]
    assert numbers("sort=params.rate&order=desc&limit=1") == [12]
    assert numbers("state=FAILED") == []
    one = hub.ask_train("GET", f"/trainings/{MINE}/trials/3", rex).json
    assert (one["params"]["seed"], one["metrics"]["accuracy"]) == (7, 3.0)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (f"/trainings/{MINE}/trials?sort=nothing", 400, "nothing"),
        (f"/trainings/{MINE}/trials?order=up", 400, "order"),
        (f"/trainings/{MINE}/trials/99", 404, "99"),
        (f"/trainings/{MINE}/trials/x²", 404, "numbers"),
        (f"/trainings/{MINE}/archive?parts=code,soul", 400, "soul"),
        (f"/trainings/{OLD}/build-log", 404, ""),
        (f"/trainings/{MINE}/ingest-log", 404, ""),
        (f"/trainings/{MINE}/comparison", 409, ""),
        ("/trainings/nonsense", 404, "nonsense"),
        ("/models/nosuch", 404, "nosuch"),
        (f"/models/{MINE}.99", 404, ""),
    ],
)
def test_nonsense_is_explained(
    hub: RunningHub, rex: str, path: str, status: int, says: str
) -> None:
    answer = hub.ask_train("GET", quote(path, safe="/?=&,"), rex)
    assert answer.status == status, answer.text
    assert says in answer.json["message"] and answer.json["code"] != "internal"


def test_events_begin_with_what_is(hub: RunningHub, rex: str) -> None:
    url = f"{hub.train}/api/v1/trainings/{MINE}/events"
    headers = {"Accept": "text/event-stream", "Authorization": f"token {rex}"}
    asked = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(asked, timeout=20) as stream:
        for line in stream:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                break
    assert (event["training"], event["state"]) == (MINE, "SUCCEEDED")


def test_models_have_files_provenance_and_names(hub: RunningHub, rex: str) -> None:
    one = f"/models/{MINE}.3"
    assert hub.ask_train("GET", one, rex).json["metrics"]["accuracy"] == 3.0
    archive = hub.ask_train("GET", f"{one}/archive", rex)
    assert archive.headers["Content-Disposition"] == f'attachment; filename="{MINE}.3.tar"'
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        assert tar.getnames() == ["weights"]
    made = hub.ask_train("GET", f"{one}/provenance", rex).json
    assert (made["source"]["name"], made["params"]["name"]) == ("digits", "grid")
    url, wanted = f"{hub.train}/api/v1{one}/provenance", {"Accept": "text/vnd.graphviz"}
    graph = request("GET", url, rex, headers=wanted)
    assert graph.headers["Content-Type"].startswith("text/vnd.graphviz")
    assert graph.text.startswith("digraph")
    for version in (1, 2):
        named = hub.ask_train("POST", f"/models/{MINE}.{version}/name", rex, {"name": "best one"})
        assert (named.status, named.json["name"]) == (200, f"best one@v{version}"), named.text
    assert hub.ask_train("GET", "/models/best%20one@v1", rex).json["id"] == f"{MINE}.1"
    assert [m["trial"] for m in hub.ask_train("GET", "/models?named=true", rex).json] == [2, 1]
    gone = hub.ask_train("DELETE", "/models/best%20one", rex)
    assert (gone.status, gone.json) == (200, {"deleted": "best one"})
    assert hub.ask_train("GET", "/models?named=true", rex).json == []


# --- one's own things are nobody else's ---

_NAMED = [route for route in ROUTES if route.parameters and route.path.startswith(("/tr", "/mo"))]


@pytest.mark.parametrize("route", _NAMED, ids=lambda r: f"{r.method} {r.path}")
def test_what_is_not_mine_does_not_exist(hub: RunningHub, rex: str, bob: str, route: Route) -> None:
    def ask(token: str, training: str, owner: str = "") -> tuple[int, str]:
        name = training if "/trainings/" in route.path else f"{training}.1"
        path = route.path.format(id=name, number=1)
        body = {"name": "stolen"} if route.path.endswith("/name") else None
        answer = hub.ask_train(route.method, path, token, body, owner)
        assert answer.status == 404, (answer.status, answer.text)
        return answer.status, answer.text.replace(training, "ID")

    for owner in ("", "group:chess"):
        assert ask(bob, MINE, owner) == ask(bob, NOBODYS, owner) == ask(bob, TEAMS, owner)
    # nor is what the group has one's own, or the other way round
    assert ask(rex, TEAMS) == ask(rex, NOBODYS)
    assert ask(rex, MINE, TEAM) == ask(rex, NOBODYS, TEAM)


def test_inputs_and_lists_hold_only_mine(hub: RunningHub, rex: str, bob: str) -> None:
    for path in ("/trainings", "/models"):
        assert hub.ask_train("GET", path, bob).json == []
        assert hub.ask_train("GET", path, bob, owner="group:chess").json == []
    for owner in ("", "group:chess"):
        found = hub.ask_train("GET", "/inputs", bob, owner=owner).json
        assert not any(found.values())
    version = bundles("user:rex", 0)[0].digest
    for source in (version, "digits", "blake3:" + "0" * 64):
        wish = {"source": source, "dry_run": True}
        refused(hub.ask_train("POST", "/trainings", bob, wish), 404, "not_found")


# --- a notebook's own token ---


def test_a_notebooks_token_ends_and_deletes_nothing(hub: RunningHub, rex: str) -> None:
    scopes = ["access:servers!server=rex/lab", "access:services!service=kaos-train"]
    token = hub.token("rex", [*scopes, "users:activity!user"])
    assert hub.ask_train("GET", f"/trainings/{MINE}", token).status == 200
    for route in ROUTES:
        if route.right is Right.MANAGE:
            path = route.path.format(id=MINE, kind="data", name="numbers", version=1)
            said = refused(hub.ask_train(route.method, path, token), 403, "forbidden")
            assert "token of notebook 'lab'" in said
    assert hub.ask_train("DELETE", f"/trainings/{OLD}", rex).json == {"deleted": OLD}


# --- OpenAPI ---


def test_every_route_is_described() -> None:
    document = openapi(ROUTES, "/services/kaos-train/api/v1")
    schemas = document["components"]["schemas"]
    for reference in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]:
        assert reference.split('"')[0] in schemas
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        headers = [p["name"] for p in operation["parameters"] if p["in"] == "header"]
        assert headers == (["X-Kaos-Owner"] if route.shared else [])
    both = document["paths"]["/models/{id}/provenance"]["get"]["responses"]["200"]["content"]
    assert set(both) == {"application/json", "text/vnd.graphviz"}
    ids = [o["operationId"] for methods in document["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


def test_the_served_document_is_that_one(hub: RunningHub) -> None:
    served = hub.ask_train("GET", "/openapi.json", None).json
    assert served == json.loads(json.dumps(openapi(ROUTES, "/services/kaos-train/api/v1")))
