"""What a sandboxed command sees, for root and for an ordinary user."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.engines.local import namespaces, sandbox
from kaos_hub.schemas import Mount

NOBODY = 65534
PYTHON = "/usr/bin/python3"
Who = tuple[str, list[str]]

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


def test_namespaces_are_turned_off(programs: Path) -> None:
    text = "bwrap: No permissions to create new namespace"
    (programs / "bwrap").write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
    (programs / "bwrap").chmod(0o755)
    assert not sandbox.available()
    assert "No permissions to create new namespace" in sandbox.why()
    assert "are namespaces turned off" in sandbox.why()


def test_without_bubblewrap_what_keeps_us_from_it_is_said(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python that cannot be started stands for a machine that allows no namespaces."""
    broken = programs / "python"
    broken.write_text(
        "#!/bin/sh\necho 'namespaces: unshare: Operation not permitted' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    assert "bubblewrap is not installed" in sandbox.why()
    assert "unshare: Operation not permitted" in sandbox.why()


@pytest.fixture(params=["bubblewrap", "ours"])
def maker(request: pytest.FixtureRequest) -> str:
    """What makes the sandbox; ours where bubblewrap is not found."""
    if request.param == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    return str(request.param)


def wrapped(maker: str, command: list[str], **more: object) -> list[str]:
    """A command in a sandbox of that kind."""
    with pytest.MonkeyPatch.context() as patch:
        if maker == "ours":
            patch.setenv("PATH", "/nowhere")
        return sandbox.wrap(command, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["me", "nobody"])
def who(request: pytest.FixtureRequest, maker: str) -> Who:
    """What makes the sandbox, and the command before it: nothing, or one that becomes an ordinary
    user."""
    if request.param == "me":
        return maker, []
    setpriv = shutil.which("setpriv", path=os.defpath)
    if os.geteuid() != 0 or not setpriv:
        pytest.skip("only root can become somebody else")
    become = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    mine = Path(namespaces.__file__).read_text()
    words = ["--bind", "/", "/", "--", "true"]
    first = ["bwrap"] if maker == "bubblewrap" else [PYTHON, "-c", mine]
    done = subprocess.run([*become, *first, *words], env={"PATH": os.defpath}, check=False)
    if done.returncode:
        pytest.skip("ordinary users may make no namespaces here")
    return maker, become


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


def run(who: Who, script: str, **more: object) -> subprocess.CompletedProcess[str]:
    maker, prefix = who
    argv = wrapped(maker, ["sh", "-c", script], **more)
    if prefix:
        # Only root's own sandbox needs it.
        at = argv.index("--cap-drop")
        del argv[at : at + 2]
        if argv[1] == "-I":
            # Tests may lie, and run, where another user cannot look.
            argv[:4] = [PYTHON, "-I", "-c", Path(namespaces.__file__).read_text()]
    env = {"PATH": os.defpath, "HOME": "/home/kaos"}
    return subprocess.run(
        [*prefix, *argv], env=env, capture_output=True, text=True, timeout=30, check=False
    )


@works
def test_paths_appear_that_the_host_has_not(who: Who, data: Path) -> None:
    tree = str(data / "trees/abc")
    targets = ["/kaos/source", "/pfs/data", "/opt/program", "/kaos/data"]
    mounts = [Mount(source=tree, target=target) for target in targets]
    script = f"cat {' '.join(t + '/file' for t in targets)}; touch /home/kaos/mine; pwd"
    done = run(who, script, mounts=mounts, hide=[data], home=data / "homes/1")
    assert done.stdout.splitlines() == ["content"] * 4 + ["/home/kaos"], done.stderr
    assert (data / "homes/1/mine").exists()
    assert not any(os.path.exists(t) for t in ("/kaos", "/pfs", "/opt/program", "/home/kaos"))


@works
def test_what_is_mounted_read_only_stays_so(who: Who, data: Path) -> None:
    mounts = [Mount(source=str(data / "trees/abc"), target="/kaos/data")]
    script = (
        "echo x > /kaos/data/file; touch /kaos/data/new; rm -f /kaos/data/file;"
        " mount -o remount,rw,bind /kaos/data && touch /kaos/data/new; ls /kaos/data"
    )
    done = run(who, script, mounts=mounts, hide=[data])
    assert done.stdout.splitlines() == ["file"]
    assert (data / "trees/abc/file").read_text() == "content\n"


@works
def test_the_data_directory_is_hidden_but_for_mounts_in_it(who: Who, data: Path) -> None:
    inside = str(data / "trees/abc")
    script = f"cat {data}/secrets/admission; ls -A {data} {inside}; touch {data}/new"
    done = run(who, script, mounts=[Mount(source=inside, target=inside)], hide=[data])
    assert "secret\n" not in done.stdout
    assert done.stdout.splitlines() == [f"{data}:", "trees", "", f"{inside}:", "file"]
    assert "Read-only" in done.stderr
    assert (data / "secrets/admission").exists()


@works
def test_what_would_be_lost_cannot_be_written(who: Who, data: Path) -> None:
    mounts = [Mount(source=str(data / "trees/abc"), target="/opt/program")]
    done = run(who, "touch /kaos.txt || touch /opt/mine || echo neither", mounts=mounts)
    assert done.stdout == "neither\n"


@works
def test_the_machine_is_there_as_it_is(who: Who) -> None:
    done = run(who, "ls -A /; id -u; test -c /dev/null && echo device")
    listing = set(done.stdout.split())
    assert {e.name for e in Path("/").iterdir()} <= listing
    assert "device" in listing
    assert str(NOBODY if who[1] else os.geteuid()) in listing


@works
def test_it_sees_no_process_but_its_own(who: Who) -> None:
    done = run(who, f"ls -d /proc/[0-9]* | wc -l; cat /proc/{os.getpid()}/cmdline | wc -c")
    assert int(done.stdout.split()[0]) < 6


@works
def test_its_exit_code_is_told(who: Who) -> None:
    assert run(who, "exit 7").returncode == 7


@works
def test_secrets_are_on_no_command_line(maker: str, data: Path) -> None:
    argv = wrapped(maker, ["true"], home=data / "homes/1", workdir="/")
    assert not {"--setenv", "--clearenv"} & set(argv)


@works
def test_it_ends_with_its_parent_and_with_its_first_process(maker: str, tmp_path: Path) -> None:
    """Nothing outlives a killed supervisor, nor the command itself."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    script = f"(setsid sleep 97 > {alive} &); echo begun; sleep 97"
    argv = wrapped(maker, ["sh", "-c", script])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
        assert process.stdout.readline() == "begun\n"
        os.set_blocking(reading, True)
        process.kill()
        # Its end is the end of all that could write.
        assert os.read(reading, 1) == b""
    assert run((maker, []), f"(setsid sleep 97 > {alive} &); exit 3").returncode == 3
    assert os.read(reading, 1) == b""
    os.close(reading)


@works
def test_no_more_rights_can_be_had(who: Who, data: Path) -> None:
    mounts = [Mount(source=str(data / "trees/abc"), target="/kaos/data")]
    script = (
        "grep -E 'NoNewPrivs|CapEff' /proc/self/status;"
        " unshare --user --map-root-user --mount mount -o remount,rw,bind /kaos/data;"
        f" unshare --user --map-root-user --mount umount {data}; ls {data}; touch /kaos/data/x"
    )
    done = run(who, script, mounts=mounts, hide=[data])
    powers = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    assert powers["NoNewPrivs"] == "1"
    assert not int(powers["CapEff"], 16) & 1 << 21
    if who[1]:
        assert int(powers["CapEff"], 16) == 0
    assert "secrets" not in done.stdout
    assert not (data / "trees/abc/x").exists()
