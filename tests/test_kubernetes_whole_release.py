"""The release on a cluster: tested, upgraded amid work, rolled back, removed, installed again.

On the hub of the whole tests. The tests build on each other; in the end it is removed, and only the
service is installed.
"""

import contextlib
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import helm_python
import pytest
from sqlalchemy import create_engine, text

from kaos_hub.deployment.extra_config import database_url
from tests import other_hub, outside, s3
from tests.chart import CHART
from tests.cluster import (
    HUB,
    WORKLOADS,
    ClusterHub,
    CommandLine,
    bringing_up,
    kubectl,
    kubectl_proxy,
    needs_cluster,
)
from tests.hub import request, wait_until
from tests.kernels import Kernel
from tests.test_kubernetes_whole import DATA, EXAMPLE, SMALL, building, run, slow, wait_for
from tests.trainers import make_data, make_params, make_source

pytestmark = [pytest.mark.kubernetes, needs_cluster]


@pytest.fixture(scope="module")
def hub(cluster_hub: ClusterHub) -> ClusterHub:
    """The hub on the cluster."""
    return cluster_hub


@pytest.fixture(scope="module")
def eve(hub: ClusterHub) -> CommandLine:
    """Somebody who works while the admin does."""
    return hub.command_line("eve")


@pytest.fixture(scope="module")
def work(hub: ClusterHub, eve: CommandLine) -> dict[str, Any]:
    """A notebook of hers that runs, with data."""
    folder = shutil.copytree(EXAMPLE, hub.directory / "release")
    deployed = eve("notebook", "deploy", "-s", str(folder), "-d", str(DATA), *SMALL)
    assert deployed["state"] == "RUNNING"
    run(eve, deployed, "import pathlib; print((pathlib.Path.home() / 'mine').write_text('x'))")
    return dict(deployed)


@pytest.fixture
def helm() -> Iterator[helm_python.Config]:
    """Helm, as the admin uses it."""
    with bringing_up().helm(HUB) as there:
        yield there


def changed(hub: ClusterHub, /, **more: Any) -> dict[str, Any]:
    """The values of the install, with others for some keys."""
    return hub.values | more


def secrets() -> dict[str, str]:
    """All that processes know each other by."""
    return dict(json.loads(kubectl("get", "secret", "kaos", "-n", HUB, "-o", "json"))["data"])


def generation(component: str) -> int:
    """How often a deployment was changed."""
    words = ("get", "deployment", component, "-n", HUB, "-o", "json")
    return int(json.loads(kubectl(*words))["metadata"]["generation"])


# --- what cannot work is said before anything happens ---


class Cluster(ThreadingHTTPServer):
    """The cluster as it is, but for the answers that somebody says otherwise."""

    def __init__(self, behind: str, otherwise: dict[str, bytes]) -> None:
        self.behind, self.otherwise = behind, otherwise
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        answer = server.otherwise.get(self.path.partition("?")[0])
        code = 200
        if answer is None:
            try:
                with urllib.request.urlopen(server.behind + self.path) as there:
                    answer = there.read()
            except urllib.error.HTTPError as e:
                code, answer = e.code, e.read()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Nothing to stderr."""


class ClusterWithoutDefaultClass(Cluster):
    """Its storage classes are there, and none is the default."""

    def __init__(self, behind: str) -> None:
        path = "/apis/storage.k8s.io/v1/storageclasses"
        made = {"metadata": {"name": "slow"}, "provisioner": "x"}
        classes = {"kind": "StorageClassList", "apiVersion": "storage.k8s.io/v1", "items": [made]}
        super().__init__(behind, {path: json.dumps(classes).encode()})


def refused(values: dict[str, Any], **where: str) -> str:
    """What Helm says instead of installing."""
    helm = helm_python.Config(namespace="default", **where)  # type: ignore[arg-type]
    with helm as there, pytest.raises(helm_python.HelmError) as said:
        there.install(CHART, "another", values, dry_run="server")
    return str(said.value)


def test_what_is_missing_is_said_before_the_install(hub):
    """Secrets, classes, a port that is taken: all at once, each with what to do."""
    services = json.loads(kubectl("get", "service", "proxy", "-n", HUB, "-o", "json"))
    port = services["spec"]["ports"][0]["nodePort"]
    wrong = changed(
        hub,
        registry={"url": "r", "pushSecret": "push", "loginSecret": "login", "caConfigMap": "ca"},
        database={"secret": "urls"},
        storage={"class": "nosuch"},
        proxy={"service": {"type": "NodePort", "nodePort": port}},
        monitoring={"enabled": True},
    )
    said = refused(wrong)
    assert "monitoring.enabled needs the Prometheus Operator" in said
    assert f"The port {port} is taken on all nodes, by the Service proxy in the namespace" in said
    for name in ("Secret push", "Secret login", "ConfigMap ca", "Secret urls"):
        assert f"names the {name}, which must be in the namespace" in said
    assert "lacks: hub, service" in said
    classes = ", ".join(sorted(kubectl("get", "storageclass", "-o", "name").split()))
    classes = classes.replace("storageclass.storage.k8s.io/", "")
    assert f"storage.class: there is no storage class nosuch; the cluster has: {classes}" in said
    assert "kubectl label namespace default kubernetes.io/metadata.name=default" in said


def test_a_cluster_without_a_default_class(hub):
    with kubectl_proxy() as behind:
        cluster = ClusterWithoutDefaultClass(behind)
        said = refused(hub.values, kube_apiserver=f"http://127.0.0.1:{cluster.server_port}")
        cluster.shutdown()
    assert "no default storage class" in said and "storage.class (there are: slow)" in said


def test_a_registry_out_of_reach_changes_nothing(hub, helm):
    before = helm.status("kaos")["revision"], generation("service")
    soon = {"extraEnv": [{"name": "KAOS_CHECK_SECONDS", "value": "0.1"}]}
    wrong = changed(hub, registry={"url": "127.0.0.1:1/users"}, service=soon)
    with pytest.raises(helm_python.HelmError, match="before"):
        helm.upgrade(CHART, "kaos", wrong, timeout=120, wait="watcher")
    said = kubectl("logs", "job/before", "-n", HUB)
    assert "✗ registry: 127.0.0.1:1 does not answer" in said
    assert generation("service") == before[1]
    assert kubectl("get", "settings", "-n", HUB, check=False) == ""


# --- it is used while it changes ---


def test_helm_test(hub, helm):
    said = helm.test("kaos", timeout=120, logs=True)
    assert "✔ Hub answers at" in said["logs"] and "✔ service answers at" in said["logs"]


def test_metrics_open_to_their_own_secret(hub):
    gathered = request("GET", f"{hub.url}/hub/metrics", hub.secret("metrics"))
    assert gathered.status == 200 and "jupyterhub_" in gathered.text
    assert request("GET", f"{hub.url}/hub/api/users", hub.secret("metrics")).status == 403


def test_an_upgrade_loses_no_work(hub, eve, work, helm, tmp_path):
    """A notebook, a build and a training, and a Hub and a service that are replaced meanwhile."""
    kernel = Kernel(work["url"], eve.token)
    kernel.run("kept = 42")
    source, data = make_source(tmp_path / "source"), make_data(tmp_path / "features")
    words = ("train", "deploy", "-s", str(source), "-d", str(data), "-h")
    small = ("--cpu", "0.1", "--memory", "100Mi", "--goal", "score:max", "--detach", "-y")
    training = eve(*words, str(make_params(tmp_path / "params.json")), *small)["id"]
    building_slowly = slow(tmp_path, "upgraded", 12)
    eve("notebook", "deploy", "-s", str(building_slowly), *SMALL, "--detach", "-y")
    building("upgraded begins")
    before, known = generation("proxy"), secrets()
    gone = json.dumps([{"op": "remove", "path": "/data/metrics"}])
    kubectl("patch", "secret", "kaos", "-n", HUB, "--type=json", "-p", gone)

    limits = {"default": {"notebooks": 7}}
    more = [{"name": "TOLD", "value": "by the admin"}]
    values = changed(hub, config={"KaosService": {"limits": limits}}, hub={"extraEnv": more})
    bringing_up().apply_chart(HUB, values)
    hub.wait()
    assert secrets().pop("metrics") != known.pop("metrics"), "what is missing is made"
    assert secrets().items() >= known.items(), "what is there is kept"
    assert generation("proxy") == before, "nothing of the proxy's has changed"
    assert kernel.run("print(kept)").strip() == "42", "the kernel lives on"
    kernel.end()
    assert wait_for(eve, "upgraded", "RUNNING", "FAILED") == "RUNNING"
    log = hub.ask("GET", "/notebooks/upgraded/build-log", eve.token).text
    assert log.count("Z upgraded begins\n") == 1, "built once"
    eve("notebook", "stop", "-n", "upgraded")

    def ended() -> str:
        return str(eve("train", "info", "-j", training)["state"])

    wait_until(lambda: ended() in ("SUCCEEDED", "FAILED"), 120, "the training's end")
    assert ended() == "SUCCEEDED"
    assert eve("whoami")["limits"]["notebooks"] == 7
    said = kubectl("exec", "deployment/hub", "-n", HUB, "--", "printenv", "TOLD")
    assert said.strip() == "by the admin"


def test_a_failed_upgrade_rolls_back(hub, eve, work, helm):
    broken = changed(hub, hub={"extraConfig": {"mine": "c.JupyterHub.port = \n"}})
    with pytest.raises(helm_python.HelmError):
        helm.upgrade(CHART, "kaos", broken, timeout=15, wait="watcher", rollback_on_failure=True)
    hub.wait()
    assert helm.get_values("kaos").get("hub") == {
        "extraEnv": [{"name": "TOLD", "value": "by the admin"}]
    }
    wait_until(lambda: "2" in run(eve, work, "print(1 + 1)"), 30, "the notebook's route")


# --- it goes, and comes back ---


def claims() -> set[str]:
    """Claims of Hub, service and users."""
    return {
        line
        for namespace in (HUB, WORKLOADS)
        for line in kubectl("get", "pvc", "-n", namespace, "-o", "name").split()
    }


def test_removed_and_installed_again_finds_everything(hub, eve, work, helm):
    before, models = claims(), eve("model", "list")
    eve("notebook", "stop", "-n", "release")
    assert models and wait_for(eve, "release", "STOPPED") == "STOPPED"
    helm.rollback("kaos", version=1)
    assert helm.get_values("kaos") == hub.values, "an older revision comes back"
    told = json.loads(kubectl("get", "deployment", "hub", "-n", HUB, "-o", "json"))
    assert "by the admin" not in json.dumps(told["spec"])
    known = secrets()
    helm.uninstall("kaos", timeout=120, wait="watcher")
    with contextlib.suppress(json.JSONDecodeError):
        assert not json.loads(kubectl("get", "deployments", "-n", HUB, "-o", "json"))["items"]
    assert claims() == before and secrets() == known
    assert "nothing" in kubectl("get", "networkpolicies", "-n", WORKLOADS)

    bringing_up().apply_chart(HUB, hub.values)
    hub.wait()
    assert eve("model", "list") == models
    started = eve("notebook", "start", "-n", "release")
    assert started["state"] == "RUNNING", "its environment is known, her token too"
    code = "import pathlib; print((pathlib.Path.home() / 'mine').read_text())"
    assert run(eve, started, code) == "x"
    assert "training_mini.csv" in run(
        eve, started, "import os; print(os.listdir('/kaos/data/features/training'))"
    )


def test_removed_with_everything_if_told(hub, helm):
    began = time.monotonic()
    bringing_up().apply_chart(HUB, changed(hub, keepData=False))
    helm.uninstall("kaos", timeout=180, wait="watcher")
    wait_until(
        lambda: not kubectl("get", "namespace", WORKLOADS, "--ignore-not-found"), 120, "its end"
    )
    left = kubectl("get", "pvc,secret", "-n", HUB, "-o", "name").split()
    assert [n for n in left if "default-token" not in n] == [], time.monotonic() - began


# --- beside a Hub of zero-to-jupyterhub, with data elsewhere ---


def secret(name: str, **values: str) -> None:
    """A Secret that the admin makes."""
    literals = [f"--from-literal={k.replace('_', '-')}={v}" for k, v in values.items()]
    kubectl("create", "secret", "generic", name, "-n", HUB, *literals)


@pytest.fixture
def elsewhere() -> Iterator[dict[str, Any]]:
    """Values for a database and a bucket of this machine's, and the database's URL."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(outside.postgresql())
        secret("urls", service=database)
        values: dict[str, Any] = {"database": {"secret": "urls"}}
        if s3.available():
            server = stack.enter_context(s3.server())
            at = stack.enter_context(outside.tcp(server.endpoint.removeprefix("http://")))
            secret("s3", s3_access_key_id=server.user, s3_secret_access_key=server.secret)
            bucket = server.bucket()
            url = f"s3://{bucket}/kaos?endpoint=http://{at}&region=us-east-1"
            values["store"] = {"url": url, "secret": "s3"}
        yield {"values": values, "url": database}
        if s3.available():
            assert server.keys(bucket), "bundles are there"


def elsewhere_rows(url: str) -> int:
    """How many notebooks that database knows."""
    engine = create_engine(database_url(url, Path("/nowhere")))
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM notebooks")).scalar_one())


def test_beside_the_hub_of_another_chart(hub, helm, elsewhere):
    """Only our parts are installed; our values for that chart make its Hub ours."""
    helm.uninstall("kaos", timeout=120, wait="watcher", ignore_not_found=True)
    kubectl("label", "namespace", HUB, "pod-security.kubernetes.io/enforce-")  # theirs is less
    values = changed(hub, hub={"enabled": False}, proxy={}, **elsewhere["values"])
    helm.install(CHART, "kaos", values, timeout=120)
    kubectl("apply", "-n", HUB, "-f", "-", give=other_hub.manifests(hub.values, hub.url))
    for name in ("service", "hub", "proxy"):
        kubectl("rollout", "status", f"deployment/{name}", "-n", HUB, "--timeout=120s")
    said = helm.test("kaos", timeout=120, logs=True)
    assert "✔ service answers at http://proxy-public." in said["logs"]

    kay = ClusterHub(hub.url, hub.directory, values).command_line("kay")
    notebook = kay("notebook", "deploy", "-n", "plain", "-d", str(DATA), *SMALL)
    assert notebook["state"] == "RUNNING", "admitted by our service, started by our spawner"
    said = run(kay, notebook, "import os; print(os.listdir('/kaos/data/features/training'))")
    assert "training_mini.csv" in said
    assert hub.url + "/user/kay/" in notebook["url"]
    assert elsewhere_rows(elsewhere["url"]) == 1
