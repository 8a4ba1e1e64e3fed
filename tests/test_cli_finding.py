"""Which notebook is meant: by nobody's name, or by a number of a list that may have changed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import RunningHub, wait_until
from tests.shell import Shell


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Somebody with a home of their own, logged in; what they leave is taken away."""
    shell = Shell(tmp_path_factory.mktemp("finder"), hub, "finder")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


def state(shell: Shell, name: str) -> str:
    return str(shell.json("notebook", "info", "-n", name)["state"])


def opened(shell: Shell, cwd: Path) -> str:
    """The notebook that `kaos notebook open` finds there."""
    done = shell.run("notebook", "open", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("/")[2]


def test_open_finds_the_one_that_is_meant(shell: Shell, tmp_path: Path) -> None:
    """None; the only one; the one used last from this folder; asked; the only one that runs."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    none = shell.run("notebook", "open")
    assert (none.returncode, none.stdout) == (3, "")
    assert "kaos notebook deploy -s DIR" in none.stderr

    assert shell.run("notebook", "deploy", "-n", "first", cwd=there).returncode == 0
    assert opened(shell, here) == "first", "the only one"
    assert shell.run("notebook", "deploy", "-n", "second", cwd=here).returncode == 0
    assert opened(shell, here) == "second"
    assert opened(shell, there) == "first"
    assert shell.run("notebook", "start", "-n", "second", cwd=there).returncode == 0
    assert opened(shell, there) == "second", "used here last"

    asked = shell.run("notebook", "open", cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "first (RUNNING)" in asked.stderr and "second (RUNNING)" in asked.stderr
    order = [each["name"] for each in shell.json("notebook", "list")]
    number = str(order.index("first") + 1)
    code, seen = shell.on_terminal(
        "notebook", "open", "--no-browser", answer=number, question="Which one", cwd=tmp_path
    )
    assert code == 0
    assert seen.rstrip().endswith("/first")

    shell.run("notebook", "stop", "--detach", "-n", "second")
    wait_until(lambda: state(shell, "second") == "STOPPED", 30, "the stop")
    assert opened(shell, tmp_path) == "first", "the only one that runs"

    # Another one of the same name is not the one that was used here.
    shell.run("notebook", "delete", "-y", "-n", "second")
    assert shell.run("notebook", "deploy", "-n", "second", cwd=there).returncode == 0
    assert shell.run("notebook", "open", cwd=here).returncode == 2


def test_a_number_of_a_list_that_has_changed_is_refused(shell: Shell, tmp_path: Path) -> None:
    """Nothing is done; the list as it is now is shown, and from then on the numbers are its."""
    shell.run("notebook", "deploy", "-n", "kept", "--detach")
    shell.run("notebook", "list")
    shell.run("notebook", "deploy", "-n", "added", "--detach")
    for words in (["kill", "-y"], ["delete", "-y"], ["stop"]):
        programs = shell.run("--json", "notebook", *words, "-i", "1")
        assert programs.returncode == 5
        assert json.loads(programs.stdout)["code"] == "conflict"
        assert "added" not in programs.stderr, "what a program was not shown it has not seen"
    refused = shell.run("notebook", "delete", "-y", "-i", "1")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "Nothing was done" in refused.stderr
    rows = [line.split() for line in refused.stderr.splitlines()]
    number = next(row[0] for row in rows if row[1:2] == ["added"])
    assert shell.json("notebook", "info", "-i", number)["name"] == "added"
    shell.run("notebook", "delete", "-y", "-n", "added")
    shell.run("notebook", "deploy", "-n", "added", "--detach")
    again = shell.run("notebook", "info", "-i", number)
    assert again.returncode == 5, "it has the same name, and is another one"


def test_a_number_of_a_list_of_trainings_that_has_changed_is_refused(shell: Shell) -> None:
    """The same for trainings, as they were asked for."""
    first = shell.json("train", "deploy", "-s", "mnist/model-train", "-y", "--detach")["id"]
    assert shell.json("train", "list", "--state", "WAITING")[0]["id"] == first
    assert shell.json("train", "info", "-i", "1")["id"] == first
    shell.run("train", "kill", "-y", "-j", first)
    wait_until(lambda: shell.json("train", "info", "-j", first)["state"] == "CANCELLED", 30, "it")
    refused = shell.run("train", "delete", "-y", "-i", "1")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert shell.json("train", "info", "-j", first)["id"] == first
