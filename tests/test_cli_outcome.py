"""How commands end that cannot do what they were asked: one document, words, an exit code, in any
encoding."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kaos_hub.cli.root import kaos
from kaos_hub.client import save_credentials
from tests.shell import EXAMPLES, KAOS
from tests.test_cli import NOBODY, commands
from tests.troubled import Trouble, serving

_LOCAL = {"kaos up", "kaos doctor", "kaos template list", "kaos template get", "kaos completion",
          "kaos logout", "kaos token"}  # fmt: skip
"""Those that ask no Hub."""
_SAID = {
    "kaos notebook deploy": ["-n", "one"],
    "kaos notebook start": ["-n", "one"],
    "kaos notebook attach": ["-n", "one", "-d", "mnist/data"],
    "kaos train deploy": ["-s", "mnist/model-train", "-d", "mnist/data", "-y"],
    "kaos model name": ["one", "two"],
}  # fmt: skip


class Refusing(Trouble):
    """A Hub that does not let one in."""

    def trouble(self) -> None:
        body = {"code": "forbidden", "message": "this token may not do that", "details": {}}
        self.answer(403, json.dumps(body).encode(), **{"Content-Type": "application/json"})


class Breaking(Trouble):
    """A Hub that goes away in the middle of an answer."""

    def trouble(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"2026-11-30T12:00:00.000000Z one\n2026-11-30T12:00:01.000000Z two\n")
        self.wfile.flush()
        self.close_connection = True


def words_of(path: str, command: click.Command) -> list[str]:
    """What one types so that only the Hub is missing."""
    named = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and "--yes" in parameter.opts:
            named.append("-y")
    options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    if path in _SAID:
        return _SAID[path]
    if "--job" in options:
        return ["-j", "1f3a5c7e9b2d4f60", *named]
    if "-i" in options and path.startswith("kaos notebook"):
        return ["-n", "one", *named]
    needed = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    return [*("one" for _ in needed), *named]


ALL = [(path, each) for path, each in commands() if not isinstance(each, click.Group)]
ASKING = [pytest.param(path, words_of(path, each), id=path) for path, each in ALL
          if path not in _LOCAL]  # fmt: skip


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of somebody with a home of their own."""
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "JUPYTERHUB_API_TOKEN", "KAOS_WORKSPACE", "KAOS_NOTEBOOK"):
        monkeypatch.delenv(name, raising=False)
    return {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """The address of a Hub that lets nobody in."""
    with serving(Refusing) as transport:
        yield transport.service.removesuffix("/services/kaos")


def run(variables: dict[str, str], *words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A command whose output goes into pipes, as bytes."""
    return subprocess.run(
        [*KAOS, *words], capture_output=True, env=variables | more, cwd=EXAMPLES, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def run_here(*words: str) -> subprocess.CompletedProcess[bytes]:
    """The same in this process, which takes a tenth of the time."""
    done = CliRunner().invoke(kaos, words, prog_name="kaos")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout_bytes, done.stderr_bytes)


def refused(done: subprocess.CompletedProcess[bytes], code: str, exit_code: int) -> str:
    """The message, where all else is as it must be: one document, and words."""
    assert done.returncode == exit_code, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == {"code", "message", "details"}
    assert document["code"] == code, document
    assert done.stderr.strip() and b"Traceback" not in done.stderr
    return str(document["message"])


@pytest.mark.parametrize(("path", "words"), ASKING)
def test_where_no_hub_answers_programs_get_one_document(
    path: str, words: list[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Wherever in the line ``--json`` stands; the same words are on standard error."""
    save_credentials(NOBODY, "t", "ada")
    monkeypatch.chdir(EXAMPLES)
    done = run_here(*path.split()[1:], *words, "--json")
    refused(done, "unavailable", 7)


@pytest.mark.parametrize(("path", "words"), ASKING)
def test_where_a_hub_refuses_programs_get_one_document(
    path: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    refusing: str,
) -> None:
    save_credentials(refusing, "t", "ada")
    monkeypatch.chdir(EXAMPLES)
    done = run_here("--json", *path.split()[1:], *words)
    assert "this token may not do that" in refused(done, "forbidden", 4)


@pytest.mark.parametrize("path", [path for path, _ in ALL])
def test_a_mistake_in_the_line_is_one_document(path: str, variables: dict[str, str]) -> None:
    """It is looked at before ``--json`` is parsed."""
    done = run_here(*path.split()[1:], "--no-such", "--json")
    assert "--no-such" in refused(done, "invalid_request", 2)


@pytest.mark.parametrize(
    "words", [["notebok"], ["notebook"], ["notebook", "kill"], ["notebook", "list", "extra"],
              ["train", "list", "--limit", "many"], ["--url"]]
)  # fmt: skip
def test_other_mistakes_are_one_document(words: list[str], variables: dict[str, str]) -> None:
    save_credentials(NOBODY, "t", "ada")
    refused(run_here("--json", *words), "invalid_request", 2)


@pytest.mark.parametrize("path", sorted(_LOCAL - {"kaos up"}))
def test_what_asks_no_hub_answers_in_one_document(path: str, variables: dict[str, str]) -> None:
    """`kaos doctor`, too, whatever it found."""
    save_credentials(NOBODY, "t", "ada")
    words = {"kaos template get": ["notebook"], "kaos completion": ["bash"]}.get(path, [])
    place = Path(variables["XDG_CACHE_HOME"])
    place.mkdir(exist_ok=True)
    done = subprocess.run([*KAOS, *path.split()[1:], *words, "--json"], capture_output=True,
                          env=variables, cwd=place, timeout=120)  # fmt: skip
    assert isinstance(json.loads(done.stdout), dict | list)


def test_a_log_that_breaks_off_is_one_document(variables: dict[str, str]) -> None:
    """What was there is whole; the exit code and standard error say that it is not all."""
    with serving(Breaking) as transport:
        save_credentials(transport.service, "t", "ada")
        done = run(variables, "notebook", "logs", "-n", "one", "--json")
    assert done.returncode == 7
    assert [line["text"] for line in json.loads(done.stdout)] == ["one", "two"]
    assert b"no answer" in done.stderr


def test_interrupted_is_130_and_one_document(variables: dict[str, str]) -> None:
    """Ctrl-C while a Hub is slow, at any command."""

    class Silent(Trouble):
        def trouble(self) -> None:
            os.kill(process.pid, signal.SIGINT)
            process.wait(20)

    with serving(Silent) as transport:
        save_credentials(transport.service, "t", "ada")
        process = subprocess.Popen(
            [*KAOS, "--json", "notebook", "list"], env=variables, cwd=EXAMPLES,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out) == {"code": "interrupted", "message": "Interrupted.", "details": {}}
    assert err.strip() == b"Interrupted."


def test_output_that_cannot_be_written_is_said(variables: dict[str, str]) -> None:
    """A full disk behind a redirection; and a reader who has seen enough is no error of ours."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*KAOS, "template", "list"], stdout=full, stderr=subprocess.PIPE,
                              env=variables, timeout=60)  # fmt: skip
    assert done.returncode == 1
    assert b"No space left" in done.stderr and b"Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*KAOS, "template", "list"], stdout=writer, stderr=subprocess.PIPE,
                          env=variables, timeout=60)  # fmt: skip
    os.close(writer)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


ENCODINGS = ["cp1252", "cp932", "ascii", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_a_console_is_written(
    encoding: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """`kaos doctor`, whose signs few encodings have; an error that names a folder; a table."""
    save_credentials(NOBODY, "t", "Zoë ☃")
    for words in (["doctor", "--data-dir", str(tmp_path / "größe ☃")], [],
                  ["notebook", "deploy", "-s", "größe ☃"], ["template", "list"], ["--help"],
                  ["notebook", "nö☃"]):  # fmt: skip
        done = run(variables, *words, PYTHONIOENCODING=encoding)
        said = (done.stdout + done.stderr).decode(encoding)
        assert "Traceback" not in said and "Error" not in said.partition("Error:")[0], said
        assert done.returncode in (0, 1, 2)
    if encoding == "ascii":
        assert "->" in run(variables, "doctor", PYTHONIOENCODING="ascii").stdout.decode("ascii")


def test_a_plain_locale_is_written(variables: dict[str, str]) -> None:
    """``LC_ALL=C``, where Python takes it as it is: neither coerced nor in its UTF-8 mode."""
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(variables, "doctor", **plain)
    assert done.stdout.isascii() and b"Traceback" not in done.stderr
    assert done.stdout.splitlines()[0][:2] in (b"+ ", b"! ", b"x ")
