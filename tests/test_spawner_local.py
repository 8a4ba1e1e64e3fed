"""The local spawner, and what all spawners share: a real Hub, a desk in the service's place."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from kaos_hub.engines.base import Phase
from kaos_hub.engines.supervised.process import Processes
from kaos_hub.errors import LimitExceeded, NotBuilt
from tests.desk import TOKEN, events, hub_at_desk
from tests.hub import request, wait_until


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with hub_at_desk(tmp_path_factory.mktemp("hub")) as (hub, desk):
        yield hub, desk


@pytest.fixture
def hub(place):
    hub, desk = place
    desk.decide, desk.delay = desk.admit, 0.0
    yield hub
    for name in [n for n, s in hub.api("GET", f"/users/{hub.me}").json["servers"].items()]:
        hub.api("DELETE", hub.path(name))


@pytest.fixture
def desk(hub, place):
    desk = place[1]
    desk.asked.clear()
    desk.released.clear()
    return desk


def phase(hub, workload: str) -> Phase:
    return Processes(hub.data.workloads).observe(workload).phase


def main_process(hub, workload: str) -> int:
    """The notebook's Jupyter server: the process that listens."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if workload.encode() in environment and b"kaos_hub.workload.notebook.start" in words:
                return int(entry.name)
    raise AssertionError(f"no process of {workload}")


def test_start_and_stop(hub, desk):
    answer = hub.launch("one", {"size": "small"})
    assert answer.status in (201, 202)
    assert [(r.user, r.server, r.options) for r in desk.asked] == [
        (hub.me, "one", {"size": "small"})
    ]
    workload = hub.server("one")["state"]["workload"]
    assert phase(hub, workload) is Phase.RUNNING
    # Asked with nothing, the server itself refuses; with the user's token it answers.
    assert request("GET", f"{hub.url}/user/{hub.me}/one/api/contents").status == 403
    token = hub.api("POST", f"/users/{hub.me}/tokens", {"scopes": ["access:servers!user"]}).json
    opened = request("GET", f"{hub.url}/user/{hub.me}/one/api/contents", token["token"])
    assert opened.status == 200
    assert "work" in [entry["name"] for entry in opened.json["content"]]

    hub.end("one")
    assert phase(hub, workload).ended
    released = wait_until(lambda: desk.released, 5)
    assert [(r.server, r.workload, r.stopped_by_hub) for r in released] == [("one", workload, True)]


def test_environment_and_token(hub, desk):
    hub.launch()
    workload = hub.server()["state"]["workload"]
    raw = Path(f"/proc/{main_process(hub, workload)}/environ").read_bytes()
    env = dict(word.split("=", 1) for word in raw.decode().split("\0") if "=" in word)
    assert env["KAOS_NOTEBOOK"] == "default"
    assert env["KAOS_URL"] == f"http://127.0.0.1:{hub.data.port('service')}/services/kaos"
    assert env["MEM_LIMIT"] == str(2**30)
    assert env["CPU_LIMIT"] == "1.0"
    assert "CONFIGPROXY_AUTH_TOKEN" not in env
    secrets = [p.read_text() for p in hub.data.secrets.iterdir()]
    assert not [s for s in secrets if s in raw.decode()]
    model = request("GET", f"{env['JUPYTERHUB_API_URL']}/user", env["JUPYTERHUB_API_TOKEN"]).json
    assert set(model["scopes"]) >= {
        f"access:servers!server={hub.me}/",
        "access:services!service=kaos",
    }
    assert not [s for s in model["scopes"] if s.startswith(("servers", "tokens", "delete"))]


def test_refusal_is_read_everywhere(hub, desk):
    desk.refuse(LimitExceeded("You have 2 of 2 <i>notebooks</i>.", page="/services/kaos/"))
    said = "You have 2 of 2 <i>notebooks</i>."
    escaped = "You have 2 of 2 &lt;i&gt;notebooks&lt;/i&gt;."

    rest = hub.api("POST", hub.path("full"), {})
    assert rest.status == 403
    assert said in rest.json["message"]

    stream = events(hub.api("GET", hub.path("full") + "/progress"))
    assert stream[-1]["failed"]
    assert said in stream[-1]["message"]
    assert escaped in stream[-1]["html_message"]
    assert 'href="/services/kaos/"' in stream[-1]["html_message"]

    page = hub.browser(hub.me).post(f"/hub/spawn/{hub.me}/full", {"cpu": "1"})
    assert page.status == 403
    assert escaped in page.text
    assert said not in page.text
    assert 'href="/services/kaos/"' in page.text
    assert not desk.released


def test_unbuilt_is_refused_with_a_link(hub, desk):
    desk.refuse(NotBuilt("It is being built.", page="/services/kaos/notebooks/full"))
    answer = hub.api("POST", hub.path("full"), {})
    assert answer.status == 409
    assert "/services/kaos/notebooks/full" in answer.json["message"]
    before = len(hub.log.read_text())
    page = hub.browser(hub.me).post(f"/hub/spawn/{hub.me}/full", {"cpu": "1"})
    assert page.headers["refresh"] == "0; url=/services/kaos/notebooks/full?open=1"
    assert 'name="cpu"' not in page.text
    # A Hub that is slow shows another page until it is known, and that leads on, too.
    late = hub.browser(hub.me).get(f"{hub.url}/hub/spawn-pending/{hub.me}/full")
    assert f'http-equiv="refresh" content="{page.headers["refresh"]}"' in late.text
    log = hub.log.read_text()[before:]
    assert "Failed to spawn single-user server with form: It is being built." in log
    assert "Traceback" not in log, "an ordinary refusal is no defect"


def test_absent_service_refuses_clearly_and_a_restarting_one_is_waited_for(hub, desk):
    desk.close()
    try:
        refused = hub.api("POST", hub.path("away"), {})
        assert refused.status == 503
        assert "kaos service does not answer" in refused.json["message"]
        back = threading.Timer(0.7, desk.open)
        back.start()
        assert hub.launch("away").status in (201, 202)
    finally:
        back.join()


def test_others_may_not_run_code_as_the_os_user(hub, desk):
    hub.api("POST", "/users/bob")
    answer = hub.api("POST", "/users/bob/server", {})
    assert answer.status == 403
    assert "--trust-all-users" in answer.json["message"]


def test_death_is_noticed_and_reported(hub, desk):
    hub.launch("mortal")
    workload = hub.server("mortal")["state"]["workload"]
    os.kill(main_process(hub, workload), signal.SIGKILL)
    released = wait_until(lambda: desk.released, 10, "the report of its death")
    assert released[0].workload == workload
    assert not released[0].stopped_by_hub
    assert released[0].exit_code
    assert not hub.server("mortal").get("ready")


def test_early_death_is_told_at_once(hub, desk, tmp_path):
    """A server that cannot even start must not keep anybody waiting for a timeout."""
    spec_of = desk.admit

    def without_home(asked):
        spec = spec_of(asked)
        mount = spec.mounts[0].model_copy(update={"source": str(tmp_path / "file")})
        (tmp_path / "file").write_text("")
        return spec.model_copy(update={"mounts": [mount]})

    desk.decide = without_home
    begun = time.monotonic()
    answer = hub.api("POST", hub.path("broken"), {})
    assert answer.status in (500, 503)
    assert time.monotonic() - begun < 8
    assert hub.server("broken").get("ready") is not True


def test_cancelled_start_leaves_nothing(hub, desk):
    desk.delay = 3
    hub_answer = {}
    asking = threading.Thread(
        target=lambda: hub_answer.update(status=hub.api("POST", hub.path("late"), {}).status)
    )
    asking.start()
    wait_until(lambda: desk.asked, 5)
    assert hub.api("DELETE", hub.path("late")).status in (202, 204)
    asking.join()
    wait_until(lambda: not hub.server("late").get("pending"), 10)
    assert not hub.server("late").get("ready")
    # The service may have admitted it; it is told that nothing came of that.
    released = wait_until(lambda: desk.released, 5)
    assert [(r.server, r.workload, r.stopped_by_hub) for r in released] == [("late", "", True)]


def test_start_cancelled_halfway_ends_what_was_launched(hub, desk):
    asking = threading.Thread(target=lambda: _quietly(hub, "halfway"))
    asking.start()
    workload = wait_until(lambda: hub.server("halfway").get("state", {}).get("workload"), 10)
    assert hub.api("DELETE", hub.path("halfway")).status in (202, 204)
    asking.join()
    released = wait_until(lambda: desk.released, 15)
    assert [(r.workload, r.stopped_by_hub) for r in released] == [(workload, True)]
    assert phase(hub, workload).ended
    assert not hub.server("halfway").get("ready")


def test_link_starts_nothing(hub, desk):
    desk.options = json.loads(Path(__file__).with_name("form_options.json").read_text())
    browser = hub.browser(hub.me)
    page = browser.get(f"/hub/spawn/{hub.me}/linked?opt-source=demo")
    assert "cannot start a notebook" in page.text
    assert 'name="source"' in page.text
    assert not desk.asked
    assert not hub.server("linked").get("started")


def test_form_choices_reach_admission(hub, desk):
    desk.refuse(LimitExceeded("no"))
    hub.browser(hub.me).post(
        f"/hub/spawn/{hub.me}/chosen",
        {"source": "demo@v3", "data": "", "cpu": "500m", "unknown": "x", "idle_timeout": "30m"},
    )
    assert desk.asked[0].options == {"source": "demo@v3", "cpu": "500m", "idle_timeout": "30m"}


@pytest.mark.parametrize("options", ['{"cpu": NaN}', '{"a": {"b": [Infinity]}}'])
def test_options_that_are_no_json_are_refused(hub, desk, options):
    answer = request("POST", f"{hub.url}/hub/api{hub.path('odd')}", TOKEN, options.encode())
    assert answer.status == 400
    assert "names and numbers" in answer.json["message"]
    assert not desk.asked
    assert hub.api("GET", "/users").status == 200


def test_nonsense_in_the_form_is_told_before_anything_starts(hub, desk):
    page = hub.browser(hub.me).post(f"/hub/spawn/{hub.me}/chosen", {"memory": "lots"})
    assert "512Mi" in page.text
    assert not desk.asked


def test_killed_hub_finds_its_notebooks(hub, desk):
    hub.launch("kept")
    before = hub.server("kept")["state"]
    pid = main_process(hub, before["workload"])
    hub.kill()
    hub.start()
    assert hub.server("kept")["ready"]
    assert hub.server("kept")["state"] == before
    assert main_process(hub, before["workload"]) == pid
    assert request("GET", f"{hub.url}/user/{hub.me}/kept/api").status == 200
    hub.end("kept")
    assert phase(hub, before["workload"]).ended


def test_hub_killed_while_starting_adopts_what_it_began(hub, desk):
    asking = threading.Thread(target=lambda: _quietly(hub, "begun"))
    asking.start()
    wait_until(lambda: hub.server("begun").get("state", {}).get("workload"), 10)
    hub.kill()
    asking.join()
    hub.start()
    # Jupyter itself waits some seconds for a Hub that is away.
    wait_until(lambda: hub.server("begun").get("ready") or desk.released, 40, "adoption")
    server = hub.server("begun")
    if server.get("ready"):
        assert phase(hub, server["state"]["workload"]) is Phase.RUNNING
        hub.end("begun")
    assert [r.server for r in wait_until(lambda: desk.released, 5)] == ["begun"]


def _quietly(hub, name: str) -> None:
    with contextlib.suppress(OSError):
        hub.api("POST", hub.path(name), {})


def test_stopped_hub_leaves_notebooks_and_nothing_else(hub, desk):
    hub.launch("stays")
    workload = hub.server("stays")["state"]["workload"]
    hub.stop()
    assert phase(hub, workload) is Phase.RUNNING
    assert not (hub.data.path / "proxy.pid").exists()
    hub.start()
    assert hub.server("stays")["ready"]
