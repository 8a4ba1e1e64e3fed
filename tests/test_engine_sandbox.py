"""What a sandboxed command sees, for root and for an ordinary user."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.engines import sandbox
from kaos_hub.models import Mount

NOBODY = 65534

works = pytest.mark.skipif(not sandbox.available(), reason=sandbox.why() or "it works")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only directory in which programs are found."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    sandbox.why.cache_clear()
    yield programs
    sandbox.why.cache_clear()


def test_not_installed(programs: Path) -> None:
    assert not sandbox.available()
    assert "not installed" in sandbox.why()


def test_namespaces_are_turned_off(programs: Path) -> None:
    text = "bwrap: No permissions to create new namespace"
    (programs / "bwrap").write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
    (programs / "bwrap").chmod(0o755)
    assert not sandbox.available()
    assert "No permissions to create new namespace" in sandbox.why()
    assert "user namespaces" in sandbox.why()


@pytest.fixture(params=["me", "nobody"])
def prefix(request: pytest.FixtureRequest) -> list[str]:
    """The command before the sandbox's: nothing, or one that becomes an ordinary user."""
    if request.param == "me":
        return []
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become somebody else")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*become, "bwrap", "--ro-bind", "/", "/", "true"], check=False).returncode:
        pytest.skip("ordinary users may make no namespaces here")
    return become


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that an ordinary user owns and reaches."""
    data = tmp_path / "data"
    for directory in ("homes/1", "trees/abc", "secrets"):
        (data / directory).mkdir(parents=True)
    (data / "trees/abc/file").write_text("content\n")
    (data / "secrets/admission").write_text("secret\n")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", str(NOBODY), str(data)], check=True)
        for directory in [tmp_path, *tmp_path.parents[:-2]]:
            directory.chmod(0o755)
    return data


def run(prefix: list[str], script: str, **more: object) -> subprocess.CompletedProcess[str]:
    argv = sandbox.wrap(["sh", "-c", script], **more)  # type: ignore[arg-type]
    if prefix:
        # Only root's own sandbox needs it.
        at = argv.index("--cap-drop")
        del argv[at : at + 2]
    env = {"PATH": os.defpath, "HOME": "/home/kaos"}
    return subprocess.run(
        [*prefix, *argv], env=env, capture_output=True, text=True, timeout=30, check=False
    )


@works
def test_paths_appear_that_the_host_has_not(prefix: list[str], data: Path) -> None:
    tree = str(data / "trees/abc")
    targets = ["/kaos/source", "/pfs/data", "/opt/program", "/kaos/data"]
    mounts = [Mount(source=tree, target=target) for target in targets]
    script = f"cat {' '.join(t + '/file' for t in targets)}; touch /home/kaos/mine; pwd"
    done = run(prefix, script, mounts=mounts, hide=[data], home=data / "homes/1")
    assert done.stdout.splitlines() == ["content"] * 4 + ["/home/kaos"], done.stderr
    assert (data / "homes/1/mine").exists()
    assert not any(os.path.exists(t) for t in ("/kaos", "/pfs", "/opt/program", "/home/kaos"))


@works
def test_what_is_mounted_read_only_stays_so(prefix: list[str], data: Path) -> None:
    mounts = [Mount(source=str(data / "trees/abc"), target="/kaos/data")]
    script = (
        "echo x > /kaos/data/file; touch /kaos/data/new; rm -f /kaos/data/file;"
        " mount -o remount,rw,bind /kaos/data && touch /kaos/data/new; ls /kaos/data"
    )
    done = run(prefix, script, mounts=mounts, hide=[data])
    assert done.stdout.splitlines() == ["file"]
    assert (data / "trees/abc/file").read_text() == "content\n"


@works
def test_the_data_directory_is_hidden_but_for_mounts_in_it(prefix: list[str], data: Path) -> None:
    inside = str(data / "trees/abc")
    script = f"cat {data}/secrets/admission; ls -A {data} {inside}; touch {data}/new"
    done = run(prefix, script, mounts=[Mount(source=inside, target=inside)], hide=[data])
    assert "secret\n" not in done.stdout
    assert done.stdout.splitlines() == [f"{data}:", "trees", "", f"{inside}:", "file"]
    assert "Read-only" in done.stderr
    assert (data / "secrets/admission").exists()


@works
def test_what_would_be_lost_cannot_be_written(prefix: list[str], data: Path) -> None:
    mounts = [Mount(source=str(data / "trees/abc"), target="/opt/program")]
    done = run(prefix, "touch /kaos.txt || touch /opt/mine || echo neither", mounts=mounts)
    assert done.stdout == "neither\n"


@works
def test_the_machine_is_there_as_it_is(prefix: list[str]) -> None:
    done = run(prefix, "ls -A /; id -u; test -c /dev/null && echo device")
    listing = set(done.stdout.split())
    assert {e.name for e in Path("/").iterdir()} <= listing
    assert "device" in listing
    assert str(NOBODY if prefix else os.geteuid()) in listing


@works
def test_it_sees_no_process_but_its_own(prefix: list[str]) -> None:
    done = run(prefix, f"ls -d /proc/[0-9]* | wc -l; cat /proc/{os.getpid()}/cmdline | wc -c")
    assert int(done.stdout.split()[0]) < 6


@works
def test_its_exit_code_is_told(prefix: list[str]) -> None:
    assert run(prefix, "exit 7").returncode == 7


@works
def test_secrets_are_on_no_command_line(data: Path) -> None:
    argv = sandbox.wrap(["true"], home=data / "homes/1", workdir="/")
    assert not {"--setenv", "--clearenv"} & set(argv)
