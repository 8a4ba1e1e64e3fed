"""Templates: they are laid out anywhere, touch nothing that is there, and deploy as they are."""

import json
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner, Result

from kaos_hub.cli.root import kaos
from tests.hub import RunningHub
from tests.kernels import Kernel
from tests.shell import Shell

OURS = Path(__file__).parent.parent / "kaos_hub" / "templates"
NAMES = sorted(path.name for path in OURS.iterdir())


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in, and the folder is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("KAOS_URL", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def run(*words: str) -> Result:
    result = CliRunner().invoke(kaos, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_of_them_are_listed() -> None:
    result = run("--json", "template", "list")
    assert sorted(each["name"] for each in json.loads(result.stdout)) == NAMES
    assert {line.split()[0] for line in run("template", "list").stdout.splitlines()[1:]} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_comes_whole_and_twice_the_same(name: str) -> None:
    """Without a login, into a folder of its name or any other; programs can be executed."""
    result = run("template", "get", name)
    assert (result.exit_code, result.stdout) == (0, f"{name}\n")
    assert contents(Path(name)) == contents(OURS / name)
    for path in Path(name).rglob("*"):
        if path.is_file():
            program = path.read_bytes().startswith(b"#!")
            assert bool(path.stat().st_mode & stat.S_IXUSR) is program, path
    again = json.loads(run("--json", "template", "get", name).stdout)
    assert (again["written"], again["kept"]) == ([], [])
    assert sorted(again["same"]) == sorted(contents(OURS / name))
    other = json.loads(run("--json", "template", "get", name, "some/where else").stdout)
    assert contents(Path("some/where else")) == contents(OURS / name)
    for command in other["deploy"]:
        assert any(word.startswith("some/where else") for word in shlex.split(command))


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_clean_and_valid(name: str) -> None:
    for path in (OURS / name).rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)


def test_what_is_there_stays() -> None:
    """An edited file is kept and named, a missing one comes back, a link is not written through."""
    run("template", "get", "training", "mine")
    edited, gone, link = (Path("mine") / part for part in ("moons/model/train", "params.json",
                                                           "README.md"))  # fmt: skip
    edited.write_text("mine")
    gone.unlink()
    link.unlink()
    link.symlink_to("elsewhere.md")
    (Path("mine") / "notes.txt").write_text("mine, too")
    result = run("template", "get", "training", "mine")
    assert (result.exit_code, result.stdout) == (0, "mine\n")
    assert "kept as it is: moons/model/train, which differs" in result.stderr
    assert "kept as it is: README.md, which differs" in result.stderr
    assert "kaos template get training ANOTHER-DIR" in result.stderr
    assert (edited.read_text(), gone.read_bytes()) == (
        "mine",
        (OURS / "training/params.json").read_bytes(),
    )
    assert link.is_symlink() and not Path("mine/elsewhere.md").exists()
    assert Path("mine/notes.txt").read_text() == "mine, too"


def test_what_cannot_be_is_told() -> None:
    """An unknown name, and a file where a folder is needed: with a command that would work."""
    result = run("template", "get", "nothing")
    assert result.exit_code == 3
    assert all(name in result.stderr for name in NAMES)
    Path("file").write_text("mine")
    result = run("template", "get", "notebook", "file")
    assert result.exit_code == 2
    assert "kaos template get notebook DIR" in result.stderr
    assert Path("file").read_text() == "mine"


# --- they deploy as they are ---


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Somebody who begins with templates."""
    shell = Shell(tmp_path_factory.mktemp("beginner"), hub, "beginner")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


def laid(shell: Shell, name: str) -> list[list[str]]:
    """Get a template; the commands that deploy it, without `kaos`."""
    got = shell.json("template", "get", name, str(shell.home / name))
    return [shlex.split(command)[1:] for command in got["deploy"]]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_bundle_that_would_be_taken(shell: Shell, name: str) -> None:
    """Scanned and checked as for a deploy, by client and service."""
    words = laid(shell, name)[0]
    if "--gpu" in words:  # there may be none here
        del words[words.index("--gpu") : words.index("--gpu") + 2]
    done = shell.run(*words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "submit source bundle" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["notebook", "notebook-data"])
def test_a_notebook_template_runs_as_it_is(shell: Shell, name: str) -> None:
    """Deployed with the command that `get` prints; every cell of it runs."""
    [words] = laid(shell, name)
    found = shell.json(*words)
    assert found["state"] == "RUNNING"
    kernel = Kernel(found["url"], shell.run("token").stdout.strip())
    [file] = (OURS / name).rglob("*.ipynb")
    cells = [cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    said = [kernel.run(cell) for cell in cells]
    kernel.end()
    assert ("732 lines, 2 stations" if name == "notebook-data" else "Python 3.") in said[0]
    shell.run("notebook", "delete", "-y", "-n", found["name"])


def test_the_training_template_trains_as_it_is(shell: Shell) -> None:
    """Both commands that `get` prints: a model, then one per combination, and the best of them."""
    first, second = laid(shell, "training")
    assert shell.json(*first, "-y")["state"] == "SUCCEEDED"
    found = shell.json(*second, "-y")
    assert (found["state"], found["trials"]["succeeded"]) == ("SUCCEEDED", 6)
    trials = shell.json("train", "info", "-j", found["id"])["trials"]
    assert all(0.8 < trial["metrics"]["accuracy"] <= 1 for trial in trials)
    assert max(trial["metrics"]["accuracy"] for trial in trials) > 0.93
