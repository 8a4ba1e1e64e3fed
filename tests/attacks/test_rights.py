"""Rights at the moment of use: who has left a group keeps nothing of its things (cause 10)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import KaosError
from kaos_hub.schemas import Notebook
from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.routes import Route
from kaos_hub.service.api.table import all_routes, training_routes
from tests.hub import RunningHub, request, running_hub, wait_until

GRACE = 'c.KaosService.leaver_grace_period = "40s"\nc.KaosHubAuth.cache_max_age = 1\n'
TRAIN = '#!/bin/sh\nmkdir -p "$1"\necho "SECRET OF THE GROUP" > "$1/model.txt"\n'
LEFT = "which you have left"
NEVER = "blake3:" + "0" * 64


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=GRACE) as running:
        yield running


@pytest.fixture(scope="module")
def run(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the group's training; ann is a member who stays."""
    hub.put_into("vision", "ann")
    folder = tmp_path_factory.mktemp("bundles")
    source, data = own(folder, "proj", TRAIN), folder / "points"
    data.mkdir()
    (data / "points.csv").write_text("1\n")
    ann = Client(hub.url, hub.token("ann"), workspace="vision")
    training = ann.trainings.deploy(source=source, data=data)
    assert training.wait().state == "SUCCEEDED", ann.trainings.get(training.id)
    return f"{training.id}.1"


def own(folder: Path, name: str, train: str = "") -> Path:
    """A source bundle in a folder."""
    model = folder / name / "model"
    model.mkdir(parents=True)
    (folder / name / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY model /opt/program\n")
    (model / "train").write_text(train)
    (model / "train").chmod(0o755)
    return folder / name


def join(hub: RunningHub, user: str) -> Client:
    """Make the user a member."""
    hub.put_into("vision", user)
    return Client(hub.url, hub.token(user))


def leave(hub: RunningHub, user: str) -> None:
    """Put the user out of the group."""
    gone = hub.hub_api("DELETE", "/groups/vision/users", {"users": [user]})
    assert gone.status == 200


def on_run(client: Client, run: str, name: str = "onrun") -> Notebook:
    """A running notebook on the group's model."""
    return client.notebooks.deploy(name=name, run=run).wait()


def test_a_former_member_starts_nothing_on_the_groups_things(
    hub: RunningHub, run: str, tmp_path: Path
) -> None:
    """Start, retry and redeploy a notebook on a group's run after leaving (cause 10)."""
    bob, token = join(hub, "bob"), hub.token("bob")
    assert on_run(bob, run).state == "RUNNING"
    bob.notebooks.stop("onrun")
    wait_until(lambda: bob.notebooks.get("onrun").state == "STOPPED", what="the stop")
    leave(hub, "bob")
    for method, path in (
        ("POST", "/notebooks/onrun/start"),
        ("POST", "/notebooks/onrun/retry"),
        ("GET", "/notebooks/onrun/source"),
    ):
        answer = hub.ask(method, path, token)
        assert answer.status == 403 and LEFT in answer.text, (path, answer.text)
    for wish in (
        {"name": "onrun"},
        {"name": "onrun", "cpu": 1},
        {"name": "onrun", "dry_run": True},
    ):
        answer = hub.ask("POST", "/notebooks", token, wish)
        assert answer.status == 403 and LEFT in answer.text, answer.text
    assert bob.notebooks.get("onrun").state == "STOPPED"


def test_the_hub_itself_starts_nothing_either(hub: RunningHub, run: str) -> None:
    """Ask JupyterHub's own API for the server after leaving (cause 10)."""
    cid = join(hub, "cid")
    on_run(cid, run)
    cid.notebooks.stop("onrun")
    wait_until(lambda: cid.notebooks.get("onrun").state == "STOPPED", what="the stop")
    leave(hub, "cid")
    answer = hub.hub_api("POST", "/users/cid/servers/onrun", {})
    assert answer.status >= 400 and LEFT in answer.text, answer.text
    assert cid.notebooks.get("onrun").state != "RUNNING"


def test_own_things_let_it_start_again(hub: RunningHub, run: str, tmp_path: Path) -> None:
    """Only the group's things are refused: with own code and data the notebook starts."""
    dan = join(hub, "dan")
    on_run(dan, run)
    dan.notebooks.stop("onrun")
    wait_until(lambda: dan.notebooks.get("onrun").state == "STOPPED", what="the stop")
    leave(hub, "dan")
    with pytest.raises(KaosError, match=LEFT):
        dan.notebooks.deploy(name="onrun", source=own(tmp_path, "mine"))
    data = own(tmp_path, "numbers")
    again = dan.notebooks.deploy(name="onrun", source=tmp_path / "mine", data=data).wait()
    assert again.state == "RUNNING" and again.run is None
    assert again.data is not None and again.data.name == "numbers"


def test_a_running_notebook_is_told_and_stopped(hub: RunningHub, run: str) -> None:
    """Stay on the group's data by never stopping; save and attach meanwhile (cause 10)."""
    eve, token = join(hub, "eve"), hub.token("eve")
    on_run(eve, run)
    leave(hub, "eve")
    for path, body in (("save", {}), ("attach", {"data": "points"})):
        answer = hub.ask("POST", f"/notebooks/onrun/{path}", token, body)
        assert answer.status in (403, 404), answer.text
    wait_until(lambda: LEFT in eve.notebooks.get("onrun").reason, what="the warning")
    told = eve.notebooks.get("onrun")
    assert told.state == "RUNNING" and "It is stopped within 40 s" in told.reason
    wait_until(lambda: eve.notebooks.get("onrun").state == "STOPPED", 90, "the stop")
    assert LEFT in eve.notebooks.get("onrun").reason


def test_who_comes_back_is_not_stopped(hub: RunningHub, run: str) -> None:
    """A member who was put out by mistake and is back keeps what runs."""
    fay = join(hub, "fay")
    on_run(fay, run)
    leave(hub, "fay")
    wait_until(lambda: LEFT in fay.notebooks.get("onrun").reason, what="the warning")
    join(hub, "fay")
    wait_until(lambda: not fay.notebooks.get("onrun").reason, what="its withdrawal")
    assert fay.notebooks.get("onrun").state == "RUNNING"


def test_a_training_of_a_former_member_ends(hub: RunningHub, run: str, tmp_path: Path) -> None:
    """Leave code of one's own running on the group's data (cause 10)."""
    join(hub, "gus")
    gus = Client(hub.url, hub.token("gus"), workspace="vision")
    source = own(tmp_path, "endless", "#!/bin/sh\nsleep 600\n")
    training = gus.trainings.deploy(source=source, data="points")
    ann = Client(hub.url, hub.token("ann"), workspace="vision")
    wait_until(lambda: ann.trainings.get(training.id).state == "TRAINING", 60, "the training")
    leave(hub, "gus")
    wait_until(lambda: ann.trainings.get(training.id).state == "CANCELLED", 120, "its end")
    assert "gus, who asked for it, has left" in ann.trainings.get(training.id).reason


# --- every route ---

HIDDEN = (404, "You are not in a group")
"""The group is named: its things are as if they were not there."""
OWN = (None, "")
"""Nothing of a group's can be named: the route is about the caller's own, or about nobody's."""
REFUSED = (403, LEFT)
"""The caller's own notebook stands on the group's things."""

NOTEBOOK = {
    ("POST", "/notebooks"): REFUSED,
    ("POST", "/notebooks/{name}/start"): REFUSED,
    ("POST", "/notebooks/{name}/retry"): REFUSED,
    ("GET", "/notebooks/{name}/source"): REFUSED,
}
"""What is done with a notebook that stands on the group's things; the rest is about its row."""

PRIVATE = {
    "GET /info", "GET /openapi.json", "GET /notebooks", "GET /trainings/events",
    "GET /notebooks/events", "GET /notebooks/{name}", "DELETE /notebooks/{name}",
    "POST /notebooks/{name}/stop", "POST /notebooks/{name}/kill",
    "GET /notebooks/{name}/build-log", "GET /notebooks/{name}/host-log",
    "GET /notebooks/{name}/events", "POST /notebooks/{name}/activity",
    "POST /notebooks/{name}/save", "POST /notebooks/{name}/attach",
    "GET /notebooks/{name}/errands/{errand}", "POST /notebooks/{name}/errands/{errand}",
    "POST /notebooks/{name}/git", "POST /notebooks/{name}/git/credentials",
    "GET /volumes", "POST /volumes", "DELETE /volumes/{name}", "GET /workspaces",
    "POST /login", "POST /login/token",
    "GET /owners", "POST /owners/{id}/hand-over", "DELETE /owners/{id}",
}  # fmt: skip
"""Routes about the caller's own: a group cannot be named there. Saving and attaching are refused
while the notebook runs, see above; this one is stopped."""


def table() -> list[tuple[str, Route]]:
    """All routes of both services."""
    kaos = all_routes(Logins(), "/services/kaos/api/v1")
    train = training_routes(Logins(), "/services/kaos-train/api/v1")
    return [("kaos", route) for route in kaos] + [("kaos-train", route) for route in train]


@pytest.fixture(scope="module")
def former(hub: RunningHub, run: str) -> str:
    """The token of a former member with a stopped notebook on the group's run."""
    hal = join(hub, "hal")
    on_run(hal, run)
    hal.notebooks.stop("onrun")
    wait_until(lambda: hal.notebooks.get("onrun").state == "STOPPED", what="the stop")
    leave(hub, "hal")
    token, as_group = hub.token("hal"), {"X-Kaos-Owner": "group:vision"}
    # What the Hub said of a membership is believed for some seconds, by reads alone.
    wait_until(
        lambda: request("GET", f"{hub.api}/whoami", token, headers=as_group).status == 404,
        what="reads to be refused, too",
    )
    return token


@pytest.mark.parametrize(
    ("service", "route"),
    [pytest.param(s, r, id=f"{s}:{r.method} {r.path}") for s, r in table()],
)
def test_every_route_as_a_former_member(
    hub: RunningHub, run: str, former: str, service: str, route: Route
) -> None:
    """Ask each route for the group's things after leaving (cause 10). A route that is neither
    shared nor listed here fails: whoever adds one says whose things it gives."""
    key = (route.method, route.path)
    training = run.partition(".")[0]
    names = {"name": "onrun", "id": training, "kind": "source"}
    path = route.path
    for parameter in route.parameters:
        path = path.replace(f"{{{parameter}}}", names.get(parameter, "1"))
    root = hub.api if service == "kaos" else f"{hub.train}/api/v1"
    if route.shared:
        body: object = None if route.body is None and not route.reader else {}
        answer = request(
            route.method, root + path, former, b"" if route.reader else body,
            {"X-Kaos-Owner": "group:vision"},
        )  # fmt: skip
        assert (answer.status, HIDDEN[1] in answer.text) == (404, True), (key, answer.text)
    elif key in NOTEBOOK:
        body = {"name": "onrun"} if route.body is not None else None
        answer = hub.ask(route.method, path, former, body)
        assert (answer.status, LEFT in answer.text) == (403, True), (key, answer.text)
    else:
        assert f"{route.method} {route.path}" in PRIVATE, f"{key}: whose things does it give?"
