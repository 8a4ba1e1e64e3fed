"""Attacks from an image build on a Docker Engine, on images, caches and addresses of others.

Causes 1, 4, 5, 9, 13, 14 and 17 of the review. That they are real is seen with the Engine's own
builder (`DockerEngine.builder = "engine"`), which is what there was before.
"""

import asyncio
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import secrets
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from traitlets.config import Config

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines import builder_image
from kaos_hub.engines.base import Build, Cause, JobSpec, Observation, Phase
from kaos_hub.engines.docker.builds.bases import KEY
from kaos_hub.engines.docker.builds.result import Result
from kaos_hub.engines.docker.client import connect
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.errors import BuildFailed, Forbidden, KaosError, NotFound, Unsupported
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Resources
from kaos_hub.service.builds.bases import Bases
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ImageRow, now
from tests.bundled import laid
from tests.networks import dismiss
from tests.test_engine_contract import IMAGE, end, forget_builds, needs_docker, output, texts

SECRET = "alices" + "-secret-" + secrets.token_hex(4)
ALICE, BOB = "user:alice", "user:bob"


class Hub:
    """Builds of several owners on one hub."""

    def __init__(self, data: Path, reachable: Sequence[str] = (), **options: Any) -> None:
        rules = {"hub_addresses": [f"http://{bridge()}:1"], "reachable": list(reachable)}
        networks = Config({"DockerNetworks": rules})
        self.data = data
        self.engine = DockerEngine(data_dir=str(data), stop_grace=1, config=networks, **options)
        self.names: list[str] = []

    async def build(
        self,
        owner: str,
        *lines: str,
        limits: Resources = Resources(),  # noqa: B008 - frozen
        base: str = IMAGE,
        **more: str,
    ) -> tuple[Observation, list[str]]:
        """Build lines on a base image, with more bases that the service has let through; how that
        ended, and what was printed."""
        name = f"kaos-build-{secrets.token_hex(4)}"
        self.names.append(name)
        source = self.data / "sources" / name
        (source / "model").mkdir(parents=True)
        (source / "Dockerfile").write_text("\n".join([f"FROM {base}", *lines, ""]))
        bases = {IMAGE: await self.engine.resolve(IMAGE), **more}
        work = Build(laid(self.data, source), secrets.token_hex(8), tag(name), bases=bases)
        await self.engine.submit(JobSpec(name, owner, work, limits, deadline=120))
        seen = await end(self.engine, name, 180)
        return seen, texts(await output(self.engine, name))

    async def close(self) -> None:
        for name in self.names:
            await self.engine.remove(name)
            docker("image", "rm", "--force", tag(name))
        await asyncio.to_thread(forget_builds, self.engine)
        await self.engine.close()
        await asyncio.to_thread(dismiss, self.data)


def tag(name: str) -> str:
    return f"kaos-hub/{hashlib.sha256(name.encode()).hexdigest()[:16]}:{name}"


def docker(*arguments: str, give: str = "") -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, input=give)
    return done.stdout.strip()


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path / "data")
    yield hub
    await hub.close()


@pytest_asyncio.fixture
async def old(tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub that has the Engine itself build."""
    hub = Hub(tmp_path / "old", builder="engine")
    yield hub
    await hub.close()


@pytest.fixture(scope="module")
def victim() -> Iterator[str]:
    """An image that alice's build left; its name."""
    called = f"kaos-hub/{secrets.token_hex(8)}:{secrets.token_hex(16)}"
    text = f"FROM {IMAGE}\nRUN echo {SECRET} > /secret\nLABEL {KEY}=k\n"
    docker("build", "--tag", called, "-", give=text)
    yield called
    docker("image", "rm", "--force", called)


WAYS = {
    "FROM its tag": "FROM {tag}\nRUN cat /secret",
    "FROM its full name": "FROM docker.io/{tag}\nRUN cat /secret",
    "FROM its id": "FROM {id}\nRUN cat /secret",
    "FROM its bare id": "FROM {hex}\nRUN cat /secret",
    "FROM the beginning of its id": "FROM {short}\nRUN cat /secret",
    "FROM a variable": "ARG B={tag}\nFROM ${{B}}\nRUN cat /secret",
    "COPY --from": "FROM {image}\nCOPY --from={tag} /secret /\nRUN cat /secret",
    "COPY --from its id": "FROM {image}\nCOPY --from={hex} /secret /\nRUN cat /secret",
    "RUN --mount": "FROM {image}\nRUN --mount=type=bind,from={tag},target=/m cat /m/secret",
    "a frontend": "# syntax={tag}\nFROM {tag}\nRUN cat /secret",
}


@pytest.mark.docker
@needs_docker[1]
class TestNoOtherBuilder:
    """A build that cannot be confined does not run. Each of these leaves the Engine's own builder
    at hand, which would do."""

    async def failed(self, hub: Hub, *lines: str) -> Observation:
        seen, said = await hub.build(ALICE, *lines)
        assert seen.phase is Phase.FAILED and seen.cause is Cause.CONFIGURATION
        assert not docker("image", "ls", "--quiet", tag(hub.names[-1]))
        assert "built it" not in "\n".join(said)
        return seen

    async def test_the_builder_is_missing(self, tmp_path: Path) -> None:
        """Cause 1: the image of the builder is not there."""
        hub = Hub(tmp_path / "data", builder_image="kaos-test/no-such-builder:1")
        seen = await self.failed(hub, "RUN echo built it")
        assert "kaos-test/no-such-builder:1" in seen.message and "builder_image" in seen.message
        await hub.close()

    async def test_the_builder_cannot_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cause 1: nor can it be made."""
        monkeypatch.setenv("KAOS_BUILDER_BASE", "127.0.0.1:9/no-such-base:1")
        hub = Hub(tmp_path / "data")
        seen = await self.failed(hub, "RUN echo built it")
        assert "builder cannot be made" in seen.message and "127.0.0.1:9" in seen.message
        await hub.close()

    async def test_the_builder_does_not_work(self, tmp_path: Path) -> None:
        """Cause 1: the machine does not let it work, as where user namespaces are forbidden."""
        builder = await asyncio.to_thread(builder_image.ensure, connect(600), print)
        context = f"""FROM {builder}
            USER root
            RUN printf '#!/bin/sh\\necho user namespaces are forbidden >&2; exit 1' > /bin/forbid \
             && chmod +x /bin/forbid && cp /bin/forbid /usr/bin/buildah
            USER 1001:1001
        """
        called = f"kaos-test/forbidden:{secrets.token_hex(4)}"
        docker("build", "--tag", called, "-", give=context)
        hub = Hub(tmp_path / "data", builder_image=called)
        seen = await self.failed(hub, "RUN echo built it")
        assert "user namespaces are forbidden" in seen.message and "doctor" in seen.message
        await hub.close()
        docker("image", "rm", "--force", called)

    async def test_the_engine_refuses_its_container(self, tmp_path: Path) -> None:
        """Cause 1: the Engine does not make its container."""
        await asyncio.to_thread(builder_image.ensure, connect(600), print)
        hub = Hub(tmp_path / "data", build_network="no-such-network")
        seen = await self.failed(hub, "RUN echo built it")
        assert "no-such-network" in seen.message
        await hub.close()


@pytest.mark.docker
@needs_docker[1]
class TestImages:
    @pytest.mark.parametrize("way", WAYS)
    async def test_anothers_image(self, hub: Hub, victim: str, way: str) -> None:
        """Cause 1: even a line that the service would have overlooked gives nothing."""
        image_id = docker("image", "inspect", "--format", "{{.Id}}", victim)
        bare = image_id.removeprefix("sha256:")
        text = WAYS[way].format(tag=victim, id=image_id, hex=bare, short=bare[:12], image=IMAGE)
        head, _, rest = text.partition("\n")
        if head.startswith("FROM "):
            seen, lines = await hub.build(BOB, rest, base=head.removeprefix("FROM "))
        else:
            seen, lines = await hub.build(BOB, text, base="scratch AS nothing\n#")
        assert SECRET not in "\n".join(lines)
        assert seen.phase is Phase.FAILED, lines

    @pytest.mark.parametrize("way", ["FROM its tag", "COPY --from", "RUN --mount"])
    async def test_the_engines_own_builder_gives_it(self, old: Hub, victim: str, way: str) -> None:
        head, _, rest = WAYS[way].format(tag=victim, image=IMAGE).partition("\n")
        _, lines = await old.build(BOB, rest, base=head.removeprefix("FROM "))
        assert any(line.endswith(SECRET) for line in lines), lines

    async def test_a_cache_is_its_owners(self, hub: Hub) -> None:
        """Cause 5: what a build puts into the usual cache mount."""
        mount = "RUN --mount=type=cache,target=/root/.cache/pip"
        nonce = secrets.token_hex(4)
        await hub.build(BOB, f"{mount} echo poison-{nonce} > /root/.cache/pip/poison")
        _, lines = await hub.build(ALICE, f"{mount} echo seen: $(ls /root/.cache/pip) {nonce}")
        assert f"seen: {nonce}" in lines
        _, lines = await hub.build(BOB, f"{mount} echo seen: $(cat /root/.cache/pip/poison)")
        assert f"seen: poison-{nonce}" in lines, "its own owner has it"

    async def test_another_built_nothing_that_one_sees(self, hub: Hub) -> None:
        """Cause 1: "Using cache" told that somebody had built the same."""
        step = f"RUN echo {secrets.token_hex(8)}"
        await hub.build(ALICE, step)
        _, lines = await hub.build(BOB, step)
        assert not any("cache" in line for line in lines), lines


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server on this machine's loopback; its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()


@pytest.mark.docker
@needs_docker[1]
class TestAddresses:
    async def test_add_fetches_nothing_of_the_machines(self, hub: Hub) -> None:
        """Cause 4: ADD from loopback, and from the machine's address on the bridge."""
        with listening() as (port, asked):
            for host in ("127.0.0.1", "localhost", bridge()):
                add = f"ADD http://{host}:{port}/loot /loot"
                seen, lines = await hub.build(BOB, add, "RUN cat /loot")
                assert seen.phase is Phase.FAILED, lines
                assert SECRET not in "\n".join(lines)
            assert asked == []

    async def test_the_engines_own_builder_does(self, old: Hub) -> None:
        with listening() as (port, asked):
            _, lines = await old.build(BOB, f"ADD http://127.0.0.1:{port}/loot /l", "RUN cat /l")
        assert asked and SECRET in "\n".join(lines)

    async def test_run_reaches_nothing_of_the_machines(self, hub: Hub) -> None:
        """Cause 2 and 4: RUN has its owner's network, and can listen to nobody."""
        with listening() as (port, asked):
            hosts = ["127.0.0.1", bridge(), "169.254.169.254"]
            script = (
                "import socket\\n"
                f"for host in {hosts}:\\n"
                "    try: socket.create_connection((host, PORT), 2); print('reached', host)\\n"
                "    except OSError as e: print('not', host, type(e).__name__)\\n"
                "try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('reached wire')\\n"
                "except OSError as e: print('not the wire', e)\\n"
            ).replace("PORT", str(port))
            seen, lines = await hub.build(BOB, f'RUN printf "{script}" | python3')
        assert seen.phase is Phase.SUCCEEDED, lines
        assert asked == []
        assert not any(line.startswith("reached") for line in lines), lines
        assert sum(line.startswith("not ") for line in lines) == len(hosts) + 1

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.1.1"])
    async def test_a_base_of_a_registry_at_a_private_address(self, hub: Hub, host: str) -> None:
        """Cause 4: FROM 127.0.0.1:PORT/… read out what a port answered."""
        with listening() as (port, asked):
            with pytest.raises(NotFound, match=r"DockerEngine\.registries|no host|no reference"):
                await hub.engine.resolve(f"{host}:{port}/x/y:z")
            assert asked == []


@pytest.mark.docker
@needs_docker[1]
class TestNames:
    @pytest.mark.parametrize(
        "image",
        ["a/../../containers/x", "library/../kaos-hub/x:y", "a/./b", "a//b", "../x", "a/b/..",
         "a:b:c", "A/b@sha256:0", "0" * 64, "a?b", "a%2e%2e/b", "a#b", "a\n", ""],
    )  # fmt: skip
    async def test_what_is_no_reference_reaches_no_api(self, hub: Hub, image: str) -> None:
        """Causes 13 and 14: names that walk in the Engine's API."""
        with pytest.raises(NotFound, match="reference"):
            await hub.engine.resolve(image)

    async def test_an_id_is_no_reference(self, hub: Hub, victim: str) -> None:
        """Cause 1: ids, and what they begin with."""
        image_id = docker("image", "inspect", "--format", "{{.Id}}", victim)
        for image in (image_id, image_id[7:], image_id[7:19], image_id[7:11]):
            with pytest.raises(NotFound):
                await hub.engine.resolve(image)

    async def test_a_base_that_a_build_left(
        self, hub: Hub, victim: str, usual_db: Database
    ) -> None:
        """Causes 1 and 13: by its name, by another name, and known by its id alone."""
        bases = Bases(usual_db, hub.engine)
        with pytest.raises(Forbidden, match="what a build left"):
            await bases.resolve(BOB, victim, False, True)
        other = f"kaos-test/{secrets.token_hex(4)}:1"
        docker("tag", victim, other)
        try:
            with pytest.raises(Forbidden):
                await bases.resolve(BOB, other, False, True)
        finally:
            docker("image", "rm", other)
        row = ImageRow(
            owner=ALICE, key="k", engine="docker", inputs={}, created=now(), job=None,
            result={"image": await hub.engine.resolve(IMAGE)},
        )  # fmt: skip
        await usual_db.run(lambda session: session.add(row))
        with pytest.raises(Forbidden):
            await bases.resolve(BOB, IMAGE, False, True)

    async def test_what_others_use_cannot_be_asked(self, hub: Hub, usual_db: Database) -> None:
        """Cause 17: a dry run told whether anybody had ever used a base."""
        bases = Bases(usual_db, hub.engine)
        assert await bases.resolve(ALICE, IMAGE, False, True)
        assert await bases.resolve(ALICE, IMAGE, False, False)
        assert await bases.resolve(BOB, IMAGE, False, False) is None

    async def test_triggers_of_a_base(self, hub: Hub, victim: str, usual_db: Database) -> None:
        """Cause 1: ONBUILD COPY --from in a base runs in the build of whoever builds on it."""
        base = f"kaos-test/{secrets.token_hex(4)}:1"
        text = f"FROM {IMAGE}\nONBUILD COPY --from={victim} /secret /loot\n"
        docker("build", "--tag", base, "-", give=text)
        try:
            found = await hub.engine.resolve(base)
            with pytest.raises(Unsupported, match="ONBUILD"):
                await Bases(usual_db, hub.engine).refuse_triggers(base, found)
            seen, lines = await hub.build(BOB, "RUN cat /loot", base=base, **{base: found})
            assert seen.phase is Phase.FAILED, lines
            assert SECRET not in "\n".join(lines)
        finally:
            docker("image", "rm", base)


@pytest.mark.docker
@needs_docker[1]
class TestLimits:
    async def test_a_memory_bomb(self, hub: Hub) -> None:
        """Cause 9: builds had no limit of memory."""
        bomb = "RUN python3 -c \"x = bytearray(10**9); print('got it')\""
        seen, lines = await hub.build(BOB, bomb, limits=Resources(cpu=1, memory="256Mi"))
        assert seen.phase is Phase.FAILED
        assert "got it" not in lines
        assert seen.cause is Cause.OUT_OF_MEMORY


# --- what a build leaves ---


def layout(layers: list[bytes], diffs: list[str] | None = None, **forged: bytes) -> bytes:
    """A tar as the Engine gives it of a folder with an image in it."""
    blobs = {hashlib.sha256(layer).hexdigest(): layer for layer in layers}
    order = list(blobs)
    config: dict[str, Any] = {
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"a": "b", KEY: "forged"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in diffs or order]},
    }  # fmt: skip
    manifest: dict[str, Any] = {"layers": [{"digest": f"sha256:{d}"} for d in order]}
    if diffs:
        manifest["layers"] = [{"digest": f"sha256:{d}"} for d in (order or diffs)]
    body = json.dumps(config).encode()
    manifest["config"] = {"digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}
    blobs[hashlib.sha256(body).hexdigest()] = body
    listed = json.dumps(manifest).encode()
    blobs[hashlib.sha256(listed).hexdigest()] = listed
    index = {"manifests": [{"digest": f"sha256:{hashlib.sha256(listed).hexdigest()}"}]}
    files = {f"layout/blobs/sha256/{name}": content for name, content in blobs.items()}
    files |= {"layout/index.json": json.dumps(index).encode()} | forged
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def loaded(
    found: bytes, bases: list[list[str]] | None = None, limit: int = 1 << 24
) -> dict[str, bytes]:
    pieces = (found[i : i + 700] for i in range(0, len(found), 700))
    body = b"".join(Result(bases or [], "kaos-test/x:1", {KEY: "right"}, limit).archive(pieces))
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_image_is_handed_on_with_our_labels() -> None:
    inner = b"a layer" * 1000
    found = loaded(layout([gzip.compress(inner)], [sha(inner)]))
    (listed,) = json.loads(found["manifest.json"])
    config = json.loads(found[listed["Config"]])
    assert config["config"]["Labels"] == {"a": "b", KEY: "right"}
    assert gzip.decompress(found[listed["Layers"][0]]) == inner


def test_layers_that_the_build_did_not_have() -> None:
    """Cause 1, by another way: the Engine would take alice's layer for one that is named only."""
    alices, own = sha(b"alice's layer"), b"own layer"
    with pytest.raises(BuildFailed, match="left no layer"):
        loaded(layout([], [alices]))
    with pytest.raises(BuildFailed, match="left no layer"):
        loaded(layout([own], [alices]))
    with pytest.raises(BuildFailed, match="left no layer"):
        loaded(layout([], [alices]), bases=[[f"sha256:{sha(b'base')}", f"sha256:{alices}"]])
    assert loaded(layout([], [alices]), bases=[[f"sha256:{alices}"]])


def test_content_that_is_not_what_it_is_called() -> None:
    name = f"layout/blobs/sha256/{sha(b'one')}"
    with pytest.raises(BuildFailed, match="changed"):
        loaded(layout([b"one"], **{name: b"two"}))


def test_a_small_file_that_unpacks_to_a_large_one() -> None:
    inner = bytes(1 << 25)
    with pytest.raises(BuildFailed, match="larger than"):
        loaded(layout([gzip.compress(inner)], [sha(inner)]))


@pytest.mark.parametrize(
    "found",
    [b"", b"x" * 2000, layout([])[:900], layout([b"a"], **{"layout/index.json": b"[]"}),
     layout([b"a"], **{"layout/index.json": b'{"manifests": [{"digest": "sha256:../.."}]}'})],
)  # fmt: skip
def test_what_is_no_image(found: bytes) -> None:
    with pytest.raises(KaosError):
        loaded(found)


def test_references_are_written_in_full() -> None:
    """Docker would take a few letters for the id of an image."""
    assert str(Reference.parse("abcd")) == "docker.io/library/abcd:latest"
