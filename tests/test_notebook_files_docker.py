"""Saving and attaching in containers: of the image, and of the runtime over it, nothing changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import needs_docker
from tests.hub import RunningHub, running_hub, wait_until
from tests.kernels import Kernel
from tests.shell import EXAMPLES, Shell

pytestmark = [pytest.mark.docker, needs_docker]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), engine="docker") as running:
        yield running


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Rosalind, logged in; what she leaves is taken away."""
    shell = Shell(tmp_path_factory.mktemp("rosalind"), hub, "rosalind")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


def kernel_of(shell: Shell, url: str) -> Kernel:
    kernel = Kernel(url, shell.run("token").stdout.strip())
    kernel.run("import os, pathlib, subprocess\nhome = pathlib.Path(os.environ['KAOS_HOME'])")
    return kernel


def test_save_and_restore(shell: Shell, tmp_path: Path) -> None:
    """An empty notebook, a package and a file, saved from its own terminal; deleted; and back."""
    url = shell.run("notebook", "deploy", "-n", "scratch").stdout.strip()
    kernel = kernel_of(shell, url)
    kernel.run("(home / 'work/notes.py').write_text('answer = 42')")
    said = kernel.run("print(subprocess.run(['pip', 'install', '--quiet', 'iniconfig==2.0.0'],"
                      " capture_output=True, text=True))", seconds=120)  # fmt: skip
    assert "returncode=0" in said, said
    said = kernel.run("print(subprocess.run(['kaos', 'notebook', 'save', '--requirements'],"
                      " capture_output=True, text=True))")  # fmt: skip
    assert "returncode=0" in said and "scratch@v1" in said, said
    assert "iniconfig==2.0.0" in said
    kernel.end()
    assert shell.run("notebook", "delete", "-n", "scratch", "-y").returncode == 0
    done = shell.run("notebook", "deploy", "-s", "scratch@v1", "-n", "back")
    assert done.returncode == 0, done.stderr
    kernel = kernel_of(shell, done.stdout.strip())
    assert "42" in kernel.run("exec((home / 'work/notes.py').read_text())\nprint(answer)")
    assert "2.0.0" in kernel.run("import importlib.metadata as m; print(m.version('iniconfig'))")
    kernel.end()


def test_data_are_attached(shell: Shell) -> None:
    """Into the running container; at its next start they are mounted."""
    done = shell.run("notebook", "deploy", "-n", "reader", "-s", "notebook/example")
    assert done.returncode == 0, done.stderr
    kernel = kernel_of(shell, done.stdout.strip())
    attached = shell.run("notebook", "attach", "reader", "-d", str(EXAMPLES / "mnist" / "data"))
    assert (attached.returncode, attached.stdout) == (0, "~/attached/data\n"), attached.stderr
    assert "features" in kernel.run("print(os.listdir(home / 'attached/data'))")
    said = kernel.run("try:\n    (home / 'attached/data/x').touch()\nexcept OSError as e: print(e)")
    assert "Permission denied" in said or "Read-only" in said, said
    shell.run("notebook", "stop", "reader")
    wait_until(lambda: shell.json("notebook", "info", "reader")["state"] == "STOPPED")
    assert shell.run("notebook", "start", "reader", "--no-browser").returncode == 0
    kernel = kernel_of(shell, done.stdout.strip())
    assert "features" in kernel.run("print(os.listdir('/kaos/data'))")
    kernel.end()
