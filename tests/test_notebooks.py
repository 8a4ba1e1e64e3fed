"""A notebook's whole life on a real Hub, on each engine, as its user sees it."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import (
    BuildFailed,
    Forbidden,
    KaosError,
    LimitExceeded,
    NotFound,
    RestartRequired,
)
from kaos_hub.schemas import Notebook, NotebookState
from kaos_hub.service.notebooks.hosting import Hosting
from tests.engines import ENGINES
from tests.hub import RunningHub, request, running_hub, wait_until
from tests.kernels import Kernel

CONFIG = """
c.KaosService.limits = {
    "default": {"notebooks": 4, "cpu": 8, "memory": "8Gi", "gpu": 0},
    "user:two": {"notebooks": 2},
    "user:small": {"memory": "1Gi", "cpu": 1},
}
c.Spawner.environment = {"KAOS_ACTIVITY_INTERVAL": "1"}
"""


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"hub-{request.param}")
    with running_hub(directory, engine=request.param, config=CONFIG) as running:
        yield running


def client(hub: RunningHub, user: str) -> Client:
    return Client(hub.url, hub.token(user))


def source(path: Path, requirements: str = "humanize\n", code: str = "one = 1\n") -> Path:
    """A source bundle in the shape of the seeds."""
    model = path / "model"
    model.mkdir(parents=True, exist_ok=True)
    (path / "Dockerfile").write_text(
        "FROM python:3.13-slim\nWORKDIR /opt/program\nCOPY requirements.txt .\n"
        "RUN pip install -r requirements.txt\nCOPY . .\n"
    )
    (model / "requirements.txt").write_text(requirements)
    (model / "code.py").write_text(code)
    return path


def data(path: Path) -> Path:
    (path / "features" / "empty").mkdir(parents=True, exist_ok=True)
    (path / "features" / "numbers.csv").write_text("1,2\n3,4\n")
    (path / "nothing").write_text("")
    return path


def state(client: Client, name: str) -> NotebookState:
    return client.notebooks.get(name).state


def contents(notebook: Notebook, token: str, path: str) -> str | None:
    answer = request("GET", f"{notebook.url}/api/contents/{path}", token)
    return answer.json["content"] if answer.status == 200 else None


def write(notebook: Notebook, token: str, path: str, text: str) -> None:
    body = {"type": "file", "format": "text", "content": text}
    assert request("PUT", f"{notebook.url}/api/contents/{path}", token, body).status < 300


def test_source_and_data_become_a_notebook(hub: RunningHub, tmp_path: Path) -> None:
    """Build, host, read the data, import the package, edit, redeploy, stop, start, delete."""
    token = hub.token("whole")
    kaos = Client(hub.url, token)
    folder = source(tmp_path / "example")
    notebook = kaos.notebooks.deploy(source=folder, data=data(tmp_path / "data")).wait()
    assert (notebook.name, notebook.state) == ("example", "RUNNING")
    assert notebook.build.state == "SUCCEEDED"
    assert "requirements.txt" in "\n".join(kaos.notebooks.build_logs("example"))

    kernel = Kernel(notebook.url, token)
    seen = kernel.run(
        "import humanize, json, os, pathlib\n"
        "root = pathlib.Path(os.environ['KAOS_DATA'])\n"
        "print(json.dumps(sorted(str(p.relative_to(root)) for p in root.rglob('*'))))\n"
        "print((root / 'features/numbers.csv').read_text())"
    )
    listing, *rows = seen.splitlines()
    assert json.loads(listing) == ["features", "features/empty", "features/numbers.csv", "nothing"]
    assert rows[:2] == ["1,2", "3,4"]
    ancestor = "pathlib.Path('/pfs', os.environ['DATA_REPO'], 'nothing').exists()"
    assert kernel.run(ancestor) == "True"
    assert "one = 1" in kernel.run("print(open('/opt/program/code.py').read())")
    with pytest.raises(AssertionError, match=r"Read-only|Permission"):
        kernel.run("open(root / 'features/numbers.csv', 'w')")
    listed = kernel.run(
        "import subprocess\n"
        "command = ['kaos', '--json', 'notebook', 'list']\n"
        "print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)"
    )
    assert json.loads(listed)[0]["state"] == "RUNNING"

    # an edit survives the redeploy of changed code, and the kernel lives on
    kernel.run("kept = 42")
    write(notebook, token, "work/model/mine.py", "mine")
    write(notebook, token, "work/model/code.py", "one = 'my edit'\n")
    source(tmp_path / "example", code="one = 2\n")
    (folder / "model" / "new.py").write_text("new")
    answer = kaos.notebooks.deploy(source=folder)
    assert answer.wait().source.version == 2
    wait_until(lambda: contents(notebook, token, "work/model/new.py") == "new", 20, "the update")
    assert contents(notebook, token, "work/model/mine.py") == "mine"
    assert contents(notebook, token, "work/model/code.py") == "one = 'my edit'\n"
    assert kernel.run("kept") == "42"

    # a new environment asks first
    source(tmp_path / "example", "humanize\ntoolz\n", code="one = 2\n")
    with pytest.raises(RestartRequired, match="environment"):
        kaos.notebooks.deploy(source=folder)
    assert kernel.run("kept") == "42"
    notebook = kaos.notebooks.deploy(source=folder, restart=True).wait()
    assert notebook.state == "RUNNING"
    assert Kernel(notebook.url, token).run("import toolz; 5") == "5"
    assert contents(notebook, token, "work/model/code.py") == "one = 'my edit'\n"

    kaos.notebooks.stop("example")
    stopped = kaos.notebooks.wait("example")
    assert (stopped.state, stopped.reason) == ("STOPPED", "stopped by whole")
    assert "ServerApp" in "\n".join(kaos.notebooks.logs("example"))
    assert request("GET", f"{notebook.url}/api/status", token).status >= 400
    kaos.notebooks.start("example")
    assert kaos.notebooks.wait("example").state == "RUNNING"
    assert contents(notebook, token, "work/model/mine.py") == "mine"
    kaos.notebooks.delete("example")
    assert kaos.notebooks.list() == []
    assert not list((hub.data / "homes").glob("*")), "the home is still there"
    assert len(kaos.bundles.list()) >= 3


@pytest.mark.parametrize("inputs", ["nothing", "data", "source"])
def test_any_part_may_be_missing(hub: RunningHub, tmp_path: Path, inputs: str) -> None:
    token = hub.token(f"part-{inputs}")
    kaos = Client(hub.url, token)
    given = {
        "nothing": {},
        "data": {"data": data(tmp_path / "mnist" / "data")},
        "source": {"source": source(tmp_path / "notebook" / "example", "").parent},
    }[inputs]
    notebook = kaos.notebooks.deploy(**given).wait()
    assert notebook.state == "RUNNING"
    kernel = Kernel(notebook.url, token)
    has_data = kernel.run("import os; 'KAOS_DATA' in os.environ")
    assert has_data == str(inputs == "data")
    kaos.notebooks.stop(notebook.name)


def test_a_broken_requirement_is_named_and_what_worked_still_starts(
    hub: RunningHub, tmp_path: Path
) -> None:
    kaos = client(hub, "broken")
    folder = source(tmp_path / "example", "# a comment\nhumanize\n")
    kaos.notebooks.deploy(source=folder).wait()
    kaos.notebooks.stop("example")
    kaos.notebooks.wait("example")
    source(folder, "toolz\nhumanize==999.9\n")
    with pytest.raises(BuildFailed, match=r"model/requirements.txt:2.*999\.9"):
        kaos.notebooks.deploy(source=folder).wait()
    failed = kaos.notebooks.get("example")
    assert failed.state == "FAILED"
    assert failed.host.state == "SKIPPED"
    assert "999.9" in "\n".join(kaos.notebooks.build_logs("example"))
    kaos.notebooks.start("example")
    again = kaos.notebooks.wait("example")
    assert (again.state, again.source.version) == ("RUNNING", 1)
    assert "999.9" in "\n".join(kaos.notebooks.build_logs("example")), "the log is gone"
    kaos.notebooks.kill("example")


def test_what_never_came_to_a_build_shows_nothing_of_an_earlier_one(
    hub: RunningHub, tmp_path: Path
) -> None:
    """A base that is nowhere, after a build that failed."""
    if hub.engine == "local":
        pytest.skip("the engine local has a Python for any base")
    kaos = client(hub, "baseless")
    folder = source(tmp_path / "example", "humanize==999.9\n")
    with pytest.raises(BuildFailed, match=r"999\.9"):
        kaos.notebooks.deploy(source=folder).wait()
    (folder / "Dockerfile").write_text("FROM python:3.1-nowhere\nCOPY . .\n")
    for attempt in (lambda: kaos.notebooks.deploy(source=folder).model, retry(kaos, "example")):
        seen = attempt()
        assert (seen.build.state, seen.build.reason, seen.build.job) == ("QUEUED", "", None)
        with pytest.raises(KaosError, match=r"3\.1-nowhere") as e:
            kaos.notebooks.wait("example")
        assert "999.9" not in e.value.message
        failed = kaos.notebooks.get("example")
        assert (failed.build.state, failed.build.reason) == ("FAILED", failed.reason)
        with pytest.raises(NotFound, match="nothing was built for it"):
            list(kaos.notebooks.build_logs("example"))
    kaos.notebooks.delete("example")


def retry(kaos: Client, name: str) -> Callable[[], Notebook]:
    """What builds it again."""
    return lambda: kaos.notebooks.retry(name)


def test_a_new_version_that_fails_to_build_leaves_what_runs_alone(
    hub: RunningHub, tmp_path: Path
) -> None:
    token = hub.token("careful")
    kaos = Client(hub.url, token)
    folder = source(tmp_path / "example", "humanize\n")
    notebook = kaos.notebooks.deploy(source=folder).wait()
    kernel = Kernel(notebook.url, token)
    kernel.run("kept = 42")
    source(folder, "humanize==999.9\n", code="one = 3\n")
    with pytest.raises(BuildFailed, match=r"requirements.txt:1.*previous version still runs"):
        kaos.notebooks.deploy(source=folder, restart=True).wait()
    time.sleep(3)
    assert contents(notebook, token, "work/model/code.py") == "one = 1\n"
    assert kaos.notebooks.get("example").host.state == "RUNNING"
    source(folder, "humanize\n", code="one = 4\n")
    again = kaos.notebooks.deploy(source=folder).wait()
    assert (again.state, again.reason, again.build.state) == ("RUNNING", "", "SKIPPED")
    assert "999.9" in "\n".join(kaos.notebooks.build_logs("example"))
    wait_until(
        lambda: contents(notebook, token, "work/model/code.py") == "one = 4\n", 20, "the update"
    )
    assert kernel.run("kept") == "42"
    kaos.notebooks.kill("example")


def test_a_start_while_it_stops_is_not_lost(hub: RunningHub) -> None:
    kaos = client(hub, "undecided")
    others = {p.name for p in (hub.data / "homes").iterdir()}
    kaos.notebooks.deploy(name="one").wait()
    for pause in (0.0, 0.3):
        kaos.notebooks.stop("one")
        time.sleep(pause)
        kaos.notebooks.start("one")
        assert kaos.notebooks.wait("one").state == "RUNNING"
    (home,) = [p.name for p in (hub.data / "homes").iterdir() if p.name not in others]
    kaos.notebooks.delete("one")
    wait_until(lambda: not workloads(hub, home), 20, "the end of all it left")


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.08, 0.2])
def test_a_stop_while_it_starts_is_not_lost(hub: RunningHub, pause: float) -> None:
    """At whatever moment of the start it comes: before the Hub heard, at admission, or after."""
    kaos = client(hub, "hasty")
    kaos.notebooks.deploy(name="one")
    for event in kaos.notebooks.events("one"):
        if event.state not in ("QUEUED", "BUILDING"):
            break
    time.sleep(pause)
    kaos.notebooks.kill("one")
    assert kaos.notebooks.wait("one").state == "STOPPED"
    time.sleep(0.5)
    assert state(kaos, "one") == "STOPPED"
    servers = hub.hub_api("GET", "/users/hasty").json["servers"]
    assert not any(server["ready"] or server["pending"] for server in servers.values())
    kaos.notebooks.delete("one")


def test_the_next_of_that_name_is_not_taken_for_the_one_deleted(hub: RunningHub) -> None:
    """Whoever still ends the server of the old one must not end that of the new one."""
    kaos = client(hub, "again")
    kaos.notebooks.deploy(name="one").wait()
    for _ in range(3):
        kaos.notebooks.delete("one")
        assert kaos.notebooks.deploy(name="one").wait().state == "RUNNING"
    kaos.notebooks.delete("one")


class HostingWithABug(Hosting):
    """Cannot drive anything, and says so in no way that is foreseen."""

    def __init__(self) -> None:
        self.asked, self.told = 0, list[str]()

    async def _drive(self, notebook_id: str) -> None:
        self.asked += 1
        raise ZeroDivisionError(notebook_id)

    async def _not_prepared(self, notebook_id: str, message: str) -> None:
        self.told.append(message)


async def test_what_cannot_be_driven_on_is_given_up_after_some_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits neither for ever nor silently."""
    monkeypatch.setattr("kaos_hub.service.notebooks.hosting.TRIES", 2)
    hosting = HostingWithABug()
    await hosting._keep_driving("x")
    assert hosting.asked == 2 and len(hosting.told) == 1
    assert "something went wrong in the service" in hosting.told[0]


def workloads(hub: RunningHub, notebook_id: str) -> list[str]:
    """Containers or supervised processes of a notebook, running or ended."""
    if hub.engine == "docker":
        name = f"name=kaos-notebook-{notebook_id}"
        asked = ["docker", "ps", "-a", "--format", "{{.Names}}", "--filter", name]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    return [p.name for p in (hub.data / "workloads").glob(f"kaos-notebook-{notebook_id}-*")]


def test_six_simultaneous_starts_admit_exactly_two(hub: RunningHub) -> None:
    """However a start is asked for, the limit holds, and its words reach whoever asked."""
    hub.token("two")

    def start(number: int) -> tuple[int, str]:
        server = f"/users/two/servers/n{number}"
        answer = hub.hub_api("POST", server, {"user_options": {}})
        if answer.status != 202:
            return answer.status, answer.text
        # A Hub that is slow answers before it knows; then its events tell.
        told = hub.hub_api("GET", f"{server}/progress").text
        return (500 if '"failed": true' in told else 201), told

    # the environment is made first, so that only the limit decides
    kaos = client(hub, "two")
    kaos.notebooks.deploy(name="first").wait()
    kaos.notebooks.delete("first")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(start, range(6)))
    refused = [text for status, text in answers if status >= 400]
    assert len(refused) == 4, answers
    assert all("Your limit is 2 running notebooks" in text for text in refused), refused

    def ready() -> int:
        servers = hub.hub_api("GET", "/users/two").json["servers"].values()
        return sum(server["ready"] for server in servers)

    wait_until(lambda: ready() == 2, 120, "two servers")
    assert kaos.whoami().usage.notebooks == 2
    assert len(kaos.notebooks.list()) == 2, "a refused start left a notebook behind"
    for notebook in kaos.notebooks.list():
        kaos.notebooks.kill(notebook.name)


def test_more_than_one_may_ever_have_is_refused_at_once(hub: RunningHub) -> None:
    kaos = client(hub, "small")
    with pytest.raises(KaosError, match="2Gi is more than your limit of 1Gi"):
        kaos.notebooks.deploy(memory="2Gi", cpu="1")
    assert kaos.notebooks.list() == []
    kaos.notebooks.deploy(name="one", memory="600Mi", cpu="500m").wait()
    with pytest.raises(LimitExceeded, match="600Mi held, 600Mi asked for; 424Mi would fit"):
        kaos.notebooks.deploy(name="other", memory="600Mi", cpu="0.5")
    assert [n.name for n in kaos.notebooks.list()] == ["one"]
    kaos.notebooks.kill("one")


def test_an_idle_notebook_goes_and_a_busy_one_stays(hub: RunningHub) -> None:
    token = hub.token("idle")
    kaos = Client(hub.url, token)
    deploys = [
        threading.Thread(
            target=lambda n: kaos.notebooks.deploy(
                name=n, idle_timeout="6s", idle_type="activity"
            ).wait(),
            args=(name,),
        )
        for name in ("lazy", "busy")
    ]
    for thread in deploys:
        thread.start()
    for thread in deploys:
        thread.join()
    busy = kaos.notebooks.get("busy")
    Kernel(busy.url, token).begin("import time; time.sleep(600)")
    gone = wait_until(
        lambda: (n := kaos.notebooks.get("lazy")).state == "STOPPED" and n, 40, "the idle stop"
    )
    assert gone.reason.startswith("idle for 6 s (nobody has written or run anything since ")
    assert state(kaos, "busy") == "RUNNING"
    verdict = kaos.notebooks.get("busy").verdict
    assert verdict is not None
    assert verdict.reason == "in use: 1 kernel busy"
    kaos.notebooks.kill("busy")


def test_a_kernel_that_used_too_much_memory_is_explained(hub: RunningHub) -> None:
    if hub.engine == "local":
        pytest.skip("the engine local counts memory and does not limit it")
    token = hub.token("greedy")
    kaos = Client(hub.url, token)
    kaos.notebooks.deploy(name="greedy", memory="256Mi").wait()
    kernel = Kernel(kaos.notebooks.get("greedy").url, token)
    kernel.run("1")
    kernel.begin("import time; time.sleep(1); x = b'x' * (1 << 30)")
    seen = wait_until(
        lambda: (n := kaos.notebooks.get("greedy")).reason and n, 30, "why the kernel died"
    )
    assert seen.state == "RUNNING"
    assert re.fullmatch(
        r"a process was ended at \d\d:\d\d UTC, because the notebook used more than its 256Mi of"
        r" memory; deploy with --memory to give it more",
        seen.reason,
    )
    kaos.notebooks.kill("greedy")


def test_two_deploys_of_one_name_at_once_make_one_notebook(hub: RunningHub, tmp_path: Path) -> None:
    kaos = client(hub, "twice")
    folder = source(tmp_path / "example", "")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(lambda: kaos.notebooks.deploy(source=folder)) for _ in range(2)]
        for deployed in both:
            deployed.result()
    assert kaos.notebooks.wait("example").state == "RUNNING"
    assert len(kaos.notebooks.list()) == 1
    workloads = [p.name for p in (hub.data / "workloads").glob("kaos-build-*")]
    assert len(workloads) <= 1
    kaos.notebooks.kill("example")


def test_nobody_else_can_reach_a_notebook(hub: RunningHub, tmp_path: Path) -> None:
    mine, theirs = hub.token("ada"), hub.token("bob")
    kaos = Client(hub.url, mine)
    notebook = kaos.notebooks.deploy(name="secret", data=data(tmp_path / "secret-data")).wait()
    for token, status in ((mine, 200), (theirs, 403), (None, 403)):
        assert request("GET", f"{notebook.url}/api/status", token).status == status
    bob = Client(hub.url, theirs)
    for ask in (bob.notebooks.get, bob.notebooks.start, bob.notebooks.kill, bob.notebooks.delete):
        with pytest.raises(KaosError, match="no notebook 'secret'"):
            ask("secret")
    with pytest.raises(KaosError, match="no data bundle"):
        bob.notebooks.deploy(data=notebook.data.digest)
    assert bob.bundles.list() == []
    kaos.notebooks.kill("secret")


def test_the_local_engine_serves_only_its_user(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub", trust_all=False) as hub:
        with pytest.raises(Forbidden, match="--trust-all-users"):
            client(hub, "stranger").notebooks.deploy()
        answer = hub.hub_api("POST", "/users/stranger/servers/x", {"user_options": {}})
        assert answer.status in (403, 400)
        assert "--trust-all-users" in answer.text
