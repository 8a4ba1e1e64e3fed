"""The benchmarks still run, each in its smallest mode. What they measure is for people to read."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.harness import Comparison, Contestant, Series, alternate
from tests.engines import ENGINES, needs_docker
from tests.hub import ROOT
from tests.pods import needs_cluster

OPTIONS = ("--rounds", "1", "--smoke", "--json")


def smoke(name: str, *parts: str) -> dict[str, Any]:
    """What a benchmark says as JSON."""
    only = (word for part in parts for word in ("--only", part))
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *OPTIONS, *only],
        cwd=ROOT,
        # As some CI sets it; the benchmarks must not be fooled by that.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["versions"]["jupyterhub"] and said["machine"]
    return said


def names(said: dict[str, Any]) -> list[list[str]]:
    """Who took part in which comparison; each has a number for every one of them."""
    for comparison in said["comparisons"]:
        assert all(len(series["values"]) == 1 for series in comparison["series"])
    return [[series["name"] for series in c["series"]] for c in said["comparisons"]]


@pytest.mark.parametrize("engine", ENGINES)
def test_click_to_lab(engine: str) -> None:
    """A stock Hub and ours start the same JupyterLab."""
    said = smoke("click_to_lab", engine)
    theirs = {"local": "SimpleLocalProcessSpawner", "docker": "DockerSpawner"}[engine]
    assert names(said) == [[theirs, f"kaos_hub, {engine}"]]
    assert said["versions"]["jupyterlab"] in said["comparisons"][0]["remarks"][0]
    assert said["comparisons"][0]["series"][1]["ratio"] > 0


@pytest.mark.docker
@needs_docker
def test_rebuild() -> None:
    """A bundle, unchanged and changed."""
    who = names(smoke("rebuild", "build"))
    assert len(who) == 2
    assert all("docker build (classic)" in each and "kaos_hub, SDK" in each for each in who)


@pytest.mark.docker
@needs_docker
def test_builders() -> None:
    """Both builders, side by side."""
    who = names(smoke("rebuild", "builders"))
    assert who == [["the Engine's own", "kaos_hub's, isolated"]] * 5


def test_resubmit() -> None:
    """Against rsync, or not at all."""
    said = smoke("rebuild", "resubmit")
    if shutil.which("rsync") is None:
        assert said["skipped"] == {"resubmit": "rsync is not installed"}
    else:
        assert names(said)[0][:2] == ["rsync -a --stats", "kaos_hub, SDK"]


def test_fetch_tree() -> None:
    """Against tar and cp; all bring every file, or it would have failed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    who = ["tar x from HTTP", "cp -r", "kaos_hub", "kaos_hub, on disk at its end"]
    assert names(smoke("fetch_tree", "fetch")) == [who]


def test_trials() -> None:
    """Trials that do nothing, lists of them, and the last of many."""
    nothing, listing, history = names(smoke("trials"))
    assert "kaos_hub, local" in nothing
    assert listing == [
        "Hub, 200 of 20 users",
        "kaos_hub, 100 of the small training",
        "kaos_hub, 100 of 300",
        "kaos_hub, list of trainings",
    ]
    assert history == ["the first 100 of 300", "the last 100 of 300"]


def test_service_idle() -> None:
    """Memory twice, and processor time."""
    assert names(smoke("service_idle", "idle")) == [["Hub", "kaos service"]] * 3


@pytest.mark.kubernetes
@needs_cluster
def test_pod_ready() -> None:
    """Both spawners start the same pod; the second comparison is the Hub's own part."""
    both = ["KubeSpawner", "kaos_hub, kubernetes"]
    assert names(smoke("pod_ready", "kubernetes")) == [both, both]


@pytest.mark.kubernetes
@needs_cluster
def test_rebuild_cluster() -> None:
    """By hand and ours, from nothing: all push an image, or it would have failed."""
    who = ["buildah build, pod", "buildah build, pod that stays", "kaos_hub, SDK"]
    said = smoke("rebuild_cluster", "code")
    assert names(said) == [who]
    assert said["versions"]["buildah"] and said["versions"]["Kubernetes"]


@pytest.mark.kubernetes
@needs_cluster
def test_data_visible() -> None:
    """All pods see the file; the second comparison is the first pod's."""
    theirs, shared = "init container, tar x", "kaos_hub, shared volume"
    assert names(smoke("data_visible", "kubernetes")) == [
        [theirs, shared, "kaos_hub, no shared volume"],
        [theirs, f"{shared}, first pod"],
    ]


def test_turns_alternate_and_ratios_are_within_rounds() -> None:
    """Whoever began a round begins not the next; the first turn counts nowhere."""
    order: list[str] = []

    def contestant(name: str, values: list[float]) -> Contestant:
        return Contestant(name, lambda: (order.append(name), values.pop(0))[1])

    theirs, ours = contestant("theirs", [9, 2, 4, 6]), contestant("ours", [9, 1, 1, 6])
    comparison = Comparison("both", alternate([theirs, ours], 3, "both"))
    assert order == ["theirs", "ours", "ours", "theirs"] * 2
    assert comparison.series == (Series("theirs", 9, (2, 4, 6)), Series("ours", 9, (1, 1, 6)))
    assert comparison.ratios(comparison.series[1]) == [0.5, 0.25, 1]
    assert comparison.as_json()["series"][1]["ratio"] == 0.5
    assert comparison.series[0].quartiles == (3, 5)
