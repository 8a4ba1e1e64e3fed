"""Commands of trainings where they need no Hub: what is wrong is found and named here."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kaos_hub.cli.root import kaos
from kaos_hub.cli.train import follow, get, show
from kaos_hub.client import Client, save_credentials, save_workspace
from kaos_hub.client.bundles import Bundles
from kaos_hub.client.submission import parse_goal
from kaos_hub.client.training_handle import failure
from kaos_hub.errors import BuildFailed, Failed, InvalidBundle, InvalidRequest
from kaos_hub.schemas import MetricPoint, Training, TrainingEvent, Trial, TrialComparison
from kaos_hub.transport.credentials import load_workspace
from kaos_hub.transport.http import Transport

NOBODY = "http://127.0.0.1:1"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = "1f3a5c7e9b2d4f60"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "KAOS_WORKSPACE", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    save_credentials(NOBODY, "t")


def run(*words: str) -> Result:
    """Run ``kaos`` in this process; an exception that is not click's is a failure."""
    result = CliRunner().invoke(kaos, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def a_training(**changes: Any) -> Training:
    """A training that has ended well."""
    fields = {
        "id": ID, "name": "mnist", "owner": "user:ada", "author": "ada", "state": "SUCCEEDED",
        "deadline": 3600, "created": NOW, "started": NOW, "finished": NOW + timedelta(seconds=90),
        "trials": {"total": 12, "succeeded": 11, "failed": 1},
        "goal": {"metric": "loss", "direction": "min"}, "best": {"trial": 3, "score": 0.12345678},
        "source": {"name": "mnist", "version": 2, "digest": f"blake3:{'0' * 64}"},
    }  # fmt: skip
    return Training.model_validate(fields | changes)


def a_trial(number: int, **changes: Any) -> Trial:
    """A trial that has ended well."""
    output = {"digest": f"blake3:{'1' * 64}", "size": 10, "files": 2}
    fields = {"training": ID, "number": number, "state": "SUCCEEDED", "created": NOW}
    return Trial.model_validate(fields | {"output": output} | changes)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-s", "nowhere"], "no folder 'nowhere'"),
        (["-h", "nowhere.json"], "no file 'nowhere.json'"),
        (["-h", "folder"], "one file of JSON"),
        (["-h", "grid.json"], "grid.json:3: 'degree' has an empty list"),
        (["-m", "list.mf"], "list.mf:3: it has an empty url"),
        (["-m", "lists"], "deep/list.mf:3: it has an empty url"),
        (["-d", "folder", "-m", "list.mf"], "mutually exclusive"),
        (["-h", "good.json", "--without-params"], "mutually exclusive"),
        (["-s", "folder", "--notebook", "example"], "mutually exclusive"),
        (["--goal", "loss"], "METRIC:min or METRIC:max"),
        (["--goal", ":min"], "METRIC:min or METRIC:max"),
        (["-p", "0"], "1<=x<=1000"),
        (["--cpu", "nan"], "cores"),
        (["--memory", "512"], "512Mi"),
        (["--deadline", "soon"], "90s"),
        (["--name", "a/b"], "name"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(words: list[str], text: str) -> None:
    """Files are read line by line; the Hub is not even there."""
    for folder in ("folder", "lists/deep"):
        Path(folder).mkdir(parents=True)
    Path("good.json").write_text('{"degree": [1]}')
    Path("grid.json").write_text('{\n"kernel": ["poly"],\n"degree": []}')
    for place in (".", "lists/deep"):
        Path(place, "list.mf").write_text('# one\n\n{"url": "", "path": "a.csv"}\n')
    result = run("train", "deploy", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr


def test_help_is_not_the_hyperparameters() -> None:
    """`-h` takes a file where there are hyperparameters, and is help everywhere else."""
    for command in ("deploy", "get"):
        assert run("train", command, "--help").exit_code == 0
        assert "--params" in run("train", command, "--help").stdout
    assert run("train", "deploy", "-h").exit_code == 2
    # In a process of its own: click remembers in a command how help was called in its context.
    words = [sys.executable, "-m", "kaos_hub.cli", "train", "list", "-h"]
    assert (
        subprocess.run(words, capture_output=True, cwd=Path(__file__).parent.parent).returncode == 0
    )


@pytest.mark.parametrize("verb", ["info", "kill", "delete", "logs", "get", "reproduce"])
def test_an_id_and_an_index_exclude_each_other(verb: str) -> None:
    """That is a usage error, found before anything is asked."""
    result = run("train", verb, "-j", ID, "-i", "1")
    assert result.exit_code == 2
    assert "mutually exclusive" in result.stderr
    assert run("train", verb, "-i", "1").exit_code == 5  # no list was shown yet


def test_what_loses_something_must_be_named_and_confirmed() -> None:
    """The newest is no answer to the question what to end."""
    assert run("train", "kill").exit_code == 2
    assert run("train", "delete").exit_code == 2
    result = run("train", "kill", "-j", f"{ID}.3")
    assert result.exit_code == 2
    assert f"If so: kaos train kill -j {ID} --trial 3 -y" in result.stderr
    assert "kept" in result.stderr


def test_hyperparameters_become_a_bundle_of_one_file(tmp_path: Path) -> None:
    """From a file or a dict; the file's own text is kept, and a folder is none."""
    bundles = Bundles(Transport(NOBODY, None))
    Path("my grid.json").write_text('{"b": [1, 2], "a": ["x"]}')
    folder = bundles.prepare("my grid.json", "params")
    assert (folder.name, folder.lists, folder.scan.count) == ("my grid", 2, 1)
    assert (folder.path / "params.json").read_text() == '{"b": [1, 2], "a": ["x"]}'
    path = folder.path
    del folder
    assert not path.exists()
    with pytest.raises(InvalidBundle, match="is a folder"):
        bundles.prepare(tmp_path, "params")
    with pytest.raises(InvalidBundle, match="no JSON"):
        Client().trainings.deploy(params={"a": [object()]})
    with pytest.raises(InvalidRequest, match="twice"):
        Client().trainings.deploy(params={"a": [1, 1]})


def test_a_workspace_is_remembered_for_its_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per Hub; the variable comes first, and an empty one is one's own."""
    save_workspace(NOBODY, "vision")
    assert Client().workspaces.current == "vision"
    assert Client(workspace="").workspaces.current is None
    assert load_workspace("http://elsewhere") is None
    monkeypatch.setenv("KAOS_WORKSPACE", "speech")
    assert Client().workspaces.current == "speech"
    monkeypatch.setenv("KAOS_WORKSPACE", "")
    assert Client().workspaces.current is None
    monkeypatch.delenv("KAOS_WORKSPACE")
    save_workspace(NOBODY, None)
    assert Client().workspaces.current is None


def test_a_training_in_one_line_and_in_many(capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a list and in `info`: numbers that count, failures, the best."""
    found = a_training()
    row = show.list_row(found)
    assert row[:9] == (
        ID, "mnist", "SUCCEEDED", "mnist@v2", "-", "-", "12/12, 1 failed", "loss 0.123457", "ada",
    )  # fmt: skip
    assert row[9] == "1 min 30 s"
    running = a_training(state="TRAINING", progress=40, reason="4 run", best=None, started=None)
    assert show.list_row(running)[2] == "TRAINING 40%: 4 run"
    show.show_training(found)
    shown = capsys.readouterr().out
    assert "trial 3: 0.123457" in shown
    assert "loss, minimal" in shown
    assert "Best is trial 3: loss 0.123457" in follow.summary(found)


def test_trials_have_a_column_per_parameter_and_metric(capsys: pytest.CaptureFixture[str]) -> None:
    """The goal's metric first; what a trial has not is a dash; texts are no JSON."""
    rows = [
        a_trial(1, params={"kernel": "poly", "layers": [1, 2]}, metrics={"acc": 1, "loss": 0.5}),
        a_trial(2, params={"kernel": "rbf"}, state="FAILED", reason="line 3: ValueError",
                output=None, exit_code=1),
    ]  # fmt: skip
    show.show_trials(a_training(), rows, None)
    header, first, second = capsys.readouterr().out.strip().splitlines()
    assert header.split() == [
        "trial", "state", "kernel", "layers", "loss", "acc", "took", "model", "reason",
    ]  # fmt: skip
    assert first.split()[:7] == ["1", "SUCCEEDED", "poly", "[1,", "2]", "0.5", "1"]
    assert f"{ID}.1" in first
    assert "line 3: ValueError" in second
    show.show_trial(rows[1])
    assert "exit code  1" in capsys.readouterr().out


def test_json_of_a_training_lists_its_trials() -> None:
    """As programs want it: trials are trials, how many there are are counts."""
    document = show.with_trials(a_training(), [a_trial(1), a_trial(2, output=None)])
    document = json.loads(json.dumps(document))
    assert document["counts"]["failed"] == 1
    assert [trial["id"] for trial in document["trials"]] == [f"{ID}.1", f"{ID}.2"]
    assert [trial["model"] for trial in document["trials"]] == [f"{ID}.1", None]


def test_metrics_as_csv_keep_every_digit() -> None:
    """A column per metric; what was not said at a moment is empty."""
    points = [
        MetricPoint(trial=1, at=NOW, step=1, values={"loss": 0.1234567890123}),
        MetricPoint(trial=2, at=NOW, values={"acc": 1.0}),
    ]
    header, first, second = get.as_text(points).splitlines()
    assert header == "trial,step,at,acc,loss"
    assert first == f"1,1.0,{NOW.isoformat()},,0.1234567890123"
    assert second == f"2,,{NOW.isoformat()},1.0,"


def test_a_thousand_trials_are_twenty_lines_in_a_pipe() -> None:
    """Progress that is told line by line is told now and then."""
    seen = set()
    for ended in range(1001):
        counts = {"total": 1000, "succeeded": ended}
        fields = {"id": 1, "training": ID, "at": NOW, "state": "TRAINING", "trials": counts}
        seen.add(follow.Step(TrainingEvent.model_validate(fields)).reason)
    assert len(seen) == 21


def test_comparison_of_a_repetition() -> None:
    """Only what differs is told, also what is missing now."""
    metrics = [
        {"metric": "loss", "before": 0.5, "after": 0.5},
        {"metric": "acc", "before": 1, "after": None},
    ]
    compared = {"trial": 1, "state": "FAILED", "same_output": True, "metrics": metrics}
    rows = show.differences([TrialComparison.model_validate(compared)])
    assert list(rows) == [(1, "FAILED", "acc", "1", "-")]


def test_goals_and_failures() -> None:
    """Words to models, states to errors."""
    assert parse_goal("val:loss:min").metric == "val:loss"
    assert failure(a_training()) is None
    stage = {"name": "build", "state": "FAILED"}
    assert isinstance(failure(a_training(state="FAILED", stages=[stage])), BuildFailed)
    error = failure(a_training(state="CANCELLED", reason="killed by ada"))
    assert type(error) is Failed
    assert error.message == "killed by ada"
