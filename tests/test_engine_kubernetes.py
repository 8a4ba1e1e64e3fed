"""What is special about the engine `kubernetes`."""

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.engines.base import Build, Cause, JobSpec, Materialise, Observation, Phase, Run
from kaos_hub.engines.kubernetes import seen as seen_as
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.kubernetes.logs import stamped
from kaos_hub.engines.kubernetes.objects import owner_hash, registries_conf
from kaos_hub.engines.kubernetes.pods import Pods
from kaos_hub.errors import EngineUnavailable, NotFound, Unsupported
from kaos_hub.registry.names import Reference, logins
from kaos_hub.schemas import Mount, NotebookSpec, Resources
from tests.engine_cluster import (
    TREES,
    Outages,
    TreeServer,
    kubectl,
    make_claim,
    namespace,
    options,
    registry,
)
from tests.test_engine_contract import (
    IMAGE,
    bundle,
    cluster,
    end,
    needs_kubernetes,
    output,
    run,
    shell,
    texts,
)

__all__ = ["cluster"]

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


# --- without a cluster: what a status says ---


def pod(phase: str, *statuses: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = [s["name"] for s in statuses]
    return {
        "metadata": {"name": "p", "annotations": more.pop("annotations", {})}
        | ({"deletionTimestamp": more.pop("deleted")} if "deleted" in more else {}),
        "spec": {
            "nodeName": more.pop("node", "n"),
            "initContainers": [{"name": n} for n in names if n not in ("main", "push")],
            "containers": [{"name": n} for n in names if n in ("main", "push")],
        },
        "status": {
            "phase": phase,
            "startTime": "2026-01-31T11:59:00Z",
            "initContainerStatuses": [s for s in statuses if s["name"] not in ("main", "push")],
            "containerStatuses": [s for s in statuses if s["name"] in ("main", "push")],
        }
        | more,
    }


def status(name: str, kind: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "img", "state": {kind: state}}


def ended(name: str, code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    times = {"startedAt": "2026-01-31T11:59:01Z", "finishedAt": "2026-01-31T11:59:09Z"}
    return status(name, "terminated", exitCode=code, reason=reason, **times | more)


@pytest.mark.parametrize(
    ("given", "phase", "cause", "message"),
    [
        (pod("Failed", ended("main", 137, "OOMKilled")), Phase.FAILED, Cause.OUT_OF_MEMORY, ""),
        (pod("Failed", ended("main", 3)), Phase.FAILED, Cause.ERROR, "exit code 3"),
        (pod("Failed", ended("main", 137)), Phase.FAILED, Cause.ERROR, "killed (SIGKILL)"),
        (
            pod("Failed", ended("fetch", 1, message="no answer from the service")),
            Phase.FAILED, Cause.TRANSFER, "no answer from the service",
        ),
        (
            pod("Failed", ended("build", 0), ended("push", 1, message='{"message": "denied"}')),
            Phase.FAILED, Cause.TRANSFER, "denied",
        ),
        (
            pod("Failed", reason="Evicted", message="Pod ephemeral local storage usage exceeds the"
                " total limit of containers 100Mi."),
            Phase.FAILED, Cause.STORAGE, "100Mi",
        ),
        (
            pod("Failed", reason="Evicted", message='Usage of EmptyDir volume "s" exceeds the limit'
                ' "1Gi".'),
            Phase.FAILED, Cause.STORAGE, "1Gi",
        ),
        (
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            Phase.FAILED, Cause.EVICTED, "low on resource",
        ),
        (
            pod("Failed", status("main", "running"), reason="DeadlineExceeded",
                annotations={seen_as.DEADLINE: "7"}),
            Phase.FAILED, Cause.DEADLINE, "7 s",
        ),
        (pod("Failed", reason="NodeShutdown"), Phase.LOST, Cause.LOST, "NodeShutdown"),
        (pod("Failed", reason="OutOfcpu", message="no cpu"), Phase.LOST, Cause.LOST, "no cpu"),
        (
            pod("Failed", ended("main", 143), deleted="2026-01-31T12:00:00Z"),
            Phase.LOST, Cause.LOST, "not by kaos_hub",
        ),
        (
            pod("Failed", ended("main", 137, "ContainerStatusUnknown", startedAt=None,
                                finishedAt=None)),
            Phase.LOST, Cause.LOST, "gave it up",
        ),
        (
            pod("Running", status("main", "running"), reason="NodeLost"),
            Phase.LOST, Cause.LOST, "does not answer",
        ),
        (
            pod("Running", status("main", "running"), deleted="2026-01-31T11:00:00Z"),
            Phase.LOST, Cause.LOST, "does not answer",
        ),
        (
            pod("Failed", ended("main", 128, "StartError", message='failed to create: exec: "no":'
                ' executable file not found in $PATH: unknown')),
            Phase.FAILED, Cause.ERROR, "cannot start no: executable file not found",
        ),
        (
            pod("Pending", node="", conditions=[{"type": "PodScheduled", "status": "False",
                                                "message": "0/1 nodes"}]),
            Phase.PENDING, Cause.NONE, "no node has room for it: 0/1 nodes",
        ),
        (
            pod("Pending", status("main", "waiting", reason="ErrImagePull", message="not found")),
            Phase.PENDING, Cause.NONE, "the image img cannot be pulled: not found",
        ),
        (
            pod("Pending", ended("fetch", 0), status("build", "running",
                                                     startedAt="2026-01-31T11:59:10Z")),
            Phase.RUNNING, Cause.NONE, "",
        ),
    ],
)  # fmt: skip
def test_a_status_says_what_became_of_it(
    given: dict[str, Any], phase: Phase, cause: Cause, message: str
) -> None:
    seen = seen_as.observation(given, NOW)
    assert (seen.phase, seen.cause) == (phase, cause)
    assert message in seen.message


def test_what_is_hopeless_is_given_up_after_a_while() -> None:
    pulling = pod("Pending", status("main", "waiting", reason="ImagePullBackOff"))
    assert seen_as.stuck(pulling, 100, NOW) is None
    given_up = seen_as.stuck(pulling, 30, NOW)
    assert given_up is not None and given_up[0] is Cause.MISSING_IMAGE
    wrong = pod("Pending", status("main", "waiting", reason="InvalidImageName"))
    assert seen_as.stuck(wrong, 100, NOW) is not None
    config = pod("Pending", status("main", "waiting", reason="CreateContainerConfigError"))
    found = seen_as.stuck(config, 30, NOW)
    assert found is not None and found[0] is Cause.CONFIGURATION
    starting = pod("Pending", status("main", "waiting", reason="ContainerCreating"))
    assert seen_as.stuck(starting, 1, NOW) is None


def test_only_infrastructure_is_tried_again() -> None:
    again = {c for c in Cause if c.infrastructure}
    assert again == {Cause.MISSING_IMAGE, Cause.EVICTED, Cause.TRANSFER, Cause.LOST}


def test_stamps_of_older_and_newer_nodes() -> None:
    stamp = b"2026-01-31T12:00:00.123456789Z "
    old = stamp + b"x" * 16384 + stamp + b"x" * 16384 + stamp + b"y\n"
    lines = b"".join(stamped([old])).splitlines()
    assert b"".join(line[28:] for line in lines) == b"x" * 32768 + b"y"
    assert all(line.startswith(b"2026-01-31T12:00:00.123456Z ") for line in lines)
    short = [b"2026-01-31T12:00:00Z a\n", b"2026-01-31T12:00:00.5Z \n", b"unable to retrieve\n"]
    assert b"".join(stamped(short)) == (
        b"2026-01-31T12:00:00.000000Z a\n2026-01-31T12:00:00.500000Z \n"
    )
    said = stamp + b"at 2026-01-31T11:00:00Z it began\n"
    assert b"".join(stamped([said])).endswith(b" at 2026-01-31T11:00:00Z it began\n")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.13-slim", "docker.io/library/python:3.13-slim"),
        ("a/b@sha256:" + "0" * 64, "docker.io/a/b@sha256:" + "0" * 64),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("ghcr.io/x/y:z", "ghcr.io/x/y:z"),
        ("index.docker.io/x", "docker.io/library/x:latest"),
    ],
)
def test_references_in_full(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


def test_no_reference() -> None:
    with pytest.raises(NotFound, match="no reference"):
        Reference.parse("a b")


def test_passwords_as_docker_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": "YTpi"},
                    "r:5000": {"username": "u", "password": "p"},
                }
            }
        )
    )
    assert logins(file) == {"docker.io": ("a", "b"), "r:5000": ("u", "p")}
    assert logins(tmp_path / "none") == {}


def test_registries_in_the_builders_words() -> None:
    text = registries_conf({"docker.io": "m:5000/hub"}, ["m:5000", "x:1"])
    assert 'prefix = "docker.io"' in text
    assert '[[registry.mirror]]\nlocation = "m:5000/hub"\ninsecure = true' in text
    assert 'prefix = "x:1"\nlocation = "x:1"\ninsecure = true' in text


# --- manifests ---


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    engine = KubernetesEngine(
        data_dir=str(tmp_path), registry="reg/x", runtime_image="runtime", builder_image="builder",
        push_secret="login", build_cache=True, trees_claim=TREES, ca_configmap="ca",
        service_url="http://s",
    )  # fmt: skip
    return engine.pods


BUILD = Build("blake3:" + "a" * 64, "k", "kaos-hub/o:k", bases={IMAGE: "docker.io/x@sha256:1"})


def test_only_the_step_that_pushes_sees_the_password(pods: Pods) -> None:
    body = pods.build(JobSpec("kaos-build-1", "user:ada", BUILD), BUILD, known=False)
    steps = {c["name"]: c for c in body["spec"]["initContainers"] + body["spec"]["containers"]}
    seen = {n: {m["name"] for m in c["volumeMounts"]} for n, c in steps.items()}
    assert seen["fetch"] == {"trees", "ticket"}
    assert seen["build"] == {"trees", "storage", "out", "ca", "cache"}
    assert seen["push"] == {"out", "login", "ca"}
    assert "ticket" not in json.dumps(steps["build"])
    assert "login" not in json.dumps(steps["build"])
    assert steps["push"]["image"] == steps["fetch"]["image"] == "runtime"


def test_the_security_context_is_exactly_what_is_needed(pods: Pods) -> None:
    body = pods.build(JobSpec("kaos-build-1", "user:ada", BUILD), BUILD, known=False)
    spec = body["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec)
    assert not [v for v in spec["volumes"] if "hostPath" in v]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"]["runAsNonRoot"] is True
    contexts = {
        c["name"]: c["securityContext"] for c in spec["initContainers"] + spec["containers"]
    }
    assert contexts.pop("build") == {
        "runAsUser": 1001,
        "runAsGroup": 1001,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]},
        "seccompProfile": {"type": "Unconfined"},
    }
    for context in contexts.values():
        assert context == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_a_seccomp_profile_of_the_admins(tmp_path: Path) -> None:
    engine = KubernetesEngine(data_dir=str(tmp_path), build_seccomp_profile="p/builder.json")
    body = engine.pods.build(JobSpec("kaos-build-1", "user:ada", BUILD), BUILD, known=False)
    profile = {"type": "Localhost", "localhostProfile": "p/builder.json"}
    assert body["spec"]["initContainers"][1]["securityContext"]["seccompProfile"] == profile
    assert "unconfined" not in json.dumps(body["metadata"])


def test_every_pod_has_limits_and_a_deadline(pods: Pods) -> None:
    tree = "blake3:" + "b" * 64
    command = Run(("true",), "img", mounts=(Mount(source="", target="/d", digest=tree),))
    for body in (
        pods.build(JobSpec("kaos-build-1", "user:a", BUILD, deadline=9), BUILD, known=False),
        pods.build(JobSpec("kaos-build-1", "user:a", BUILD, deadline=9), BUILD, known=True),
        pods.run(JobSpec("kaos-train-1", "user:a", command, deadline=9), command),
        pods.materialise(
            JobSpec("kaos-materialise-1", "user:a", Materialise(tree, ""), deadline=9),
            Materialise(tree, ""), "uid",
        ),
    ):  # fmt: skip
        spec = body["spec"]
        assert spec["activeDeadlineSeconds"] == 9
        assert spec["restartPolicy"] == "Never"
        assert body["metadata"]["labels"]["kaos-hub.io/owner"] == owner_hash("user:a")
        for container in spec["initContainers"] + spec["containers"]:
            assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}


def test_what_was_asked_for_is_reserved_and_gpus_have_their_name(tmp_path: Path) -> None:
    engine = KubernetesEngine(data_dir=str(tmp_path), gpu_resource="amd.com/gpu")
    found = engine.pods.resources(Resources(cpu=2, memory="1Gi", gpu=3))
    assert found["limits"]["amd.com/gpu"] == "3"
    assert found["requests"]["cpu"] == found["limits"]["cpu"] == "2000m"
    assert found["requests"]["memory"] == found["limits"]["memory"] == str(1 << 30)


def test_words_are_not_replaced(pods: Pods) -> None:
    command = Run(("sh", "-c", "echo $(date)"), "img", environment={"A": "$(B)"})
    body = pods.run(JobSpec("kaos-train-1", "user:a", command), command)
    main = body["spec"]["containers"][0]
    assert main["command"][2] == "echo $$(date)"
    assert main["env"] == [{"name": "A", "value": "$$(B)"}]


def test_a_path_of_this_machine_is_no_mount(pods: Pods) -> None:
    command = Run(("true",), "img", mounts=(Mount(source="/etc", target="/x"),))
    with pytest.raises(Unsupported, match="/etc"):
        pods.run(JobSpec("kaos-train-1", "user:a", command), command)


async def test_no_cluster_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    engine = KubernetesEngine(data_dir=str(tmp_path / "data"))
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await engine.start()
    with pytest.raises(EngineUnavailable):
        await engine.observe("kaos-train-1")
    with pytest.raises(EngineUnavailable):
        await engine.submit(run("kaos-train-1", "true"))
    assert engine.problems()
    await engine.close()


async def test_what_is_not_set_is_named(tmp_path: Path) -> None:
    engine = KubernetesEngine(data_dir=str(tmp_path))
    with pytest.raises(Unsupported, match=r"KubernetesEngine\.registry"):
        engine.check_builds()
    assert any("No registry" in problem for problem in engine.weaknesses())
    await engine.close()


# --- on a cluster ---


@pytest.fixture
async def make(cluster: str, tmp_path: Path) -> AsyncIterator[Callable[..., KubernetesEngine]]:
    server = await asyncio.to_thread(TreeServer, tmp_path / "data")
    settings = await asyncio.to_thread(options, cluster, server.url)
    made: list[KubernetesEngine] = []

    def build(**more: Any) -> KubernetesEngine:
        engine = KubernetesEngine(data_dir=str(tmp_path / "data"), **settings | more)
        engine.server = server
        made.append(engine)
        return engine

    yield build
    for engine in made:
        await engine.close()
    await asyncio.to_thread(server.close)


@pytest.fixture
async def name(make: Callable[..., KubernetesEngine]) -> AsyncIterator[str]:
    name = f"kaos-train-{secrets.token_hex(4)}"
    yield name
    await make().remove(name)


async def kube(*words: str, **more: Any) -> str:
    return await asyncio.to_thread(kubectl, *words, **more)


async def until_seen(
    engine: KubernetesEngine, name: str, wanted: Callable[[Observation], bool]
) -> Observation:
    async with asyncio.timeout(60):
        async for seen in engine.watch(name):
            if wanted(seen):
                return seen
    raise AssertionError(f"it ended before that: {seen}")


def job(name: str, work: Any, deadline: int = 100, **resources: Any) -> JobSpec:
    return JobSpec(name, "user:ada", work, Resources(**resources), deadline)


class TestOnACluster:
    pytestmark = needs_kubernetes

    async def test_a_missing_image(self, make: Callable[..., KubernetesEngine], name: str) -> None:
        engine = make()
        await engine.submit(job(name, Run(("true",), "localhost:5000/kaos-test/none:1")))
        waits = await until_seen(engine, name, lambda s: bool(s.message))
        assert waits.phase is Phase.PENDING or waits.cause is Cause.MISSING_IMAGE
        assert "kaos-test/none:1" in waits.message
        seen = await end(engine, name)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.MISSING_IMAGE)
        assert await engine.observe(name) == seen
        assert await output(engine, name) == b""

    async def test_no_room_is_told_while_it_waits_and_it_can_be_cancelled(
        self, make: Callable[..., KubernetesEngine], name: str
    ) -> None:
        engine = make()
        await engine.submit(job(name, Run(("true",), IMAGE), cpu=4000))
        seen = await until_seen(engine, name, lambda s: bool(s.message))
        assert seen.phase is Phase.PENDING
        assert "Insufficient cpu" in seen.message
        await engine.cancel(name)
        seen = await end(engine, name)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.CANCELLED)
        await engine.submit(job(name, Run(("true",), IMAGE)))
        assert await end(engine, name) == seen
        await engine.remove(name)
        assert (await engine.observe(name)).phase is Phase.ABSENT

    async def test_a_pod_that_cannot_be_made(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str
    ) -> None:
        engine = make()
        body = engine.pods.run(job(name, Run(("true",), IMAGE)), Run(("true",), IMAGE))
        body["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "is-not-there"}}]
        await kube("-n", cluster, "create", "-f", "-", give=json.dumps(body))
        seen = await end(engine, name)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.CONFIGURATION)
        assert "is-not-there" in seen.message

    async def test_a_full_disk_is_the_jobs_own(
        self, make: Callable[..., KubernetesEngine], name: str
    ) -> None:
        engine = make(job_storage="20Mi")
        script = "head -c 100M /dev/zero > /tmp/x; sleep 90"
        await engine.submit(job(name, Run(("sh", "-c", script), IMAGE)))
        seen = await end(engine, name)
        assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.STORAGE), seen
        assert "disk" in seen.message
        assert not seen.cause.infrastructure

    async def test_it_runs_without_privilege(
        self, make: Callable[..., KubernetesEngine], name: str
    ) -> None:
        engine = make()
        script = (
            "id -u; grep -hE 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status;"
            " ls /var/run/secrets 2>&1 | head -1"
        )
        await engine.submit(shell(name, script))
        await end(engine, name)
        assert texts(await output(engine, name)) == [
            "1000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "ls: cannot access '/var/run/secrets': No such file or directory",
        ]

    async def test_strangers_pods_are_not_ours(
        self, make: Callable[..., KubernetesEngine], cluster: str
    ) -> None:
        engine, name = make(), f"kaos-train-{secrets.token_hex(4)}"
        await kube("-n", cluster, "run", name, f"--image={IMAGE}", "--", "sleep", "60")
        try:
            assert (await engine.observe(name)).phase is Phase.ABSENT
            await engine.cancel(name)
            await engine.remove(name)
            assert name in await kube("-n", cluster, "get", "pods", "-o", "name")
        finally:
            await kube("-n", cluster, "delete", "pod", name, "--grace-period=0", "--force")

    async def test_a_pod_that_somebody_deletes_is_absent(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str
    ) -> None:
        engine = make()
        await engine.submit(shell(name, "sleep 60"))
        await until_seen(engine, name, lambda s: s.phase is Phase.RUNNING)
        watching = asyncio.create_task(end(engine, name))
        await kube("-n", cluster, "delete", "pod", name, "--grace-period=1", "--wait=false")
        seen = await asyncio.wait_for(watching, 30)
        assert seen.phase in (Phase.ABSENT, Phase.LOST)

    async def test_a_cancelled_ones_log_stays(
        self, make: Callable[..., KubernetesEngine], name: str
    ) -> None:
        engine = make()
        await engine.submit(shell(name, "echo before; sleep 60"))
        async for _ in engine.logs(name):
            break
        await engine.cancel(name)
        assert texts(await output(engine, name)) == ["before"]

    async def test_a_log_has_an_end(self, make: Callable[..., KubernetesEngine], name: str) -> None:
        engine = make(log_limit=1 << 20)
        # Less than what makes the node begin a new file.
        much = "yes \"$(printf '%99s' x)\" | head -c 3000000; sleep 60"
        await engine.submit(shell(name, much, deadline=30))
        log = await output(engine, name)
        assert len(log) < (1 << 20) + 200
        assert "reached its limit" in texts(log)[-1]
        again = await output(engine, name, 1000)
        # Not the texts themselves: showing how they differ would take hours.
        assert (len(again), hash(again)) == (len(log) - 1000, hash(log[1000:]))
        await engine.cancel(name)

    async def test_an_api_server_that_goes_away_for_a_while(
        self,
        make: Callable[..., KubernetesEngine],
        name: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        way = await asyncio.to_thread(Outages, config, tmp_path / "config")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        engine = make()
        await engine.start()
        await engine.submit(shell(name, "for i in $(seq 50); do echo $i; sleep 0.2; done"))
        log = b""

        async def follow() -> None:
            nonlocal log
            while len(log.splitlines()) < 50:
                try:
                    async for piece in engine.logs(name, len(log)):
                        log += piece
                except EngineUnavailable:
                    await asyncio.sleep(0.2)

        async def watch() -> Observation:
            while True:
                try:
                    return await end(engine, name)
                except EngineUnavailable:
                    await asyncio.sleep(0.2)

        following, watching = asyncio.create_task(follow()), asyncio.create_task(watch())
        try:
            async with asyncio.timeout(60):
                while len(log.splitlines()) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                way.cut()
                with pytest.raises(EngineUnavailable, match="does not answer"):
                    await engine.observe(name)
                await asyncio.sleep(2)
                way.mend()
                assert (await watching).phase is Phase.SUCCEEDED
                await following
            assert texts(log) == [str(i) for i in range(1, 51)]
            await engine.close()
        finally:
            following.cancel()
            watching.cancel()
            way.close()
            monkeypatch.undo()

    async def test_a_ticket_goes_with_its_pod(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str, tmp_path: Path
    ) -> None:
        engine = make()
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "f").write_text("x")
        digest = engine.server.add(tmp_path / "tree")
        mount = Mount(source="", target="/d", digest=digest)
        await engine.submit(job(name, Run(("cat", "/d/f"), IMAGE, mounts=(mount,))))
        assert (await end(engine, name)).phase is Phase.SUCCEEDED
        secret = json.loads(await kube("-n", cluster, "get", "secret", name, "-o", "json"))
        assert secret["metadata"]["ownerReferences"][0]["name"] == name
        await engine.remove(name)
        assert "NotFound" in await asyncio.to_thread(_error, cluster, name)

    async def test_a_notebooks_ticket(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str
    ) -> None:
        engine = make()
        tree = Mount(source="", target="/d", digest="blake3:" + "a" * 64)
        spec = NotebookSpec(
            notebook="n", workload=name, owner="user:a", resources=Resources(), mounts=[tree]
        )
        await engine.admitted(spec)
        await engine.admitted(spec)
        await kube("-n", cluster, "get", "secret", name)
        await engine.remove(name)
        assert "NotFound" in await asyncio.to_thread(_error, cluster, name)

    async def test_knowledge_of_trees_dies_with_their_claim(
        self, make: Callable[..., KubernetesEngine], name: str, tmp_path: Path
    ) -> None:
        with namespace() as own:
            engine = make(namespace=own, trees_claim=TREES)
            (tmp_path / "tree").mkdir()
            digest = engine.server.add(tmp_path / "tree")
            await engine.submit(job(name, Materialise(digest, "")))
            assert (await end(engine, name)).phase is Phase.SUCCEEDED, await output(engine, name)
            assert await engine.places.has_tree(digest)
            assert await make(namespace=own, trees_claim=TREES).places.has_tree(digest)
            await engine.remove(name)
            await kube("-n", own, "delete", "pvc", TREES)
            assert not await engine.places.has_tree(digest)
            with pytest.raises(EngineUnavailable, match=TREES):
                await engine.submit(job(name, Materialise(digest, "")))
            await asyncio.to_thread(make_claim, own)
            assert not await engine.places.has_tree(digest)

    async def test_the_runtime_is_laid_out_once(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str
    ) -> None:
        engine = make(trees_claim=TREES)
        assert engine.places.runtime("/opt/kaos") is None
        await engine.start()
        async with asyncio.timeout(90):
            while (mount := engine.places.runtime("/opt/kaos")) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        command = ("/opt/kaos/bin/kaos", "--version")
        await engine.submit(job(name, Run(command, IMAGE, mounts=(mount,))))
        assert (await end(engine, name)).phase is Phase.SUCCEEDED, await output(engine, name)
        pods = await kube("-n", cluster, "get", "pods", "-o", "name")
        assert "kaos-runtime" not in pods
        await engine.remove(name)
        program = "import os; print(os.listdir('/kaos'), os.statvfs('/opt/kaos').f_flag & 1)"
        work = Run(("-n1", "-r1", program), IMAGE, module="timeit", ticket=True)
        await engine.submit(job(name, work))
        assert (await end(engine, name)).phase is Phase.SUCCEEDED
        assert texts(await output(engine, name))[0] == "['ticket'] 1", "nobody copied it"
        again = make(trees_claim=TREES)
        await again.start()
        async with asyncio.timeout(5):
            while again.places.runtime("/opt/kaos") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def test_a_home_is_deleted_for_good(
        self, make: Callable[..., KubernetesEngine], cluster: str
    ) -> None:
        engine = make()
        mount = engine.places.home("abc", "/home/kaos")
        assert (mount.volume, mount.read_only) == ("kaos-home-abc", False)
        claim = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": mount.volume, "namespace": cluster},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}},
            },
        }  # fmt: skip
        await kube("apply", "-f", "-", give=json.dumps(claim))
        await engine.places.remove_home("abc")
        await engine.places.remove_home("abc")
        assert "kaos-home-abc" not in await kube("-n", cluster, "get", "pvc", "-o", "name")

    async def test_a_volume_is_made_once_and_deleted_for_good(
        self, make: Callable[..., KubernetesEngine], cluster: str
    ) -> None:
        engine = make(volume_size="1Mi", shared_volumes=True)
        mount = engine.places.volume("abc", "/scratch", False)
        assert (mount.volume, mount.read_only) == ("kaos-volume-abc", False)
        assert engine.places.shares_volumes and not make().places.shares_volumes
        spec = NotebookSpec(
            notebook="one", workload="kaos-notebook-1-1", owner="user:ada", resources=Resources(),
            mounts=[engine.places.home("1", "/home/kaos"), mount],
        )  # fmt: skip
        await engine.admitted(spec)
        await engine.admitted(spec)
        claims = ("-n", cluster, "get", "pvc")
        found = json.loads(await kube(*claims, "kaos-volume-abc", "-o", "json"))
        assert found["spec"]["accessModes"] == ["ReadWriteMany"]
        assert found["spec"]["resources"]["requests"]["storage"] == "1048576"
        assert found["metadata"]["labels"]["kaos-hub.io/kind"] == "volume"
        assert "kaos-home-1" not in await kube(*claims, "-o", "name"), "that is the Hub's to make"
        await engine.places.remove_volume("abc")
        await engine.places.remove_volume("abc")
        assert "kaos-volume-abc" not in await kube(*claims, "-o", "name")

    async def test_an_unknown_image_says_where_it_was_looked_for(
        self, make: Callable[..., KubernetesEngine]
    ) -> None:
        with pytest.raises(NotFound, match=registry()):
            await make().resolve(f"{registry()}/kaos/none:1")
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await make().resolve("localhost:1/kaos/none:1")

    async def test_a_build_with_a_cache(
        self, make: Callable[..., KubernetesEngine], cluster: str, name: str, tmp_path: Path
    ) -> None:
        engine = make(build_cache=True)
        source = bundle(tmp_path / "source", "humanize\n")
        took = []
        for number in (1, 2):
            (source / "model" / "code.py").write_text(f"{number}")
            work = Build(engine.server.add(source), "k", f"kaos-hub/{name}:{number}")
            began = asyncio.get_running_loop().time()
            await engine.submit(job(name, work))
            seen = await end(engine, name)
            assert seen.phase is Phase.SUCCEEDED, await output(engine, name)
            took.append(asyncio.get_running_loop().time() - began)
            lines = texts(await output(engine, name))
            await engine.remove(name)
        assert any("Using cache" in line for line in lines), lines
        await kube("-n", cluster, "get", "pvc", f"kaos-cache-{owner_hash('user:ada')}")
        print(took)

    async def test_a_base_is_what_it_was_pinned_to(
        self, make: Callable[..., KubernetesEngine], name: str, tmp_path: Path
    ) -> None:
        """The Dockerfile names a tag that is nowhere; what it was pinned to counts."""
        engine = make()
        source = bundle(tmp_path / "source", "", "FROM moved:1\nRUN python3 -c 'print(6 * 7)'\n")
        pinned = await engine.resolve(IMAGE)
        image = f"kaos-hub/{name}:1"
        work = Build(engine.server.add(source), "k", image, bases={"moved:1": pinned})
        await engine.submit(job(name, work))
        seen = await end(engine, name)
        lines = texts(await output(engine, name))
        assert seen.phase is Phase.SUCCEEDED, lines
        assert "42" in lines
        assert seen.result["libc"] == "glibc"
        assert seen.result["path"]
        await engine.remove(name)
        # What was built can be run by the reference that the build told.
        await engine.submit(job(name, Run(("echo", "runs"), seen.result["image"])))
        assert texts(await output(engine, name)) == ["runs"]


def _error(namespace: str, name: str) -> str:
    done = subprocess.run(
        ["kubectl", "-n", namespace, "get", "secret", name], capture_output=True, text=True
    )
    return done.stderr
