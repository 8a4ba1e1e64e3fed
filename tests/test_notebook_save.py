"""Saving a running notebook: what is saved is a version, and the notebook follows it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from kaos_hub.client import Client
from kaos_hub.errors import Conflict, InvalidBundle, KaosError
from kaos_hub.schemas import Errand
from tests.hub import Answer, RunningHub, request, wait_until
from tests.kernels import Kernel
from tests.shell import Shell

WORK = "import os, pathlib, subprocess\nwork = pathlib.Path(os.environ['KAOS_HOME'], 'work')\n"


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Grace, logged in; what she leaves is taken away."""
    shell = Shell(tmp_path_factory.mktemp("grace"), hub, "grace-who-saves")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


@pytest.fixture(scope="module")
def token(shell: Shell) -> str:
    """Grace's."""
    return shell.run("token").stdout.strip()


@pytest.fixture(scope="module")
def client(shell: Shell, token: str) -> Client:
    """The SDK as the same user."""
    return Client(shell.hub.url, token)


@pytest.fixture(scope="module")
def example(shell: Shell) -> str:
    """A notebook with a source; its URL."""
    done = shell.run("notebook", "deploy", "-s", "notebook/example", "-n", "edited")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def kernel(example: str, token: str) -> Iterator[Kernel]:
    """A kernel of it."""
    kernel = Kernel(example, token)
    kernel.run(WORK)
    yield kernel
    kernel.end()


def write(url: str, token: str, path: str, text: str) -> None:
    """Save a file as JupyterLab does."""
    body = {"type": "file", "format": "text", "content": text}
    answer = request("PUT", f"{url}/api/contents/work/{path}", token, body)
    assert answer.status in (200, 201), answer.text


def source(shell: Shell, name: str) -> str:
    """The source of a notebook, like ``example@v2``."""
    found = shell.json("notebook", "info", "-n", name)["source"]
    return f"{found['name']}@v{found['version']}" if found else ""


def follows(url: str, token: str) -> Any:
    """The digest that the notebook's working copy follows, as its own server says."""
    return request("GET", f"{url}/kaos/status", token).json["source"]


def saves(shell: Shell, name: str) -> int:
    """How many versions of a bundle there are."""
    return len(shell.json("bundle", "list", "--name", name))


def ask(hub: RunningHub, token: str, name: str, **body: Any) -> Answer:
    """Ask for a save, without waiting for it."""
    return hub.ask("POST", f"/notebooks/{name}/save", token, body)


def test_what_was_edited_is_the_next_version(shell: Shell, example: str, token: str) -> None:
    """Without what is ours; the notebook follows it, and deploying it again changes nothing."""
    write(example, token, "model/mine.py", "answer = 42\n")
    write(example, token, "model/mine.new-1a2b3c4d.py", "laid beside\n")
    write(example, token, "startup-hook.failed.txt", "a notice\n")
    before = shell.json("notebook", "info", "-n", "edited")
    done = shell.run("notebook", "save", "-n", "edited")
    assert (done.returncode, done.stdout) == (0, "example@v2\n"), done.stderr
    assert "startup-hook.failed.txt" in done.stderr and "mine.new-1a2b3c4d.py" in done.stderr
    assert source(shell, "edited") == "example@v2"
    listed = shell.hub.ask("GET", "/bundles/source/example/2/entries?path=model", token).json
    names = {entry["name"] for entry in listed}
    assert "mine.py" in names and not any("new-" in name for name in names)
    digest = shell.json("notebook", "info", "-n", "edited")["source"]["digest"]
    wait_until(lambda: follows(example, token) == digest, what="following what was saved")
    write(example, token, "model/mine.py", "answer = 43\n")
    again = shell.json("notebook", "deploy", "-s", "example@v2", "-n", "edited")
    assert again["started"] == before["started"] and again["source"]["digest"] == digest
    content = request("GET", f"{example}/api/contents/work/model/mine.py", token).json["content"]
    assert content == "answer = 43\n"


def test_saving_twice_is_one_version(shell: Shell, example: str) -> None:
    """What is as it was saved is said to be so."""
    first = shell.run("notebook", "save", "edited").stdout
    done = shell.run("notebook", "save", "edited")
    assert done.stdout == first
    assert "is as it was in" in done.stderr
    assert shell.json("notebook", "save", "edited")["changed"] is False


def test_from_a_terminal_of_the_notebook(shell: Shell, example: str, kernel: Kernel) -> None:
    """No argument is needed there."""
    kernel.run("work.joinpath('model', 'inside.py').write_text('1')")
    before = saves(shell, "example")
    said = kernel.run("import subprocess\nprint(subprocess.run(['kaos', 'notebook', 'save'],"
                      " capture_output=True, text=True))")  # fmt: skip
    assert "returncode=0" in said, said
    assert saves(shell, "example") == before + 1


def test_what_was_installed_is_offered(shell: Shell, example: str, kernel: Kernel) -> None:
    """Told where nobody can be asked, asked on a terminal, written when it is said."""
    said = kernel.run("print(subprocess.run(['pip', 'install', 'iniconfig==2.0.0'],"
                      " capture_output=True, text=True))", seconds=120)  # fmt: skip
    assert "returncode=0" in said, said
    listed = "print(work.joinpath('model', 'requirements.txt').read_text())"
    done = shell.run("notebook", "save", "edited")
    assert "iniconfig==2.0.0" in done.stderr and "--requirements" in done.stderr
    assert "iniconfig" not in kernel.run(listed)
    code, seen = shell.on_terminal("notebook", "save", "edited", answer="n")
    assert code == 0 and "iniconfig==2.0.0" in seen
    assert "iniconfig" not in kernel.run(listed)
    done = shell.run("notebook", "save", "edited", "--requirements")
    assert "Added to model/requirements.txt: iniconfig==2.0.0" in done.stderr, done.stderr
    assert "from its next start on" in done.stderr
    assert kernel.run(listed).rstrip().endswith("iniconfig==2.0.0")
    done = shell.run("notebook", "save", "edited", "--requirements")
    assert "iniconfig" not in done.stderr


def test_it_starts_again_as_it_was_saved(shell: Shell, example: str, token: str) -> None:
    """With the environment that the saved version asks for."""
    saved = source(shell, "edited")
    assert shell.run("notebook", "stop", "edited").returncode == 0
    wait_until(lambda: shell.json("notebook", "info", "edited")["state"] == "STOPPED")
    done = shell.run("notebook", "start", "edited", "--no-browser")
    assert done.returncode == 0, done.stderr
    assert source(shell, "edited") == saved
    kernel = Kernel(example, token)
    assert "2.0.0" in kernel.run("import importlib.metadata as m; print(m.version('iniconfig'))")
    assert "ours: []" in kernel.run(
        "import pathlib, os\n"
        "work = pathlib.Path(os.environ['KAOS_HOME'], 'work')\n"
        "print('ours:', [p.name for p in work.rglob('*.new-*') if '1a2b3c4d' not in p.name])"
    )
    kernel.end()


def test_an_empty_notebook_is_saved(shell: Shell, token: str) -> None:
    """A Dockerfile is made and said, so that it is a source that can be deployed."""
    url = shell.run("notebook", "deploy", "-n", "scratch").stdout.strip()
    write(url, token, "idea.txt", "an idea")
    planned = shell.json("notebook", "save", "scratch", "--dry-run")
    assert planned["version"] is None and "Dockerfile" in planned["contents"]["made"]
    assert saves(shell, "scratch") == 0
    done = shell.run("notebook", "save", "scratch")
    assert done.stdout == "scratch@v1\n", done.stderr
    assert "Made Dockerfile" in done.stderr
    assert source(shell, "scratch") == "scratch@v1"
    done = shell.run("notebook", "save", "scratch", "--name", "An idea")
    assert done.stdout == "An idea@v1\n", done.stderr
    assert source(shell, "scratch") == "An idea@v1"
    assert shell.run("notebook", "deploy", "-s", "scratch@v1", "-n", "copy").returncode == 0


def test_a_stopped_notebook_says_what_to_do(shell: Shell) -> None:
    """Its home is out of reach."""
    shell.run("notebook", "stop", "copy")
    wait_until(lambda: shell.json("notebook", "info", "copy")["state"] == "STOPPED")
    done = shell.run("notebook", "save", "copy")
    assert done.returncode != 0
    assert "kaos notebook start -n copy" in done.stderr


def test_what_cannot_be_a_bundle_is_named(
    shell: Shell, example: str, kernel: Kernel, client: Client
) -> None:
    """A link that leads out, a pipe: nothing is half-done. A file whose name no bundle may have is
    named, and does not keep the others from being saved."""
    kernel = Kernel(example, shell.run("token").stdout.strip())
    before = source(shell, "edited")
    for wrong, made in {
        "out": "os.symlink('/etc/hostname', work / 'out')",
        "pipe": "os.mkfifo(work / 'pipe')",
    }.items():
        kernel.run(f"{WORK}{made}")
        with pytest.raises(InvalidBundle, match=wrong) as refused:
            client.notebooks.save("edited")
        assert "\x1b" not in refused.value.message
        kernel.run("for each in work.glob('*'):\n"
                   "    if each.name[:3] in ('out', 'pip'): each.unlink()")  # fmt: skip
    assert source(shell, "edited") == before
    assert client.notebooks.save("edited").changed is False
    kernel.run(f"{WORK}open(os.fsencode(work) + b'/bad\\x1b[31m\\xff', 'w').close()")
    said = shell.run("notebook", "save", "edited")
    assert said.returncode == 0 and "\x1b" not in said.stdout + said.stderr
    assert "bad" in said.stdout + said.stderr, (said.stdout, said.stderr)
    kernel.run("for each in work.glob('bad*'): each.unlink()")
    kernel.end()


@pytest.fixture
def large(shell: Shell, example: str, token: str) -> Iterator[Kernel]:
    """A kernel of the notebook, in which saving takes its time."""
    kernel = Kernel(example, token)
    kernel.run(
        f"{WORK}with (work / 'large.bin').open('wb') as file:\n"
        "    for _ in range(300): file.write(os.urandom(1 << 20))",
        seconds=120,
    )
    yield kernel
    with contextlib.suppress(AssertionError, OSError, HTTPClientError):
        kernel.run("(work / 'large.bin').unlink()")


def test_two_at_once_are_one_or_refused(
    shell: Shell, large: Kernel, token: str, client: Client
) -> None:
    """The same is joined; another must wait."""
    first = ask(shell.hub, token, "edited")
    second = ask(shell.hub, token, "edited")
    other = ask(shell.hub, token, "edited", bundle="other")
    assert (first.status, second.status, other.status) == (202, 202, 409)
    assert first.json["id"] == second.json["id"]
    assert "wait until it is done" in other.json["message"]
    before = saves(shell, "example")
    assert client.notebooks.save("edited").version
    assert saves(shell, "example") == before + 1


class Saving(threading.Thread):
    """Somebody who saves the notebook; ``begun`` is set when its server does so."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client, self.begun = client, threading.Event()
        self.done: Errand | None = None
        self.failed: KaosError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.done = self.client.notebooks.save("edited", on_news=self.hear)
        except KaosError as e:
            self.failed = e

    def hear(self, errand: Errand) -> None:
        if errand.state == "RUNNING":
            self.begun.set()


def test_the_service_may_die_meanwhile(shell: Shell, large: Kernel, client: Client) -> None:
    """Whoever waits asks again, and what has arrived is not sent again: one version in the end."""
    large.run("(work / 'large.bin').open('ab').write(b'more')")
    before = saves(shell, "example")
    saving = Saving(client)
    assert saving.begun.wait(30)
    shell.hub.end_service()
    saving.join(120)
    assert saving.done and saving.done.version, saving.failed
    assert saves(shell, "example") == before + 1
    assert source(shell, "edited") == f"example@v{saving.done.version.version}"


def test_the_notebook_may_die_meanwhile(
    shell: Shell, example: str, token: str, client: Client
) -> None:
    """Who waits hears of it; nothing is saved by half, and a retry works."""
    kernel = Kernel(example, token)
    # Nothing but holes, yet it takes its time to be read.
    kernel.run(f"{WORK}os.truncate(os.open(work / 'holes.bin', os.O_CREAT | os.O_RDWR), 40 << 30)")
    before = saves(shell, "example")
    saving = Saving(client)
    assert saving.begun.wait(30)
    client.notebooks.kill("edited")
    saving.join(60)
    assert isinstance(saving.failed, Conflict), (saving.failed, saving.done)
    assert saves(shell, "example") == before
    wait_until(lambda: shell.json("notebook", "info", "edited")["state"] == "STOPPED")
    assert shell.run("notebook", "start", "edited", "--no-browser").returncode == 0
    kernel = Kernel(example, token)
    kernel.run(f"{WORK}os.remove(work / 'holes.bin')\n(work / 'kept.txt').write_text('kept')")
    assert client.notebooks.save("edited").version
    assert saves(shell, "example") == before + 1
    kernel.end()


def test_only_the_notebooks_own_server_reports(shell: Shell, example: str, token: str) -> None:
    """Neither its owner nor a stranger may say what was saved; a stranger cannot ask for it."""
    asked = ask(shell.hub, token, "edited", dry_run=True).json
    path = f"/notebooks/edited/errands/{asked['id']}"
    report = {"done": True}
    assert shell.hub.ask("POST", path, token, report).status == 403
    stranger = shell.hub.token("eve-who-saves")
    for method, where in (("GET", path), ("POST", "/notebooks/edited/save")):
        body = {} if method == "POST" else None
        assert shell.hub.ask(method, where, stranger, body).status == 404


def test_a_training_of_a_notebook_saves_first(shell: Shell, token: str) -> None:
    """What was edited is what is trained."""
    done = shell.run("notebook", "deploy", "-s", "mnist/model-train", "-d", "mnist/data",
                     "-n", "promoted")  # fmt: skip
    url = done.stdout.strip()
    assert done.returncode == 0, done.stderr
    write(url, token, "model/train", '#!/bin/sh\necho edited > "$1"/made\n')
    planned = shell.run("train", "deploy", "--notebook", "promoted", "--dry-run")
    assert "would be saved first" in planned.stderr, planned.stderr
    before = source(shell, "promoted")
    words = ("train", "deploy", "--notebook", "promoted", "--detach")
    _, seen = shell.on_terminal(*words, interrupt="Save first?")
    assert "Save first?" in seen and source(shell, "promoted") == before, seen
    training = shell.json("train", "deploy", "--notebook", "promoted", "--detach")
    saved = source(shell, "promoted")
    assert saved != before
    assert f"{training['source']['name']}@v{training['source']['version']}" == saved
