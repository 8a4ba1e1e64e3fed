"""The ancestor's command line, and words at the door: each works, or is answered with what does."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from kaos_hub.cli import former
from kaos_hub.cli.root import kaos
from kaos_hub.client import save_credentials
from tests.shell import EXAMPLES
from tests.test_cli import NOBODY

JOB = "1f3a5c7e9b2d4f60"
BUNDLES = "--source_bundle mnist/model-train --data_bundle mnist/data"


@pytest.fixture(autouse=True)
def _beside_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "JUPYTERHUB_API_TOKEN", "KAOS_WORKSPACE", "KAOS_NOTEBOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(EXAMPLES)
    save_credentials(NOBODY, "t", "ada")


def run(line: str) -> Result:
    """What one types after `kaos`; a traceback is a failure."""
    done = CliRunner().invoke(kaos, line.split(), prog_name="kaos")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.mark.parametrize(
    "line",
    [
        "notebook list",
        "notebook deploy -s notebook/example -d mnist/data --cpu 0.5 --memory 512Mi --gpu 0",
        "notebook deploy --source_bundle notebook/example --data_bundle mnist/data",
        "notebook build-logs",
        "notebook kill -n one -y",
        "notebook kill --name one -y",
        "train list",
        f"train info -j {JOB} -s accuracy -p 2",
        f"train info --job_id {JOB} --sort_by accuracy --page_id 2",
        f"train deploy {BUNDLES} -h mnist/hyperopt/params.json -p 4 --cpu 1 --memory 1Gi --gpu 0",
        f"train deploy {BUNDLES} --hyperparams mnist/hyperopt/params.json --parallelism 4",
        "train deploy -m mnist/data_manifest/",
        "train deploy --data_manifest mnist/data_manifest/data.mf",
        f"train get -j {JOB} -c -d -m",
        f"train get --job_id={JOB} --include_code --include_data --include_model --out_dir /tmp/x",
        f"train provenance -m {JOB}.1",
        f"train provenance --model_id {JOB}.1",
        f"train logs -j {JOB}",
        f"train build-logs -j {JOB}",
        f"train kill -j {JOB} -y",
        "workspace list",
        "workspace set -n vision",
        "workspace set --name vision",
        "workspace current",
    ],
)
def test_what_the_ancestor_understood_is_understood(line: str) -> None:
    """It comes as far as to the Hub, which is not there."""
    done = run(line)
    assert done.exit_code == 7, done.stderr
    assert "no answer" in done.stderr


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("notebook build-logs -j 3", "kaos notebook build-logs -n NAME"),
        ("notebook build-logs --job_id 3", "kaos notebook build-logs -n NAME"),
        ("notebook build-logs -n one -o logs", "kaos notebook build-logs … > FILE"),
        (f"train logs -j {JOB} --out_dir logs", "kaos train logs … > FILE"),
        (f"train get -j {JOB} --model_id 3fa1b2", "--trial N"),
        (f"train provenance -m {JOB}.1 --out_dir .", "-o FILE"),
        ("template get -i 1", "kaos template get NAME"),
        ("workspace set --ind 1", "kaos workspace list"),
        ("workspace create -n vision", "kaos workspace list"),
        ("workspace info", "kaos workspace current"),
        ("workspace kill -n vision", "admin"),
        ("init -e http://hub.example.org", "kaos login URL"),
        ("build deploy -c DOCKER", "kaos up"),
        ("destroy -c DOCKER", "kaos notebook delete"),
        ("serve deploy -s mnist/model-serve", "kaos model get MODEL"),
        ("experiment list", "kaos train list"),
    ],
)
def test_what_is_gone_names_what_does_it_now(line: str, now: str) -> None:
    done = run(line)
    assert (done.exit_code, done.stdout) == (2, "")
    assert now in done.stderr


def test_templates_are_got_by_their_former_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("template get -n training").exit_code == 0
    assert (tmp_path / "training").is_dir()


def test_what_stands_for_something_else_leads_there() -> None:
    """No answer of the table names a command or option that there is not."""
    with click.Context(kaos, info_name="kaos") as ctx:
        for command in former.COMMANDS:
            group: click.Command | None = kaos
            for word in command.split():
                assert isinstance(group, click.Group)
                group = group.get_command(ctx, word)
            assert group is None, f"{command} exists"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("notebook deploy notebook/example", "kaos notebook deploy -s notebook/example"),
        ("notebook deploy mnist/data_manifest/data.mf", "--context mnist/data_manifest/data.mf"),
        ("notebook start notebook/example", "kaos notebook start --context notebook/example"),
        ("train deploy mnist/model-train", "kaos train deploy -s mnist/model-train"),
        ("train deploy -h", "kaos train deploy --help"),
        ("train deploy -s", "kaos train deploy -s DIR"),
        ("notebook deploy -d mnist/data_manifest/data.mf", "The folder it lies in"),
        ("train deploy -d mnist/data_manifest/data.mf", "The folder it lies in"),
        ("notebook deploy -s notebook/example/model",
         "    kaos notebook deploy -s notebook/example\n"),
        ("train deploy -s mnist", "    kaos train deploy -s mnist/model-train/mnist\n"),
        ("train deploy -s mnist/model-train/mnist/model",
         "    kaos train deploy -s mnist/model-train/mnist\n"),
    ],
)  # fmt: skip
def test_words_at_the_door(line: str, answer: str) -> None:
    """A folder without its option, an option without its value, the wrong level: what to type."""
    done = run(line)
    assert (done.exit_code, done.stdout) == (2, "")
    assert answer in done.stderr


def test_a_train_that_does_not_say_what_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said at the door; a script of a shell is let through."""
    model = tmp_path / "digits" / "model"
    model.mkdir(parents=True)
    (tmp_path / "digits" / "Dockerfile").write_text("FROM python:3.13-slim\n")
    monkeypatch.chdir(tmp_path)
    for text, said in (("import sys\n", True), ("#!/usr/bin/env python3\n", False), ("", False)):
        (model / "train").write_text(text)
        done = run("train deploy -s digits")
        assert done.exit_code == 7
        assert ("#!/usr/bin/env python3" in done.stderr) == said
