"""What every engine promises. A new engine adds one :class:`Setup` to ``SETUPS``."""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines.base import (
    Build,
    Cause,
    Engine,
    JobSpec,
    Materialise,
    Observation,
    Phase,
    Run,
)
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.engines.docker.leftovers import BUILD
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.schemas import Mount, Resources
from tests.bundled import laid
from tests.engine_cluster import TREES, TreeServer, namespace, needs_cluster, options
from tests.networks import dismiss

IMAGE = "python:3.13-slim"
STAMPED = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "
DOCKERFILE = f"""\
FROM {IMAGE}
WORKDIR /opt/program
COPY requirements.txt .
RUN pip install --root-user-action ignore -r requirements.txt
COPY . .
"""


def docker_problem() -> str:
    """Why tests with Docker cannot run here; empty if they can."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=5)
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        return f"{IMAGE} is not in the Docker Engine"
    except docker.errors.DockerException as e:
        return f"no Docker Engine answers: {e}"
    client.close()
    return ""


NO_DOCKER = docker_problem()
needs_docker = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(NO_DOCKER), reason=NO_DOCKER or "docker answers"),
]


needs_kubernetes = [pytest.mark.kubernetes, needs_cluster]
KUBERNETES = pytest.param("kubernetes", marks=needs_kubernetes)
CLASSES: dict[str, type] = {
    "local": LocalEngine,
    "docker": DockerEngine,
    "kubernetes": KubernetesEngine,
}


@dataclass
class Setup:
    """One engine over one data directory; as many engine objects as one likes."""

    kind: str
    data: Path
    made: list[Engine]
    options: dict[str, Any] = field(default_factory=dict)
    server: TreeServer | None = None

    def engine(self, **more: object) -> Engine:
        made: Engine = CLASSES[self.kind](data_dir=str(self.data), **self.options | more)
        self.made.append(made)
        return made

    @property
    def prefix(self) -> str:
        return f"kaos-train-{secrets.token_hex(4)}"

    @property
    def pace(self) -> float:
        """How much slower than a process work begins: a pod takes a second or two."""
        return 3 if self.kind == "kubernetes" else 1

    def laid(self, folder: Path) -> str:
        """Have a folder where workloads see it as a tree; the tree's digest."""
        return self.server.add(folder) if self.server else laid(self.data, folder)

    def tree(self, engine: Engine, folder: Path, target: str) -> Mount:
        """A mount of a folder."""
        if self.server:
            return Mount(source="", target=target, digest=self.server.add(folder))
        folder.parent.chmod(0o755)
        return Mount(source=str(folder), target=target)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A namespace for the tests of this session."""
    with namespace() as name:
        yield name


@pytest.fixture(
    params=["local", pytest.param("docker", marks=needs_docker), KUBERNETES],
)
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    setup = Setup(request.param, tmp_path / "data", [])
    if setup.kind == "docker":
        # Tests stand in for the service: what they listen on is to be reached.
        networks = {"reachable": [bridge()]}
        setup.options = {"stop_grace": 1, "config": Config({"DockerNetworks": networks})}
    elif setup.kind == "kubernetes":
        place = request.getfixturevalue("cluster")
        setup.server = await asyncio.to_thread(TreeServer, setup.data)
        setup.options = await asyncio.to_thread(options, place, setup.server.url)
    yield setup
    for engine in setup.made:
        if isinstance(engine, DockerEngine):
            await asyncio.to_thread(forget_builds, engine)
        await engine.close()
    if setup.server:
        await asyncio.to_thread(setup.server.close)
    if setup.kind == "docker":
        await asyncio.to_thread(dismiss, setup.data)


def forget_builds(engine: DockerEngine) -> None:
    """Remove the caches of builds that a test has left on the Docker Engine."""
    listing = ["docker", "volume", "ls", "-q", "--filter", f"label={BUILD}={engine.hub_prefix}"]
    found = subprocess.run(listing, capture_output=True, text=True).stdout.split()
    if found:
        subprocess.run(["docker", "volume", "rm", "-f", *found], capture_output=True)


@pytest.fixture
async def engine(setup: Setup) -> Engine:
    engine = setup.engine()
    await engine.start()
    return engine


@pytest.fixture
async def name(setup: Setup) -> AsyncIterator[str]:
    """The name of a workload that is gone after the test."""
    name = setup.prefix
    yield name
    engine = setup.engine()
    await engine.remove(name)
    assert (await engine.observe(name)).phase is Phase.ABSENT


def run(name: str, *command: str, deadline: int = 60, **more: object) -> JobSpec:
    work = Run(command, image=IMAGE, **more)  # type: ignore[arg-type]
    return JobSpec(name, "user:ada", work, deadline=deadline)


def shell(name: str, script: str, deadline: int = 60) -> JobSpec:
    return run(name, "sh", "-c", script, deadline=deadline)


async def end(engine: Engine, name: str, seconds: float = 180) -> Observation:
    async with asyncio.timeout(seconds):
        async for seen in engine.watch(name):
            last = seen
    return last


async def output(engine: Engine, name: str, offset: int = 0) -> bytes:
    async with asyncio.timeout(120):
        return b"".join([piece async for piece in engine.logs(name, offset)])


def texts(log: bytes) -> list[str]:
    """What was printed, without the stamps."""
    return [line.partition(" ")[2] for line in log.decode().splitlines()]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)


def processes(mark: str) -> dict[int, str]:
    """Processes of this machine, also those in containers, whose command line shows the mark."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # What starts a container shows its command for a moment, too.
            if mark in line and str(os.getpid()) != path.parent.name and "runc" not in line:
                found[int(path.parent.name)] = line
    return found


def running(mark: str) -> list[str]:
    """Their command lines."""
    return list(processes(mark).values())


async def test_success(engine: Engine, name: str) -> None:
    await engine.submit(run(name, "sh", "-c", "echo $WHO; pwd", environment={"WHO": "ada"}))
    seen = await end(engine, name)
    assert (seen.phase, seen.cause, seen.exit_code) == (Phase.SUCCEEDED, Cause.NONE, 0)
    assert seen.started and seen.finished and seen.started <= seen.finished
    assert texts(await output(engine, name))[0] == "ada"


async def test_failure_has_its_exit_code(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "exit 3"))
    seen = await end(engine, name)
    assert (seen.phase, seen.cause, seen.exit_code) == (Phase.FAILED, Cause.ERROR, 3)
    assert seen.message == "exit code 3"


async def test_unknown_command_fails_with_its_name(setup: Setup, engine: Engine, name: str) -> None:
    await engine.submit(run(name, "kaos-no-such-command"))
    seen = await end(engine, name)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.ERROR)
    told = seen.message + (await output(engine, name)).decode()
    assert "kaos-no-such-command" in told


async def test_mounts_are_read_only(
    setup: Setup, engine: Engine, name: str, tmp_path: Path
) -> None:
    if isinstance(engine, LocalEngine) and not engine.sandboxed:
        pytest.skip("no sandbox here: the local engine then promises no paths")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("content\n")
    mounts = (setup.tree(engine, tree, "/kaos/data"),)
    script = "cat /kaos/data/f; touch /kaos/data/g"
    await engine.submit(run(name, "sh", "-c", script, mounts=mounts, workdir="/kaos/data"))
    assert (await end(engine, name)).phase is Phase.FAILED
    log = texts(await output(engine, name))
    assert "content" in log
    assert any("Read-only file system" in line for line in log)
    assert not (tree / "g").exists()


async def test_absent_everywhere(engine: Engine) -> None:
    assert (await engine.observe("kaos-train-none")).phase is Phase.ABSENT
    assert (await end(engine, "kaos-train-none")).phase is Phase.ABSENT
    assert await output(engine, "kaos-train-none") == b""
    await engine.cancel("kaos-train-none")
    await engine.remove("kaos-train-none")


async def test_logs_live_and_after_from_any_offset(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "echo one; sleep 2; echo two >&2; sleep 0.3; echo three"))
    arrived: list[float] = []
    live = b""
    async for piece in engine.logs(name):
        live += piece
        arrived.append(time.monotonic())
    assert texts(live) == ["one", "two", "three"]
    assert arrived[-1] - arrived[0] > 0.8, "lines came only at the end"
    for offset in (0, 5, live.index(b"\n") + 1, len(live) - 1, len(live), len(live) + 100):
        assert await output(engine, name, offset) == live[offset:]


async def test_two_readers_see_the_same(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "for i in $(seq 300); do echo line $i; done"))
    first, second = await asyncio.gather(output(engine, name), output(engine, name))
    assert first == second == await output(engine, name)
    assert texts(first) == [f"line {i}" for i in range(1, 301)]


async def test_logs_of_binary_and_huge_lines(engine: Engine, name: str) -> None:
    script = (
        "printf 'bad \\377\\376 bytes\\n'; printf 'null \\000 byte\\n';"
        " head -c 50000 /dev/zero | tr '\\0' x; echo; echo '10%\r50%\r100%'; printf 'no newline'"
    )
    await engine.submit(shell(name, script))
    log = await output(engine, name)
    lines = texts(log)
    assert lines[0] == "bad \ufffd\ufffd bytes"
    assert lines[1] == "null \ufffd byte"
    assert "".join(lines[2:-2]).count("x") == 50_000
    assert max(len(line) for line in log.splitlines()) <= 16 * 1024 + 30
    assert lines[-2:] == ["100%", "no newline"]


async def test_simultaneous_submits_start_one(engine: Engine, name: str) -> None:
    spec = shell(name, "echo started; sleep 0.2")
    await asyncio.gather(*(engine.submit(spec) for _ in range(5)))
    assert (await end(engine, name)).phase is Phase.SUCCEEDED
    assert texts(await output(engine, name)) == ["started"]


async def test_submit_after_the_end_adopts(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "exit 4"))
    first = await end(engine, name)
    await engine.submit(shell(name, "exit 0"))
    assert await end(engine, name) == first


async def test_submit_after_remove_starts_again(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "exit 4"))
    await end(engine, name)
    await engine.remove(name)
    assert (await engine.observe(name)).phase is Phase.ABSENT
    assert await output(engine, name) == b""
    await engine.submit(shell(name, "exit 0"))
    assert (await end(engine, name)).phase is Phase.SUCCEEDED


async def test_cancel_ends_everything_it_started(engine: Engine, name: str) -> None:
    mark = f"987{secrets.randbelow(10**6):06d}"
    script = f"sleep {mark} & setsid sleep {mark} & (setsid sh -c 'sleep {mark}; :' &) ; wait"
    await engine.submit(shell(name, script))
    await until(lambda: len([p for p in running(mark) if p.startswith("sleep")]) == 3)
    watching = asyncio.create_task(end(engine, name))
    await engine.cancel(name)
    assert running(mark) == []
    seen = await watching
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.CANCELLED)
    await engine.cancel(name)
    assert await engine.observe(name) == seen


async def test_cancel_of_one_that_ignores_sigterm(engine: Engine, name: str) -> None:
    engine_grace = {"local": 5, "docker": 1, "kubernetes": 3}[engine.name]
    await engine.submit(shell(name, "trap '' TERM; echo up; while :; do sleep 0.2; done"))
    async for _ in engine.logs(name):
        break
    began = time.monotonic()
    await engine.cancel(name)
    assert time.monotonic() - began < engine_grace + 4
    assert (await engine.observe(name)).cause is Cause.CANCELLED


async def test_what_outlives_the_main_process_is_ended(engine: Engine, name: str) -> None:
    mark = f"986{secrets.randbelow(10**6):06d}"
    await engine.submit(shell(name, f"setsid sleep {mark} & sleep 0.1; echo done"))
    assert (await end(engine, name)).phase is Phase.SUCCEEDED
    await until(lambda: running(mark) == [], 5)


async def test_deadline(engine: Engine, name: str) -> None:
    await engine.submit(shell(name, "echo up; sleep 50", deadline=1))
    began = time.monotonic()
    seen = await end(engine, name)
    assert time.monotonic() - began < 8
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.DEADLINE)
    assert "1 s" in seen.message


async def test_deadline_after_a_restart(setup: Setup, name: str) -> None:
    first = setup.engine()
    await first.submit(shell(name, "sleep 50", deadline=1))
    await first.close()
    await asyncio.sleep(1.2)
    assert (await end(setup.engine(), name)).cause is Cause.DEADLINE


async def test_remove_ends_what_runs(engine: Engine, name: str) -> None:
    mark = f"985{secrets.randbelow(10**6):06d}"
    await engine.submit(shell(name, f"sleep {mark}"))
    await until(lambda: running(mark) != [])
    await engine.remove(name)
    assert running(mark) == []
    assert (await engine.observe(name)).phase is Phase.ABSENT


async def test_watch_sees_the_end_of_many(setup: Setup, engine: Engine) -> None:
    names = [f"{setup.prefix}-{i}" for i in range(4)]
    await asyncio.gather(*(engine.submit(shell(n, f"exit {i}")) for i, n in enumerate(names)))
    try:
        seen = await asyncio.gather(*(end(engine, n) for n in names))
        assert [s.exit_code for s in seen] == [0, 1, 2, 3]
    finally:
        await asyncio.gather(*(engine.remove(n) for n in names))


DRIVER = """
import asyncio, json, os, signal, sys
from traitlets.config import Config
from kaos_hub.engines.base import JobSpec, Run
from kaos_hub.service.assembly import find_class
from kaos_hub.engines.base import Engine
kind, data, name, image, options = sys.argv[1:]
given = json.loads(options)
given["config"] = Config(given.get("config", {}))
engine = find_class("kaos_hub.engines", kind, Engine)(data_dir=data, **given)
work = Run(("sh", "-c", "echo started; sleep 4; echo finished"), image=image)
asyncio.run(engine.submit(JobSpec(name, "user:ada", work)))
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_killed_driver_then_another_adopts(setup: Setup, name: str) -> None:
    given = [setup.kind, str(setup.data), name, IMAGE, json.dumps(setup.options)]
    command = [sys.executable, "-c", DRIVER, *given]
    killed = await asyncio.to_thread(subprocess.run, command, check=False)
    assert killed.returncode == -9
    engine = setup.engine()
    assert (await engine.observe(name)).phase in (Phase.PENDING, Phase.RUNNING)
    await engine.submit(shell(name, "echo a second one"))
    assert (await end(engine, name)).phase is Phase.SUCCEEDED
    assert texts(await output(engine, name)) == ["started", "finished"]


async def test_killed_from_outside(setup: Setup, engine: Engine, name: str) -> None:
    mark = f"984{secrets.randbelow(10**6):06d}"
    await engine.submit(shell(name, f"sleep {mark}"))
    await until(lambda: running(mark) != [])
    watching = asyncio.create_task(end(engine, name))
    if setup.kind == "local":
        started = json.loads((setup.data / "workloads" / name / "started.json").read_text())
        os.kill(started["supervisor"], 9)
    elif setup.kind == "docker":
        await asyncio.to_thread(subprocess.run, ["docker", "kill", name], capture_output=True)
    else:
        for process in processes(mark):
            os.kill(process, 9)
    began = time.monotonic()
    seen = await watching
    assert time.monotonic() - began < 5
    assert seen.phase in (Phase.LOST, Phase.FAILED)
    assert "killed" in seen.message
    await engine.cancel(name)
    await until(lambda: running(mark) == [], 3)


# --- builds ---


def bundle(directory: Path, requirements: str, dockerfile: str = DOCKERFILE) -> Path:
    (directory / "model").mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    (directory / "model" / "requirements.txt").write_text(requirements)
    return directory


@pytest.fixture
def tag(setup: Setup) -> object:
    tag = f"kaos-test/{secrets.token_hex(4)}:1"
    yield tag
    if setup.kind == "docker":
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)


async def build(
    setup: Setup, engine: Engine, name: str, source: Path, key: str, tag: str
) -> Observation:
    bases = {IMAGE: await engine.resolve(IMAGE)} if engine.images else {}
    work = Build(setup.laid(source), key, tag, bases=bases)
    await engine.submit(JobSpec(name, "user:ada", work, deadline=100))
    return await end(engine, name)


async def test_build_twice_then_a_broken_one(
    setup: Setup, engine: Engine, name: str, tmp_path: Path, tag: str
) -> None:
    source = bundle(tmp_path / "source", "humanize\n")
    first = await build(setup, engine, name, source, "key1", tag)
    log = texts(await output(engine, name))
    assert first.phase is Phase.SUCCEEDED, log
    assert await engine.has(first.result)
    assert any("humanize" in line for line in log)

    await engine.remove(name)
    began = time.monotonic()
    again = await build(setup, engine, name, source, "key1", tag)
    if setup.kind == "docker":
        # Its container, the image's way to the Engine: seconds, whatever the steps would take.
        assert any("Using cache" in line for line in texts(await output(engine, name)))
    else:
        assert time.monotonic() - began < 3 * setup.pace
    assert again.result == first.result

    bundle(source, "# one\nhumanize==999.9\n")
    await engine.remove(name)
    broken = await build(setup, engine, name, source, "key2", f"{tag}-2")
    assert (broken.phase, broken.cause) == (Phase.FAILED, Cause.ERROR)
    assert b"humanize==999.9" in await output(engine, name)
    assert await engine.has(first.result), "the previous good one stays"
    assert not await engine.has(broken.result)


async def test_cancelled_build_is_really_over(
    setup: Setup, engine: Engine, name: str, tmp_path: Path, tag: str
) -> None:
    mark = f"983{secrets.randbelow(10**6):06d}"
    source = bundle(tmp_path / "source", "slow @ file:./slow\n")
    slow = source / "model" / "slow"
    slow.mkdir()
    (slow / "setup.py").write_text(f"import os; os.system('sleep {mark}')\n")
    (source / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN sleep {mark}\n")
    bases = {IMAGE: await engine.resolve(IMAGE)} if engine.images else {}
    work = Build(setup.laid(source), "key3", tag, bases=bases)
    await engine.submit(JobSpec(name, "user:ada", work, deadline=100))
    await until(lambda: running(mark) != [], 120)
    await engine.cancel(name)
    await until(lambda: running(mark) == [], 10)
    seen = await engine.observe(name)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.CANCELLED)
    assert not await engine.has({"python": str(setup.data / "environments/key3/bin/python")})


async def test_materialise(setup: Setup, engine: Engine, name: str, tmp_path: Path) -> None:
    stores = pytest.importorskip("kaos_hub.stores.file")
    pytest.importorskip("kaos_hub.stores.layout")
    digest, store = await small_tree(stores.FileStore, tmp_path / "store")
    if setup.server:
        engine = setup.engine(trees_claim=TREES)
        for path in (tmp_path / "store" / "objects").glob("*/*"):
            setup.server.put({f"blake3:{path.parent.name}{path.name}": path.read_bytes()})
    assert not await engine.places.has_tree(digest)
    work = Materialise(digest, store)
    await engine.submit(JobSpec(name, "user:ada", work, deadline=60))
    seen = await end(engine, name)
    assert seen.phase is Phase.SUCCEEDED, await output(engine, name)
    assert await engine.places.has_tree(digest)
    tree = engine.places.tree(digest, "/kaos/data")
    if not setup.server:
        assert (Path(tree.source) / "hello.txt").read_text() == "hello\n"
        return
    await engine.remove(name)
    await engine.submit(run(name, "cat", "/kaos/data/hello.txt", mounts=(tree,)))
    assert texts(await output(engine, name)) == ["hello"]


async def small_tree(store_class: type, root: Path) -> tuple[str, str]:
    """A store with a tree of one file; the tree's digest and the store's URL."""
    from blake3 import blake3

    content = b"hello\n"
    digest = blake3(content).hexdigest()
    node = f"kaos tree 1\nf {digest} {len(content)} hello.txt\n".encode()
    store = store_class(root)
    for body in (content, node):
        upload = await store.upload(f"blake3:{blake3(body).hexdigest()}", len(body))
        await upload.write(body)
        await upload.finish()
    return f"blake3:{blake3(node).hexdigest()}", root.as_uri()


# --- the machine ---


async def test_resolve_is_stable(engine: Engine) -> None:
    first = await engine.resolve(IMAGE)
    assert first == await engine.resolve(IMAGE)
    assert first.startswith(("python-3.", "sha256:", "docker.io/library/python@sha256:"))
    assert engine.platform
    assert all(isinstance(p, str) and p for p in engine.problems())
    assert await engine.gpus() >= 0
    assert not await engine.has({})


@pytest.mark.parametrize(
    "setup", [pytest.param("docker", marks=needs_docker), KUBERNETES], indirect=True
)
async def test_out_of_memory(engine: Engine, name: str) -> None:
    work = Run(("python3", "-c", "x = bytearray(10**9)"), image=IMAGE)
    spec = JobSpec(name, "user:ada", work, Resources(cpu=1, memory="64Mi"), deadline=60)
    await engine.submit(spec)
    seen = await end(engine, name)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.OUT_OF_MEMORY)
