"""What every engine promises to programs of ours that run beside a user's code."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines import runtime_image
from kaos_hub.engines.base import Cause, Engine, JobSpec, Phase, Run
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import Lease, Pool, Resources
from kaos_hub.transport.tickets import Tickets
from kaos_hub.util import variables
from tests import trial_desk
from tests.pods import this_machine
from tests.test_engine_contract import (
    IMAGE,
    KUBERNETES,
    Setup,
    cluster,
    end,
    name,
    needs_docker,
    output,
    setup,
    texts,
)
from tests.trial_desk import Desk

__all__ = ["cluster", "name", "setup"]

DATA = {"a.csv": "1,2\n", "b.csv": "3,4\n"}
POOL = Pool(
    node_selector={"kubernetes.io/os": "linux"},
    tolerations=[{"key": "gpu", "operator": "Exists"}],
)
LOOK = """
import json, os, stat, sys
root = os.environ.get("KAOS_ROOT", "")
ticket = root + "/kaos/ticket"
seen = {"mode": stat.filemode(os.stat(ticket).st_mode), "ticket": open(ticket).read()}
os.unlink(ticket)
seen["left"] = os.path.lexists(ticket)
seen["data"] = sorted(os.listdir(root + "/kaos/data"))
seen["names"] = os.listdir(root + "/pfs/data")
seen["same"] = open(root + "/pfs/data/digits/a.csv").read()
seen["given"] = os.environ["GIVEN"]
for place in ("/kaos", "/pfs", "/opt/program"):
    os.makedirs(root + place + "/out/1")
    os.rename(root + place + "/out", root + place + "/moved")
try:
    open(root + "/kaos/data/c.csv", "w")
except OSError as e:
    seen["refused"] = e.strerror
# What makes it hard to delete.
deep = root + "/kaos/deep"
for _ in range(50):
    deep += "/" + 100 * "d"
    try:
        os.makedirs(deep)
    except OSError:
        break
os.mkdir(root + "/kaos/closed")
open(root + "/kaos/closed/file", "w").close()
os.chmod(root + "/kaos/closed", 0)
print(json.dumps(seen), flush=True)
"""


@cache
def runtime_volume() -> str:
    import docker

    client = docker.from_env(timeout=600)
    try:
        return runtime_image.ensure(client, lambda line: None)
    finally:
        client.close()


@pytest.fixture
async def engine(setup: Setup) -> AsyncIterator[Engine]:
    if setup.kind == "docker":
        setup.options["runtime_volume"] = await asyncio.to_thread(runtime_volume)
    engine = setup.engine()
    await engine.start()
    yield engine


def worker(setup: Setup, engine: Engine, name: str, folder: Path, program: str) -> JobSpec:
    """Have our Python run a program beside data of a user's, with a ticket."""
    source, data = folder / "source", folder / "digits"
    for directory in (source, data):
        directory.mkdir(parents=True)
    (source / "program.py").write_text(program)
    for file, text in DATA.items():
        (data / file).write_text(text)
    begin = "import os; top = os.environ.get('KAOS_ROOT', '')"
    begin += "; exec(open(top + '/kaos/source/program.py').read(), {})"
    work = Run(
        ("-n1", "-r1", begin),
        image=IMAGE,
        module="timeit",
        # What a program of ours is not told by name waits for what it starts.
        environment=variables.apart({"GIVEN": "$(NOTHING) is expanded"}, {}),
        mounts=(
            setup.tree(engine, source, "/kaos/source"),
            setup.tree(engine, data, "/kaos/data"),
            setup.tree(engine, data, "/pfs/data/digits"),
        ),
        scratch=("/kaos", "/pfs", "/opt/program"),
        ticket=True,
        pool=POOL,
    )
    # A year, as workers of trainings get.
    return JobSpec(name, "user:ada", work, deadline=366 * 24 * 3600)


async def told(engine: Engine, name: str) -> dict[str, Any]:
    """What the program printed, after what the steps before it did."""
    seen = await end(engine, name)
    lines = texts(await output(engine, name))
    assert seen.phase is Phase.SUCCEEDED, (seen, lines)
    found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
    return found


async def everywhere(
    setup: Setup, engine: Engine, name: str, check: Callable[[Engine, str], Awaitable[None]]
) -> None:
    """Check something; where there may be a sandbox or not, with and without."""
    await check(engine, "one")
    if isinstance(engine, LocalEngine):
        await engine.remove(name)
        await check(setup.engine(use_sandbox=False), "two")


async def test_a_worker_finds_all_that_it_needs_and_leaves_nothing(
    setup: Setup, name: str, engine: Engine, tmp_path: Path
) -> None:
    async def check(engine: Engine, folder: str) -> None:
        await finds_everything(setup, name, engine, tmp_path / folder)

    await everywhere(setup, engine, name, check)


async def finds_everything(setup: Setup, name: str, engine: Engine, given: Path) -> None:
    spec = worker(setup, engine, name, given, LOOK)
    await asyncio.gather(*(engine.submit(spec) for _ in range(3)))
    seen = await told(engine, name)
    ticket = Tickets(DataDir(setup.data).secret("tickets")).check(seen.pop("ticket"))
    assert ticket.workload == name
    if isinstance(engine, LocalEngine) and not engine.sandboxed:
        seen.setdefault("refused", "Read-only file system")
    assert seen == {
        "mode": "-rw-------",
        "left": False,
        "data": sorted(DATA),
        "names": ["digits"],
        "same": DATA["a.csv"],
        "given": "$(NOTHING) is expanded",
        "refused": "Read-only file system",
    }
    await engine.submit(spec)
    if setup.kind != "kubernetes":
        kept = setup.data / "scratch" / name
        tickets = [*kept.glob("*/ticket"), *kept.glob("root/kaos/ticket")]
        assert tickets == [], "what has ended gets no new one"
        await engine.remove(name)
        assert list((setup.data / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "setup", ["local", pytest.param("docker", marks=needs_docker)], indirect=True
)
async def test_what_nobody_deleted_is_swept(
    setup: Setup, name: str, engine: Engine, tmp_path: Path
) -> None:
    wait = "import time; print('{}', flush=True); time.sleep(60)"
    await engine.submit(worker(setup, engine, name, tmp_path / "given", wait))
    scratch = setup.data / "scratch"
    for left in ("kaos-train-gone/0/files", ".deleted-kaos-train-1-0123/0"):
        (scratch / left).mkdir(parents=True)
    await setup.engine().start()
    assert [path.name for path in scratch.iterdir()] == [name]
    async for _ in engine.logs(name):
        break
    await engine.cancel(name)
    assert (await engine.observe(name)).cause is Cause.CANCELLED


@pytest.mark.parametrize("setup", [KUBERNETES], indirect=True)
async def test_what_a_worker_is_as_a_pod(setup: Setup, tmp_path: Path) -> None:
    engine = setup.engine(node_selector={"disk": "fast"})
    assert isinstance(engine, KubernetesEngine)
    spec = worker(setup, engine, "kaos-ingest-0123", tmp_path, LOOK)
    pool = Pool(node_selector={"gpu": "a100"}, gpu_resource="example.com/gpu")
    spec = replace(spec, resources=Resources(gpu=2))
    body = engine.pods.run(spec, replace(spec.work, storage=1 << 30, pool=pool))
    assert body["metadata"]["labels"]["kaos-hub.io/kind"] == "ingest"
    assert body["spec"]["nodeSelector"] == {"disk": "fast", "gpu": "a100"}
    (main,) = body["spec"]["containers"]
    limits = main["resources"]["limits"]
    assert limits["example.com/gpu"] == "2" and "nvidia.com/gpu" not in limits
    sizes = {v["name"]: v.get("emptyDir", {}).get("sizeLimit") for v in body["spec"]["volumes"]}
    assert 1 << 30 == int(sizes["scratch"]) < int(limits["ephemeral-storage"])
    assert "ticket" not in {m["name"] for m in main["volumeMounts"]}


SEARCH = r"""
import ctypes, hashlib, json, os, re, signal
TICKET = re.compile(rb"kaos1\.[A-Za-z0-9_=-]{20,}\.[0-9a-f]{64}")
found = {}
def look(where, data):
    for ticket in TICKET.findall(data):
        found.setdefault(hashlib.sha256(ticket).hexdigest(), []).append(where)
def read(path):
    try:
        with open(path, "rb") as file:
            look(path, file.read(64 << 20))
    except OSError:
        pass
def memory(pid):
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
            for line in maps:
                start, stop = (int(n, 16) for n in line.split()[0].split("-"))
                try:
                    mem.seek(start)
                    look(f"memory of {pid}", mem.read(min(stop - start, 64 << 20)))
                except (OSError, ValueError, OverflowError):
                    pass
    except OSError:
        pass
def files(top):
    for directory, folders, names in os.walk(top):
        folders[:] = [f for f in folders if os.path.join(directory, f) not in
                      ("/proc", "/sys", "/dev", "/opt/kaos", "/usr", "/lib", "/lib64")]
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                read(path)
pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
for pid in pids:
    for name in ("environ", "cmdline", "stack", "auxv"):
        read(f"/proc/{pid}/{name}")
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.path.isfile(f"/proc/{pid}/fd/{fd}"):
                read(f"/proc/{pid}/fd/{fd}")
    except OSError:
        pass
    if pid != os.getpid():
        memory(pid)
        try:
            if not os.path.samefile(f"/proc/{pid}/root", "/"):
                files(f"/proc/{pid}/root")
        except OSError:
            pass
read("/proc/self/mountinfo")
files("/")
libc = ctypes.CDLL(None, use_errno=True)
attached = libc.ptrace(0x4206, os.getppid(), None, None) == 0
handle = os.pidfd_open(os.getppid())
stolen = [n for n in range(64) if libc.syscall(438, handle, n, 0) >= 0]
print(json.dumps({"found": found, "attached": attached, "stolen": stolen, "seen": len(pids)}))
"""
TRAIN = """#!/usr/bin/env python3
import hashlib, json, os, subprocess, sys
os.mkdir(sys.argv[1])
with open(sys.argv[1] + "/model", "w") as file:
    file.write(open(os.environ["KAOS_DATA"] + "/a.csv").read())
def decoy(letter):
    return "kaos1." + 40 * letter + "." + 64 * "0"
with open(os.environ["KAOS_OUT"] + "/left", "w") as file:
    file.write(decoy("f"))
keep = "import sys; kept = sys.stdin.readline(); print('kept', flush=True); sys.stdin.read()"
other = subprocess.Popen([sys.executable, "-c", keep], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, env={"LEFT": decoy("e")}, text=True)
other.stdin.write(decoy("m") + "\\n")
other.stdin.flush()
other.stdout.readline()
if os.path.exists("search.py"):
    exec(open("search.py").read())
print(json.dumps([hashlib.sha256(decoy(c).encode()).hexdigest() for c in "fem"]), flush=True)
other.kill()
"""


class _AnyTicket(RequestHandler):
    """Whoever has a ticket is let in; which one, is remembered."""

    async def prepare(self) -> None:
        self.desk.tickets.add(self.request.headers["Authorization"].partition(" ")[2])
        self.request.headers["Authorization"] = f"Bearer {trial_desk.TICKET}"
        await super().prepare()


@contextmanager
def desk_for(setup: Setup) -> Iterator[tuple[Desk, str]]:
    """A desk that gives out one trial, and its URL as containers and pods reach it."""
    names = ("lease", "beat", "log", "missing", "objects")
    with trial_desk.open_desk() as desk:
        kinds = [getattr(trial_desk, f"_{name.title()}") for name in names]
        rules = [
            (f"/services/kaos/work/v1/{name}", type(name, (_AnyTicket, kind), {}), {"desk": desk})
            for name, kind in zip(names, kinds, strict=True)
        ]
        server = []
        sockets = bind_sockets(0, "0.0.0.0")

        def start() -> None:
            server.append(HTTPServer(Application(rules), max_body_size=1 << 30))
            server[0].add_sockets(sockets)

        desk.tickets = set()  # type: ignore[attr-defined]
        desk.waiting.append(Lease(trial=1, attempt=1, params={"a": 1}, deadline=50))
        desk.call(start)
        host = {"local": lambda: "127.0.0.1", "docker": bridge, "kubernetes": this_machine}
        yield desk, f"http://{host[setup.kind]()}:{sockets[0].getsockname()[1]}/services/kaos/"
        desk.call(server[0].stop)


def trials(setup: Setup, engine: Engine, spec: JobSpec, folder: Path, url: str) -> JobSpec:
    """Have the worker's own program run a trial; where users are apart, a hostile one."""
    model = folder / "code" / "model"
    model.mkdir(parents=True)
    (model / "train").write_text(TRAIN)
    if setup.kind != "local":
        (model / "search.py").write_text(SEARCH)
    environment = {
        "KAOS_WORK_URL": url,
        "KAOS_DATA": "/kaos/data",
        "KAOS_CONTEXT": "model",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    mounts = (setup.tree(engine, model.parent, "/kaos/source"), *spec.work.mounts[1:])
    work = replace(
        spec.work,
        module="kaos_hub.workload.trial.trials",
        command=(),
        environment=environment,
        mounts=mounts,
    )
    return replace(spec, work=work)


async def test_the_worker_runs_trials_that_cannot_get_at_its_ticket(
    setup: Setup, name: str, engine: Engine, tmp_path: Path
) -> None:
    async def check(engine: Engine, folder: str) -> None:
        await runs_a_trial(setup, name, engine, tmp_path / folder)

    await everywhere(setup, engine, name, check)


async def runs_a_trial(setup: Setup, name: str, engine: Engine, given: Path) -> None:
    with desk_for(setup) as (desk, url):
        spec = worker(setup, engine, name, given, "")
        await engine.submit(trials(setup, engine, spec, given, url))
        seen = await end(engine, name)
        lines = texts(await output(engine, name))
        assert seen.phase is Phase.SUCCEEDED, (seen, lines)
        left = desk.ends[1]
        assert (left.by, left.exit_code, left.reason) == ("itself", 0, ""), desk.text()
        assert desk.files(left)["model"] == DATA["a.csv"].encode()
        (ticket,) = desk.tickets  # type: ignore[attr-defined]
    assert Tickets(DataDir(setup.data).secret("tickets")).check(ticket).workload == name
    if setup.kind == "local":
        return
    search, decoys = (json.loads(line) for line in desk.text().splitlines())
    assert set(decoys) == set(search["found"]), "it finds what it can reach, no more"
    assert hashlib.sha256(ticket.encode()).hexdigest() not in search["found"]
    assert (search["attached"], search["stolen"]) == (False, [])
