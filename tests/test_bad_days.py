"""Bad days: whoever dies, and whenever, nothing is lost, doubled or orphaned."""

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from kaos_hub.client import Client
from kaos_hub.errors import KaosError, StorageFull
from kaos_hub.schemas import BundleKind
from tests import databases
from tests.engines import ENGINES
from tests.hub import RunningHub, request, running_hub, wait_until
from tests.kernels import Kernel
from tests.test_notebooks import workloads

SLOW_SETUP = """\
import time
from setuptools import setup
for i in range(12):
    print("slow step", i, flush=True)
    time.sleep(0.5)
setup(name="slow", version="1", py_modules=[])
"""


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"hub-{request.param}")
    with running_hub(directory, engine=request.param) as running:
        yield running


BUILDING = {"local": "Step 3/4", "docker": "slow step 2"}
"""What the log of a slow build says when it is in the middle of it."""


def slow_source(path: Path, engine: str) -> Path:
    """A bundle whose build takes some seconds and counts them in its log."""
    model = path / "model"
    (model / "slow").mkdir(parents=True)
    # unlike any other, so that no build of another test or run is found to be the same
    mark = uuid.uuid4().hex
    if engine == "local":
        (path / "Dockerfile").write_text("FROM python:3.11-slim\n")
        (model / "requirements.txt").write_text(f"./slow\n# {mark}\n")
        (model / "slow" / "setup.py").write_text(SLOW_SETUP)
    else:
        steps = "for i in $(seq 0 11); do echo slow step $i; sleep 0.5; done"
        (path / "Dockerfile").write_text(f"FROM python:3.13-slim\nRUN : {mark}; {steps}\n")
    return path


def rows(hub: RunningHub, query: str) -> list[tuple[object, ...]]:
    engine = create_engine(databases.url_of(hub.data))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        engine.dispose()


def running(hub: RunningHub, user: str) -> list[str]:
    """The processes or containers of a user's notebooks that really run now."""
    ids = [str(id) for (id,) in rows(hub, f"select id from notebooks where owner = 'user:{user}'")]
    if hub.engine == "docker":
        asked = ["docker", "ps", "--format", "{{.Names}}", "--filter", "name=kaos-notebook-"]
        names = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    else:
        asked = ["pgrep", "-fa", f"supervisor.*{hub.data}"]
        lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
        names = [line.split("/")[-1] for line in lines]
    return sorted({n for n in names if any(n.startswith(f"kaos-notebook-{id}-") for id in ids)})


def kill_service(hub: RunningHub) -> None:
    pid = hub.service_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: hub.service_pid() not in (None, pid) and hub.answers(), 40, "its return")


def kill_hub(hub: RunningHub) -> None:
    """As a crash would; its service must not stay behind as an orphan."""
    service = hub.service_pid()
    assert service is not None
    hub.kill()
    wait_until(lambda: not Path(f"/proc/{service}").exists(), 10, "the end of the orphaned service")


def patiently(ask):  # type: ignore[no-untyped-def]
    """What a user does when the service is away for a moment: try again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except KaosError as e:
            if e.status < 500 or time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def test_service_killed_mid_build(hub: RunningHub, tmp_path: Path) -> None:
    """The build goes on without it and is adopted: one job, one build, every line once."""
    kaos = Client(hub.url, hub.token("builder"))
    kaos.notebooks.deploy(source=slow_source(tmp_path / "slow", hub.engine))
    log = lambda: "\n".join(patiently(lambda: list(kaos.notebooks.build_logs("slow"))))  # noqa: E731
    wait_until(
        lambda: kaos.notebooks.get("slow").build.job and BUILDING[hub.engine] in log(),
        120,
        "the build",
    )
    kill_service(hub)
    assert patiently(lambda: kaos.notebooks.wait("slow")).state == "RUNNING"
    steps = [
        line.split()[-1]
        for line in log().splitlines()
        if "slow step" in line and "echo" not in line
    ]
    if hub.engine == "docker":
        assert list(map(int, steps)) == list(range(12)), "a step was lost, or ran or was kept twice"
    assert log().upper().count("STEP 2/") == 1
    builds = rows(
        hub, "select state, attempt from jobs where kind = 'build' and owner = 'user:builder'"
    )
    assert builds == [("SUCCEEDED", 1)]
    kaos.notebooks.delete("slow")


_MINE = "select id from notebooks where owner = 'user:hasty'"


def test_service_killed_right_after_the_deploy(hub: RunningHub, tmp_path: Path) -> None:
    """Between any two of its steps: whatever was written is taken up again."""
    kaos = Client(hub.url, hub.token("hasty"))
    for number, pause in enumerate((0.0, 0.1, 0.4)):
        folder = tmp_path / f"hasty{number}"
        (folder / "model").mkdir(parents=True)
        (folder / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . /opt/program\n")
        (folder / "model" / "requirements.txt").write_text(f"# {number}\n")
        name = kaos.notebooks.deploy(source=folder).name
        time.sleep(pause)
        kill_service(hub)
        assert patiently(lambda name=name: kaos.notebooks.wait(name)).state == "RUNNING"
        assert len(running(hub, "hasty")) == 1
        (notebook_id,) = [id for (id,) in rows(hub, _MINE)]
        patiently(lambda name=name: kaos.notebooks.delete(name))
        if number == 1:
            kill_service(hub)  # before it has cleaned up
        wait_until(lambda id=notebook_id: not workloads(hub, str(id)), 20, "the clean-up")


def test_service_killed_while_it_deletes(hub: RunningHub) -> None:
    """What was to be deleted is deleted, and nothing of it is left, home included."""
    token = hub.token("tidy")
    kaos = Client(hub.url, token)
    name = kaos.notebooks.deploy().wait(240).name
    mine = "select id from notebooks where owner = 'user:tidy'"
    (notebook_id,) = [id for (id,) in rows(hub, mine)]
    assert (hub.data / "homes" / str(notebook_id)).exists()
    answer = hub.ask("DELETE", f"/notebooks/{name}", token)
    kill_service(hub)
    assert answer.json == {"deleted": name, "done": False}, "its server cannot have ended yet"
    wait_until(lambda: patiently(kaos.notebooks.list) == [], 90, "the deletion")
    wait_until(lambda: not workloads(hub, str(notebook_id)), 30, "the end of its server")
    wait_until(lambda: not (hub.data / "homes" / str(notebook_id)).exists(), 30, "no home")


def test_service_killed_during_an_upload(hub: RunningHub, tmp_path: Path) -> None:
    """Nothing of the half bundle is visible; sending again goes on from what had arrived."""
    kaos = Client(hub.url, hub.token("sender"))
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(40):
        (folder / f"part{number}").write_bytes(os.urandom(1 << 20))
    sent = threading.Event()

    def progress(done: int, total: int) -> None:
        if done > total // 4:
            sent.set()

    def submit() -> object:
        return kaos.bundles.submit(folder, BundleKind.DATA, progress=progress)

    failed: list[BaseException] = []

    def upload() -> None:
        try:
            submit()
        except KaosError as e:
            failed.append(e)

    thread = threading.Thread(target=upload)
    thread.start()
    assert sent.wait(30)
    kill_service(hub)
    thread.join(60)
    if failed:  # else it was quicker than we
        assert kaos.bundles.list() == []
    version = submit()
    assert version.files == 40
    assert version.version == 1


def test_hub_killed_with_notebooks_running(hub: RunningHub) -> None:
    """They go on; the next Hub finds them; no service of the old one is left."""
    token = hub.token("survivor")
    kaos = Client(hub.url, token)
    notebook = kaos.notebooks.deploy(name="steady").wait()
    kernel = Kernel(notebook.url, token)
    kernel.run("kept = 42")
    kill_hub(hub)
    hub.start()
    assert kaos.notebooks.get("steady").state == "RUNNING"
    assert kernel.run("kept") == "42"
    kaos.notebooks.stop("steady")
    assert kaos.notebooks.wait("steady").state == "STOPPED"
    assert running(hub, "survivor") == []


def test_hub_killed_while_a_notebook_starts(hub: RunningHub, tmp_path: Path) -> None:
    """Afterwards one notebook runs, not none and not two."""
    folder = tmp_path / "slowstart"
    (folder / "model").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . /opt/program\n")
    (folder / "startup-hook.sh").write_text("echo hook begins; sleep 6; echo hook ends\n")
    kaos = Client(hub.url, hub.token("starter"))
    kaos.notebooks.deploy(source=folder)
    wait_until(lambda: running(hub, "starter"), 60, "the notebook's process")
    kill_hub(hub)
    hub.start()
    assert patiently(lambda: kaos.notebooks.wait("slowstart")).state in ("RUNNING", "STOPPED")
    truly = running(hub, "starter")
    assert len(truly) == (kaos.notebooks.get("slowstart").state == "RUNNING")
    kaos.notebooks.delete("slowstart")
    assert running(hub, "starter") == []


def test_a_notebook_killed_under_us(hub: RunningHub) -> None:
    """State and reason are right within seconds, and what it held is free again."""
    kaos = Client(hub.url, hub.token("victim"))
    kaos.notebooks.deploy(name="doomed").wait()
    (workload,) = running(hub, "victim")
    if hub.engine == "docker":
        subprocess.run(["docker", "kill", workload], check=True, capture_output=True)
    else:
        doomed = [int(p.name) for p in Path("/proc").iterdir() if _is_of(p, "doomed", "victim")]
        assert doomed
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    gone = wait_until(
        lambda: (n := kaos.notebooks.get("doomed")).state in ("FAILED", "STOPPED") and n,
        20,
        "noticing its death",
    )
    assert gone.state == "FAILED"
    assert gone.reason
    assert kaos.whoami().usage.notebooks == 0
    kaos.notebooks.start("doomed")
    assert kaos.notebooks.wait("doomed").state == "RUNNING"
    kaos.notebooks.delete("doomed")


def _is_of(process: Path, notebook: str, user: str) -> bool:
    """Whether a process runs inside that notebook."""
    marks = {f"KAOS_NOTEBOOK={notebook}".encode(), f"JUPYTERHUB_USER={user}".encode()}
    try:
        return marks <= set((process / "environ").read_bytes().split(b"\0"))
    except OSError:
        return False


def test_a_cancelled_build_really_ends(hub: RunningHub, tmp_path: Path) -> None:
    kaos = Client(hub.url, hub.token("fickle"))
    kaos.notebooks.deploy(source=slow_source(tmp_path / "slow", hub.engine))
    wait_until(
        lambda: (
            kaos.notebooks.get("slow").build.job
            and BUILDING[hub.engine] in "\n".join(kaos.notebooks.build_logs("slow"))
        ),
        60,
        "the build",
    )
    kaos.notebooks.stop("slow")
    stopped = kaos.notebooks.wait("slow")
    assert stopped.state == "STOPPED"
    assert stopped.build.state == "CANCELLED"
    length = len(list(kaos.notebooks.build_logs("slow")))
    time.sleep(1.5)
    assert len(list(kaos.notebooks.build_logs("slow"))) == length
    kaos.notebooks.start("slow")
    assert kaos.notebooks.wait("slow").state == "RUNNING"
    kaos.notebooks.delete("slow")


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_disk_full_while_storing(tmp_path: Path) -> None:
    """Refused with a reason; what was there before is intact, and what fits still goes in."""
    store = tmp_path / "hub" / "data" / "store"
    store.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(store)], check=True)
    try:
        with running_hub(tmp_path / "hub") as hub:
            kaos = Client(hub.url, hub.token("hoarder"))
            small, big = tmp_path / "small", tmp_path / "big"
            small.mkdir(), big.mkdir()
            (small / "x").write_text("small")
            (big / "x").write_bytes(os.urandom(8 << 20))
            kaos.bundles.submit(small, BundleKind.DATA)
            with pytest.raises(StorageFull):
                kaos.bundles.submit(big, BundleKind.DATA)
            assert [v.name for v in kaos.bundles.list()] == ["small"]
            kaos.bundles.get("data", "small", target=tmp_path / "back")
            assert (tmp_path / "back" / "x").read_text() == "small"
            (small / "y").write_text("more")
            assert kaos.bundles.submit(small, BundleKind.DATA).version == 2
            assert request("GET", f"{hub.kaos}/health").status == 200
    finally:
        subprocess.run(["umount", "-l", str(store)], check=False)
