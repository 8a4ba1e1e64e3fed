"""The service's start, its ending, and what it says when it cannot start."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.config.service import ServiceConfig
from kaos_hub.service.process import take_lock
from kaos_hub.service.watch import Watchdog
from tests.hub import Browser, RunningHub, request, running_hub, wait_until


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def start_by_hand(
    data: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start the service as the Hub would, and wait for its end."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "KAOS_"))}
    return subprocess.run(
        [sys.executable, "-m", "kaos_hub.service", *arguments],
        env={**given, "KAOS_DATA_DIR": str(data), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a start failed with one plain line; that line."""
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("kaos service: ")]
    assert len(said) == 1, result.stderr
    return said[0]


def test_a_killed_hub_leaves_no_service_and_the_next_one_starts(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path / "hub")
    hub.start()
    try:
        pid = hub.service_pid()
        assert pid is not None and alive(pid)
        assert hub.service_memory() < 130 << 20
        token, browser = hub.token("ada"), Browser(hub, "ada")
        session = browser.cookie("service-kaos")
        hub.kill()
        wait_until(lambda: not alive(pid), 10, "the service's end")
        hub.start()
        assert hub.service_pid() != pid
        assert hub.ask("GET", "/whoami", token).json["user"] == "ada"
        # Cookies are signed with a secret of the data directory: a restart logs nobody out.
        assert "<h1>Notebooks</h1>" in browser.get(hub.kaos + "/").text
        assert browser.cookie("service-kaos") == session
    finally:
        hub.stop()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub on the local engine as it is by default: for one user only."""
    with running_hub(tmp_path_factory.mktemp("strict") / "hub", trust_all=False) as hub:
        yield hub


def test_on_local_only_its_own_user_is_served(strict: RunningHub) -> None:
    refused = strict.ask("GET", "/whoami", strict.token("somebody-else"))
    assert refused.status == 403
    assert "--trust-all-users" in refused.json["message"]
    own = strict.token(DataDir(strict.data).user)
    assert strict.ask("GET", "/whoami", own).status == 200
    assert request("GET", strict.kaos + "/health").status == 200


def test_a_crashed_service_is_back_in_seconds(strict: RunningHub) -> None:
    pid = strict.service_pid()
    strict.end_service(signal.SIGKILL)
    back = lambda: strict.service_pid() not in (None, pid) and strict.answers()  # noqa: E731
    wait_until(back, 10, "its return")
    assert "ended with signal 9; starting it again" in strict.log.read_text()


def test_a_hub_that_hangs_is_named(strict: RunningHub) -> None:
    known, new = (strict.token(DataDir(strict.data).user) for _ in range(2))
    assert strict.ask("GET", "/whoami", known).status == 200
    assert strict.process is not None
    strict.process.send_signal(signal.SIGSTOP)
    try:
        answer = strict.ask("GET", "/whoami", new)
        assert (answer.status, answer.json["code"]) == (503, "hub_unavailable")
        # whom the Hub has just vouched for goes on meanwhile
        assert strict.ask("GET", "/whoami", known).status == 200
    finally:
        strict.process.send_signal(signal.SIGCONT)


def test_streams_end_with_the_service(strict: RunningHub) -> None:
    # Ended, not cut: behind the proxy a client would never learn of a cut.
    token = strict.token(DataDir(strict.data).user)
    address = urlsplit(strict.api)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            f"GET {address.path}/notebooks/events HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: token {token}\r\n\r\n".encode()
        )
        while b"\n:\n\n" not in (received := connection.recv(4096)):
            assert received
        strict.end_service(signal.SIGTERM)
        assert connection.recv(4096).endswith(b"0\r\n\r\n")
    wait_until(lambda: "Ending; jobs and notebooks go on" in strict.log.read_text(), 5)


def test_a_crash_is_met_with_ever_longer_pauses(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"import os; open({str(starts)!r}, 'a').write('x'); os.abort()"
    watch = Watchdog([sys.executable, "-c", code])
    threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert watch.run() == 0
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert 2 <= len(starts.read_text()) <= 5


def test_the_watch_is_light() -> None:
    code = "import kaos_hub.service.watch, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"tornado", "jupyterhub", "traitlets", "sqlalchemy", "pydantic"} & set(
        loaded.split()
    )


def test_started_by_hand_it_says_how_to_start_it(tmp_path: Path) -> None:
    assert "kaos up" in only_line(start_by_hand(tmp_path / "data"))


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    line = only_line(start_by_hand(tmp_path / "data", f"--config={tmp_path}/none.py"))
    assert f"{tmp_path}/none.py" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c = get_config()\nc.KaosService.limits = {'defualt': {}}", "'defualt'"),
        ("c = get_config()\nc.KaosService.limits = {'default': {'cpus': 2}}", "'cpus'"),
        ("c = get_config()\nc.KaosService.limits = {'default': {'memory': 'big'}}", "'big'"),
        ("c = get_config()\n\nc.KaosService.max_files = 1 / 0", "config.py:3: ZeroDivisionError"),
        ("c = get_config()\nif True\n", "config.py:2: "),
        ("c = get_config()\nc.KaosService.engine = 'mainframe'", "mainframe"),
        ("c = get_config()\nc.KaosService.sizes = [{'name': 'x', 'cpu': -1}]", "sizes"),
        ("c = get_config()\nc.KaosService.sizes = [{'name': 'x', 'pool': 'far'}]", "'far'"),
        ("c = get_config()\nc.KaosService.pools = {'a': {'nodes': 1}}", "pools['a']"),
        ("c = get_config()\nc.KaosService.idle_timeout = 'soon'", "idle_timeout"),
        ("c = get_config()\nc.KaosService.default_size = 'huge'", "huge"),
        ("c = get_config()\nc.KaosService.max_file_size = 'much'", "max_file_size"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    config = tmp_path / "config.py"
    config.write_text(text)
    hub = {
        "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:1",
        "JUPYTERHUB_API_TOKEN": "x",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
        "JUPYTERHUB_CLIENT_ID": "service-kaos",
    }
    line = only_line(start_by_hand(tmp_path / "data", "-f", str(config), **hub))
    assert expected in line


def test_a_service_whose_hub_is_gone_does_not_begin(tmp_path: Path) -> None:
    line = only_line(start_by_hand(tmp_path / "data", KAOS_HUB_PID="1"))
    assert "gone" in line


def test_a_predecessor_gets_time_to_end(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    held = take_lock(data)
    with pytest.raises(KaosError, match=f"process {os.getpid()}"):
        take_lock(data, patience=0.2)
    held.close()
    take_lock(data, patience=0.2).close()


def test_every_setting_is_explained() -> None:
    for name, trait in ServiceConfig.class_own_traits(config=True).items():
        assert "Default:" in trait.help, name
