"""The docker spawner: real containers with a tiny stand-in for the runtime, a desk as service."""

import json
import os
import sqlite3
from contextlib import closing

import docker
import pytest
from docker.errors import DockerException, NotFound

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines.docker.networks.networks import DockerNetworks
from kaos_hub.schemas import Mount, NotebookSpec
from tests.desk import hub_at_desk
from tests.hub import wait_until

pytestmark = pytest.mark.docker

IMAGE = "python:3.11-slim"
VOLUME = f"kaos-test-runtime-{os.getpid()}"
PROGRAM = """#!/usr/bin/env python3
import http.server, os, signal
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("hello from inside", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8888), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def engine():
    try:
        client = docker.from_env()
        client.images.get(IMAGE)
    except DockerException as e:
        pytest.skip(f"needs a Docker Engine with {IMAGE}: {e}")
    client.volumes.create(VOLUME)
    write = (
        "mkdir -p /v/bin; printenv PROGRAM > /v/bin/kaos-notebook; chmod 755 /v/bin/kaos-notebook"
    )
    client.containers.run(
        IMAGE,
        ["sh", "-c", write],
        environment={"PROGRAM": PROGRAM},
        volumes={VOLUME: {"bind": "/v", "mode": "rw"}},
        remove=True,
    )
    yield client
    for container in client.containers.list(all=True, filters={"label": "kaos-test"}):
        container.remove(force=True)
    client.volumes.get(VOLUME).remove(force=True)
    client.close()


@pytest.fixture(scope="module")
def place(engine, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hub")
    config = f"c.KaosDockerSpawner.runtime_volume = {VOLUME!r}\nc.Spawner.start_timeout = 30\n"
    with hub_at_desk(directory, config, engine="docker") as (hub, desk):
        admitted = desk.admit

        def with_image(asked) -> NotebookSpec:
            spec = admitted(asked)
            data = hub.data.trees / "data"
            data.mkdir(exist_ok=True)
            (data / "numbers.csv").write_text("1,2\n")
            mounts = [*spec.mounts, Mount(source=str(data), target="/kaos/data")]
            return spec.model_copy(
                update={"image": IMAGE, "uid": 1000, "mounts": mounts, "labels": {"kaos-test": "1"}}
            )

        desk.admit = desk.decide = with_image
        yield hub, desk


@pytest.fixture
def hub(place):
    return place[0]


@pytest.fixture
def desk(place):
    desk = place[1]
    desk.decide = desk.admit
    desk.asked.clear()
    desk.released.clear()
    return desk


def workload(hub, name: str) -> str:
    return hub.server(name)["state"]["workload"]


def test_container_is_confined_and_holds_what_was_admitted(engine, hub, desk):
    hub.launch("one")
    container = engine.containers.get(workload(hub, "one"))
    config, host = container.attrs["Config"], container.attrs["HostConfig"]
    assert config["Entrypoint"] == ["/opt/kaos/bin/kaos-notebook"]
    assert not config["Cmd"]
    assert config["User"] == "1000:1000"
    assert host["Init"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == 2**30
    assert host["CpuQuota"] == 100_000
    assert host["PidsLimit"] == 4096
    assert not host["AutoRemove"]
    assert not host["PortBindings"]
    own = DockerNetworks(data_dir=str(hub.data.path)).name(f"user:{hub.me}")
    assert list(container.attrs["NetworkSettings"]["Networks"]) == [own]
    mounts = {m["Destination"]: m["RW"] for m in container.attrs["Mounts"]}
    assert mounts == {"/opt/kaos": False, "/home/kaos": True, "/kaos/data": False}
    env = dict(word.split("=", 1) for word in config["Env"])
    assert env["HOME"] == "/home/kaos"
    assert env["KAOS_URL"] == f"http://{bridge()}:{hub.data.port('service')}/services/kaos"
    code, said = container.exec_run(["sh", "-c", "touch /home/kaos/mine && touch /kaos/data/x"])
    assert code and b"Read-only" in said
    assert (hub.data.homes / "one" / "mine").stat().st_uid == 1000
    hub.end("one")
    container.reload()
    assert container.status == "exited"
    assert b"hello from inside" in container.logs()
    assert [r.stopped_by_hub for r in wait_until(lambda: desk.released, 5)] == [True]


def test_restarted_hub_finds_the_container(engine, hub, desk):
    hub.launch("kept")
    before = workload(hub, "kept")
    started = engine.containers.get(before).attrs["State"]["StartedAt"]
    hub.kill()
    hub.start()
    assert hub.server("kept")["ready"]
    assert engine.containers.get(before).attrs["State"]["StartedAt"] == started
    hub.end("kept")
    assert engine.containers.get(before).status == "exited"


def test_a_notebook_in_the_network_of_an_earlier_release_lives_on(engine, hub, desk):
    """Before owners had networks all were in Docker's own; the Hub was killed before it knew."""
    hub.launch("old")
    before = workload(hub, "old")
    container = engine.containers.get(before)
    own = DockerNetworks(data_dir=str(hub.data.path)).name(f"user:{hub.me}")
    engine.networks.get("bridge").connect(container)
    engine.networks.get(own).disconnect(container)
    hub.kill()
    with closing(sqlite3.connect(hub.data.hub_database)) as db, db:
        kept = (json.dumps({"workload": before, "address": ""}),)
        db.execute("update spawners set state = ? where name = 'old'", kept)
    hub.start()
    assert hub.server("old")["ready"]
    container.reload()
    assert container.status == "running"
    hub.end("old")


def test_hub_that_died_before_it_knew_the_container_finds_it(engine, hub, desk):
    """Killed after it had asked for the container, before the Engine's answer was kept."""
    hub.launch("early")
    before = workload(hub, "early")
    hub.kill()
    with closing(sqlite3.connect(hub.data.hub_database)) as db, db:
        kept = (json.dumps({"workload": before, "address": ""}),)
        db.execute("update spawners set state = ? where name = 'early'", kept)
    hub.start()
    assert hub.server("early")["ready"]
    hub.end("early")
    assert engine.containers.get(before).status == "exited"


def test_reasons_of_death(engine, hub, desk):
    hub.launch("killed")
    engine.containers.get(workload(hub, "killed")).kill()
    reported = wait_until(lambda: desk.released, 10)[0]
    assert (reported.exit_code, reported.stopped_by_hub) == (137, False)
    assert "SIGKILL" in reported.reason

    desk.released.clear()
    hub.launch("removed")
    engine.containers.get(workload(hub, "removed")).remove(force=True)
    assert "removed" in wait_until(lambda: desk.released, 10)[0].reason


def test_too_much_memory_is_said(engine, hub, desk):
    with_image = desk.admit

    def small(asked):
        spec = with_image(asked)
        resources = spec.resources.model_copy(update={"memory": 64 << 20})
        return spec.model_copy(update={"resources": resources})

    desk.decide = small
    hub.launch("greedy")
    container = engine.containers.get(workload(hub, "greedy"))
    grow = "x = [bytearray(b'1' * (1 << 20)) for _ in range(256)]"
    container.exec_run(["python3", "-c", grow])
    container.reload()
    if container.status == "running":  # only the child was ended; end what is left
        container.kill()
    reported = wait_until(lambda: desk.released, 10)[0]
    assert "more memory than it had (64Mi)" in reported.reason


def test_missing_image_and_runtime_are_said(engine, hub, desk):
    with_image = desk.admit
    desk.decide = lambda asked: with_image(asked).model_copy(update={"image": "sha256:" + "0" * 64})
    answer = hub.api("POST", hub.path("gone"), {})
    assert answer.status == 404
    assert "Deploy the notebook again" in answer.json["message"]
    wait_until(lambda: desk.released, 5)


def test_gpus_that_are_not_there(engine, hub, desk):
    if "nvidia" in str(engine.info().get("Runtimes")):
        pytest.skip("this Engine has GPUs")
    with_image = desk.admit

    def with_gpu(asked):
        spec = with_image(asked)
        return spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpu": 1})})

    desk.decide = with_gpu
    answer = hub.api("POST", hub.path("gpu"), {})
    assert answer.status == 422
    assert "no GPUs to give" in answer.json["message"]


def test_users_apart_share_one_engine(engine, hub, desk):
    """Unlike on `local`, anybody who can log in may start."""
    hub.api("POST", "/users/bob")
    assert hub.api("POST", "/users/bob/server", {}).status in (201, 202)
    model = wait_until(
        lambda: (s := hub.api("GET", "/users/bob").json["servers"][""])["ready"] and s, 20
    )
    name = model["state"]["workload"]
    assert hub.api("DELETE", "/users/bob/server").status < 300
    wait_until(lambda: desk.released, 15)
    engine.containers.get(name).remove(force=True)
    with pytest.raises(NotFound):
        engine.containers.get(name)
