"""Folders that are called the same and have nothing else in common replace nothing unasked."""

import warnings
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.schemas import BundleKind
from tests.hub import RunningHub
from tests.shell import Shell


def project(folder: Path, file: str, text: str = "print()\n") -> Path:
    """A source that is like every other one, but for one file."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . .\n")
    (folder / "model" / "__init__.py").touch()
    (folder / "model" / file).write_text(text)
    return folder


def data(folder: Path, text: str) -> Path:
    """A folder of data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.csv").write_text(text)
    return folder


@pytest.fixture
def shell(hub: RunningHub, tmp_path: Path, request: pytest.FixtureRequest) -> Shell:
    """Somebody of their own for each test."""
    shell = Shell(tmp_path / "home", hub, f"ada-{abs(hash(request.node.name)) % 10**8}")
    shell.home.mkdir()
    shell.log_in()
    return shell


def seen(shell: Shell) -> dict[str, str]:
    """Notebooks, and the sources that they have."""
    found = shell.json("notebook", "list")
    return {n["name"]: f"{n['source']['name']}@v{n['source']['version']}" for n in found}


def test_another_folder_of_that_name_becomes_something_of_its_own(
    shell: Shell, tmp_path: Path
) -> None:
    first = project(tmp_path / "a" / "proj", "only_a.py")
    second = project(tmp_path / "b" / "proj", "only_b.py")
    deploy = ["notebook", "deploy", "--detach", "-s"]
    assert shell.run(*deploy, str(first)).returncode == 0
    done = shell.run(*deploy, str(second))
    assert done.returncode == 0, done.stderr
    assert "no file in common with source bundle proj@v1" in done.stderr
    assert "it becomes bundle proj-2. To replace the other: -n NAME" in done.stderr
    assert seen(shell) == {"proj": "proj@v1", "proj-2": "proj-2@v1"}
    # Each goes on as what it is, without a word.
    for folder, file in ((first, "only_a.py"), (second, "only_b.py")):
        project(folder, file, "print(2)\n")
        again = shell.run(*deploy, str(folder))
        assert again.returncode == 0 and "in common" not in again.stderr
    assert seen(shell) == {"proj": "proj@v2", "proj-2": "proj-2@v2"}
    # Moved elsewhere, it has files in common with what it was.
    moved = project(tmp_path / "c" / "proj", "only_a.py", "print(2)\n")
    project(moved, "more.py")
    assert shell.run(*deploy, str(moved)).returncode == 0
    assert seen(shell)["proj"] == "proj@v3"
    forced = shell.run("notebook", "deploy", "--detach", "-y", "-n", "proj", "-s", str(second))
    assert forced.returncode == 0, forced.stderr
    assert seen(shell)["proj"] == "proj@v4"


@pytest.mark.parametrize(("answer", "name"), [("y", "proj@v2"), ("n", "proj-2@v1")])
def test_on_a_terminal_it_is_asked(shell: Shell, tmp_path: Path, answer: str, name: str) -> None:
    first = project(tmp_path / "a" / "proj", "only_a.py")
    second = project(tmp_path / "b" / "proj", "only_b.py")
    assert shell.run("notebook", "deploy", "--detach", "-s", str(first)).returncode == 0
    words = ["notebook", "deploy", "--detach", "--no-browser", "-y", "-s", str(second)]
    code, text = shell.on_terminal(*words, answer=answer)
    assert code == 0, text
    assert "Make it the next version of that all the same?" in text
    assert name in seen(shell).values()


def test_data_of_another_project_is_no_version_of_this_one_s(shell: Shell, tmp_path: Path) -> None:
    source = project(tmp_path / "a" / "proj", "train", "#!/bin/sh\nmkdir $1\n")
    mine, others = data(tmp_path / "a" / "data", "1\n"), data(tmp_path / "b" / "data", "2\n")
    words = ["train", "deploy", "--detach", "-s", str(source), "-d"]
    assert shell.json(*words, str(mine))["data"]["name"] == "data"
    other = shell.json(*words, str(others))["data"]
    assert (other["name"], other["version"]) == ("data-2", 1)
    named = shell.json("train", "deploy", "--detach", "--name", "x", "-d", str(others))["data"]
    assert (named["name"], named["version"]) == ("data", 2)


def test_the_sdk_does_the_same(hub: RunningHub, tmp_path: Path) -> None:
    client = Client(hub.url, hub.token("ada-in-python"))
    first = project(tmp_path / "a" / "proj", "only_a.py")
    second = project(tmp_path / "b" / "proj", "only_b.py")
    assert client.notebooks.deploy(first).name == "proj"
    with pytest.warns(
        UserWarning, match="in common with source bundle proj@v1.* is bundle proj-2"
    ) as told:
        handle = client.notebooks.deploy(second)
    assert told[0].filename == __file__  # the line of whoever called
    assert handle.name == "proj-2" and handle.notes == [str(told[0].message)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.notebooks.deploy(first).notes == []
    assert client.notebooks.look("proj").source.name == "proj"  # type: ignore[union-attr]
    # A notebook on something else is not replaced either, whatever its bundle is called.
    client.notebooks.deploy(project(tmp_path / "c" / "lab", "c.py"), name="taken")
    assert client.notebooks.deploy(project(tmp_path / "taken", "t.py")).name == "taken-2"
    submitted = client.bundles.submit(data(tmp_path / "a" / "data", "1\n"), BundleKind.DATA)
    assert submitted.name == "data"
    with pytest.warns(UserWarning, match="data bundle data@v1.*name='data'"):
        again = client.bundles.submit(data(tmp_path / "b" / "data", "2\n"), BundleKind.DATA)
    assert again.name == "data-2" and "it is bundle data-2" in again.notes[0]
    forced = client.bundles.submit(tmp_path / "b" / "data", BundleKind.DATA, "data")
    assert (forced.name, forced.version) == ("data", 2)
