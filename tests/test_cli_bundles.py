"""Bundles from the command line and from Python, against a real Hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import Conflict, NotFound
from tests.history import notebook, version, write
from tests.hub import RunningHub
from tests.shell import Shell


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Carla, logged in, with three versions of a bundle."""
    folder = tmp_path_factory.mktemp("carla")
    shell = Shell(folder, hub, "carla-at-the-terminal")
    shell.log_in()
    kaos = Client(hub.url, shell.run("token").stdout.strip())
    data = folder / "digits"
    (data / "sub").mkdir(parents=True)
    for number in range(3):
        (data / "same.txt").write_text("same")
        (data / "sub" / "changing.txt").write_text("x" * (number + 1))
        (data / f"new-in-{number}").write_text("")
        (data / f"new-in-{number - 1}").unlink(missing_ok=True)
        kaos.bundles.submit(data, "data", "digits")
    yield shell


@pytest.fixture(scope="module")
def kaos(shell: Shell) -> Client:
    """The SDK as the same user."""
    return Client(shell.hub.url, shell.run("token").stdout.strip())


def test_what_a_version_changed(shell: Shell) -> None:
    done = shell.run("bundle", "diff", "digits")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["-", "new-in-1"], ["+", "new-in-2"], ["~", "sub/changing.txt"],
    ]  # fmt: skip
    assert "digits v2 → v3: 1 added, 1 removed, 1 changed" in done.stderr
    few = shell.run("bundle", "diff", "digits@v3", "v1", "--limit", "1")
    assert len(few.stdout.splitlines()) == 1 and "2 are not listed" in few.stderr
    found = shell.json("bundle", "diff", "digits@v2", "1")
    assert (found["before"]["version"], found["after"]["version"]) == (1, 2)
    assert shell.run("bundle", "diff", "digits", "x").returncode == 2
    assert shell.run("bundle", "diff", "digits", "v9").returncode == 3
    assert shell.run("bundle", "diff", "nothing").returncode == 3


def test_files_of_a_version_in_python(kaos: Client) -> None:
    assert [b.name for b in kaos.bundles.names(search="DIG")] == ["digits"]
    assert [e.name for e in kaos.bundles.entries("data", "digits")][-1] == "sub"
    (entry,) = kaos.bundles.entries("data", "digits", 2, "sub")
    assert (entry.name, entry.size) == ("changing.txt", 2)
    assert b"".join(kaos.bundles.read("data", "digits", "sub/changing.txt", 2)) == b"xx"
    assert b"".join(kaos.bundles.read("data", "digits", "new-in-2")) == b""
    with pytest.raises(NotFound):
        b"".join(kaos.bundles.read("data", "digits", "sub"))
    assert kaos.bundles.compare("data", "digits", 3, 1, limit=0).changes == []


def test_deleting_asks_and_says_what_is_free_again(shell: Shell, kaos: Client) -> None:
    asked = shell.run("bundle", "delete", "digits@v2")
    assert asked.returncode == 2 and "no terminal to ask on" in asked.stderr
    assert "Its other versions stay" in asked.stderr
    done = shell.run("bundle", "delete", "digits@v2", "-y")
    assert done.returncode == 0 and "Deleted digits v2;" in done.stderr
    assert [b.version for b in kaos.bundles.list(name="digits")] == [3, 1]
    gone = shell.json("bundle", "delete", "digits", "-y")
    assert gone["versions"] == [1, 3] and gone["freed"] > 0
    assert kaos.bundles.names() == []
    assert shell.run("bundle", "delete", "digits", "-y").returncode == 3


def test_what_is_used_is_not_deleted(shell: Shell, kaos: Client) -> None:
    owner = f"user:{shell.user}"
    write(shell.hub.data, [version(66000, "source", "used", 1, owner)])
    write(shell.hub.data, [notebook("lab", owner=owner, source_id=66000)])
    refused = shell.run("bundle", "delete", "used", "-y")
    assert refused.returncode == 5 and "in use by notebook lab" in refused.stderr
    with pytest.raises(Conflict) as told:
        kaos.bundles.delete("source", "used", 1)
    assert told.value.details["users"] == ["notebook lab"]


def test_a_notebooks_own_token_deletes_nothing(hub: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    Client(hub.url, hub.token("noel")).bundles.submit(tmp_path, "data", "kept")
    scopes = ["access:servers!server=noel/lab", "access:services!service=kaos"]
    token = hub.token("noel", [*scopes, "read:users:name!user"])
    assert hub.ask("GET", "/bundles/data/kept/1", token).status == 200
    for path in ("/bundles/data/kept/1", "/bundles/data/kept"):
        answer = hub.ask("DELETE", path, token)
        assert answer.status == 403 and "may read, submit and deploy" in answer.json["message"]
