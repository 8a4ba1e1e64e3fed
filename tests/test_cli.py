"""The command line where it needs no Hub: help, refusals, output, speed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from kaos_hub.cli.root import kaos
from kaos_hub.cli.terminal import output
from kaos_hub.client import save_credentials
from kaos_hub.schemas import Resources
from kaos_hub.transport.credentials import credentials_path

EXAMPLES = Path(__file__).parent.parent / "examples"
HEAVY = [
    "jupyterhub",
    "sqlalchemy",
    "tornado",
    "traitlets",
    "docker",
    "rich",
    "urllib3",
    "pydantic",
]
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "JUPYTERHUB_API_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def run(*words: str) -> Result:
    """Run ``kaos`` in this process; an exception that is not click's is a failure."""
    result = CliRunner().invoke(kaos, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def commands(group: click.Group = kaos, path: str = "kaos") -> Iterator[tuple[str, click.Command]]:
    """All commands, with what one types."""
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            yield f"{path} {name}", command
            if isinstance(command, click.Group):
                yield from commands(command, f"{path} {name}")


def shown_first() -> list[str]:
    """The commands that plain `kaos` shows."""
    result = run()
    assert result.exit_code == 0
    assert result.stdout.endswith("All commands: kaos --help\n")
    assert run("--json").exit_code == 0
    commands = re.findall(r"^  kaos ((?:[a-z]+ )*[a-z]+) ", result.stdout, re.MULTILINE)
    for line in json.loads(run("--json").stdout)["commands"]:
        assert commands[0] in line or f"  {line} " in result.stdout
    return commands


def test_a_newcomer_sees_three_commands() -> None:
    """Plain `kaos` shows what one needs first, and where the rest is."""
    assert shown_first() == ["up", "notebook deploy", "train deploy"]
    assert "kaos login URL" in run().stdout


def test_who_is_logged_in_sees_what_comes_next() -> None:
    """And where, and as whom; nobody is asked for that."""
    save_credentials(NOBODY, "t", "ada")
    assert shown_first() == ["notebook deploy", "train deploy", "notebook open"]
    assert f"logged in to {NOBODY} as ada" in run().stdout


def test_what_is_known_of_logins_may_be_broken() -> None:
    """A newcomer's first word is not an error; the command that mends it says so itself."""
    save_credentials(NOBODY, "t", "ada")
    credentials_path().write_text("{")
    assert shown_first()[0] == "up"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["notebok"], "There is no command 'notebok'. Did you mean: kaos notebook\n"),
        (["train", "deply"], "There is no command 'deply'. Did you mean: kaos train deploy\n"),
        (["xyzzy"], "There is no command 'xyzzy'. All there are: kaos --help\n"),
        (["login"], "as in: kaos login https://hub.example.org"),
    ],
)
def test_a_mistyped_command_is_answered_with_one_that_works(words: list[str], answer: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert answer in result.stderr


def test_login_without_an_address_is_to_the_hub_used_last() -> None:
    """As `kaos login` in many messages means it; it is not there, so that is what is told."""
    save_credentials(NOBODY, "t", "ada")
    result = run("login")
    assert result.exit_code == 7
    assert NOBODY in result.stderr
    result = run("login", "--token-stdin")
    assert result.exit_code == 2
    assert f"kaos login --token-stdin {NOBODY} < token.txt" in result.stderr


def test_every_command_explains_itself() -> None:
    """Each has a help text, and each of its options too."""
    for path, command in commands():
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help or parameter.show_default, f"{path} {parameter.name}"


def test_starting_imports_nothing_heavy() -> None:
    """`kaos --help` needs click alone, and is there at once."""
    code = (
        "import sys; from kaos_hub.cli.root import kaos\n"
        "try: kaos(['--help'])\n"
        f"except SystemExit: print([m for m in {HEAVY} if m in sys.modules])"
    )
    times = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
    # Seconds of processor, not of the clock: the machine may be busy with something else.
    assert min(times) < 0.15


@pytest.mark.parametrize("place", ["notebook", "notebook/example"])
def test_the_training_command_for_a_notebook_answers_with_the_right_one(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the documentation of kaos has it by mistake: what is answered can be typed as it is."""
    monkeypatch.chdir(EXAMPLES)
    result = run("train", "deploy", "-s", place, "-d", "mnist/data")
    assert result.exit_code == 2
    assert f"\n    kaos notebook deploy -s {place} -d mnist/data\n" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--cpu", "nan"], 2, "cores"),
        (["--cpu", "-1"], 2, "more than zero"),
        (["--memory", "lots"], 2, "512Mi"),
        (["--memory", "512"], 2, "512Mi"),
        (["--memory", "0"], 2, "more than zero"),
        (["--gpu", "0.5"], 2, "whole number"),
        (["--idle-timeout", "soon"], 2, "30m"),
        (["--idle-type", "bored"], 2, "kernel_connections"),
        (["-n", "My Notebook"], 2, "lower-case"),
        (["-s", "nowhere"], 2, "no folder 'nowhere'"),
        (["-s", "."], 2, "Dockerfile"),
        (["-d", "a/b@v1"], 2, "no folder"),
        (["--bogus"], 2, "No such option"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(
    words: list[str], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is not even there: what can be checked here is checked here."""
    monkeypatch.chdir(tmp_path)
    save_credentials(NOBODY, "t")
    result = run("notebook", "deploy", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


def test_no_login_and_no_hub_have_exit_codes_of_their_own() -> None:
    """4 is: not allowed; 7 is: not there. For programs there is a document, else nothing."""
    for place in (["--json", "notebook", "list"], ["notebook", "list", "--json"]):
        result = run(*place)
        assert result.exit_code == 4
        assert json.loads(result.stdout)["code"] == "not_authenticated"
        assert "kaos login" in result.stderr
    save_credentials(NOBODY, "t")
    result = run("whoami")
    assert (result.exit_code, result.stdout) == (7, "")
    assert NOBODY in result.stderr


def test_token_prints_the_token_alone() -> None:
    """So that `$(kaos token)` is what one wants."""
    save_credentials(NOBODY, "abc123", "ada")
    assert run("token").stdout == "abc123\n"
    assert json.loads(run("--json", "token").stdout) == {"url": NOBODY, "token": "abc123"}
    assert run("logout").exit_code == 0
    assert run("token").exit_code == 4


@pytest.mark.parametrize("verb", ["info", "stop", "kill", "delete", "logs"])
def test_a_name_and_an_index_exclude_each_other(verb: str) -> None:
    """That is a usage error, found before anything is asked."""
    save_credentials(NOBODY, "t")
    result = run("notebook", verb, "-n", "a", "-i", "1")
    assert result.exit_code == 2
    assert "mutually exclusive" in result.stderr


@pytest.mark.parametrize("verb", ["kill", "delete"])
def test_what_loses_something_asks(verb: str) -> None:
    """Without a name it is a usage error; without a terminal it needs -y and says what is kept."""
    save_credentials(NOBODY, "t")
    assert run("notebook", verb).exit_code == 2
    if verb == "kill":
        result = run("notebook", verb, "-n", "a")
        assert result.exit_code == 2
        assert "kept" in result.stderr
        assert "If so: kaos notebook kill -n a -y" in result.stderr


def test_nothing_foreign_reaches_the_terminal() -> None:
    """Colours and titles are taken out, other control characters are made visible."""
    assert output.clean("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07") == "red bell\\x07"
    assert output.clean("a\tb\u202egnp.exe\x9b2J\r") == "a\tb\\u202egnp.exe\\x9b2J\\r"
    assert output.clean(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert output.clean_line("2026-01-31T12:00:00Z 1%\r50%\r100%") == "2026-01-31T12:00:00Z 100%"


def test_lengths_of_time_and_resources_are_short() -> None:
    """One unit, the largest that says something."""
    now = datetime(2026, 1, 31, tzinfo=UTC)
    shown = [output.age(now - timedelta(seconds=s), now) for s in (5, 90, 7300, 86400 * 3)]
    assert shown == ["5 s", "1 min", "2 h", "3 d"]
    assert output.resources(Resources(cpu=0.5, memory="1.5Gi", gpu=1)) == "0.5 cpu, 1.5Gi, 1 gpu"
    assert output.resources(Resources()) == "default"


def test_tables_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """No line is folded or cut, no markup is understood, columns stand under each other."""
    long = "http://" + "x" * 300
    output.show_table(("#", "name", "url"), [(1, "[bold]a", long), (2, "b", "c")])
    header, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["1", "[bold]a", long]
    assert header.index("url") == first.index("http") == second.index("c")
