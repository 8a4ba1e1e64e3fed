"""What every engine promises to programs of ours that run beside a user's code."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kaos_hub import runtime_image
from kaos_hub.datadir import DataDir
from kaos_hub.engines.base import Cause, Engine, JobSpec, Phase, Run
from kaos_hub.engines.kubernetes import KubernetesEngine
from kaos_hub.engines.local import LocalEngine
from kaos_hub.models import Pool, Resources
from kaos_hub.tickets import Tickets
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

__all__ = ["cluster", "name", "setup"]

DATA = {"a.csv": "1,2\n", "b.csv": "3,4\n"}
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
        environment={"GIVEN": "$(NOTHING) is expanded"},
        mounts=(
            setup.tree(engine, source, "/kaos/source"),
            setup.tree(engine, data, "/kaos/data"),
            setup.tree(engine, data, "/pfs/data/digits"),
        ),
        scratch=("/kaos", "/pfs", "/opt/program"),
        ticket=True,
    )
    return JobSpec(name, "user:ada", work, deadline=60)


async def told(engine: Engine, name: str) -> dict[str, Any]:
    """What the program printed, after what the steps before it did."""
    seen = await end(engine, name)
    lines = texts(await output(engine, name))
    assert seen.phase is Phase.SUCCEEDED, (seen, lines)
    found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
    return found


@pytest.mark.parametrize("sandbox", [True, False])
async def test_a_worker_finds_all_that_it_needs_and_leaves_nothing(
    setup: Setup, name: str, engine: Engine, tmp_path: Path, sandbox: bool
) -> None:
    if not sandbox:
        if setup.kind != "local":
            pytest.skip("only the local engine has a sandbox that may be missing")
        engine = setup.engine(use_sandbox=False)
    spec = worker(setup, engine, name, tmp_path / "given", LOOK)
    await asyncio.gather(*(engine.submit(spec) for _ in range(3)))
    seen = await told(engine, name)
    ticket = Tickets(DataDir(setup.data).secret("tickets")).check(seen.pop("ticket"))
    assert ticket.workload == name
    if isinstance(engine, LocalEngine) and not engine.sandboxed:
        seen.setdefault("refused", "Read-only file system")
        (tmp_path / "given" / "digits" / "c.csv").unlink(missing_ok=True)
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


REACH = """
import urllib.error, urllib.request
try:
    urllib.request.urlopen("{url}/work/v1/order", timeout=20)
except urllib.error.HTTPError as e:
    print("{{" + f'"status": {{e.code}}' + "}}", flush=True)
"""


@pytest.mark.parametrize("setup", [KUBERNETES], indirect=True)
async def test_a_pod_of_a_pool_reaches_the_service(setup: Setup, name: str, tmp_path: Path) -> None:
    engine = setup.engine()
    await engine.start()
    assert setup.server
    spec = worker(setup, engine, name, tmp_path / "given", REACH.format(url=setup.server.url))
    pool = Pool(
        node_selector={"kubernetes.io/os": "linux"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    await engine.submit(replace(spec, work=replace(spec.work, pool=pool)))
    # The way there is what is asked for; this server knows nothing of work.
    assert await told(engine, name) == {"status": 404}


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
    assert 1 << 30 < int(sizes["scratch"]) < int(limits["ephemeral-storage"])
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
GUARD = """
import ctypes, hashlib, json, os, subprocess, sys
libc = ctypes.CDLL(None)
libc.prctl(4, 0, 0, 0, 0)
with open("/kaos/ticket") as file:
    ticket = file.read()
os.unlink("/kaos/ticket")
decoy = lambda letter: "kaos1." + 40 * letter + "." + 64 * "0"
with open("/kaos/left", "w") as file:
    file.write(decoy("f"))
keep = "import sys; kept = sys.stdin.readline(); print('kept', flush=True); sys.stdin.read()"
other = subprocess.Popen([sys.executable, "-c", keep], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, env={"LEFT": decoy("e")}, text=True)
other.stdin.write(decoy("m") + "\\n")
other.stdin.flush()
other.stdout.readline()
search = subprocess.run([sys.executable, "/kaos/source/search.py"], capture_output=True, text=True)
other.kill()
digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
said = json.loads(search.stdout or '{}') | {"complaint": search.stderr, "ticket": digest(ticket)}
print(json.dumps(said | {"decoys": [digest(decoy(c)) for c in "fem"]}), flush=True)
"""


@pytest.mark.parametrize(
    "setup", [pytest.param("docker", marks=needs_docker), KUBERNETES], indirect=True
)
async def test_a_users_code_cannot_get_at_the_ticket(
    setup: Setup, name: str, engine: Engine, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    spec = worker(setup, engine, name, given, GUARD)
    (given / "source" / "search.py").write_text(SEARCH)
    mounts = (setup.tree(engine, given / "source", "/kaos/source"), *spec.work.mounts[1:])
    await engine.submit(replace(spec, work=replace(spec.work, mounts=mounts)))
    seen = await told(engine, name)
    assert not seen["complaint"]
    assert set(seen["decoys"]) == set(seen["found"]), "the search finds what it can reach, no more"
    assert seen["ticket"] not in seen["found"]
    assert (seen["attached"], seen["stolen"]) == (False, [])
