"""Supervised processes: what outlives whom, and what is left behind (nothing)."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kaos_hub.engines.base import Cause, Observation, Phase
from kaos_hub.engines.local import sandbox
from kaos_hub.engines.supervised.process import Processes
from kaos_hub.errors import InvalidName
from kaos_hub.util.processes import marked

ENV = {"PATH": os.defpath}
NAME = "kaos-notebook-1-1"


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    processes = Processes(tmp_path / "workloads")
    yield processes
    for name in processes.names():
        await processes.remove(name)
    processes.close()


async def end(processes: Processes, name: str = NAME) -> Observation:
    async with asyncio.timeout(30):
        async for seen in processes.watch(name):
            last = seen
    return last


async def texts(processes: Processes, name: str = NAME) -> list[str]:
    async with asyncio.timeout(30):
        log = b"".join([piece async for piece in processes.logs(name)])
    return [line.partition(" ")[2] for line in log.decode().splitlines()]


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.05)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def supervisor(processes: Processes, name: str = NAME) -> int:
    found: int = json.loads((processes.path(name) / "started.json").read_text())["supervisor"]
    return found


def started(processes: Processes, name: str = NAME) -> list[int]:
    """The processes that a workload started and that live."""
    result = processes.path(name) / "result.json"
    return [p.pid for p in marked(f"KAOS_WORKLOAD={result.parent}".encode())]


async def test_its_result_is_kept(processes: Processes) -> None:
    await processes.submit(NAME, shell("""echo '{"a": [1]}' > "$KAOS_RESULT" """), ENV)
    assert (await end(processes)).result == {"a": [1]}


async def test_a_result_that_is_none_is_told(processes: Processes) -> None:
    await processes.submit(NAME, shell('echo nonsense > "$KAOS_RESULT"'), ENV)
    seen = await end(processes)
    assert seen.phase is Phase.SUCCEEDED
    assert seen.result == {}
    assert "result" in seen.message


async def test_a_failing_one_may_say_why(processes: Processes) -> None:
    script = """echo '{"message": "no space on Mars"}' > "$KAOS_RESULT"; exit 1"""
    await processes.submit(NAME, shell(script), ENV)
    assert (await end(processes)).message == "no space on Mars"


async def test_the_environment_is_as_given(processes: Processes) -> None:
    await processes.submit(NAME, ["env"], ENV | {"A": "b c"})
    lines = await texts(processes)
    result = processes.path(NAME) / "result.json"
    assert sorted(lines) == sorted(
        [f"PATH={os.defpath}", "A=b c", f"KAOS_RESULT={result}", f"KAOS_WORKLOAD={result.parent}"]
    )


async def test_secrets_are_for_nobody_else(processes: Processes) -> None:
    await processes.submit(NAME, ["sleep", "30"], ENV | {"TOKEN": "hush-hush"})
    directory = processes.path(NAME)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.iterdir():
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
    line = Path(f"/proc/{supervisor(processes)}/cmdline").read_bytes()
    assert b"hush-hush" not in line


async def test_standard_input_is_empty(processes: Processes) -> None:
    await processes.submit(NAME, ["cat"], ENV)
    assert (await end(processes)).exit_code == 0


async def test_where_it_starts(processes: Processes, tmp_path: Path) -> None:
    await processes.submit(NAME, ["pwd"], ENV, cwd=tmp_path)
    assert await texts(processes) == [str(tmp_path)]


async def test_a_missing_directory_is_named(processes: Processes, tmp_path: Path) -> None:
    await processes.submit(NAME, ["pwd"], ENV, cwd=tmp_path / "none")
    seen = await end(processes)
    assert seen.phase is Phase.FAILED
    assert str(tmp_path / "none") in seen.message


async def test_killed_by_a_signal(processes: Processes) -> None:
    await processes.submit(NAME, shell("kill -SEGV $$"), ENV)
    seen = await end(processes)
    assert (seen.cause, seen.exit_code) == (Cause.ERROR, None)
    assert "SIGSEGV" in seen.message


async def test_killed_by_a_signal_without_a_name(processes: Processes) -> None:
    await processes.submit(NAME, shell("kill -40 $$"), ENV)
    assert (await end(processes)).message == "killed by signal 40"


UNDER_NOHUP = """
import asyncio, signal, sys
from pathlib import Path
from kaos_hub.engines.supervised.process import Processes
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
argv = ["python3", "-c", "import signal; print(signal.getsignal(2).__name__,"
    " sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"]
asyncio.run(Processes(Path(sys.argv[1])).submit(sys.argv[2], argv, {"PATH": "/usr/bin:/bin"}))
"""


async def test_signals_are_reset(processes: Processes) -> None:
    directory = str(processes.path(NAME).parent)
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", UNDER_NOHUP, directory, NAME], check=True
    )
    assert await texts(processes) == ["default_int_handler []"]


DRIVER = """
import asyncio, sys
from pathlib import Path
from kaos_hub.engines.supervised.process import Processes
argv = ["sh", "-c", "echo started; sleep 0.5"]
asyncio.run(Processes(Path(sys.argv[1])).submit(sys.argv[2], argv, {"PATH": "/usr/bin:/bin"}))
"""


async def test_simultaneous_submits_of_several_processes_start_one(processes: Processes) -> None:
    command = [sys.executable, "-c", DRIVER, str(processes.path(NAME).parent), NAME]
    drivers = [await asyncio.create_subprocess_exec(*command) for _ in range(4)]
    assert [await d.wait() for d in drivers] == [0] * 4
    assert await texts(processes) == ["started"]


async def test_submit_killed_before_the_supervisor_began(processes: Processes) -> None:
    """The spec is written, then the driver dies: nothing is there, and submitting starts it."""
    directory = processes.path(NAME)
    directory.mkdir(parents=True)
    spec = {"argv": ["echo", "first"], "env": ENV, "cwd": None, "deadline": None}
    spec |= {"cap": 1 << 20, "grace": 1, "wrapped": False}
    (directory / "spec.json").write_text(json.dumps(spec))
    assert processes.observe(NAME).phase is Phase.ABSENT
    await processes.submit(NAME, ["echo", "second"], ENV)
    assert await texts(processes) == ["first"]


async def test_a_process_id_alone_is_no_sign_of_life(processes: Processes) -> None:
    """After a restart of the machine another process has the supervisor's id."""
    directory = processes.path(NAME)
    directory.mkdir(parents=True)
    (directory / "spec.json").write_text("{}")
    (directory / "lock").touch()
    (directory / "started.json").write_text(
        json.dumps({"started": time.time(), "supervisor": os.getpid()})
    )
    assert processes.observe(NAME).phase is Phase.LOST
    await processes.submit(NAME, ["echo", "again"], ENV)
    assert processes.observe(NAME).phase is Phase.LOST


async def test_killed_supervisor_leaves_nothing(processes: Processes) -> None:
    await processes.submit(NAME, shell("setsid sleep 99 & sleep 99 & wait"), ENV)
    await until(lambda: len(started(processes)) == 3)
    watching = asyncio.create_task(end(processes))
    os.kill(supervisor(processes), signal.SIGKILL)
    seen = await watching
    assert (seen.phase, seen.cause) == (Phase.LOST, Cause.LOST)
    assert seen.cause.infrastructure
    await processes.cancel(NAME)
    await until(lambda: not started(processes), 3)


async def test_shutdown_of_the_machine_is_no_fault_of_the_user(processes: Processes) -> None:
    await processes.submit(NAME, ["sleep", "99"], ENV)
    os.kill(supervisor(processes), signal.SIGTERM)
    assert (await end(processes)).phase is Phase.LOST
    assert not started(processes)


async def test_cancel_lets_it_end_well(processes: Processes) -> None:
    script = "trap 'echo saving; sleep 0.2; echo saved; exit 0' TERM; echo up; sleep 99 & wait"
    await processes.submit(NAME, shell(script), ENV)
    async for _ in processes.logs(NAME):
        break
    await processes.cancel(NAME, grace=5)
    assert await texts(processes) == ["up", "saving", "saved"]
    seen = processes.observe(NAME)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.CANCELLED)


async def test_what_left_its_group_is_for_the_main_process_to_end(processes: Processes) -> None:
    """A notebook server ends its kernels itself; they must not be told before it."""
    script = (
        "setsid sh -c 'trap \"echo told\" TERM; echo kernel; while :; do sleep 0.1; done' &"
        " trap 'echo server; kill -9 $!; exit 0' TERM; wait"
    )
    await processes.submit(NAME, shell(script), ENV)
    async for _ in processes.logs(NAME):
        break
    await processes.cancel(NAME)
    assert await texts(processes) == ["kernel", "server"]


async def test_grace_ends(processes: Processes) -> None:
    await processes.submit(NAME, shell("trap '' TERM; echo up; while :; do sleep 0.1; done"), ENV)
    async for _ in processes.logs(NAME):
        break
    began = time.monotonic()
    await processes.cancel(NAME, grace=0.5)
    assert 0.4 < time.monotonic() - began < 2
    assert not started(processes)


async def test_a_fork_bomb_ends(processes: Processes) -> None:
    script = "trap '' TERM; f() { while :; do (setsid sleep 0.05 &); sleep 0.01; done; }; f"
    await processes.submit(NAME, shell(script), ENV)
    await asyncio.sleep(0.5)
    await processes.cancel(NAME, grace=0.2)
    await until(lambda: not started(processes), 3)


async def test_output_beyond_the_cap_is_dropped_not_waited_for(processes: Processes) -> None:
    script = "seq 100000; echo the end > $KAOS_RESULT"
    await processes.submit(NAME, shell(script), ENV, cap=10_000)
    await end(processes)
    lines = await texts(processes)
    assert "reached its limit" in lines[-1]
    assert (processes.path(NAME) / "result.json").read_text() == "the end\n"
    assert (processes.path(NAME) / "output.log").stat().st_size < 10_200


async def test_it_ends_though_a_stranger_holds_its_output(processes: Processes) -> None:
    await processes.submit(NAME, shell("echo hello; sleep 0.7; echo bye"), ENV)
    pid = started(processes)[0]
    holder = f"exec 9> /proc/{pid}/fd/1; echo held; exec sleep 9"
    stranger = await asyncio.create_subprocess_exec(
        "sh", "-c", holder, stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    assert await stranger.stdout.readline() == b"held\n"
    try:
        began = time.monotonic()
        assert (await end(processes)).phase is Phase.SUCCEEDED
        assert time.monotonic() - began < 3
        assert await texts(processes) == ["hello", "bye"]
    finally:
        stranger.kill()
        await stranger.wait()


async def test_watching_costs_nothing(processes: Processes) -> None:
    await processes.submit(NAME, ["sleep", "1.5"], ENV)
    watching = asyncio.create_task(end(processes))
    await asyncio.sleep(0.3)
    before = time.process_time()
    await asyncio.sleep(1)
    assert time.process_time() - before < 0.02
    assert (await watching).phase is Phase.SUCCEEDED


async def test_names_are_no_paths(processes: Processes) -> None:
    for name in ("../x", "", ".hidden", "a/b", "A", "x" * 300):
        with pytest.raises(InvalidName):
            await processes.submit(name, ["true"], ENV)
    assert processes.names() == []


@pytest.mark.skipif(not sandbox.available(), reason=sandbox.why() or "it works")
@pytest.mark.parametrize("maker", ["bubblewrap", "ours"])
class TestSandboxed:
    @pytest.fixture(autouse=True)
    def made(self, maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """By bubblewrap; where it is not found, by ours."""
        if maker == "ours":
            monkeypatch.setenv("PATH", "/nowhere")
        elif not shutil.which("bwrap"):
            pytest.skip("bubblewrap is not installed")

    async def test_it_ends_well(self, processes: Processes) -> None:
        script = "trap 'echo saved; exit 7' TERM; echo up; sleep 99 & wait"
        argv = sandbox.wrap(shell(script))
        await processes.submit(NAME, argv, ENV, wrapped=True)
        async for _ in processes.logs(NAME):
            break
        await processes.cancel(NAME)
        assert await texts(processes) == ["up", "saved"]
        assert processes.observe(NAME).exit_code == 7

    async def test_all_of_it_ends(self, processes: Processes) -> None:
        script = "trap '' TERM; (setsid sleep 98 &); setsid sleep 98 & sleep 98; sleep 98"
        await processes.submit(NAME, sandbox.wrap(shell(script)), ENV, wrapped=True)
        await until(lambda: len(started(processes)) >= 5)
        await processes.cancel(NAME, grace=0.3)
        assert not started(processes)

    async def test_killed_supervisor_leaves_nothing(self, processes: Processes) -> None:
        argv = sandbox.wrap(shell("(setsid sleep 97 &); sleep 97"))
        await processes.submit(NAME, argv, ENV, wrapped=True)
        await until(lambda: len(started(processes)) >= 4)
        os.kill(supervisor(processes), signal.SIGKILL)
        await until(lambda: not started(processes), 3)
