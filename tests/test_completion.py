"""What Tab offers: asked as a shell asks, in a real bash."""

import contextlib
import os
import pty
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kaos_hub.cli.base import Session
from kaos_hub.cli.root import kaos
from kaos_hub.cli.selection import NOTEBOOKS
from kaos_hub.client import save_credentials
from tests.hub import RunningHub
from tests.shell import EXAMPLES, KAOS, Shell

BASH = shutil.which("bash")
NOBODY = "http://127.0.0.1:1"
# One question per line of arguments; the answers on one line each, between bars.
ASK = """
source <(kaos completion bash)
compopt() { echo "$2"; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_kaos_completion kaos
printf '%s\\n' "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")


@pytest.fixture(autouse=True)
def _stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `kaos`, nobody logged in, an empty folder."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "kaos"
    command.write_text(f'#!/bin/sh\nexec {" ".join(KAOS)} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "JUPYTERHUB_API_TOKEN", "KAOS_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def offered(*words: str, environment: dict[str, str] | None = None) -> list[str]:
    """What bash offers for the last of these words; nothing else may be said."""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", ASK, "bash", "kaos", *words],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def test_commands_options_and_choices() -> None:
    assert offered("noteb") == ["notebook"]
    assert offered("notebook", "in") == ["info"]
    assert "--detach" in offered("notebook", "deploy", "--")
    assert offered("notebook", "deploy", "--idle-type", "kernel_") == ["kernel_connections"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]
    assert offered("template", "get", "notebook-") == ["notebook-data", "notebook-gpu"]
    assert offered("no", "such", "thing") == []


def test_a_real_bash_completes_what_is_typed() -> None:
    """With the Tab key, on a terminal."""
    assert BASH is not None
    master, slave = pty.openpty()
    environment = os.environ | {"PS1": "$ ", "TERM": "dumb"}
    bash = subprocess.Popen([BASH, "--norc", "--noprofile", "-i"], stdin=slave, stdout=slave,
                            stderr=slave, env=environment, start_new_session=True)  # fmt: skip
    os.close(slave)
    os.write(master, b'source <(kaos completion bash); echo ready"-"now\n')
    _read_until(master, b"ready-now")
    os.write(master, b"echo kaos; kaos temp\tge\tnotebook-g\t")
    assert b"kaos template get notebook-gpu" in _read_until(master, b"notebook-gpu")
    bash.kill()
    bash.wait()
    os.close(master)


def _read_until(descriptor: int, mark: bytes, seconds: float = 60) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while mark not in seen:
        assert select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0], seen
        seen += os.read(descriptor, 1 << 12)
    return seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    script = CliRunner().invoke(kaos, ["completion", shell]).stdout
    assert "_KAOS_COMPLETE" in script
    program = shutil.which(shell)
    if program:  # where the shell is, it understands it
        assert subprocess.run([program, "-n"], input=script, text=True).returncode == 0


def test_folders_come_before_bundles() -> None:
    Path("digits").mkdir()
    assert offered("train", "deploy", "-d", "di") == ["dirnames", ""]
    assert offered("train", "deploy", "-d", "nothing-like-it") == []


def test_files_where_files_are_meant() -> None:
    Path("notes.md").write_text("")
    for words in (("train", "deploy", "-m", ""), ("train", "deploy", "-h", "no")):
        assert offered(*words)[0] == "default", "which is what bash calls files"
    assert offered("notebook", "deploy", "--context", "no")[0] == "default"
    assert offered("notebook", "deploy", "--context", "nothing-like-it") == []
    assert offered("notebook", "deploy", "--bind-mount", "/")[0] == "dirnames"


def test_variables_that_are_set_here_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_OF_TODAY", "s3cret")
    assert offered("notebook", "deploy", "-e", "MY_SECRET_OF") == ["MY_SECRET_OF_TODAY"]


def made(name: str) -> Any:
    return SimpleNamespace(name=name, created=datetime(2026, 1, 31, tzinfo=UTC))


@contextlib.contextmanager
def HubThatHangs() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("trouble", ["gone", "hangs"])
def test_without_an_answer_it_is_what_was_shown_last(trouble: str) -> None:
    """A Hub that is away, or hangs: no message, no waiting. Nor is anything offered that a shell
    would take apart."""
    with HubThatHangs() as hanging:
        save_credentials(NOBODY if trouble == "gone" else hanging, "t")
        shown = [made(name) for name in ("digits", "weather", "$(touch owned)", "a b", "d*")]
        NOTEBOOKS.remember(Session(), shown, {})
        assert offered("notebook", "info", "-n", "") == ["digits", "weather"]
        assert offered("notebook", "stop", "d") == ["digits"]
        assert offered("train", "info", "-j", "") == []
        assert offered("bundle", "get", "") == []
    assert not Path("owned").exists()


def test_broken_files_offer_nothing(tmp_path: Path) -> None:
    """Neither credentials nor a list that cannot be read make a noise in the middle of a line."""
    for name in ("config/kaos_hub/credentials.json", "cache/kaos_hub/notebooks-shown.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{[")
    assert offered("notebook", "info", "-n", "") == []
    assert offered("noteb") == ["notebook"]


# --- with a Hub ---


def test_names_of_what_there_is(hub: RunningHub, tmp_path: Path) -> None:
    """Asked live: notebooks, trainings, models, bundles; of other Hubs, where one is named."""
    shell = Shell(tmp_path / "home", hub, "tabitha")
    shell.log_in()
    environment = shell.environment() | {"PATH": os.environ["PATH"]}
    shell.run(
        "notebook",
        "deploy",
        "-n",
        "weather",
        "-d",
        "mnist/data",
        "--detach",
        "--volume",
        "scratch:/scratch",
    )
    waits = shell.json("train", "deploy", "-s", "mnist/model-train", "-y", "--detach")["id"]
    try:
        assert offered("notebook", "info", "-n", "", environment=environment) == ["weather"]
        assert offered("notebook", "open", "we", environment=environment) == ["weather"]
        assert offered("notebook", "deploy", "-n", "w", environment=environment) == ["weather"]
        assert offered("train", "deploy", "--name", "m", environment=environment) == ["mnist"]
        volume = ("notebook", "deploy", "--volume", "s")
        assert offered(*volume, environment=environment) == ["scratch"]
        assert offered("train", "logs", "-j", waits[:3], environment=environment) == [waits]
        assert set(offered("bundle", "get", "", environment=environment)) == {"data", "mnist"}
        got = offered("train", "deploy", "-s", "mn", environment=environment)
        assert got == ["mnist@v1"]
        assert offered("volume", "delete", "s", environment=environment) == ["scratch"]
        asked = ("notebook", "deploy", "--size", "")
        names = [each["name"] for each in hub.ask("GET", "/info", None).json["sizes"]]
        assert offered(*asked, environment=environment) == names != []
        elsewhere = ("--url", NOBODY, "notebook", "info", "-n", "")
        assert offered(*elsewhere, environment=environment) == []
    finally:
        shell.run("notebook", "delete", "-y", "-n", "weather")
        shell.run("train", "kill", "-y", "-j", waits)
