"""Trainings from the command line and from Python against a real Hub: what people do with them."""

import contextlib
import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import BuildFailed, Conflict, NotFound
from tests.hub import RunningHub, wait_until
from tests.kernels import Kernel
from tests.shell import EXAMPLES, Shell

DATA = str(EXAMPLES / "mnist" / "data")
TRAIN = """\
#!/usr/bin/env python3
import json, os, pathlib, sys, time

import kaos_hub

params = json.loads(pathlib.Path(os.environ["KAOS_PARAMS"]).read_text())
files = list(pathlib.Path(os.environ["KAOS_DATA"]).rglob("*.csv"))
print("degree", params.get("degree"), "on", len(files), "files", flush=True)
degree = params.get("degree", 1)
if degree == 13:
    raise ValueError("unlucky")
for step in range(3):
    kaos_hub.log(loss=1 / (degree + step), step=step)
time.sleep(params.get("sleep", 0))
out = pathlib.Path(sys.argv[1])
(out / "metrics").mkdir(parents=True)
(out / "model.txt").write_text(str(degree))
(out / "metrics" / "metrics.json").write_text(json.dumps({"accuracy": degree / 10}))
"""


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Ada, who trains."""
    shell = Shell(tmp_path_factory.mktemp("ada"), hub, "ada-who-trains")
    shell.log_in()
    return shell


@pytest.fixture(scope="module")
def client(shell: Shell) -> Client:
    """The SDK as the same user."""
    return Client(shell.hub.url, shell.run("token").stdout.strip(), workspace="")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A source bundle whose ``train`` needs no packages."""
    folder = tmp_path_factory.mktemp("sources") / "digits"
    (folder / "model").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . .\n")
    (folder / "model" / "train").write_text(TRAIN)
    return str(folder)


def grid(folder: Path, **values: Any) -> str:
    """A file of hyperparameters."""
    file = folder / "grid.json"
    file.write_text(json.dumps(values))
    return str(file)


def train(shell: Shell, *words: str) -> str:
    """A training that succeeds; its id."""
    done = shell.run("train", "deploy", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def trained(shell: Shell, source: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A grid of four, one of which fails; its id."""
    file = grid(tmp_path_factory.mktemp("grid"), degree=[3, 1, 13, 2], name=["xy"])
    words = ["-s", source, "-d", DATA, "-h", file, "-p", "2", "--goal", "accuracy:max"]
    return train(shell, *words)


def test_a_source_alone_waits_for_data_and_then_trains(
    hub: RunningHub, source: str, tmp_path: Path
) -> None:
    """Built and told; the data that come later continue that very training."""
    shell = Shell(tmp_path, hub, "ada-who-comes-back")
    shell.log_in()
    refused = shell.run("train", "deploy")
    assert refused.returncode == 2
    assert "nothing to train with yet" in refused.stderr
    planned = shell.run("train", "deploy", "-s", source, "--dry-run")
    assert "submit source bundle digits" in planned.stdout
    assert shell.json("train", "list") == []
    first = shell.run("train", "deploy", "-s", source)
    assert first.returncode == 0, first.stderr
    assert "waits for data: `kaos train deploy -d DIR`" in first.stderr.splitlines()[-1]
    waiting = shell.json("train", "info")
    assert (waiting["state"], waiting["stages"][0]["state"]) == ("WAITING", "SUCCEEDED")
    second = shell.run("train", "deploy", "-d", DATA)
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout
    assert "degree None on 3 files" in second.stderr
    code, seen = shell.on_terminal("train", "deploy", "-d", DATA, answer="n")
    assert code == 1
    assert "source  digits@v1  used last" in seen
    planned = shell.run("train", "deploy", "-s", source, "-y", "--dry-run")
    assert "used last with this source" in planned.stderr
    assert "- use data data@v1 from before: none is given now" in planned.stdout
    assert "Train with the source used last?" in seen
    assert "Nothing was changed" in seen
    assert len(shell.json("train", "list")) == 1


def test_a_grid_is_trained_and_shown(shell: Shell, trained: str) -> None:
    """Sorted by number, in pages; what failed says where; logs and metrics of each."""
    found = shell.json("train", "info", "-j", trained, "--sort-by", "accuracy", "--order", "min")
    assert found["state"] == "SUCCEEDED"
    assert "1 of 4" in found["reason"]
    assert found["best"] == {"trial": 1, "score": 0.3}
    assert found["counts"]["failed"] == 1
    degrees = [trial["params"]["degree"] for trial in found["trials"]]
    assert degrees == [1, 2, 3, 13]
    assert found["trials"][0]["params"]["name"] == "xy"
    failed = found["trials"][-1]
    assert (failed["state"], failed["exit_code"]) == ("FAILED", 1)
    assert "ValueError: unlucky" in failed["reason"]
    shown = shell.run("train", "info", trained).stdout
    assert "best          trial 1: 0.3" in shown
    assert [line.split()[:3] for line in shown.splitlines()[-4:]] == [
        ["1", "SUCCEEDED", "3"], ["2", "SUCCEEDED", "1"], ["3", "FAILED", "13"],
        ["4", "SUCCEEDED", "2"],
    ]  # fmt: skip
    assert "degree 13 on 3 files" in shell.run("train", "logs", f"{trained}.3").stdout
    one = shell.run("train", "metrics", "-j", trained, "--trial", "1", "--csv").stdout.splitlines()
    assert one[0] == "trial,step,at,accuracy,loss"
    assert [line.split(",")[1] for line in one[1:]] == ["0.0", "1.0", "2.0", ""]
    assert one[-1].split(",")[3:] == ["0.3", ""]
    assert shell.run("train", "build-logs", "-j", trained).returncode in (0, 3)
    listed = shell.run("train", "list").stdout
    assert "4/4, 1 failed" in listed
    assert "accuracy 0.3" in listed


def test_an_index_means_what_was_shown(shell: Shell, trained: str, tmp_path: Path) -> None:
    """Also of a part of the list; when it has changed, nothing is guessed."""
    shown = shell.json("train", "list", "--state", "succeeded", "--limit", "5")
    number = str([each["id"] for each in shown].index(trained) + 1)
    assert shell.json("train", "info", "-i", number)["id"] == trained
    train(shell, "--without-params")
    refused = shell.run("train", "delete", "-y", "-i", number)
    assert refused.returncode == 5
    assert "changed since it was shown" in refused.stderr


def test_what_is_got_can_be_deployed_again(shell: Shell, trained: str, tmp_path: Path) -> None:
    """Code, data and params are the very same bundles; the model is what the trial left."""
    out = tmp_path / "got"
    words = ["train", "get", "-j", trained, "-c", "-d", "-m", "-h", "--trial", "1"]
    done = shell.run(*words, "-o", str(out))
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert (out / "model" / "model.txt").read_text() == "3"
    assert shell.run(*words, "-o", str(out)).returncode == 2
    again = ["-s", f"{out}/code", "-d", f"{out}/data", "-h", f"{out}/params", "--detach"]
    made = shell.json("train", "deploy", *again)
    before = shell.json("train", "info", "-j", trained)
    for role in ("source", "data"):
        assert made[role]["digest"] == before[role]["digest"]
    assert made["trials"]["total"] == 1
    wait_until(lambda: shell.json("train", "info", made["id"])["state"] == "SUCCEEDED", 60)


def test_models_have_names_and_a_past(shell: Shell, trained: str, tmp_path: Path) -> None:
    """Named, named again, fetched, and forgotten; what made them, for people and programs."""
    assert shell.json("model", "name", f"{trained}.1", "best")["name"] == "best@v1"
    assert shell.json("model", "name", f"{trained}.2", "best")["name"] == "best@v2"
    assert shell.json("model", "info", "best@v1")["id"] == f"{trained}.1"
    named = shell.json("model", "list", "--named")
    assert {each["name"] for each in named} == {"best@v1", "best@v2"}
    assert shell.run("model", "get", "best", "-o", str(tmp_path / "best")).returncode == 0
    assert (tmp_path / "best" / "model.txt").read_text() == "1"
    past = shell.json("model", "provenance", "best@v1")
    assert past["source"]["name"] == "digits"
    assert past["model"]["params"] == {"degree": 3, "name": "xy"}
    file = tmp_path / "best.dot"
    words = ["train", "provenance", "-j", trained, "--dot", "-o", str(file)]
    assert shell.run(*words).returncode == 0
    assert file.read_text().startswith("digraph")
    assert "the best" in shell.run("train", "provenance", "-j", trained).stderr
    assert shell.run("model", "delete", "best").returncode == 2
    assert shell.run("model", "delete", "best", "-y").returncode == 0
    assert shell.run("model", "info", "best").returncode == 3


def test_a_repetition_is_compared(shell: Shell, trained: str) -> None:
    """The same inputs, the same metrics."""
    done = shell.run("train", "reproduce", "-j", trained)
    assert done.returncode == 0, done.stderr
    assert f"It repeats {trained}: " in done.stderr
    assert "no metric differs" in done.stderr


def test_failures_have_exit_codes_and_show_why(
    shell: Shell, client: Client, source: str, tmp_path: Path
) -> None:
    """A build that fails is 8 with its log, trainings that fail are 1 with the end of theirs."""
    broken = Path(shutil.copytree(source, tmp_path / "broken"))
    (broken / "model" / "requirements.txt").write_text("humanize==999.9\n")
    done = shell.run("train", "deploy", "-s", str(broken), "-d", DATA, "--without-params")
    assert (done.returncode, done.stdout) == (8, "")
    assert "humanize==999.9" in done.stderr.splitlines()[-1]
    with pytest.raises(BuildFailed, match=r"humanize==999\.9"):
        client.trainings.deploy(broken, DATA, without_params=True).wait(60)
    file = grid(tmp_path, degree=[13])
    done = shell.run("train", "deploy", "-s", source, "-d", DATA, "-h", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert "degree 13 on 3 files" in done.stderr
    assert "unlucky" in done.stderr


def test_detached_then_killed_then_deleted(shell: Shell, source: str, tmp_path: Path) -> None:
    """Ctrl-C lets it go on; one trial is ended, then all; what runs cannot be deleted."""
    file = grid(tmp_path, sleep=[300, 301, 302])
    words = ["train", "deploy", "-s", source, "-d", DATA, "-h", file, "-y"]
    code, seen = shell.on_terminal(*words, interrupt="TRAINING")
    assert code == 130
    assert "goes on without you" in seen
    job = shell.json("train", "list")[0]["id"]

    def state(number: int) -> str:
        return str(shell.json("train", "info", f"{job}.{number}")["state"])

    wait_until(lambda: state(1) == "RUNNING", 30, "the first trial")
    assert shell.run("train", "delete", "-j", job, "-y").returncode == 5
    assert shell.run("train", "kill", "-j", f"{job}.1", "-y").returncode == 0
    wait_until(lambda: state(1) == "CANCELLED" and state(2) == "RUNNING", 30, "the second trial")
    assert shell.run("train", "kill", "-j", job).returncode == 2
    assert shell.run("train", "kill", "-j", job, "-y").returncode == 0
    wait_until(lambda: state(3) == "CANCELLED", 30, "the end")
    wait_until(lambda: shell.json("train", "info", job)["state"] == "CANCELLED", 30, "the end")
    assert "killed by ada-who-trains" in shell.run("train", "info", job).stdout
    assert shell.run("train", "delete", "-j", job, "-y").returncode == 0
    assert shell.run("train", "info", job).returncode == 3


@contextlib.contextmanager
def files_over_http(folder: str) -> Iterator[str]:
    """The URL of a server of a folder, on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_manifest_never_fetches_from_within(shell: Shell, source: str, tmp_path: Path) -> None:
    """An address of this machine is refused, with file and line, and nothing is trained."""
    with files_over_http(DATA) as url:
        manifest = tmp_path / "list.mf"
        line = {"url": f"{url}/features/test/test_mini.csv", "path": "test.csv"}
        manifest.write_text(f"# one file\n{json.dumps(line)}\n")
        done = shell.run("train", "deploy", "-s", source, "-m", str(manifest), "--without-params")
    assert (done.returncode, done.stdout) == (1, "")
    assert "1 file to fetch" in done.stderr
    assert "list.mf:2" in done.stderr
    found = shell.json("train", "info")
    assert found["state"] == "FAILED"
    assert found["stages"][0]["name"] == "ingest"
    assert "list.mf:2" in shell.run("train", "ingest-logs").stdout


def test_a_workspace_is_for_its_members(
    shell: Shell, source: str, trained: str, tmp_path: Path
) -> None:
    """What one gives the other uses; who is not in the group sees nothing, nor does one alone."""
    hub = shell.hub
    bob, eve = (Shell(tmp_path / name, hub, f"{name}-of-the-group") for name in ("bob", "eve"))
    hub.put_into("vision-of-cli", shell.user, bob.user)
    for other in (bob, eve):
        other.home.mkdir()
        other.log_in()
        names = [each["name"] for each in other.json("workspace", "list")]
        assert names == [other.user, *(["vision-of-cli"] if other is bob else [])]
    assert bob.run("workspace", "set", "vision-of-cli").returncode == 0
    assert bob.run("workspace", "current").stdout == "vision-of-cli\n"
    bob.run("train", "deploy", "-s", source)
    group = ["--workspace", "vision-of-cli"]
    job = train(shell, *group, "-d", DATA)
    assert bob.json("train", "info", job)["owner"] == "group:vision-of-cli"
    assert bob.json("train", "list")[0]["source"]["name"] == "digits"
    assert bob.run("train", "info", trained).returncode == 3
    assert shell.run("train", "info", job).returncode == 3
    for words in (["workspace", "set", "vision-of-clj"], [*group, "train", "list"]):
        refused = eve.run(*words)
        assert refused.returncode == 3, refused.stderr
        assert "vision-of-cl" in refused.stderr
    assert bob.run("workspace", "set").returncode == 0
    assert bob.json("train", "list") == []


def test_from_a_run_to_a_notebook_and_back(
    shell: Shell, source: str, trained: str, tmp_path: Path
) -> None:
    """The notebook has the trial's code, data, params and model; its source trains again."""
    done = shell.run("notebook", "deploy", "--run", trained)
    assert done.returncode == 0, done.stderr
    assert "Trial 1, the best" in done.stderr
    name = f"digits-{trained[:6]}-1"
    kernel = Kernel(done.stdout.strip(), shell.run("token").stdout.strip())
    seen = kernel.run(
        "import json, os, pathlib\n"
        "print(pathlib.Path(os.environ['KAOS_MODEL'], 'model.txt').read_text())\n"
        "print(json.loads(pathlib.Path(os.environ['KAOS_PARAMS']).read_text()))\n"
        "print(len(list(pathlib.Path(os.environ['KAOS_DATA']).rglob('*.csv'))))\n"
        "print('KAOS_PARAMS_TEXT' in os.environ, os.path.exists('work/model/train'))"
    )
    kernel.end()
    assert seen.split("\n")[:3] == ["3", "{'degree': 3, 'name': 'xy'}", "3"]
    assert seen.split("\n")[3].startswith("False")
    assert shell.json("notebook", "info", "-n", name)["run"] == f"{trained}.1"
    refused = shell.run("notebook", "deploy", "--run", f"{trained}.2", "-n", name)
    assert refused.returncode == 2
    assert "another model" in refused.stderr
    stranger = Shell(tmp_path, shell.hub, "eve-of-the-notebooks")
    stranger.log_in()
    assert stranger.run("notebook", "deploy", "--run", f"{trained}.1").returncode == 3
    assert shell.run("notebook", "deploy", "--run", f"{trained}.3", "-s", source).returncode == 2
    again = shell.json("train", "deploy", "--notebook", name, "--without-params")
    assert again["source"]["name"] == "digits"
    assert (again["data"]["name"], again["trials"]["total"]) == ("data", 1)
    shell.run("notebook", "delete", "-y", "-n", name)


def test_a_model_names_its_training_and_old_things_are_got_hold_of(
    shell: Shell, client: Client, trained: str
) -> None:
    """By the name of a model wherever a training is named; from Python by id, as after a deploy."""
    client.models.name(f"{trained}.1", "of-the-first")
    for words in (["info"], ["logs"], ["metrics"], ["provenance"], ["reproduce", "--detach"]):
        done = shell.run("train", *words, "-j", "of-the-first@v1")
        assert done.returncode == 0, done.stderr
    again = shell.json("train", "list", "--limit", "1")[0]
    assert again["reproduces"] == trained
    unknown = shell.run("train", "info", "-j", "nothing-like-it")
    assert unknown.returncode == 3 and "no training and no model" in unknown.stderr

    old = client.trainings.get(again["id"])
    assert old.wait(60).state == "SUCCEEDED"
    assert old.state == "SUCCEEDED" and old.refresh().trials.total == len(old.trials)
    assert [t.number for t in old.trials] == [t.number for t in old.trials(sort="number")]
    assert any("degree" in line for line in old.logs())
    assert len(old.metrics(trial=1)) > 0
    model = client.models.get("of-the-first")
    assert model.training == trained and model.provenance().model.id == f"{trained}.1"
    client.models.delete("of-the-first")
    old.delete()


def test_a_repetition_has_the_packages_of_the_first_also_where_they_are_gone(
    shell: Shell, client: Client, tmp_path: Path, hub: RunningHub
) -> None:
    """Without images: what was installed is written down, and installed again to the version."""
    folder = tmp_path / "locked"
    (folder / "model").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . .\n")
    # A version that is not the newest, as if that had come out since.
    (folder / "model" / "requirements.txt").write_text("humanize==4.9.0\n")
    (folder / "model" / "train").write_text(TRAIN)
    first = client.trainings.deploy(folder, DATA, without_params=True, name="locked")
    first.wait(120)
    made = client.models.provenance(f"{first.id}.1")
    assert "humanize==4.9.0" in made.packages
    for environment in (hub.data / "environments").iterdir():
        subprocess.run(["chmod", "-R", "u+w", environment], check=True)
        shutil.rmtree(environment, ignore_errors=True)
    again = first.reproduce()
    again.wait(120)
    assert any("versions that were installed before" in line for line in again.build_logs())
    assert client.models.provenance(f"{again.id}.1").packages == made.packages
    assert "humanize==4.9.0" in shell.run("train", "provenance", "-j", f"{again.id}.1").stdout
    once_more = again.reproduce()
    once_more.wait(60)
    assert client.models.provenance(f"{once_more.id}.1").packages == made.packages


def test_trainings_in_python(client: Client, source: str, trained: str, tmp_path: Path) -> None:
    """From a dict to a model, without a file or a terminal."""
    training = client.trainings.deploy(
        source, DATA, params={"degree": [4, 5]}, slots=2, goal="accuracy:max", name="in python"
    )
    states: list[str] = []
    done = training.wait(60, lambda event: states.append(event.state))
    assert (done.name, done.state, done.best and done.best.trial) == ("in python", "SUCCEEDED", 2)
    assert states[-1] == "SUCCEEDED"
    best, *_ = training.trials(sort="score")
    assert (best.number, best.params, best.metrics["accuracy"]) == (2, {"degree": 5}, 0.5)
    rows = training.metrics(trial=2)
    rows = rows if isinstance(rows, list) else rows.to_dict("records")
    assert [row["step"] for row in rows[:3]] == [0, 1, 2]
    assert any("degree 5" in line for line in training.logs(2))
    model = client.models.download(best.model, tmp_path / "model")
    assert model.output.files == 2
    assert client.models.provenance(best.model).model == model
    again = client.trainings.reproduce(training.id)
    again.wait(60)
    assert all(each.same_output for each in client.trainings.comparison(again.id))
    with pytest.raises(Conflict):
        client.trainings.comparison(training.id)
    client.trainings.delete(again.id)
    with pytest.raises(NotFound):
        client.trainings.get(again.id)
    with pytest.raises(NotFound, match="no source bundle 'digits@v99'"):
        client.trainings.deploy("digits@v99", DATA)
