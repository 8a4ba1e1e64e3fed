"""What is Docker's own: contexts, pinned bases, C libraries, containers that are in our way."""

import asyncio
import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.engines.base import Build, Cause, JobSpec, Observation, Phase, Run
from kaos_hub.engines.docker import client as docker_client
from kaos_hub.engines.docker.builds.bases import Registries
from kaos_hub.engines.docker.builds.build import Order, build, pin_bases
from kaos_hub.engines.docker.builds.context import context_tar, dockerfile_name
from kaos_hub.engines.docker.client import has_buildx
from kaos_hub.engines.docker.containers import observation, overdue
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.errors import BuildFailed, EngineUnavailable, NotFound, Unsupported
from kaos_hub.schemas import Mount, Resources
from kaos_hub.service.builds.diagnosis import explain_failure
from tests.bundled import laid
from tests.test_engine_contract import IMAGE, end, forget_builds, needs_docker, output, texts


def entries(directory: Path, dockerfile: Path, name: str) -> dict[str, tarfile.TarInfo]:
    body = b"".join(context_tar(directory, dockerfile, name))
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {entry.name: entry for entry in tar}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle with names of all kinds."""
    model = tmp_path / "source" / "model"
    (model / "empty").mkdir(parents=True)
    (model / "grün file").write_text("x" * 1000)
    (model / "train").write_text("#!/bin/sh\n")
    (model / "train").chmod(0o555)
    (model / "link").symlink_to("grün file")
    (model / "long" / ("d" * 120)).mkdir(parents=True)
    (model / "long" / ("d" * 120) / ("f" * 150)).write_text("deep")
    (tmp_path / "source" / "Dockerfile").write_text(f"FROM {IMAGE}\n")
    return tmp_path / "source"


def test_a_context_holds_the_files_and_the_dockerfile(source: Path) -> None:
    found = entries(source / "model", source / "Dockerfile", ".kaos.Dockerfile")
    assert found["train"].mode == 0o755
    assert found["grün file"].mode == 0o644
    assert found["link"].linkname == "grün file"
    assert found["empty"].isdir()
    assert "long/" + "d" * 120 + "/" + "f" * 150 in found
    assert ".kaos.Dockerfile" in found
    assert {(e.uid, e.gid, e.mtime) for e in found.values()} == {(0, 0, 0)}


def test_a_context_is_the_same_for_the_same_tree(source: Path) -> None:
    def body() -> bytes:
        return b"".join(context_tar(source / "model", source / "Dockerfile", "D"))

    first = body()
    os.utime(source / "model" / "train", (1, 1))
    (source / "model" / "train").chmod(0o755)
    assert body() == first


def test_dockerignore_is_obeyed(source: Path) -> None:
    (source / "model" / ".dockerignore").write_text("# comment\n\nlong\n*.tmp\n!keep.tmp\n")
    for name in ("a.tmp", "keep.tmp"):
        (source / "model" / name).touch()
    found = entries(source / "model", source / "Dockerfile", "D")
    assert not [name for name in found if name.startswith("long") or name == "a.tmp"]
    assert "keep.tmp" in found


def test_the_dockerfiles_name_collides_with_nothing(source: Path) -> None:
    assert dockerfile_name(source / "model") == ".kaos.Dockerfile"
    (source / "model" / ".kaos.Dockerfile").symlink_to("nowhere")
    assert dockerfile_name(source / "model") == ".kaos-1.Dockerfile"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("python", "latest")),
        ("python:3.13", ("python", "3.13")),
        ("localhost:5000/python", ("localhost:5000/python", "latest")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c")),
        ("python@sha256:0", ("python", "sha256:0")),
    ],
)
def test_references(reference: str, parts: tuple[str, str]) -> None:
    assert docker_client.split(reference) == parts


def test_a_state_says_what_became_of_it() -> None:
    def seen(**state: object) -> tuple[Phase, Cause]:
        found = observation({"State": {"ExitCode": 0, **state}})
        return found.phase, found.cause

    assert seen(Status="created") == (Phase.PENDING, Cause.NONE)
    assert seen(Status="created", Error="no such thing") == (Phase.FAILED, Cause.ERROR)
    assert seen(Status="running") == (Phase.RUNNING, Cause.NONE)
    assert seen(Status="paused") == (Phase.RUNNING, Cause.NONE)
    assert seen(Status="exited") == (Phase.SUCCEEDED, Cause.NONE)
    assert seen(Status="dead", ExitCode=1) == (Phase.FAILED, Cause.ERROR)
    oom = seen(Status="exited", ExitCode=137, OOMKilled=True)
    assert oom == (Phase.FAILED, Cause.OUT_OF_MEMORY)


def test_a_deadline_counts_from_the_start() -> None:
    found = {
        "State": {"Status": "running", "StartedAt": "2026-01-31T12:00:00.123456789Z"},
        "Config": {"Labels": {"kaos_hub.deadline": "60"}},
    }
    assert overdue(found, datetime(2026, 1, 31, 12, 0, 30, 123456, UTC)) == -30
    found["State"]["Status"] = "exited"
    assert overdue(found, datetime(2026, 1, 31, 13, 0, tzinfo=UTC)) is None


async def test_no_engine_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = DockerEngine(data_dir=str(tmp_path / "data"))
    with pytest.raises(EngineUnavailable, match="No Docker Engine answers"):
        await engine.start()
    with pytest.raises(EngineUnavailable):
        await engine.observe("kaos-train-1")
    with pytest.raises(EngineUnavailable):
        await engine.submit(JobSpec("kaos-train-1", "user:a", Run(("true",), image=IMAGE)))
    assert engine.problems()
    await engine.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(data_dir=str(tmp_path / "data"), stop_grace=1)
    yield engine
    await asyncio.to_thread(forget_builds, engine)
    await engine.close()


@pytest.fixture
async def name(engine: DockerEngine) -> AsyncIterator[str]:
    name = f"kaos-train-{secrets.token_hex(4)}"
    yield name
    await engine.remove(name)


@pytest.fixture
def tag() -> Iterator[str]:
    tag = f"kaos-test/{secrets.token_hex(4)}:1"
    yield tag
    subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)


def docker(*arguments: str, **more: object) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=True, **more)  # type: ignore[call-overload]
    return str(done.stdout.decode().strip())


def make_image(tag: str, *files: str) -> str:
    """An image of nothing but a few empty files; its id."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for file in files:
            tar.addfile(tarfile.TarInfo(file))
    return docker("import", "-", tag, input=body.getvalue())


class NeedsDocker:
    pytestmark = needs_docker


class TestContainers(NeedsDocker):
    async def test_a_missing_image(self, engine: DockerEngine, name: str) -> None:
        await engine.submit(JobSpec(name, "user:a", Run(("true",), image="sha256:" + "0" * 64)))
        seen = await end(engine, name)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.MISSING_IMAGE)
        assert seen.cause.infrastructure

    async def test_what_the_engine_cannot_give(self, engine: DockerEngine, name: str) -> None:
        work = Run(("true",), image=IMAGE)
        with pytest.raises(Unsupported, match="CPU"):
            await engine.submit(JobSpec(name, "user:a", work, Resources(cpu=4096)))
        mount = Mount(source="/kaos/no/such/path", target="/x")
        with pytest.raises(Unsupported, match="/kaos/no/such/path"):
            await engine.submit(JobSpec(name, "user:a", Run(("true",), IMAGE, mounts=(mount,))))

    async def test_it_runs_without_privilege(self, engine: DockerEngine, name: str) -> None:
        script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /proc/1/comm"
        await engine.submit(JobSpec(name, "user:a", Run(("sh", "-c", script), image=IMAGE)))
        await end(engine, name)
        lines = texts(await output(engine, name))
        assert lines == [
            str(engine.uid),
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "docker-init",
        ]

    async def test_the_images_entrypoint_has_no_say(
        self, engine: DockerEngine, name: str, tag: str, tmp_path: Path
    ) -> None:
        dockerfile = f'FROM {IMAGE}\nENTRYPOINT ["false"]\n'
        await asyncio.to_thread(docker, "build", "--tag", tag, "-", input=dockerfile.encode())
        await engine.submit(JobSpec(name, "user:a", Run(("echo", "hi"), image=tag)))
        assert (await end(engine, name)).phase is Phase.SUCCEEDED
        assert texts(await output(engine, name)) == ["hi"]

    async def test_strangers_containers_are_not_ours(self, engine: DockerEngine) -> None:
        name = f"kaos-train-{secrets.token_hex(4)}"
        await asyncio.to_thread(docker, "create", "--name", name, IMAGE, "true")
        try:
            assert (await engine.observe(name)).phase is Phase.ABSENT
            await engine.cancel(name)
            await engine.remove(name)
            assert await asyncio.to_thread(docker, "inspect", "--format", "{{.Name}}", name)
        finally:
            await asyncio.to_thread(docker, "rm", name)

    async def test_a_removed_container_is_absent(self, engine: DockerEngine, name: str) -> None:
        await engine.submit(JobSpec(name, "user:a", Run(("sleep", "60"), image=IMAGE)))
        watching = asyncio.create_task(end(engine, name))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(docker, "rm", "--force", name)
        assert (await asyncio.wait_for(watching, 5)).phase in (Phase.ABSENT, Phase.FAILED)
        assert (await engine.observe(name)).phase is Phase.ABSENT

    async def test_a_reader_may_go_away(self, engine: DockerEngine, name: str) -> None:
        script = "while :; do echo line; sleep 0.01; done"
        await engine.submit(JobSpec(name, "user:a", Run(("sh", "-c", script), image=IMAGE)))
        logs = engine.logs(name)
        await anext(logs)
        await asyncio.wait_for(logs.aclose(), 2)  # type: ignore[attr-defined]
        assert (await engine.observe(name)).phase is Phase.RUNNING


class TestImages(NeedsDocker):
    def test_musl_is_noticed(self, tag: str) -> None:
        client = docker_client.connect()
        machine = os.uname().machine
        alpine = make_image(tag, f"lib/ld-musl-{machine}.so.1", "etc/alpine-release")
        assert docker_client.describe(client, alpine)["libc"] == "musl"
        debian = make_image(tag, f"lib/ld-musl-{machine}.so.1", "etc/debian_version")
        assert docker_client.describe(client, debian)["libc"] == "glibc"
        assert docker_client.describe(client, IMAGE)["libc"] == "glibc"
        client.close()

    async def test_describe(self, engine: DockerEngine) -> None:
        found = await engine.describe(IMAGE)
        assert found["image"] == await engine.resolve(IMAGE)
        assert "/usr/local/bin" in found["path"]
        with pytest.raises(NotFound):
            await engine.describe("kaos-test/none:1")

    async def test_an_unknown_image_says_where_it_was_looked_for(
        self, engine: DockerEngine
    ) -> None:
        engine.registries = ["localhost:1"]
        with pytest.raises(NotFound, match=r"localhost:1 did not give it"):
            await engine.resolve("localhost:1/kaos/none:1")

    def test_a_base_that_moved_is_refused(self, tag: str) -> None:
        client = docker_client.connect()
        first = make_image(tag, "one")
        pin_bases(client, {tag: first, "scratch": "scratch"}, Registries())
        make_image(tag, "two")
        with pytest.raises(BuildFailed, match=r"--pull"):
            pin_bases(client, {tag: first}, Registries())
        # Containerd's store has let go of it together with its name.
        if docker_client.image_id(client, first):
            docker("rmi", first)
        client.close()

    def test_a_base_that_lost_its_name_gets_it_back(self, tag: str) -> None:
        client = docker_client.connect()
        first = make_image(tag, "one")
        docker("tag", tag, tag + "x")
        docker("rmi", tag)
        pin_bases(client, {tag: first}, Registries())
        assert docker_client.image_id(client, tag) == first
        docker("rmi", tag + "x")
        client.close()


class TestBuilds(NeedsDocker):
    async def built(
        self, engine: DockerEngine, name: str, tag: str, source: Path, **more: Any
    ) -> Observation:
        """Build a folder, and wait for that."""
        limits = more.pop("resources", Resources())
        bases = {IMAGE: await engine.resolve(IMAGE)}
        work = Build(laid(Path(engine.data_dir), source), "k", tag, bases=bases, **more)
        await engine.submit(JobSpec(name, "user:a", work, limits))
        return await end(engine, name, 200)

    async def test_the_dockerfile_stays_out_of_the_image(
        self, engine: DockerEngine, name: str, tag: str, source: Path
    ) -> None:
        (source / "Dockerfile").write_text(f"FROM {IMAGE}\nWORKDIR /opt/program\nCOPY . .\n")
        seen = await self.built(engine, name, tag, source)
        assert seen.phase is Phase.SUCCEEDED, await output(engine, name)
        assert seen.result["workdir"] == "/opt/program"
        assert seen.result["libc"] == "glibc"
        listing = await asyncio.to_thread(docker, "run", "--rm", tag, "ls", "-A", "/opt/program")
        assert sorted(listing.split("\n")) == sorted(
            ["empty", "grün file", "link", "long", "train"]
        )

    async def test_the_whole_bundle_as_context(
        self, engine: DockerEngine, name: str, tag: str, source: Path
    ) -> None:
        (source / "Dockerfile").write_text(
            f"FROM {IMAGE}\nCOPY model/train /x\nCOPY Dockerfile /\n"
        )
        seen = await self.built(engine, name, tag, source, context=".")
        assert seen.phase is Phase.SUCCEEDED

    async def test_limits_reach_the_steps(
        self, engine: DockerEngine, name: str, tag: str, source: Path
    ) -> None:
        step = "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max || :"
        (source / "Dockerfile").write_text(f"FROM {IMAGE}\nENV X={name}\n{step}\n")
        await self.built(engine, name, tag, source, resources=Resources(cpu=1, memory="256Mi"))
        assert str(256 << 20) in texts(await output(engine, name))

    @pytest.mark.parametrize("builder", ["buildkit", "classic"])
    def test_each_builder_says_why_a_dockerfile_is_none(
        self,
        tmp_path: Path,
        source: Path,
        tag: str,
        builder: str,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        if builder == "classic":
            (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
            (tmp_path / "docker").chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        elif not has_buildx():
            pytest.skip("needs docker buildx")
        text = f"FROM {IMAGE}\n\nFETCH x\n"
        (source / "Dockerfile").write_text(text)
        with pytest.raises(BuildFailed, match="unknown instruction: FETCH") as failed:
            build(Order("n", "user:a", source, "model", tag, "default", {}, {}))
        log = [*capfd.readouterr().out.splitlines(), failed.value.message]
        told = explain_failure(log, lambda path: text if path == "Dockerfile" else None)
        assert told == "Dockerfile:3: unknown instruction: FETCH"

    async def test_a_dockerfile_that_is_none(
        self, engine: DockerEngine, name: str, tag: str, source: Path
    ) -> None:
        (source / "Dockerfile").write_text(f"FROM {IMAGE}\nFETCH x\n")
        seen = await self.built(engine, name, tag, source)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.ERROR)
        assert any("FETCH" in line for line in texts(await output(engine, name)))

    def test_buildx_is_used_where_it_is(
        self, tmp_path: Path, source: Path, tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A `docker` command with buildx: writes down what it is asked, lets the classic build."""
        programs = tmp_path / "bin"
        programs.mkdir()
        script = f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
[ "$2" = version ] && exit 0
PATH={os.environ["PATH"]} exec docker build --tag {tag} --file {source}/Dockerfile {source}/model
"""
        (programs / "docker").write_text(script)
        (programs / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        order = Order("n", "user:a", source, "model", tag, "default", {"a": "b"}, {})
        assert build(order)["image"].startswith("sha256:")
        asked = (tmp_path / "asked").read_text()
        assert "buildx build" in asked
        assert f"--tag {tag} --label a=b {source}/model" in asked
