"""``kaos-train``, the second service of the Hub: who may train, and whose things are meant."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import InvalidRequest, NotFound
from kaos_hub.service.api import table as api_table
from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.routes import Route
from kaos_hub.service.auth.auth import Caller, Right
from kaos_hub.service.auth.owners import Owners
from tests.hub import Answer, Browser, RunningHub, request, running_hub, wait_until
from tests.kernels import Kernel
from tests.wire import digest, frame, refused, sized, tree

KAOS, TRAIN = "access:services!service=kaos", "access:services!service=kaos-train"

# An admin who gives the two rights by groups, as docs/howto/users.md says.
BY_GROUPS = f"""
c.JupyterHub.extra_user_scopes = set()
c.KaosHubAuth.cache_max_age = 2
c.JupyterHub.load_groups = {{
    "desk": {{"users": ["ada", "bob"]}},
    "gym": {{"users": ["ada", "eve"]}},
}}
c.JupyterHub.load_roles.extend([
    {{"name": "notebooks", "groups": ["desk"], "scopes": ["{KAOS}"]}},
    {{"name": "trainings", "groups": ["gym"], "scopes": ["{TRAIN}"]}},
])
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """Ada may do both, bob has notebooks, eve trains, mallory may neither."""
    with running_hub(tmp_path_factory.mktemp("hub"), config=BY_GROUPS) as running:
        yield running


def table(service: str) -> list[Route]:
    make = api_table.training_routes if service == "kaos-train" else api_table.all_routes
    return make(Logins(), f"/services/{service}/api/v1")


# --- who may ---


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("ada", {"kaos", "kaos-train"}),
        ("bob", {"kaos"}),
        ("eve", {"kaos-train"}),
        ("mallory", set()),
    ],
)
def test_each_right_opens_its_own_service_alone(
    strict: RunningHub, user: str, may: set[str]
) -> None:
    token = strict.token(user)
    for service, scope in (("kaos", KAOS), ("kaos-train", TRAIN)):
        api = f"{strict.url}/services/{service}/api/v1"
        assert request("GET", f"{api}/info").status == 200, "which needs no login"
        if service in may:
            assert request("GET", f"{api}/whoami", token).json["user"] == user
            continue
        for route in table(service):
            if route.right is not Right.ANYONE:
                path = route.path.format(**dict.fromkeys(route.parameters, "1"))
                answer = request(route.method, api + path, token)
                message = refused(answer, 403, "forbidden")
                assert scope in message and "ask the admin" in message, (route.method, path)


def test_what_a_token_may_is_what_it_was_given(strict: RunningHub) -> None:
    only = strict.token("ada", [TRAIN])
    assert strict.ask_train("GET", "/whoami", only).json["user"] == "ada"
    assert "may not use kaos" in refused(strict.ask("GET", "/whoami", only), 403, "forbidden")
    other = strict.token("ada", [KAOS])
    said = refused(strict.ask_train("GET", "/whoami", other), 403, "forbidden")
    assert "may not train" in said and TRAIN in said


def test_who_may_only_train_can_send_what_that_takes(strict: RunningHub, tmp_path: Path) -> None:
    eve, content = strict.token("eve"), b"weights\n"
    node = tree("a.txt", content)
    wanted = {"objects": sized(content, node)}
    missing = strict.ask_train("POST", "/bundles/missing", eve, wanted).json["missing"]
    assert len(missing) == 2
    sent = strict.ask_train("POST", "/objects", eve, frame(content) + frame(node))
    assert sent.json == {"received": 2}
    body = {"kind": "data", "name": "numbers", "root": digest(node)}
    made = strict.ask_train("POST", "/bundles", eve, body)
    assert (made.status, made.json["owner"]) == (201, "user:eve")
    assert strict.ask_train("GET", "/bundles", eve).json == [made.json]
    (tmp_path / "more.txt").write_text("through the SDK")
    asked = Client(strict.url, eve, workspace="").trainings.deploy(data=tmp_path)
    assert asked.model.state == "WAITING" and "source" in asked.model.reason


def test_a_taken_right_is_gone_soon(strict: RunningHub) -> None:
    strict.put_into("gym", "trent")
    token = strict.token("trent")
    assert strict.ask_train("GET", "/whoami", token).status == 200
    out = strict.hub_api("DELETE", "/groups/gym/users", {"users": ["trent"]})
    assert out.status == 200
    gone = lambda: strict.ask_train("GET", "/whoami", token).status == 403  # noqa: E731
    wait_until(gone, 10, "forgetting what the Hub said", pause=0.5)


def test_a_servers_own_token_may_what_its_user_may(strict: RunningHub) -> None:
    for user, trains in (("ada", True), ("bob", False)):
        token = strict.token(user)
        assert strict.ask("POST", "/notebooks", token, {"name": "here"}).status == 202
        listed = f"/users/{user}/tokens"
        own = wait_until(
            lambda listed=listed: [
                t
                for t in strict.hub_api("GET", listed).json["api_tokens"]
                if t["note"].startswith("Server at")
            ],
            what="the server's token",
        )
        assert (TRAIN in own[0]["scopes"], KAOS in own[0]["scopes"]) == (trains, True)


# --- from inside a notebook ---

SOURCE = {
    "Dockerfile": "FROM python:3.13-slim\nWORKDIR /opt/program\nCOPY . .\n",
    "model/train": "#!/bin/sh\nread line < $KAOS_DATA/a.txt\necho said $line\n"
    'mkdir -p "$1/metrics"; echo \'{"loss": 0.5}\' > "$1/metrics/metrics.json"\n',
}

FROM_INSIDE = """
import os, pathlib, json
for name, text in {files!r}.items():
    path = pathlib.Path("sent", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
os.makedirs("numbers", exist_ok=True)
pathlib.Path("numbers/a.txt").write_text("42\\n")
from kaos_hub.client import Client
made = Client().trainings.deploy("sent", "numbers", goal="loss:min")
print(made.wait(timeout=120).model_dump_json())
"""


def test_submitted_from_inside_a_notebook(strict: RunningHub) -> None:
    """With nothing but what the notebook has by itself; somebody may watch, on the other side."""
    token = strict.token("ada")
    assert strict.ask("POST", "/notebooks", token, {"name": "lab"}).status == 202

    def running() -> Answer | None:
        answer = strict.ask("GET", "/notebooks/lab", token)
        return answer if answer.json["state"] == "RUNNING" else None

    notebook = wait_until(running, 90, "the notebook").json
    kernel = Kernel(notebook["url"], token)
    said = kernel.run(FROM_INSIDE.format(files=SOURCE), 150)
    found: dict[str, Any] = json.loads(said)
    assert (found["state"], found["owner"], found["author"]) == ("SUCCEEDED", "user:ada", "ada")
    assert found["notebook"] == "lab"
    assert found["best"] == {"trial": 1, "score": 0.5}
    log = strict.ask_train("GET", f"/trainings/{found['id']}/trials/1/log", token)
    assert log.text.endswith(" said 42\n")
    ended = "from kaos_hub.client import Client\ntry:\n    Client().trainings.kill({id!r})\n"
    ended += "except Exception as e: print(type(e).__name__)"
    assert kernel.run(ended.format(id=found["id"])).strip() == "Forbidden"
    strict.ask("DELETE", "/notebooks/lab", token)


# --- browsers ---


def visit(browser: Browser) -> None:
    """Look at a page of kaos-train, which brings its session; that page is none."""
    page = browser.get(browser.hub.train + "/nosuchpage")
    assert page.status == 404 and "There is no such page" in page.text, page.text[:500]


def test_each_service_has_cookies_of_its_own(strict: RunningHub) -> None:
    browser = Browser(strict, "ada")
    visit(browser)
    paths = {
        (cookie.name, cookie.path)
        for cookie in browser.cookies
        if cookie.name.startswith(("service-", "_xsrf"))
    }
    assert paths >= {
        ("service-kaos", "/services/kaos/"),
        ("_xsrf", "/services/kaos/"),
        ("service-kaos-train", "/services/kaos-train/"),
        ("_xsrf", "/services/kaos-train/"),
    }
    kaos, train = browser.xsrf(), browser.xsrf("/services/kaos-train/")
    for url, right, wrong in ((strict.kaos, kaos, train), (strict.train, train, kaos)):
        asked = f"{url}/api/v1/bundles/missing"
        assert "XSRF" in refused(browser.post(asked, {}), 403, "forbidden")
        answer = browser.post(asked, {}, {"X-XSRFToken": wrong})
        assert "XSRF" in refused(answer, 403, "forbidden")
        # what it says is no JSON, but it was let in
        refused(browser.post(asked, {"a": "b"}, {"X-XSRFToken": right}), 400, "invalid_request")


def test_a_session_of_one_is_nothing_to_the_other(strict: RunningHub) -> None:
    browser = Browser(strict, "ada")
    visit(browser)
    kaos, train = browser.cookie("service-kaos"), browser.cookie("service-kaos-train")
    for url, name, value in (
        (strict.kaos, "service-kaos", train),
        (strict.train, "service-kaos-train", kaos),
        (strict.train, "service-kaos", kaos),
        (strict.kaos, "service-kaos-train", train),
    ):
        answer = request("GET", f"{url}/api/v1/whoami", headers={"Cookie": f"{name}={value}"})
        refused(answer, 401, "not_authenticated")


def test_the_menu_has_what_one_may_use(strict: RunningHub) -> None:
    for user, shown, first in (
        ("ada", (True, True), "Notebooks"),
        ("bob", (True, False), "Notebooks"),
        ("eve", (False, True), "Trainings"),
        ("mallory", (False, False), ""),
    ):
        browser = Browser(strict)
        browser.get(f"{strict.url}/hub/login")
        form = {"username": user, "password": "x", "_xsrf": browser.xsrf("/hub/")}
        landed = browser.post(f"{strict.url}/hub/login", form)
        assert (landed.status, f"<h1>{first}</h1>" in landed.text) == (200, bool(first)), user
        assert ("My Server" in landed.text) is (not first)  # the Hub's own home
        pages = [landed, browser.get(f"{strict.url}/hub/home")]
        for page in pages:
            links = ('href="/services/kaos/"', 'href="/services/kaos-train/"')
            assert tuple(link in page.text for link in links) == shown, user
        if user == "bob":
            page = browser.get(strict.train + "/")
            assert page.status == 403 and "kaos-train" in page.text


# --- whose things ---


@pytest.fixture(scope="module")
def teams(hub: RunningHub) -> dict[str, str]:
    """Tokens: amy and ben are in sailing and in a group with an odd name, cleo is not."""
    hub.put_into("sailing", "amy", "ben")
    hub.put_into("Größe: 50%", "amy")
    return {user: hub.token(user) for user in ("amy", "ben", "cleo")}


def submit(hub: RunningHub, token: str, content: bytes, owner: str) -> dict[str, object]:
    node = tree("a.txt", content)
    sent = hub.ask_train("POST", "/objects", token, frame(content) + frame(node), owner)
    assert sent.status == 200, sent.text
    body = {"kind": "data", "name": "shared", "root": digest(node)}
    made = hub.ask_train("POST", "/bundles", token, body, owner)
    assert made.status == 201, made.text
    return dict(made.json)


def test_members_share_what_a_group_owns(hub: RunningHub, teams: dict[str, str]) -> None:
    owner, content = "group:sailing", b"what all of us use"
    made = submit(hub, teams["amy"], content, owner)
    assert (made["owner"], made["author"]) == (owner, "amy")
    for url in (hub.api, f"{hub.train}/api/v1"):
        one = f"{url}/bundles/data/shared/current"
        for headers, query in (({"X-Kaos-Owner": owner}, ""), ({}, f"?owner={quote(owner)}")):
            assert request("GET", one + query, teams["ben"], headers=headers).json == made
        archive = request("GET", f"{one}/archive?owner={owner}", teams["ben"])
        assert content in archive.body
    # it is not amy's own, and what a group holds is nothing that a member holds
    asked = {"objects": sized(content)}
    assert hub.ask_train("GET", "/bundles", teams["amy"]).json == []
    assert hub.ask_train("POST", "/bundles/missing", teams["amy"], asked).json["missing"]
    assert not hub.ask_train("POST", "/bundles/missing", teams["ben"], asked, owner).json["missing"]
    whoami = hub.ask_train("GET", "/whoami", teams["ben"], owner=owner).json
    assert (whoami["user"], whoami["owner"]) == ("ben", owner)
    assert whoami["usage"]["storage"] > len(content)


def test_a_group_may_be_called_anything(hub: RunningHub, teams: dict[str, str]) -> None:
    owner = "group:Größe: 50%"
    assert submit(hub, teams["amy"], b"odd", owner)["owner"] == owner
    path = f"/bundles?owner={quote(owner)}"
    assert len(hub.ask_train("GET", path, teams["amy"]).json) == 1
    workspaces = hub.ask_train("GET", "/workspaces", teams["amy"]).json
    assert workspaces == [
        {"owner": "user:amy", "name": "amy"},
        {"owner": owner, "name": "Größe: 50%"},
        {"owner": "group:sailing", "name": "sailing"},
    ]
    assert hub.ask_train("GET", "/workspaces", teams["cleo"]).json == [
        {"owner": "user:cleo", "name": "cleo"}
    ]


def test_strangers_cannot_tell_whether_a_group_exists(
    hub: RunningHub, teams: dict[str, str]
) -> None:
    shared = [route for route in table("kaos-train") if route.shared]
    assert len(shared) > 25
    for route in shared:
        path = route.path.format(**dict.fromkeys(route.parameters, "1"))
        said = set()
        for name in ("sailing", "nosuch"):
            answer = hub.ask_train(
                route.method, path, teams["cleo"], b"" if route.reader else None, f"group:{name}"
            )
            message = refused(answer, 404, "not_found")
            assert "You are not in a group called" in message, (route.method, path)
            said.add(message.replace(name, "NAME"))
        assert len(said) == 1
    for owner, code in (("user:amy", 404), ("sailing", 400), ("group:", 400), ("team:x", 400)):
        assert hub.ask_train("GET", "/bundles", teams["cleo"], owner=owner).status == code
    assert hub.ask_train("GET", "/bundles", teams["cleo"], owner="user:cleo").json == []


def test_who_was_put_out_writes_nothing_more(hub: RunningHub, teams: dict[str, str]) -> None:
    hub.put_into("sailing", "dan")
    dan, owner = hub.token("dan"), "group:sailing"
    assert hub.ask_train("GET", "/bundles", dan, owner=owner).status == 200
    assert hub.hub_api("DELETE", "/groups/sailing/users", {"users": ["dan"]}).status == 200
    answer = hub.ask_train("POST", "/objects", dan, frame(b"too late"), owner)
    assert "not in a group" in refused(answer, 404, "not_found")
    refused(hub.ask_train("GET", "/bundles", dan, owner=owner), 404, "not_found")


def test_notebooks_are_nobodys_but_ones_own(hub: RunningHub, teams: dict[str, str]) -> None:
    headers = {"X-Kaos-Owner": "group:sailing"}
    answer = request("GET", f"{hub.api}/notebooks", teams["ben"], headers=headers)
    assert answer.json == []
    answer = hub.ask("GET", "/notebooks?owner=group:sailing", teams["ben"])
    assert "owner" in refused(answer, 400, "invalid_request")


@pytest.mark.asyncio
async def test_groups_are_remembered_for_reading_only() -> None:
    now, asked = {"sailing": "group:sailing"}, []

    async def ask(owner: str) -> dict[str, str]:
        asked.append(owner)
        return dict(now)

    owners, amy = Owners(ask), Caller("amy")
    for _ in range(3):
        assert await owners.meant(amy, "group:sailing") == "group:sailing"
    assert await owners.meant(amy, "") == await owners.meant(amy, "user:amy") == "user:amy"
    assert asked == ["user:amy"]
    now.clear()
    with pytest.raises(NotFound, match="'sailing'"):
        await owners.meant(amy, "group:sailing", fresh=True)
    with pytest.raises(NotFound, match="'sailing'"):  # and that is known to readers at once
        await owners.meant(amy, "group:sailing")
    with pytest.raises(InvalidRequest):
        await owners.meant(amy, "group:" + "x" * 301)
    assert asked == ["user:amy", "user:amy"]
