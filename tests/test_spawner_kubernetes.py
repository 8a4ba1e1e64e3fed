"""The spawner on a real cluster: real pods with a tiny stand-in for the runtime, a desk as service.

The Hub uses a service account that may do what the documentation says it must, and nothing else.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from kaos_hub.registry.names import Reference, Ways
from kaos_hub.registry.registries import Registries
from kaos_hub.schemas import Mount, NotebookSpec, Pool
from tests import private_registry as private
from tests.desk import events, hub_at_desk
from tests.engine_cluster import registry
from tests.hub import Answer, wait_until
from tests.pods import BASE, Line, images, kubectl, namespace, needs_cluster, this_machine

pytestmark = [pytest.mark.kubernetes, needs_cluster]

ODD = "a {username} {0} $(HOME) {nobody}"
CONFIG = """
c.KaosKubeSpawner.namespace = {namespace!r}
c.KaosKubeSpawner.runtime_image = {runtime!r}
c.KaosKubeSpawner.unschedulable_patience = 4
c.KaosKubeSpawner.pull_patience = 4
c.KaosKubeSpawner.storage_capacity = "1Mi"
c.KaosKubeSpawner.delete_grace_period = 5
"""


@contextlib.contextmanager
def another_hub(place, directory: Path, config: str, kubeconfig: str) -> Iterator[tuple[Any, Any]]:
    """One more Hub at the same cluster, with more configuration, and its desk."""
    desk, space = place[1], place[2]
    config = CONFIG.format(namespace=space.name, runtime=images()[1]) + config
    environment = {"KUBECONFIG": kubeconfig}
    with hub_at_desk(directory, config, "kubernetes", this_machine(), environment) as (hub, own):
        stock = own.admit
        own.decide = lambda asked: desk.admit(asked).model_copy(
            update={"workload": stock(asked).workload + "-other"}
        )
        yield hub, own


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    user, runtime = images()
    directory = tmp_path_factory.mktemp("hub")
    with namespace(directory) as (space, kubeconfig):
        space.claim("trees", {f"trees/1/{ODD}/numbers.csv": "1,2\n"})
        config = CONFIG.format(namespace=space.name, runtime=runtime)
        environment = {"KUBECONFIG": str(kubeconfig)}
        with hub_at_desk(directory, config, "kubernetes", this_machine(), environment) as (
            hub,
            desk,
        ):
            admitted = desk.admit

            def in_a_pod(asked) -> NotebookSpec:
                spec = admitted(asked)
                home = Mount(
                    source="",
                    target="/home/kaos",
                    read_only=False,
                    volume=f"kaos-home-{spec.notebook}",
                )
                return spec.model_copy(
                    update={
                        "image": user,
                        "uid": 1000,
                        "mounts": [home],
                        "resources": spec.resources.model_copy(
                            update={"cpu": 0.25, "memory": 128 << 20}
                        ),
                        "labels": {"kaos-hub.io/owner": "0123", "no label": "x", "note": "a b"},
                    }
                )

            desk.admit = desk.decide = in_a_pod
            yield hub, desk, space


@pytest.fixture
def hub(place):
    return place[0]


@pytest.fixture
def desk(place):
    desk = place[1]
    desk.decide = desk.admit
    desk.asked.clear()
    desk.released.clear()
    yield desk
    kubectl("delete", "pods", "--all", "-n", place[2].name, "--grace-period=0", "--force")


@pytest.fixture
def space(place):
    return place[2]


def with_(desk, resources: dict[str, Any] | None = None, mount: Mount | None = None, **update: Any):
    """From now on admit something else."""

    def decide(asked) -> NotebookSpec:
        spec = desk.admit(asked)
        if mount is not None:
            update["mounts"] = [*spec.mounts, mount]
        if resources is not None:
            update["resources"] = spec.resources.model_copy(update=resources)
        if "environment" in update:
            update["environment"] = spec.environment | update["environment"]
        return spec.model_copy(update=update)

    desk.decide = decide


def workload(hub, name: str) -> str:
    return hub.server(name)["state"]["workload"]


def told(hub, name: str, status: int = 500) -> tuple[str, list[str]]:
    """Start a server that will fail: why it did, and what was told before that."""
    answers: list[Answer] = []
    start = threading.Thread(target=lambda: answers.append(hub.api("POST", hub.path(name), {})))
    start.start()
    wait_until(lambda: hub.server(name).get("pending") or answers, 10)
    seen = [e["message"] for e in events(hub.api("GET", f"{hub.path(name)}/progress"))]
    start.join()
    answer = answers[0]
    if not seen:  # it was over before anybody could ask how it goes
        assert answer.status == status
        return answer.json["message"], []
    why = seen[-1].removeprefix("Spawn failed: ")
    if answer.status >= 300:  # it was quick enough for the Hub to say so in its answer, too
        assert (answer.status, answer.json["message"]) == (status, why)
    return why, seen[:-1]


def test_pod_is_confined_and_holds_what_was_admitted(hub, desk, space):
    path = f"trees/1/{ODD}"
    mount = Mount(source=path, target=f"/kaos/{ODD}", volume="trees")
    with_(desk, mount=mount, environment={"ODD": ODD, "MORE": "$$ $(ODD) {x"})
    hub.launch("one")
    name = workload(hub, "one")
    pod = space.get("pod", name)
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "kaos-hub"
    assert (labels["kaos-hub.io/workload"], labels["kaos-hub.io/owner"]) == (name, "0123")
    assert "note" not in labels and pod["metadata"]["annotations"]["note"] == "a b"
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for setting in ("hostNetwork", "hostPID", "hostIPC"):
        assert not spec.get(setting)
    [container], [before] = spec["containers"], spec["initContainers"]
    assert container["command"] == ["/opt/kaos/bin/kaos-notebook"]
    assert "args" not in container
    assert before["name"] == "runtime" and before["image"] == images()[1]
    assert before["securityContext"]["readOnlyRootFilesystem"] is True
    for each in (container, before):
        security = each["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert not security.get("privileged")
        assert each["resources"]["limits"] == each["resources"]["requests"]
    volumes = {v.pop("name"): v for v in spec["volumes"]}
    assert volumes == {
        "kaos-claim-0": {"persistentVolumeClaim": {"claimName": "kaos-home-one"}},
        "kaos-claim-1": {"persistentVolumeClaim": {"claimName": "trees", "readOnly": True}},
        "kaos-shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "134217728"}},
        "kaos-runtime": {"emptyDir": {}},
    }
    mounts = {
        m["mountPath"]: (m["name"], m.get("subPath"), m.get("readOnly", False))
        for m in container["volumeMounts"]
    }
    assert mounts == {
        "/home/kaos": ("kaos-claim-0", None, False),
        f"/kaos/{ODD}": ("kaos-claim-1", path, True),
        "/dev/shm": ("kaos-shm", None, False),
        "/opt/kaos": ("kaos-runtime", "kaos", True),
    }
    assert [m["mountPath"] for m in before["volumeMounts"]] == ["/kaos-runtime"]
    code, said = space.inside(
        name, "id -u; id -g; grep -h Cap /proc/self/status; ls /var/run/secrets"
    )
    assert said.startswith("1000\n1000\n") and "CapBnd:\t0000000000000000" in said and code
    code, said = space.inside(name, "touch ~/mine && touch '/kaos/" + ODD + "/x'")
    assert code and "Read-only" in said
    assert (
        space.inside(name, "printenv KAOS_USER_ODD KAOS_USER_MORE HOME")[1]
        == f"{ODD}\n$$ $(ODD) {{x\n/home/kaos\n"
    )
    assert "numbers.csv" in space.inside(name, "ls '/kaos/" + ODD + "'")[1]
    assert "hello from inside" in space.log(name)
    hub.end("one")
    assert name not in space.names("pod")
    assert [r.stopped_by_hub for r in wait_until(lambda: desk.released, 5)] == [True]
    # The home outlives it, and is found again.
    hub.launch("one")
    assert space.inside(workload(hub, "one"), "ls ~")[1] == "mine\n"
    hub.end("one")
    assert "kaos-home-one" in space.names("persistentvolumeclaim")
    labels = space.get("pvc", "kaos-home-one")["metadata"]["labels"]
    assert labels["kaos-hub.io/notebook"] == "one" and "kaos-hub.io/workload" not in labels


def test_restarted_hub_finds_the_pod(hub, desk, space):
    hub.launch("kept")
    before = workload(hub, "kept")
    uid = space.get("pod", before)["metadata"]["uid"]
    hub.kill()
    hub.start()
    assert hub.server("kept")["ready"]
    assert space.get("pod", before)["metadata"]["uid"] == uid
    hub.end("kept")
    assert before not in space.names("pod")


def test_hub_that_died_before_it_knew_the_address_finds_it(hub, desk, space):
    """Killed after it had asked for the pod, before that ran."""
    hub.launch("early")
    before = workload(hub, "early")
    hub.kill()
    with closing(sqlite3.connect(hub.data.hub_database)) as db, db:
        kept = (json.dumps({"workload": before, "address": ""}),)
        db.execute("update spawners set state = ? where name = 'early'", kept)
        ours = "(select server_id from spawners where name = 'early')"
        db.execute(f"update servers set port = 1 where id = {ours}")
    hub.start()
    wait_until(lambda: hub.server("early").get("ready"), 20)
    hub.end("early")
    assert before not in space.names("pod")


def test_pod_that_is_there_is_adopted(hub, desk, space):
    """Its creation was asked for, and the answer was lost: the same pod goes on."""
    with_(desk, workload="kaos-notebook-same-1")
    hub.launch("same")
    manifest = space.get("pod", "kaos-notebook-same-1")
    uid = manifest["metadata"]["uid"]
    hub.kill()
    with closing(sqlite3.connect(hub.data.hub_database)) as db, db:
        db.execute("update spawners set state = '{}', server_id = null where name = 'same'")
    hub.start()
    hub.launch("same")
    assert space.get("pod", "kaos-notebook-same-1")["metadata"]["uid"] == uid
    hub.end("same")


def test_users_cannot_reach_the_pod(hub, desk, space):
    hostile = {
        "profile": "root",
        "profile-option-root--image": "evil",
        "image": "evil",
        "privileged": True,
        "kubespawner_override": {"privileged": True, "uid": 0},
        "extra_pod_config": {"hostPID": True},
        "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
        "namespace": "kube-system",
        "pod_name": "x",
        "cmd": ["sh"],
        "environment": {"A": "{0}"},
        "memory": "100Gi",
    }
    hub.launch("hostile", hostile)
    assert desk.asked[-1].options == hostile
    pod = space.get("pod", workload(hub, "hostile"))
    text = json.dumps(pod)
    assert "evil" not in text and "hostPath" not in text and "hostPID" not in text
    [container] = pod["spec"]["containers"]
    assert (container["image"], container["command"]) == (
        images()[0],
        ["/opt/kaos/bin/kaos-notebook"],
    )
    assert container["resources"]["limits"]["memory"] == "134217728"
    hub.end("hostile")


def test_no_room_is_told_at_once_and_fails_later(hub, desk, space):
    with_(desk, {"cpu": 5000})
    began = time.monotonic()
    why, messages = told(hub, "huge", 422)
    assert 4 < time.monotonic() - began < 15
    assert "No machine of the cluster has room for 5k cores" in why
    assert "Insufficient cpu" in why and "--cpu" in why
    assert any("Waiting for room" in m for m in messages), messages
    assert "Ask for less" in why
    wait_until(lambda: desk.released, 5)
    assert not space.names("pod")


def test_pool_that_has_no_nodes_is_said(hub, desk, space):
    taint = {"key": "dedicated", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    pool = Pool(node_selector={"no/such": "node"}, tolerations=[taint])
    with_(desk, pool=pool, workload="kaos-notebook-pool-1")
    seen: dict[str, Any] = {}
    look = threading.Timer(2, lambda: seen.update(space.get("pod", "kaos-notebook-pool-1")))
    look.start()
    why, _ = told(hub, "pool", 422)
    look.join()
    assert "no machine of the kind that is asked for" in why
    assert "Choose another size or pool" in why
    assert seen["spec"]["nodeSelector"] == {"no/such": "node"}
    assert taint in seen["spec"]["tolerations"]


def test_devices_that_nobody_has_are_said(hub, desk, space):
    with_(desk, {"gpu": 2}, pool=Pool(gpu_resource="example.com/device"))
    why, _ = told(hub, "devices", 422)
    assert "No machine of the cluster has room for" in why
    assert "2 of example.com/device" in why


def test_missing_image_is_said(hub, desk, space):
    with_(desk, image=images()[0].replace("/user@", "/gone@"))
    began = time.monotonic()
    why, messages = told(hub, "gone", 404)
    assert time.monotonic() - began < 15
    assert "Deploy the notebook again" in why
    assert any("cannot be pulled" in m for m in messages), messages
    assert not space.names("pod")


def test_image_that_cannot_be_one_is_said_at_once(hub, desk, space):
    with_(desk, image="No:such:thing")
    why, _ = told(hub, "bad")
    assert "cannot name an image" in why
    assert not space.names("pod")


def test_too_much_memory_is_said(hub, desk, space):
    with_(desk, {"memory": 32 << 20}, environment={"MOOD": "greedy"})
    why, _ = told(hub, "greedy")
    assert "more memory than it had (32Mi)" in why
    assert "--memory" in why
    reported = wait_until(lambda: desk.released, 10)[0]
    assert "more memory" in reported.reason
    # It ended by itself: whoever keeps its log removes it.
    space.delete("pod", reported.workload)


def test_start_that_fails_inside_is_said(hub, desk, space):
    with_(desk, environment={"MOOD": "angry"})
    why, _ = told(hub, "angry")
    assert "it ended with exit code 3" in why
    space.delete("pod", wait_until(lambda: desk.released, 10)[0].workload)


def test_command_that_is_not_there_is_said(hub, desk, space):
    with_(desk, mount=Mount(source="", target="/opt/kaos", volume="trees"))
    why, _ = told(hub, "hollow")
    assert "could not be started" in why
    pod = space.get("pod", wait_until(lambda: desk.released, 10)[0].workload)
    assert "initContainers" not in pod["spec"]  # the runtime was mounted, such as it is
    space.delete("pod", pod["metadata"]["name"])


def test_quota_is_said(hub, desk, space):
    space.apply("ResourceQuota", "small", spec={"hard": {"limits.memory": "64Mi"}})
    try:
        wait_until(lambda: space.get("resourcequota", "small")["status"].get("used"), 10)
        why, _ = told(hub, "quota", 403)
        assert "quota" in why and "64Mi" in why
        assert "Stop another notebook, or ask for less" in why
    finally:
        space.delete("resourcequota", "small")


def test_quota_of_homes_is_said(hub, desk, space):
    space.apply("ResourceQuota", "few", spec={"hard": {"persistentvolumeclaims": "0"}})
    try:
        wait_until(lambda: space.get("resourcequota", "few")["status"].get("used"), 10)
        why, _ = told(hub, "homeless", 403)
        assert "persistentvolumeclaims" in why
    finally:
        space.delete("resourcequota", "few")


def test_missing_claim_is_said(hub, desk, space):
    with_(desk, mount=Mount(source="x", target="/kaos/data", volume="nowhere"))
    why, _ = told(hub, "unclaimed")
    assert "The storage nowhere is not there" in why
    assert not space.names("pod")


def test_claim_that_is_never_provided_is_said(hub, desk, space):
    storage = {
        "resources": {"requests": {"storage": "1Mi"}},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "nobody-provides-this",
    }
    space.apply("PersistentVolumeClaim", "waits", spec=storage)
    with_(desk, mount=Mount(source="x", target="/kaos/data", volume="waits"))
    why, messages = told(hub, "waits")
    assert "did not provide the notebook's storage" in why
    assert any("Waiting for storage" in m for m in messages), messages


def a_tree(desk, text: bytes) -> str:
    """Have the desk hand out a tree with one file, as the service does; returns its digest."""
    file = blake3(text).hexdigest()
    tree = blake3(b"kaos tree 1\n" + f"f {file} {len(text)} numbers.csv\n".encode()).hexdigest()
    line = {"path": "numbers.csv", "kind": "file", "size": len(text), "digest": f"blake3:{file}"}
    where = f"/services/kaos/fetch/v1/blake3:{tree}"
    desk.pages[f"{where}/listing"] = json.dumps(line).encode() + b"\n"
    desk.pages[f"{where}/files"] = text
    return f"blake3:{tree}"


def test_bundle_is_fetched_before_the_start(hub, desk, space, request):
    digest = a_tree(desk, b"1,2\n")
    with_(
        desk,
        mount=Mount(source="", target="/kaos/data", digest=digest),
        workload="kaos-notebook-fetch-1",
    )
    space.secret("kaos-notebook-fetch-1", ticket="let me in")
    request.addfinalizer(lambda: space.delete("secret", "kaos-notebook-fetch-1"))
    hub.launch("fetched")
    pod = space.get("pod", "kaos-notebook-fetch-1")
    fetch, runtime = pod["spec"]["initContainers"]
    assert (fetch["name"], runtime["name"]) == ("fetch", "runtime")
    assert [m["name"] for m in fetch["volumeMounts"]] == ["kaos-trees", "kaos-ticket"]
    for other in (runtime, *pod["spec"]["containers"]):
        assert "kaos-ticket" not in {m["name"] for m in other["volumeMounts"]}
    said = space.inside("kaos-notebook-fetch-1", "cat /kaos/data/numbers.csv; touch /kaos/data/x")
    assert said[1].startswith("1,2\n") and "Read-only" in said[1]
    hub.end("fetched")


def test_bundle_that_cannot_be_fetched_is_said(hub, desk, space):
    mount = Mount(source="", target="/kaos/data", digest="blake3:" + "0" * 64)
    with_(desk, mount=mount, workload="kaos-notebook-fetch-2")
    space.secret("kaos-notebook-fetch-2", ticket="let me in")
    why, _ = told(hub, "unfetched")
    assert "its bundles could not be fetched: " in why
    assert "Start it again" in why
    space.delete("secret", "kaos-notebook-fetch-2")
    space.delete("pod", "kaos-notebook-fetch-2")


def test_missing_ticket_is_said(hub, desk, space):
    mount = Mount(source="", target="/kaos/data", digest="blake3:" + "0" * 64)
    with_(desk, mount=mount)
    why, _ = told(hub, "ticketless")
    assert "which the notebook needs, is not there" in why
    assert not space.names("pod")


def test_folder_of_the_node_is_refused(hub, desk, space):
    with_(desk, mount=Mount(source="/etc", target="/kaos/data"))
    told(hub, "folder", 422)
    assert not space.names("pod")


def test_folder_of_the_node_that_is_offered_is_mounted(hub, desk, space):
    with_(desk, mount=Mount(source="/etc", target="/mnt/etc", host=True))
    hub.launch("offered")
    name = workload(hub, "offered")
    volumes = space.get("pod", name)["spec"]["volumes"]
    assert {"path": "/etc", "type": "Directory"} in [v.get("hostPath") for v in volumes]
    code, said = space.inside(name, "ls /mnt/etc/hostname && touch /mnt/etc/x")
    assert code and "/mnt/etc/hostname" in said and "Read-only" in said
    hub.end("offered")


def test_reasons_of_death(hub, desk, space):
    hub.launch("killed")
    name = workload(hub, "killed")
    kill = "import os, pathlib\nfor p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    kill += "    if b'kaos-notebook' in p.read_bytes(): os.kill(int(p.parent.name), 9)"
    space.inside(name, f'python3 -c "{kill}"')
    reported = wait_until(lambda: desk.released, 15)[0]
    assert (reported.exit_code, reported.stopped_by_hub) == (137, False)
    assert "SIGKILL" in reported.reason
    space.delete("pod", name)

    desk.released.clear()
    hub.launch("removed")
    space.delete("pod", workload(hub, "removed"), "--grace-period=0", "--force")
    assert "deleted by somebody" in wait_until(lambda: desk.released, 15)[0].reason


def test_pod_deleted_while_it_starts_is_said(hub, desk, space):
    with_(desk, {"cpu": 5000}, workload="kaos-notebook-taken-1")
    threading.Timer(2, lambda: space.delete("pod", "kaos-notebook-taken-1")).start()
    why, _ = told(hub, "taken")
    assert "deleted by somebody while it started" in why


def test_stop_during_a_start_leaves_nothing(hub, desk, space):
    with_(desk, {"cpu": 5000}, workload="kaos-notebook-cancelled-1")
    start = threading.Thread(target=lambda: hub.api("POST", hub.path("cancelled"), {}))
    start.start()
    wait_until(lambda: space.get("pod", "kaos-notebook-cancelled-1"), 10)
    began = time.monotonic()
    assert hub.api("DELETE", hub.path("cancelled")).status < 300
    wait_until(lambda: desk.released, 10)
    assert time.monotonic() - began < 4
    assert "kaos-notebook-cancelled-1" not in space.names("pod")
    start.join()


def test_admins_profile_adds_and_cannot_exceed(place, tmp_path: Path):
    """What an admin opens for KubeSpawner works here, on top of what was admitted."""
    space = place[2]
    config = (
        "override = {'mem_limit': '64G', 'image': 'other', 'extra_annotations': {'seen': 'yes'}}\n"
        "override['extra_resource_limits'] = {'ephemeral-storage': '8Mi'}\n"
        "profile = {'display_name': 'Big', 'slug': 'big', 'kubespawner_override': override}\n"
        "c.KaosKubeSpawner.profile_list = [profile]\n"
        "async def hook(spawner, pod):\n"
        "    print('the hook saw', pod['metadata']['name'], flush=True)\n"
        "c.KaosKubeSpawner.after_pod_created_hook = hook\n"
    )
    with another_hub(place, tmp_path, config, place[0].environment["KUBECONFIG"]) as (hub, desk):
        hub.launch("profiled")
        name = workload(hub, "profiled")
        pod = space.get("pod", name)
        [container] = pod["spec"]["containers"]
        assert pod["metadata"]["annotations"]["seen"] == "yes"
        assert container["image"] == images()[0]
        assert container["resources"]["limits"]["memory"] == "134217728"
        assert f"the hook saw {name}" in hub.log.read_text()
        # Its machine puts it off, some seconds after it wrote more than that.
        space.inside(name, "dd if=/dev/zero of=/tmp/much bs=1M count=64; sync")
        reported = wait_until(lambda: desk.released, 60)[0]
        assert "it was put off its machine" in reported.reason, reported
        assert "ephemeral" in reported.reason


@private.needed
@private.needs_node
def test_image_of_a_registry_with_a_login(place, space, tmp_path: Path):
    config = 'c.KaosKubeSpawner.image_pull_secrets = ["pull"]\n'
    host, ca = this_machine(), private.Authority(tmp_path)
    login = {"pusher": private.PASSWORDS["pusher"]}.popitem()
    with private.serving(tmp_path, host, ca.issue(host)) as address:
        image = f"{address}/users/image:1"
        cluster = Ways({"docker.io": registry()}, [registry()])
        ours = Registries(Ways(ca=str(ca.certificate), logins={address: login}))
        private.copy(Registries(cluster), BASE, ours, Reference.parse(image))
        kubeconfig = place[0].environment["KUBECONFIG"]
        with (
            private.trusted_by_node(address, ca.certificate),
            another_hub(place, tmp_path / "hub", config, kubeconfig) as (hub, desk),
        ):
            stock = desk.decide
            desk.decide = lambda asked: stock(asked).model_copy(update={"image": image})
            why, messages = told(hub, "locked-out")
            assert f"not let into the registry of image {image}" in why, (why, messages)
            private.login_secret(space.name, "pull", private.docker_config(address, "reader"))
            hub.launch("let-in")
            pod = space.get("pod", workload(hub, "let-in"))
            assert pod["spec"]["containers"][0]["image"] == image
            assert "canary-" not in json.dumps(pod) + hub.log.read_text() + why
            hub.end("let-in")


def test_cluster_that_is_away_buries_nobody(place, tmp_path: Path):
    line = Line(Path(place[0].environment["KUBECONFIG"]))
    with another_hub(place, tmp_path, "", str(line.kubeconfig)) as (hub, desk):
        hub.launch("steady")
        name = workload(hub, "steady")
        line.cut()
        answer = hub.api("POST", hub.path("other"), {})
        assert answer.status == 503 and "The cluster does not answer" in answer.json["message"]
        time.sleep(3)  # polled each second
        hub.kill()
        hub.start()
        assert wait_until(lambda: hub.server("steady").get("ready"), 20)
        assert [gone.server for gone in desk.released] == ["other"]
        line.mend()
        place[2].delete("pod", name, "--grace-period=0", "--force")
        reported = wait_until(lambda: desk.released[1:], 60)[0]
        assert (reported.server, reported.reason) == ("steady", "its pod was deleted by somebody")
        hub.launch("again")
        hub.end("again")
