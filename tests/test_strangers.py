"""User B tries everything of user A's, on every engine: gets nothing, not even that it exists."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from kaos_hub.client import Client
from kaos_hub.schemas import Notebook
from tests.engines import ENGINES
from tests.hub import RunningHub, request, running_hub
from tests.kernels import Kernel

HERS = {"name": "secret", "kind": "data", "version": "1", "errand": "0" * 16, "id": "user:ada"}
NOBODYS = HERS | {"name": "nosuch", "id": "user:nosuch"}
BODIES = {
    "hand-over": {"to": "user:bob"},
    "activity": {"last_use": "2026-01-01T00:00:00Z"},
    "attach": {"data": "secret"},
    "git": {"repository": "https://x/y", "state": "CLONED"},
    "credentials": {"repository": "https://x/y"},
}
QUERIES = {"file": "?path=diary.txt", "changes": "?since=1"}
NEVER = "blake3:" + "0" * 64


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), engine=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def hers(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Notebook, str]:
    """A running notebook of Ada's with data, and its data's digest."""
    folder = tmp_path_factory.mktemp("data") / "secret"
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    ada = Client(hub.url, hub.token("ada"))
    notebook = ada.notebooks.deploy(name="secret", data=folder).wait()
    assert notebook.data is not None
    return notebook, notebook.data.digest


def routes(hub: RunningHub) -> Iterator[tuple[str, str]]:
    """Every route of the API that names a thing."""
    document = request("GET", f"{hub.api}/openapi.json").json
    for path, methods in document["paths"].items():
        if "{" in path:
            for method in methods:
                yield method.upper(), path


def answer(hub: RunningHub, token: str, method: str, path: str, names: dict[str, str]) -> object:
    """Status and words, with the names taken out."""
    last = path.rpartition("/")[2]
    place = path.removeprefix("/services/kaos/api/v1").format(**names) + QUERIES.get(last, "")
    got = hub.ask(method, place, token, BODIES.get(last) if method == "POST" else None)
    text = got.text.replace(names["name"], "NAME")
    return got.status, got.headers.get("Content-Type"), text


def test_every_route_answers_as_if_there_were_nothing(
    hub: RunningHub, hers: tuple[Notebook, str]
) -> None:
    bob, ada = hub.token("bob"), hub.token("ada")
    tried = 0
    for method, path in routes(hub):
        foreign = answer(hub, bob, method, path, HERS)
        missing = answer(hub, bob, method, path, NOBODYS)
        assert foreign == missing, f"{method} {path} tells that it exists"
        assert foreign[0] in (403, 404), f"{method} {path}: {foreign}"  # type: ignore[index]
        tried += 1
    assert tried >= 12
    assert Client(hub.url, ada).notebooks.get("secret").state == "RUNNING"


def test_pages_and_the_hub_itself_show_nothing(hub: RunningHub, hers: tuple[Notebook, str]) -> None:
    bob = hub.token("bob")
    for name in ("secret", "nosuch"):
        page = request("GET", f"{hub.kaos}/notebooks/{name}", bob)
        assert page.status == 404
        assert "dear" not in page.text
    assert request("GET", f"{hers[0].url}/api/status", bob).status == 403
    assert request("GET", f"{hub.url}/hub/api/users/ada", bob).status in (403, 404)
    listed = hub.ask("GET", "/notebooks", bob).json
    assert [n for n in listed if n["name"] == "secret"] == []
    assert hub.ask("GET", "/bundles", bob).json == []


@pytest.mark.parametrize("field", ["data", "source"])
def test_her_digest_is_as_unknown_as_any(
    hub: RunningHub, hers: tuple[Notebook, str], field: str
) -> None:
    bob = hub.token("bob")
    said = [
        hub.ask("POST", "/notebooks", bob, {"name": "mine", field: digest, "dry_run": True})
        for digest in (hers[1], NEVER)
    ]
    assert {s.status for s in said} == {404}
    words = {s.text.replace(hers[1], "X").replace(NEVER, "X") for s in said}
    assert len(words) == 1
    asked = {"objects": {hers[1]: 5, NEVER: 5}}
    missing = hub.ask("POST", "/bundles/missing", bob, asked).json["missing"]
    assert set(missing) == {hers[1], NEVER}
    for root in (hers[1], NEVER):
        wish = {"kind": "data", "name": "mine", "root": root}
        refused = hub.ask("POST", "/bundles", bob, wish)
        assert (refused.status, refused.json["code"]) == (409, "missing_objects")


def test_nothing_of_hers_is_in_reach_of_his_notebook(
    hub: RunningHub, hers: tuple[Notebook, str]
) -> None:
    """From inside: no file of hers, no private listener, no API without a token."""
    if hub.engine == "local":
        pytest.skip("on the engine local all users are one OS user; --trust-all-users says so")
    bob = hub.token("bob")
    notebook = Client(hub.url, bob).notebooks.deploy(name="probe").wait()
    kernel = Kernel(notebook.url, bob)
    found = kernel.run(
        "import os\n"
        "print([os.path.join(d, f) for d, _, files in os.walk('/') for f in files"
        " if f == 'diary.txt' and not d.startswith('/proc')])"
    )
    assert found.strip() == "[]"
    port = int(hub.admission.rsplit(":", 1)[1])
    reached = kernel.run(
        "import socket, urllib.parse, json\n"
        "host = urllib.parse.urlsplit(os.environ['KAOS_URL']).hostname\n"
        "def reach(port):\n"
        "    try:\n"
        "        socket.create_connection((host, port), 3).close()\n"
        "        return True\n"
        "    except OSError:\n"
        "        return False\n"
        "service = urllib.parse.urlsplit(os.environ['KAOS_URL']).port\n"
        f"print(json.dumps([reach({port}), reach(service)]))"
    )
    assert json.loads(reached) == [False, True]
    status = kernel.run(
        "import urllib.request, urllib.error\n"
        "def get(path):\n"
        "    url = os.environ['KAOS_URL'] + '/api/v1' + path\n"
        "    asked = urllib.request.Request(url, headers={'Authorization':"
        " 'token ' + os.environ['JUPYTERHUB_API_TOKEN']})\n"
        "    try:\n"
        "        return urllib.request.urlopen(asked).status\n"
        "    except urllib.error.HTTPError as e:\n"
        "        return e.code\n"
        "print([get('/notebooks'), get('/notebooks/secret')])"
    )
    assert status.strip() == "[200, 404]"
    assert request("DELETE", f"{hub.api}/notebooks/{quote('probe')}", bob).status < 300


def test_homes_and_secrets_are_closed_to_other_os_users(hub: RunningHub) -> None:
    for path in (hub.data, hub.data / "secrets", *(hub.data / "secrets").iterdir()):
        assert Path(path).stat().st_mode & 0o077 == 0, path
