"""The light install: command line and SDK without a Hub, a database or an engine."""

import shutil
import subprocess
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ABSENT = ["jupyterhub", "tornado", "traitlets", "sqlalchemy", "alembic", "docker", "uv"]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a fresh environment into which only kaos-hub was installed."""
    place = tmp_path_factory.mktemp("light")
    # Installed from a copy: building writes beside the sources.
    source = place / "source"
    keep = shutil.ignore_patterns("__pycache__", ".*", "node_modules", "build", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=keep)
    venv.create(place / "env", with_pip=True)
    binaries = place / "env" / "bin"
    pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return binaries


def run(*words: str | Path) -> str:
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_the_hub_is_installed(light: Path) -> None:
    """Not one of the heavy packages came along."""
    code = (
        "import importlib.util as u\n"
        f"print([name for name in {ABSENT} if u.find_spec(name) is not None])"
    )
    assert run(light / "python", "-c", code) == "[]\n"


def test_command_line_and_client_work(light: Path, tmp_path: Path) -> None:
    """All groups of commands load, templates came along, and so did the client."""
    assert "notebook" in run(light / "kaos", "--help")
    for group in ("notebook", "bundle", "train", "model", "workspace"):
        assert "Commands:" in run(light / "kaos", group, "--help")
    assert "deploy" in run(light / "kaos", "notebook", "deploy", "--help")
    assert run(light / "kaos", "template", "get", "training", str(tmp_path / "t")).strip()
    assert (tmp_path / "t" / "moons" / "model" / "train").stat().st_mode & 0o100
    assert "--params" in run(light / "kaos", "train", "deploy", "--help")
    checked = (
        "from kaos_hub.client.inputs import *; print(check_params(lay_out_params({'a': [1, 2]})))"
    )
    assert run(light / "python", "-c", checked) == "2\n"
    assert "read" in run(
        light / "python", "-c", "from kaos_hub.formats import manifest; print(dir(manifest))"
    )
    assert "Client" in run(light / "python", "-c", "from kaos_hub import Client; print(Client)")


def test_a_newcomer_is_told_what_works_here(light: Path, tmp_path: Path) -> None:
    """Not `kaos up`, for which much is missing, but the login."""
    nobody = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([light / "kaos"], capture_output=True, text=True, env=nobody, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  kaos login URL " in done.stdout and "kaos up" not in done.stdout


def test_what_needs_more_says_how_to_get_it(light: Path) -> None:
    """`kaos up` in a light install is no traceback."""
    done = subprocess.run([light / "kaos", "up"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "kaos-hub[hub]" in done.stderr
