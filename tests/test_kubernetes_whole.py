"""The whole of it on a cluster: from a folder to a cell's output, and whoever is killed on the way.

One hub for all of the file, brought up as `make kubernetes` does. Tests build on each other only
where they say so.
"""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.doctor.kubernetes import RIGHTS
from tests.cluster import (
    HUB,
    WORKLOADS,
    ClusterHub,
    CommandLine,
    kill_pod,
    kubectl,
    needs_cluster,
    pods,
)
from tests.hub import ROOT, Browser, request, wait_until
from tests.kernels import Kernel
from tests.trainers import make_data, make_params, make_source

pytestmark = [pytest.mark.kubernetes, needs_cluster]

SMALL = ("--cpu", "0.2", "--memory", "600Mi", "--no-browser")
"""So that a few notebooks fit on a small cluster."""

EXAMPLE, DATA = ROOT / "examples/notebook/example", ROOT / "examples/mnist/data"


@pytest.fixture(scope="module")
def hub(cluster_hub: ClusterHub) -> ClusterHub:
    """The hub on the cluster."""
    return cluster_hub


@pytest.fixture(scope="module")
def ada(hub: ClusterHub) -> CommandLine:
    """Somebody's command line."""
    return hub.command_line("ada")


@pytest.fixture(scope="module")
def folder(hub: ClusterHub) -> Path:
    """Her own copy of the example."""
    return Path(shutil.copytree(EXAMPLE, hub.directory / "example"))


@pytest.fixture(scope="module")
def example(ada: CommandLine, folder: Path) -> dict[str, Any]:
    """The example, deployed with data."""
    deployed = ada("notebook", "deploy", "-s", str(folder), "-d", str(DATA), *SMALL)
    assert deployed["state"] == "RUNNING"
    return dict(deployed)


def run(ada: CommandLine, notebook: dict[str, Any], code: str) -> str:
    """Run a cell in a notebook."""
    kernel = Kernel(notebook["url"], ada.token)
    try:
        return kernel.run(code).strip()
    finally:
        kernel.end()


def slow(directory: Path, name: str, seconds: int) -> Path:
    """A folder whose build takes a while and says so before and after."""
    (directory / name / "model").mkdir(parents=True)
    (directory / name / "Dockerfile").write_text(
        f"FROM python:3.13-slim\nWORKDIR /opt/program\nENV MADE={time.time()}\n"
        f"RUN echo {name} begins && sleep {seconds} && echo {name} ends\nCOPY . .\n"
    )
    (directory / name / "model" / "note.txt").write_text(name)
    return directory / name


def state(ada: CommandLine, name: str) -> str:
    """A notebook's state; empty while nobody answers."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        answer = ada.hub.ask("GET", f"/notebooks/{name}", ada.token)
        return str(answer.json["state"]) if answer.status == 200 else ""
    return ""


def wait_for(ada: CommandLine, name: str, *wanted: str, seconds: float = 150) -> str:
    """Wait until a notebook is in one of these states."""
    return str(
        wait_until(
            lambda: (s := state(ada, name)) in wanted and s, seconds, f"{name}: {wanted}", 0.3
        )
    )


def begun(selector: str, phase: str = "Running", seconds: float = 90) -> dict[str, Any]:
    """The pod with those labels, once it is in that phase."""

    def look() -> dict[str, Any] | None:
        found = [p for p in pods(selector) if p["status"]["phase"] == phase]
        return found[0] if found else None

    return dict(wait_until(look, seconds, f"pod {selector} {phase}", 0.2))


def building(text: str) -> str:
    """The pod of the build that runs and has said something."""

    def look() -> str:
        for pod in pods("kaos-hub.io/kind=build"):
            name = str(pod["metadata"]["name"])
            words = ("logs", name, "-n", WORKLOADS, "-c", "build")
            if text in kubectl(*words, check=False):
                return name
        return ""

    return str(wait_until(look, 90, f"a build that says {text!r}", 0.3))


# --- rights and secrets ---


def may(account: str, verb: str, resource: str, namespace: str) -> bool:
    """What the cluster says that an account may."""
    kind, _, part = resource.partition("/")
    words = ["auth", "can-i", verb, kind, "-n", namespace]
    words += [f"--subresource={part}"] if part else []
    user = f"--as=system:serviceaccount:{HUB}:{account}"
    return kubectl(*words, user, check=False).strip() == "yes"


@pytest.mark.parametrize("account", ["hub", "service", "proxy"])
def test_accounts_may_what_they_must_and_nothing_else(hub, account):
    granted = {(r, v) for r, verbs in RIGHTS.get(account, {}).items() for v in verbs}
    resources = ["pods", "pods/log", "pods/exec", "secrets", "configmaps", "events", "services"]
    resources += ["persistentvolumeclaims", "serviceaccounts", "roles.rbac.authorization.k8s.io"]
    for resource in resources:
        for verb in ("get", "list", "watch", "create", "patch", "update", "delete"):
            expected = (resource, verb) in granted
            assert may(account, verb, resource, WORKLOADS) is expected, (resource, verb)
    for resource in ("pods", "secrets", "configmaps"):
        for verb in ("get", "list", "create"):
            assert not may(account, verb, resource, HUB), (resource, verb)
    assert not may(account, "list", "nodes", "default")


def test_doctor_in_the_service_finds_nothing_wrong(hub):
    said = kubectl("exec", "deployment/service", "-n", HUB, "--", "kaos", "--json", "doctor")
    report = json.loads(said)
    assert report["ok"], report
    found = {c["name"]: c for c in report["checks"]}
    assert found["rights"]["text"].startswith("the service may")
    assert found["registry"]["state"] == found["service"]["state"] == "good"
    # enforced or not depends on the cluster; that it was tried does not
    assert "nforced" in found["network policies"]["text"]


# --- from a folder to a cell ---


def test_a_cell_sees_code_data_and_packages(ada, example):
    said = run(
        ada,
        example,
        "import os, humanize; print(os.listdir('/kaos/data/features/training'), os.getuid())",
    )
    assert "training_mini.csv" in said and said.endswith(" 1000")
    with pytest.raises(AssertionError, match="Read-only file system"):
        run(ada, example, "open('/kaos/data/x', 'w')")


def test_no_credential_of_the_cluster_is_in_a_notebook(ada, example):
    places = ("/var/run/secrets/kubernetes.io", "/kaos-ticket", "/kaos/ticket")
    code = f"import os; print([p for p in {places} if os.path.exists(p)])"
    assert run(ada, example, code) == "[]"


@pytest.mark.browser
def test_lab_in_a_browser(hub, example):
    from tests.lab import Lab, at_browser, chromium, expect

    with chromium() as browser, at_browser(browser, hub, "ada") as person:  # type: ignore[arg-type]
        page = person.page
        expect(person.row("example")).to_contain_text("RUNNING")
        page.goto(example["url"])
        lab = Lab(page)
        lab.open("first-steps.ipynb")
        lab.run_all()
        expect(lab.output(1)).to_contain_text("training_mini.csv: ")


def test_redeployed_code_is_in_the_running_notebook(ada, example, folder):
    kernel = Kernel(example["url"], ada.token)
    kernel.run("kept = 42")
    (folder / "model" / "added.py").write_text(f"MADE = {time.time()}\n")
    again = ada("notebook", "deploy", "-s", str(folder), "--no-browser", "-y")
    assert again["state"] == "RUNNING"
    assert again["source"]["version"] == example["source"]["version"] + 1
    code = "import pathlib; print(sum(1 for _ in pathlib.Path.home().glob('work/**/added.py')))"
    wait_until(lambda: kernel.run(code).strip() == "1", 30, "the new file")
    assert kernel.run("print(kept)").strip() == "42", "the kernel lives on"
    kernel.end()


def test_a_running_pod_clones_and_reaches_nothing_of_the_cluster(ada, example):
    deploy = ("notebook", "deploy", "-n", "example", "--no-browser", "--git")
    with pytest.raises(AssertionError, match="not a public address"):
        ada(*deploy, "https://10.96.0.1/group/repository.git")
    git = ada.hub.ask("GET", "/notebooks/example", ada.token).json["git"]
    assert git["state"] == "FAILED" and "not a public address" in git["note"]
    assert ada(*deploy, "-")["state"] == "RUNNING"


def test_home_is_there_after_stop_and_start(ada, example):
    run(ada, example, "import pathlib; print(pathlib.Path.home().joinpath('mine').write_text('x'))")
    ada("notebook", "stop", "-n", "example")
    assert wait_for(ada, "example", "STOPPED") == "STOPPED"
    wait_until(lambda: not pods("kaos-hub.io/notebook=example"), 60, "the end of its pod")
    started = ada("notebook", "start", "-n", "example")
    assert started["state"] == "RUNNING"
    assert (
        run(ada, started, "import pathlib; print((pathlib.Path.home() / 'mine').read_text())")
        == "x"
    )


def test_a_known_environment_is_not_built_again(ada, example, folder):
    before = time.monotonic()
    other = ada("notebook", "deploy", "-s", str(folder), "-n", "second", *SMALL)
    assert other["state"] == "RUNNING"
    assert time.monotonic() - before < 60
    ada("notebook", "delete", "-n", "second", "-y")
    wait_until(lambda: not pods("kaos-hub.io/notebook=second"), 60, "the end of its pod")


def test_two_people_have_nothing_of_each_other(hub, ada, example, folder):
    grace = hub.command_line("grace")
    hers = grace("notebook", "deploy", "-s", str(folder), "-d", str(DATA), *SMALL)
    assert hers["state"] == "RUNNING"
    with pytest.raises(AssertionError):
        Kernel(example["url"], grace.token)
    assert hub.ask("GET", "/notebooks", grace.token).json[0]["owner"] == "user:grace"
    mounted = [
        {v["persistentVolumeClaim"]["claimName"] for v in p["spec"]["volumes"]
         if "persistentVolumeClaim" in v} - {"kaos-trees"}
        for p in pods("kaos-hub.io/notebook=example")
    ]  # fmt: skip
    assert len(mounted) == 2 and not mounted[0] & mounted[1]
    grace("notebook", "delete", "-n", "example", "-y")


# --- who is killed, and when ---


def test_proxy_killed_its_routes_come_back(hub, ada, example):
    hub.kill("proxy")
    hub.wait()
    wait_until(lambda: "2" in run(ada, example, "print(1 + 1)"), 30, "the notebook's route")


def test_service_killed_amid_a_build(hub, ada, tmp_path):
    process = ada.begin(
        "notebook", "deploy", "-s", str(slow(tmp_path, "enduring", 12)), *SMALL, "--detach"
    )
    assert process.wait(60) == 0
    pod = building("enduring begins")
    hub.kill("service")
    hub.wait()
    assert wait_for(ada, "enduring", "RUNNING", "FAILED") == "RUNNING"
    log = hub.ask("GET", "/notebooks/enduring/build-log", ada.token).text
    assert log.count("Z enduring begins\n") == 1 and log.count("Z enduring ends\n") == 1
    assert pod.startswith("kaos-build-")
    ada("notebook", "delete", "-n", "enduring", "-y")


def test_build_pod_killed_is_built_again(hub, ada, tmp_path):
    process = ada.begin(
        "notebook", "deploy", "-s", str(slow(tmp_path, "stubborn", 8)), *SMALL, "--detach"
    )
    assert process.wait(60) == 0
    kill_pod(WORKLOADS, building("stubborn begins"))
    assert wait_for(ada, "stubborn", "RUNNING", "FAILED") == "RUNNING"
    ada("notebook", "delete", "-n", "stubborn", "-y")


def test_hub_killed_amid_a_start(hub, ada, example, folder):
    process = ada.begin("notebook", "deploy", "-s", str(folder), "-n", "midway", *SMALL, "--detach")
    assert process.wait(60) == 0
    wait_until(lambda: pods("kaos-hub.io/notebook=midway"), 60, "its pod", 0.05)
    hub.kill("hub")
    hub.wait()
    if wait_for(ada, "midway", "RUNNING", "STOPPED", "FAILED") != "RUNNING":
        ada("notebook", "start", "-n", "midway")
    notebook = ada("notebook", "info", "-n", "midway")
    assert notebook["state"] == "RUNNING"
    assert run(ada, notebook, "print(6 * 7)") == "42"
    living = [p for p in pods("kaos-hub.io/notebook=midway") if p["status"]["phase"] == "Running"]
    assert len(living) == 1, "one notebook, one pod"
    # and the one that ran all the time is found again
    assert run(ada, example_of(ada), "print(1)") == "1"
    ada("notebook", "delete", "-n", "midway", "-y")


def example_of(ada: CommandLine) -> dict[str, Any]:
    """The example as it is now."""
    return dict(ada("notebook", "info", "-n", "example"))


def test_notebook_pod_killed_amid_a_cell(ada, example):
    kernel = Kernel(example["url"], ada.token)
    kernel.begin(
        "import pathlib, time; (pathlib.Path.home() / 'cell').write_text('x'); time.sleep(60)"
    )
    run(ada, example, "print(1)")
    (pod,) = pods("kaos-hub.io/notebook=example")
    kill_pod(WORKLOADS, pod["metadata"]["name"])
    assert wait_for(ada, "example", "FAILED", "STOPPED", seconds=60) == "FAILED"
    assert example_of(ada)["reason"]
    started = ada("notebook", "start", "-n", "example")
    assert started["state"] == "RUNNING"
    assert (
        run(ada, started, "import pathlib; print((pathlib.Path.home() / 'cell').read_text())")
        == "x"
    )


def test_all_three_killed_at_once(hub, ada, example):
    for component in ("hub", "service", "proxy"):
        hub.kill(component)
    hub.wait()
    assert wait_for(ada, "example", "RUNNING") == "RUNNING"
    wait_until(lambda: "2" in run(ada, example, "print(1 + 1)"), 30, "the notebook's route")
    someone = Browser(hub, "ada")  # type: ignore[arg-type]
    assert someone.get(f"{hub.kaos}/").status == 200


def test_the_ancestors_bundle_trains_whoever_is_killed(hub, ada, tmp_path):
    """Its contract, a grid on two workers; one of them and the service are killed."""
    source, data = make_source(tmp_path / "source"), make_data(tmp_path / "features")
    params = make_params(tmp_path / "params.json")
    small = ("--cpu", "0.1", "--memory", "100Mi", "--goal", "score:max")
    training = ada(
        "train", "deploy", "-s", str(source), "-d", str(data), "-h", str(params), "-p", "2",
        *small, "--detach", "-y",
    )["id"]  # fmt: skip

    def workers() -> list[str]:
        found = pods("kaos-hub.io/kind=train")
        return [p["metadata"]["name"] for p in found if p["status"]["phase"] == "Running"]

    wait_until(lambda: len(workers()) == 2, 120, "two workers")
    kill_pod(WORKLOADS, workers()[0])
    hub.kill("service")
    hub.wait()

    def ended() -> bool:
        # the service may be on its way back
        with contextlib.suppress(AssertionError):
            return ada("train", "info", "-j", training)["state"] in ("SUCCEEDED", "FAILED")
        return False

    wait_until(ended, 120, "the training's end")
    found = ada("train", "info", "-j", training)
    assert found["state"] == "SUCCEEDED", found["reason"]
    assert sorted(t["metrics"]["score"] for t in found["trials"]) == [5, 10, 15, 20]
    assert found["best"]["score"] == 20
    wait_until(lambda: not pods("kaos-hub.io/kind=train"), 60, "the end of all workers")


def test_delete_leaves_nothing(hub, ada, example):
    ada("notebook", "delete", "-n", "example", "-y")
    wait_until(lambda: not pods("kaos-hub.io/kind=notebook"), 60, "the end of all notebooks")

    def left() -> list[str]:
        said = kubectl("get", "pods,secrets,pvc", "-n", WORKLOADS, "-o", "name").split()
        ours = [
            name for name in said if "/kaos-" in name and name != "persistentvolumeclaim/kaos-trees"
        ]
        return [name for name in ours if not name.startswith("persistentvolumeclaim/kaos-cache-")]

    wait_until(lambda: not left(), 90, "the end of everything")
    assert request("GET", f"{hub.url}/hub/health").status == 200
