"""The command line and the client against a real Hub: what a newcomer does, and what goes wrong."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client, NotebookHandle
from kaos_hub.errors import BuildFailed, NotAuthenticated, NotFound, RestartRequired
from tests.hub import RunningHub, request, wait_until
from tests.kernels import Kernel
from tests.shell import EXAMPLES, Shell


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Ada, logged in; what she leaves is taken away."""
    shell = Shell(tmp_path_factory.mktemp("ada"), hub, "ada-at-the-terminal")
    shell.log_in()
    yield shell
    for name in names(shell):
        shell.run("notebook", "delete", "-y", "-n", name)


@pytest.fixture(scope="module")
def client(shell: Shell) -> Client:
    """The SDK as the same user."""
    return Client(shell.hub.url, shell.run("token").stdout.strip())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the example to be changed."""
    return Path(shutil.copytree(EXAMPLES / "notebook" / "example", tmp_path / "changing"))


def names(shell: Shell) -> list[str]:
    """The names of all notebooks."""
    return [each["name"] for each in shell.json("notebook", "list")]


def state(shell: Shell, name: str) -> str:
    """The state of a notebook."""
    return str(shell.json("notebook", "info", "-n", name)["state"])


@pytest.fixture(scope="module")
def example(shell: Shell) -> str:
    """The newcomer's notebook, deployed as the README says; its URL."""
    done = shell.run("notebook", "deploy", "-s", "notebook/example", "-d", "mnist/data")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_becomes_a_notebook(shell: Shell, example: str) -> None:
    """Standard output is the URL alone; it answers to the token and to nobody else."""
    assert example == f"{shell.hub.url}/user/{shell.user}/example"
    token = shell.run("token").stdout.strip()
    assert request("GET", f"{example}/api/status", token).status == 200
    stranger = shell.hub.token("somebody-else")
    assert request("GET", f"{example}/api/status", stranger).status in (403, 404)
    assert state(shell, "example") == "RUNNING"


def test_the_first_notebook_runs_as_it_is(shell: Shell, example: str) -> None:
    """Its cells read the data, import the package and ask the Hub, without a login."""
    kernel = Kernel(example, shell.run("token").stdout.strip())
    text = json.loads((EXAMPLES / "notebook" / "example" / "first-steps.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in text["cells"] if cell["cell_type"] == "code"]
    data, package, hub = [kernel.run(cell) for cell in cells]
    kernel.end()
    assert "training_mini.csv: 400 digits" in data
    assert "3 files" in package
    assert "RUNNING" in hub


def test_deploying_the_same_again_changes_nothing(shell: Shell, example: str) -> None:
    """The same notebook, the same versions, and it was never away."""
    before = shell.json("notebook", "info", "example")
    again = shell.json("notebook", "deploy", "-s", "notebook", "-d", "mnist/data")
    for field in ("name", "source", "data", "started", "state"):
        assert before[field] == again[field]


def test_dry_run_does_nothing(shell: Shell, source: Path) -> None:
    """It tells what would be sent and built, and sends nothing."""
    done = shell.run("notebook", "deploy", "-s", str(source), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "submit source bundle changing" in done.stdout
    assert "changing" not in names(shell)
    assert shell.json("bundle", "list", "--name", "changing") == []


def test_a_terminal_sees_progress_and_no_browser_opens_without_a_window(
    shell: Shell, example: str
) -> None:
    """The bar and the URL; what rich draws goes to the terminal only."""
    code, seen = shell.on_terminal("notebook", "deploy", "-n", "drawn")
    assert code == 0
    assert "\x1b[" in seen
    assert f"{shell.hub.url}/user/{shell.user}/drawn" in seen
    shell.run("notebook", "delete", "-n", "drawn", "-y")


def test_a_broken_requirement_fails_with_its_log(
    shell: Shell, client: Client, source: Path
) -> None:
    """Exit code 8, the log on standard error, nothing on standard output."""
    (source / "model" / "requirements.txt").write_text("# two lines\nhumanize==999.9\n")
    done = shell.run("notebook", "deploy", "-s", str(source), "-n", "broken")
    assert (done.returncode, done.stdout) == (8, "")
    assert "humanize==999.9" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "humanize==999.9" in shell.run("notebook", "build-logs", "-n", "broken").stdout
    lines = shell.json("notebook", "build-logs", "-n", "broken")
    assert lines[0].keys() == {"at", "text"}
    with pytest.raises(BuildFailed):
        client.notebooks.retry("broken")
        client.notebooks.wait("broken", 60)


def test_a_new_environment_asks_before_it_restarts(
    shell: Shell, client: Client, source: Path, example: str
) -> None:
    """No is no; without a terminal it needs -y; a failed build leaves what runs."""
    requirements = source / "model" / "requirements.txt"
    requirements.write_text("humanize==999.9\n")
    words = ["notebook", "deploy", "-s", str(source), "-n", "example"]
    with pytest.raises(RestartRequired):
        client.notebooks.deploy(source, name="example")
    refused = shell.run(*words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "with -y" in refused.stderr
    code, seen = shell.on_terminal(*words, answer="n")
    assert code == 1
    assert "Nothing was changed" in seen
    failed = shell.run(*words, "-y")
    assert failed.returncode == 8
    assert "previous version still runs" in failed.stderr
    assert request("GET", f"{example}/api/status", shell.run("token").stdout.strip()).status == 200


def test_ctrl_c_detaches(shell: Shell, source: Path) -> None:
    """The notebook goes on without us; the exit code is that of every Ctrl-C."""
    code, seen = shell.on_terminal("notebook", "deploy", "-n", "left", interrupt="left")
    assert code == 130
    assert "goes on without you" in seen
    wait_until(lambda: state(shell, "left") == "RUNNING", 60, "the notebook's start")
    code, seen = shell.on_terminal("notebook", "delete", "-n", "left", answer="y")
    assert code == 0
    assert "left" not in names(shell)


def test_an_index_means_what_was_shown(shell: Shell, example: str) -> None:
    """Never shown, changed since, out of range: refused. Else it is that notebook."""
    shutil.rmtree(shell.home / "cache", ignore_errors=True)
    assert shell.run("notebook", "info", "-i", "1").returncode == 5
    shown = names(shell)
    number = str(shown.index("example") + 1)
    assert shell.json("notebook", "info", "-i", number)["name"] == "example"
    assert shell.run("notebook", "info", "-i", "0").returncode == 3
    shell.run("notebook", "deploy", "-n", "another", "--detach")
    refused = shell.run("notebook", "kill", "-y", "-i", number)
    assert refused.returncode == 5
    assert "changed since it was shown" in refused.stderr
    shell.run("notebook", "delete", "-y", "-n", "another")


def test_stop_and_start_keep_the_notebook(shell: Shell, example: str) -> None:
    """Stopped, then started again at the same address."""
    assert "has stopped" in shell.run("notebook", "stop", "-n", "example").stderr
    assert state(shell, "example") == "STOPPED"
    done = shell.run("notebook", "start", "-n", "example")
    assert (done.returncode, done.stdout.strip()) == (0, example)
    assert shell.run("notebook", "logs", "-n", "example").stdout


def test_a_bundle_comes_back_as_it_was(shell: Shell, client: Client, tmp_path: Path) -> None:
    """Fetched and submitted again it is the same version."""
    version = client.bundles.submit(EXAMPLES / "mnist" / "data", "data", "digits")
    target = tmp_path / "digits"
    done = shell.run("bundle", "get", f"digits@v{version.version}", "-o", str(target))
    assert (done.returncode, done.stdout) == (0, f"{target}\n")
    assert client.bundles.submit(target, "data", "digits") == version
    assert shell.run("bundle", "get", "digits", "-o", str(target)).returncode == 2
    assert shell.run("bundle", "get", "nothing").returncode == 3


def test_the_client_in_python(client: Client) -> None:
    """Deploy by reference, follow, read logs; strangers' and absent names are not found."""
    version = client.bundles.submit(EXAMPLES / "mnist" / "data", "data")
    notebook = client.notebooks.deploy(data=version, name="python", cpu="500m", memory="512Mi")
    assert isinstance(notebook, NotebookHandle)
    states = []
    assert notebook.wait(60, lambda event: states.append(event.state)).state == "RUNNING"
    assert states[-1] == "RUNNING"
    assert notebook.model.data is not None
    assert notebook.model.data.digest == version.digest
    wait_until(lambda: list(notebook.logs()), 10, "its log")
    client.notebooks.delete("python")
    with pytest.raises(NotFound):
        client.notebooks.get("python")
    with pytest.raises(NotAuthenticated):
        Client(client.credentials.url, "wrong").whoami()
