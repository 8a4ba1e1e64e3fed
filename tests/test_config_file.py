"""Configuration files: what one says lands where its option does, what is wrong has its line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kaos_hub.cli.notebook.options import read
from kaos_hub.errors import InvalidRequest, InvalidResources, KaosError
from kaos_hub.formats.config_file import read_config, read_pairs
from kaos_hub.schemas.config import NotebookConfig


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_the_keys_of_the_seeds_are_taken_literally(tmp_path: Path) -> None:
    text = """\
description: test-notebook
resources:
  slots: 2
  resource_pool: gpus
idle_timeout: 30m
notebook_idle_type: activity
environment:
  - A=x=y
"""
    assert read_config(file(tmp_path, text)) == {
        "description": "test-notebook",
        "gpu": 2,
        "pool": "gpus",
        "idle_timeout": 1800,
        "idle_type": "activity",
        "environment": {"A": "x=y"},
    }


def test_texts_are_texts(tmp_path: Path) -> None:
    """What YAML would make a number, a moment or a truth value of is what was written."""
    found = read_config(file(tmp_path, "environment: {A: yes, B: 1.10, C: 2024-01-01, D: 0o17}\n"))
    assert found["environment"] == {"A": "yes", "B": "1.10", "C": "2024-01-01", "D": "0o17"}
    assert read_config(file(tmp_path, "description: 007\n")) == {"description": "007"}
    assert read_config(file(tmp_path, "pull: yes\ndetach: off\n")) == {
        "pull": True,
        "detach": False,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("description: a\nresources:\n  slot: 2\n", "line 3.*'resources.slot'.*'resources.slots'"),
        ("slots: 2\n", "line 1.*'slots'.*'resources.slots'"),
        ("a: 1\n", "line 1: there is no key 'a'"),
        ("description: a\nidle_timout: 30m\n", "line 2.*'idle_timeout'"),
        ("resources: 2\n", "line 1: there is no key 'resources'.*'resources.slots'"),
        ("resources:\n  slots: two\n", "line 2: resources.slots: 'two' is not understood"),
        ("memory: 512\n", "line 1: memory: '512'.*512Mi"),
        ("\n\nname: Not_A_Name\n", "line 3: name: 'Not_A_Name'"),
        ("notebook_idle_type: sleepy\n", "line 1: notebook_idle_type: .*activity"),
        ("description: [a]\n", "line 1: description"),
        ("environment: {A: [1]}\n", "line 1: environment.A"),
        ("environment:\n  PATH: x\n", "line 1: environment: PATH is set"),
        ("environment: [A]\n", "line 1: environment: say NAME=VALUE"),
        ("gpu: 1\ndescription: x\nresources: {slots: 2}\n", "line 3: .*gpu are the same"),
        ("description: a\ndescription: b\n", "line 2: description stands here for the second"),
        ("a: 1\n b: 2\n", "line 2: this is no YAML"),
        ("{a: [}\n", "line 1: this is no YAML"),
        ("- a\n", "there must be keys"),
        ("just words\n", "there must be keys"),
        ("[a]: 1\n", "line 1: a key is a text"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1: there is no key 'a'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(KaosError, match=words) as refused:
        read_config(file(tmp_path, text))
    assert str(tmp_path / "config.yaml") in refused.value.message
    assert refused.value.exit_code == 2


def test_a_hostile_file_ends_soon(tmp_path: Path) -> None:
    laughs = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 12))
    bombs = ["k0: &k0 lol\n" + laughs, "a: &a [*a]\n", "[" * 5000, "x" * (2 << 20), "\0"]
    for bomb in bombs:
        with pytest.raises(InvalidRequest):
            read_config(file(tmp_path, bomb))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    path = Path(f"/dev/shm/kaos-config-{id(content)}")
    try:
        path.write_bytes(content)
        read_config(path)
    except KaosError:
        pass
    finally:
        path.unlink()


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_config(file(tmp_path, "# nothing\n")) == {}
    assert read_config(file(tmp_path, "resources:\ndescription:\n")) == {}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="absent"):
        read_config(tmp_path / "absent.yaml")
    with pytest.raises(InvalidRequest, match="directory"):
        read_config(tmp_path)


def test_paths_are_meant_from_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    found = read_config(file(tmp_path, "source: code\ndata: mnist@v2\n"))
    assert found == {"source": str(tmp_path / "code"), "data": "mnist@v2"}


def test_pairs_name_their_key() -> None:
    pairs = ["resources.slots=0", "environment.A=1", "idle-timeout=never", "description=a=b"]
    assert read_pairs(pairs) == {
        "gpu": 0, "environment": {"A": "1"}, "idle_timeout": 0, "description": "a=b",
    }  # fmt: skip
    assert read_pairs(["gpu=1", "gpu=2"]) == {"gpu": 2}
    for wrong, words in [
        ("slots=1", "--config slots: there is no key 'slots'; is 'resources.slots' meant"),
        ("resources.slots", "--config resources.slots: say KEY=VALUE"),
        ("resources..slots=1", "say KEY=VALUE"),
        ("resources.slots=x", "--config resources.slots: resources.slots: 'x' is not understood"),
        ("description=[", "--config description.*no YAML"),
    ]:
        with pytest.raises(KaosError, match=words):
            read_pairs([wrong])


def test_options_win_over_pairs_and_pairs_over_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, "gpu: 1\ncpu: 1\nmemory: 1Gi\nenvironment: {A: f, B: f, C: f}\n")
    pairs = ("resources.slots=2", "cpu=2", "environment.B=p", "environment.C=p")
    options: dict[str, Any] = {"config_file": path, "config": pairs, "gpu": "3"}
    wanted = read(options | {"environment": ("C=o",), "cpu": None})
    assert wanted.fields == {
        "gpu": "3", "cpu": 2.0, "memory": 2**30, "environment": {"A": "f", "B": "p", "C": "o"},
    }  # fmt: skip


def test_every_option_has_a_key() -> None:
    """But those that only a person at a command line can say."""
    from kaos_hub.cli.notebook.deploy import deploy

    said = {p.name.removesuffix("_bundle") for p in deploy.params if p.name and p.expose_value}
    missing = said - set(NotebookConfig.model_fields)
    assert missing == {"yes", "config", "config_file", "git_credentials"}


def test_a_mistake_in_a_file_is_an_exit_code_and_no_traceback(tmp_path: Path) -> None:
    path = file(tmp_path, "resources: {slot: 1}\n")
    command = [sys.executable, "-m", "kaos_hub.cli", "notebook", "start", "--config-file", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{path} line 1: there is no key 'resources.slot'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_quantity_keeps_its_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidResources):
        read_config(file(tmp_path, "cpu: lots\n"))
