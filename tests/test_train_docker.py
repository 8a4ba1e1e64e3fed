"""Trainings in containers, through a real Hub: the ancestor's contract, and bad days."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import KaosError
from kaos_hub.schemas import TrainingState
from tests.engines import needs_docker
from tests.hub import RunningHub, running_hub, wait_until
from tests.trainers import make_data, make_params, make_source

pytestmark = [pytest.mark.docker, needs_docker]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), engine="docker") as running:
        yield running
        if left := workers():
            subprocess.run(["docker", "rm", "-f", *left], capture_output=True)


@pytest.fixture(scope="module")
def client(hub: RunningHub) -> Client:
    return Client(hub.url, hub.token("ada"))


def workers() -> list[str]:
    """Containers that run trials now."""
    told = ["docker", "ps", "--format", "{{.Names}}", "--filter", "name=kaos-train-"]
    return subprocess.check_output(told, text=True).split()


def test_the_ancestors_bundle_trains(client: Client, tmp_path: Path) -> None:
    handle = client.trainings.deploy(
        make_source(tmp_path / "source"), make_data(tmp_path / "features"), cpu=0.5, memory="200Mi"
    )
    found = handle.wait()
    assert found.state is TrainingState.SUCCEEDED, found.reason
    trial = client.trainings.trial(found.id, 1)
    assert trial.metrics == {"score": 35, "said": 0.5}
    assert trial.output is not None and trial.output.files == 2


def test_a_killed_workers_trial_is_run_again_and_none_is_lost(
    client: Client, tmp_path: Path
) -> None:
    params = json.loads(make_params(tmp_path / "params.json").read_text()) | {"sleep": [3]}
    handle = client.trainings.deploy(
        params=params, slots=2, goal="score:max", cpu=0.5, memory="200Mi"
    )
    wait_until(lambda: len(workers()) == 2, 60, "two workers")
    wait_until(lambda: client.trainings.get(handle.id).trials.running == 2, 60, "two trials")
    subprocess.check_call(["docker", "kill", workers()[0]], stdout=subprocess.DEVNULL)
    found = handle.wait()
    assert found.state is TrainingState.SUCCEEDED, found.reason
    trials = client.trainings.trials(found.id)
    assert sorted(t.metrics["score"] for t in trials) == [5, 10, 15, 20]
    assert [t.attempt for t in trials].count(2) == 1
    assert found.best is not None and found.best.score == 20
    wait_until(lambda: not workers(), 30, "the end of all workers")


def test_out_of_memory_is_said_of_the_trial(client: Client, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    train = source / "mnist" / "model" / "train"
    train.write_text("#!/usr/bin/env python3\nx = bytearray(10**9)\n")
    handle = client.trainings.deploy(source, without_params=True, cpu=0.5, memory="100Mi")
    with pytest.raises(KaosError, match="out of memory"):
        handle.wait()
    assert client.trainings.get(handle.id).state is TrainingState.FAILED
    assert "memory" in client.trainings.trial(handle.id, 1).reason
