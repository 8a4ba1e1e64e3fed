"""Dockerfiles that mean harm. What an engine does not keep them from is in docs/explanation."""

import asyncio
import base64
import json
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kaos_hub.engines.base import Build, Cause, Engine, JobSpec, Observation, Phase
from kaos_hub.errors import BuildFailed
from kaos_hub.workload.builds.push import Layout
from tests.engine_cluster import kubectl, registry
from tests.test_engine_contract import (
    IMAGE,
    KUBERNETES,
    Setup,
    bundle,
    cluster,
    end,
    needs_docker,
    output,
    running,
    setup,
    texts,
    until,
)

__all__ = ["cluster", "setup"]

DOCKER = pytest.param("docker", marks=needs_docker)
BOTH = pytest.mark.parametrize("setup", [DOCKER, KUBERNETES], indirect=True)
SEARCH = """\
import os, sys
wanted = [word.encode() for word in ("kaos1" + ".", "canary" + "-")]

def report(path):
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 20)
    except OSError:
        return
    if any(word in content for word in wanted):
        print("FOUND", path, flush=True)

def search(top):
    for folder, folders, files in os.walk(top):
        folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/sys", "/usr")]
        if folder.startswith("/proc/") and "/task" in folder:
            folders.clear()
        for name in files:
            path = os.path.join(folder, name)
            if name == "docker.sock" or name == "containerd.sock" or name == "token":
                print("FOUND", path, flush=True)
            if os.path.isfile(path) and name not in ("kmsg", "kcore"):
                if not folder.startswith("/proc") or name in ("environ", "cmdline"):
                    report(path)

print("inside", sorted(os.listdir("/")), flush=True)
search("/")
for process in os.listdir("/proc"):
    if process.isdigit():
        for name in ("root", "cwd"):
            try:
                print("seen", process, sorted(os.listdir(f"/proc/{process}/{name}/")), flush=True)
            except OSError:
                pass
try:
    os.makedirs("/x", exist_ok=True)
    os.chroot("/x")
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
    print("outside", sorted(os.listdir("/")), flush=True)
    search("/")
except OSError as e:
    print("no way out:", e)
print("searched")
"""


@pytest.fixture
async def engine(setup: Setup) -> Engine:
    engine = setup.engine()
    await engine.start()
    return engine


@pytest.fixture
async def name(setup: Setup) -> AsyncIterator[str]:
    name = f"kaos-build-{secrets.token_hex(4)}"
    yield name
    await setup.engine().remove(name)
    if setup.kind == "docker":
        command = ["docker", "image", "rm", "--force", f"kaos-test/{name}:1"]
        await asyncio.to_thread(subprocess.run, command, capture_output=True)


def hostile(tmp_path: Path, *steps: str, **files: str) -> Path:
    source = bundle(tmp_path / "source", "", "\n".join([f"FROM {IMAGE}", *steps, ""]))
    for name, content in files.items():
        (source / "model" / name).write_text(content)
    return source


async def build(
    setup: Setup, engine: Engine, name: str, source: Path, deadline: int = 100, owner: str = "eve"
) -> Observation:
    bases = {IMAGE: await engine.resolve(IMAGE)}
    image = f"kaos-test/{name}:1"
    work = Build(setup.laid(source), secrets.token_hex(8), image, bases=bases)
    await engine.submit(JobSpec(name, f"user:{owner}", work, deadline=deadline))
    return await end(engine, name, deadline + 60)


@BOTH
async def test_nothing_worth_stealing_is_in_reach(setup: Setup, name: str, tmp_path: Path) -> None:
    """Passwords, tickets, tokens, sockets, what others build: even for one who breaks out."""
    more = {}
    if setup.kind == "kubernetes":
        login = base64.b64encode(b"user:canary-password").decode()
        config = json.dumps({"auths": {registry(): {"auth": login, "email": "canary-push"}}})
        secret = {
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "push-login", "namespace": setup.options["namespace"]},
            "stringData": {".dockerconfigjson": config},
        }  # fmt: skip
        await asyncio.to_thread(kubectl, "apply", "-f", "-", give=json.dumps(secret))
        more["push_secret"] = "push-login"
    engine = setup.engine(**more)
    await engine.start()
    other = f"{name}-other"
    victim = hostile(tmp_path / "victim", "COPY secret.txt /", "RUN sleep 600",
                     **{"secret.txt": "canary-source"})  # fmt: skip
    bases = {IMAGE: await engine.resolve(IMAGE)}
    work = Build(setup.laid(victim), secrets.token_hex(8), f"kaos-test/{name}:2", bases=bases)
    await engine.submit(JobSpec(other, "user:victim", work, deadline=300))
    try:
        source = hostile(tmp_path, "COPY search.py /", "RUN python3 /search.py",
                         **{"search.py": SEARCH})  # fmt: skip
        seen = await build(setup, engine, name, source)
        lines = texts(await output(engine, name))
        assert seen.phase is Phase.SUCCEEDED, lines
        assert "searched" in lines
        assert [line for line in lines if line.startswith("FOUND")] == []
    finally:
        await engine.remove(other)


@BOTH
async def test_a_fork_bomb(setup: Setup, name: str, tmp_path: Path) -> None:
    bomb = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while count < 5000:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(600)\n"
        "        count += 1\n"
        "except OSError as e:\n"
        "    print('stopped after', count, flush=True)\n"
        "    raise\n"
    )
    source = hostile(tmp_path, "COPY bomb.py /", "RUN python3 /bomb.py", **{"bomb.py": bomb})
    engine = setup.engine(build_processes=300)
    seen = await build(setup, engine, name, source)
    lines = texts(await output(engine, name))
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.ERROR), lines
    stopped = [int(line.split()[-1]) for line in lines if line.startswith("stopped after")]
    assert stopped and stopped[0] < 300


@BOTH
async def test_endless_output(setup: Setup, name: str, tmp_path: Path) -> None:
    engine = setup.engine(log_limit=1 << 20)
    source = hostile(tmp_path, "RUN yes no")
    seen = await build(setup, engine, name, source, deadline=40)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.DEADLINE)
    log = await output(engine, name)
    assert len(log) < (1 << 20) + 1000
    assert "limit" in texts(log)[-1]


@BOTH
async def test_endless_output_does_not_fill_the_node(
    setup: Setup, name: str, tmp_path: Path
) -> None:
    engine = setup.engine()
    source = hostile(tmp_path, "RUN head -c 300M /dev/zero | tr '\\0' '\\n'", "RUN echo after")
    seen = await build(setup, engine, name, source)
    lines = texts(await output(engine, name))
    assert seen.phase is Phase.SUCCEEDED, lines[-20:]
    assert any("output has reached its limit" in line for line in lines)
    assert "after" not in lines, "what comes later is dropped, too"


@BOTH
async def test_a_file_too_large(setup: Setup, name: str, tmp_path: Path) -> None:
    engine = setup.engine(build_storage="1Gi")
    source = hostile(tmp_path, "RUN head -c 3G /dev/zero > /big")
    seen = await build(setup, engine, name, source)
    assert seen.phase is Phase.FAILED
    assert seen.cause in (Cause.ERROR, Cause.STORAGE)


@BOTH
async def test_filling_the_disk(setup: Setup, name: str, tmp_path: Path) -> None:
    engine = setup.engine(build_storage="1Gi")
    fill = "for i in $(seq 30); do head -c 50M /dev/zero > /big$i; done; sleep 300"
    source = hostile(tmp_path, f"RUN {fill}")
    seen = await build(setup, engine, name, source, deadline=240)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.STORAGE), seen


@BOTH
async def test_a_step_that_never_ends(
    setup: Setup, engine: Engine, name: str, tmp_path: Path
) -> None:
    mark = f"981{secrets.randbelow(10**6):06d}"
    source = hostile(tmp_path, f"RUN trap '' TERM; (setsid sleep {mark} &); sleep {mark}; :")
    seen = await build(setup, engine, name, source, deadline=12)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.DEADLINE)
    assert "12 s" in seen.message
    await until(lambda: running(mark) == [], 10)


@BOTH
async def test_what_a_step_leaves_running_holds_nothing_up(
    setup: Setup, engine: Engine, name: str, tmp_path: Path
) -> None:
    mark = f"980{secrets.randbelow(10**6):06d}"
    source = hostile(tmp_path, f"RUN (setsid sleep {mark} &); echo done")
    seen = await build(setup, engine, name, source)
    assert seen.phase is Phase.SUCCEEDED, texts(await output(engine, name))
    assert running(mark) == []


# --- what the step that pushes believes of the one before ---

CONTENT = b"{}"
DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    return blobs


def test_content_is_checked_and_links_are_not_followed(blobs: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    place = blobs / DIGEST.removeprefix("sha256:")
    place.write_bytes(CONTENT)
    assert layout.json(DIGEST) == ({}, CONTENT)
    place.write_bytes(b"other")
    with pytest.raises(BuildFailed, match="changed"):
        layout.open(DIGEST)
    place.unlink()
    secret = tmp_path / "password"
    secret.write_bytes(CONTENT)
    place.symlink_to(secret)
    with pytest.raises(BuildFailed, match="left no"):
        layout.open(DIGEST)
    place.unlink()
    subprocess.run(["mkfifo", place], check=True)
    with pytest.raises(BuildFailed, match="left no"):
        layout.open(DIGEST)
    with pytest.raises(BuildFailed, match="no digest"):
        layout.open("sha256:../../../password")
