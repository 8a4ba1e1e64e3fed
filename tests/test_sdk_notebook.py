"""The notebook that shows the SDK runs from its first cell to its last, against a real Hub."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kaos_hub.client import Client
from kaos_hub.errors import NotFound
from tests.hub import RunningHub
from tests.kernels import Kernel
from tests.shell import EXAMPLES, Shell

NOTEBOOK = EXAMPLES / "sdk.ipynb"


def test_it_is_committed_as_one_begins_with_it() -> None:
    """Valid, and without the outputs of whoever ran it last."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_it_runs_from_first_to_last(hub: RunningHub, tmp_path: Path) -> None:
    """As somebody who has logged in and opens it in its folder."""
    shell = Shell(tmp_path, hub, "reader")
    shell.log_in()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    ran = NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    ).execute(env=shell.environment())
    said = {
        cell.id: "".join(
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
        )
        for cell in ran.cells
        if cell.cell_type == "code"
    }
    assert said["client"].startswith("reader: ")
    assert said["wait"].startswith(f"RUNNING {hub.url}/user/reader/from-python")
    assert said["again"] == "True True\n"
    assert "SUCCEEDED 4 of 4" in said["train"]
    assert len(said["trials"].splitlines()) == 4
    assert "accuracy_test" in said["metrics"]
    assert said["models"].startswith("sdk-digits@v1 ")
    assert "model/model.pkl" in said["download"]
    assert "kaos notebook list" in said["errors"]
    client = Client(hub.url, shell.run("token").stdout.strip())
    assert client.trainings.list() == []
    with pytest.raises(NotFound):
        client.notebooks.get("from-python")


def test_it_runs_in_a_notebook_of_kaos(hub: RunningHub, tmp_path: Path) -> None:
    """With no more than the notebook's own token, which reads, submits and trains; what that may
    not do, which is to delete, it says how to do."""
    shell = Shell(tmp_path, hub, "reader")  # whose environment is built already
    shell.log_in()
    done = shell.run("notebook", "deploy", "--context", str(EXAMPLES), "-n", "sdk")
    assert done.returncode == 0, done.stderr
    kernel = Kernel(done.stdout.strip(), hub.token("reader"))
    kernel.run("%cd ~/work")  # where JupyterLab begins a notebook that lies there
    said = {
        cell.id: kernel.run(cell.source, 280)
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells
        if cell.cell_type == "code"
    }
    assert said["client"].startswith("reader: 1 notebooks")
    assert "SUCCEEDED 4 of 4" in said["train"]
    assert said["models"].startswith("sdk-digits@v1 ")
    refusal, *commands = said["tidy"].strip().splitlines()
    assert "notebook 'sdk'" in refusal
    assert len(commands) == 3
    for command in commands:
        asked = shell.run(*command.split()[1:], "-y")
        assert asked.returncode == 0, asked.stderr
    shell.run("notebook", "delete", "-y", "-n", "sdk")
