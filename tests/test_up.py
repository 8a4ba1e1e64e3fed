"""`kaos up` and `kaos doctor`, as a person runs them."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kaos_hub.doctor.finding import GOOD
from kaos_hub.installation.datadir import DataDir
from tests.desk import Browser, end_all_with
from tests.engines import needs_docker
from tests.hub import free_port, request, wait_until
from tests.networks import dismiss

KAOS = [sys.executable, "-m", "kaos_hub.cli"]


class Machine:
    """A person's machine: a data directory and a configuration directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAOS_", "JUPYTERHUB_"))}
        self.environment = kept | {"XDG_CONFIG_HOME": str(directory / "config")}
        self.ups: list[subprocess.Popen[str]] = []

    def kaos(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*KAOS, *words], env=self.environment, capture_output=True, text=True, timeout=240
        )

    def up(self, *words: str, deaf: bool = False) -> "subprocess.Popen[str]":
        """Start `kaos up`; ``deaf`` as a shell's background job, which ignores SIGINT."""
        process = subprocess.Popen(
            [*KAOS, "up", "--data-dir", str(self.data), "--port", str(self.port), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if deaf else None,
        )
        self.ups.append(process)
        return process

    def ready(self, process: "subprocess.Popen[str]") -> None:
        """Wait until it told that all answers."""

        def told() -> bool:
            assert process.poll() is None, process.stderr.read()
            with contextlib.suppress(OSError):
                healthy = request("GET", f"{self.url}/services/kaos/health").status == 200
                return healthy and (self.data / "secrets" / "password-shown").exists()
            return False

        wait_until(told, 240, "kaos up")

    @property
    def log(self) -> Path:
        """What the Hub says."""
        return self.data / "logs" / "hub.log"

    @property
    def hub_pid(self) -> int:
        """The Hub's process id."""
        return int((self.data / "hub.lock").read_text())

    def left(self) -> list[str]:
        """Processes that belong to the data directory."""
        mark = f"KAOS_DATA_DIR={self.data}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().decode())
        return found


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    for process in machine.ups:
        if process.poll() is None:
            process.kill()
        process.communicate()
    end_all_with(tmp_path)


def interrupt(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Press Ctrl-C and read what was said."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)


def test_up_tells_logs_in_and_stops(machine):
    first = machine.up()
    machine.ready(first)
    user = DataDir(machine.data).user

    # the command line is logged in
    credentials = machine.directory / "config" / "kaos_hub" / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    whoami = machine.kaos("--json", "whoami")
    assert whoami.returncode == 0, whoami.stderr
    assert json.loads(whoami.stdout)["user"] == user

    # and only into what it needs
    token = machine.kaos("token").stdout.strip()
    scopes = request("GET", f"{machine.url}/hub/api/user", token).json["scopes"]
    assert not [s for s in scopes if s.startswith(("admin", "tokens", "servers"))]

    # all of it listens on this machine alone
    inner = set(json.loads((machine.data / "ports.json").read_text()).values())
    assert listeners(inner | {machine.port}) == {"127.0.0.1"}

    # a second one says that there is one
    second = machine.kaos("up", "--data-dir", str(machine.data))
    assert second.returncode == 5
    assert machine.url in second.stderr
    assert str(machine.hub_pid) in second.stderr

    # nor does a bare JupyterHub end the proxy of the one that runs
    config = Path(__file__).parent.parent / "jupyterhub_config.py"
    bare = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "-f", str(config)],
        env=machine.environment | {"KAOS_DATA_DIR": str(machine.data)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert bare.returncode == 1
    assert "already in use by process" in bare.stderr
    assert "Traceback" not in bare.stderr
    assert request("GET", f"{machine.url}/services/kaos/health").status == 200

    # a doctor finds nothing wrong
    doctor = machine.kaos("--json", "doctor", "--data-dir", str(machine.data))
    report = json.loads(doctor.stdout)
    assert doctor.returncode == 0, report
    assert {c["name"]: c["state"] for c in report["checks"]}["service"] == "good"
    # ... and looks at what the engine of that hub needs, without being told which that is
    assert machine.data.joinpath("engine").read_text() == "local"
    other = machine.data.parent / "other"
    other.mkdir()
    (other / "engine").write_text("docker")
    seen = [machine.kaos("doctor", "--data-dir", str(place)) for place in (machine.data, other)]
    assert ["not needed with the engine local" in one.stdout for one in seen] == [True, False]

    out, err = interrupt(first)
    assert first.returncode == 0, err
    assert "Traceback" not in err
    assert machine.url in out
    assert user in out
    password = machine.kaos("up", "--data-dir", str(machine.data), "--show-password").stdout.strip()
    assert password in out
    wait_until(lambda: not machine.left(), 5, "end of all processes")

    # told once, valid for good
    again = machine.up()
    machine.ready(again)
    browser = Browser(machine.url, user, password)
    assert browser.get("/hub/home").status == 200
    assert Browser(machine.url, user, "wrong").get("/hub/home").status == 302
    assert machine.kaos("token").stdout.strip() == token
    out, _ = interrupt(again)
    assert password not in out


def listeners(ports: set[int]) -> set[str]:
    """The addresses at which somebody listens on these ports."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                raw = bytes.fromhex(address)
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                found.add(socket.inet_ntop(family, b"".join(words)))
    return found


def test_killed_hub_is_told_and_the_next_start_works_at_once(machine):
    first = machine.up()
    machine.ready(first)
    os.kill(machine.hub_pid, signal.SIGKILL)
    _, err = first.communicate(timeout=20)
    assert first.returncode == 1
    assert "The Hub ended" in err
    wait_until(lambda: not machine.left(), 10, "end of service and proxy")

    second = machine.up()
    machine.ready(second)
    # Now all at once, as when the machine's memory runs out: the proxy is left behind.
    hub = machine.hub_pid
    second.kill()
    os.kill(hub, signal.SIGKILL)
    assert (machine.data / "proxy.pid").exists()
    begun = time.monotonic()
    third = machine.up()
    machine.ready(third)
    assert time.monotonic() - begun < 20
    interrupt(third)


def test_parts_that_speak_tls_are_started_and_looked_at(machine):
    extra = machine.directory / "extra.py"
    extra.write_text("c = get_config()\nc.JupyterHub.internal_ssl = True\n")
    process = machine.up("-f", str(extra))
    machine.ready(process)
    assert machine.kaos("whoami").returncode == 0
    said = json.loads(machine.kaos("--json", "doctor").stdout)
    found = {check["name"]: check["state"] for check in said["checks"]}
    assert (found["internal TLS"], found["service"]) == (GOOD, GOOD), said
    interrupt(process)
    assert process.returncode == 0


def test_background_job_can_be_interrupted(machine):
    process = machine.up("--json", deaf=True)
    machine.ready(process)
    begun = time.monotonic()
    out, err = interrupt(process)
    assert process.returncode == 0, err
    assert time.monotonic() - begun < 15
    assert set(json.loads(out)) == {"url", "user", "logged_in", "password"}


def test_taken_port_names_the_option(machine):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", machine.port))
        stranger.listen()
        process = machine.up()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 5
    assert f"Port {machine.port} is taken" in err
    assert "--port" in err
    ports = machine.data / "ports.json"
    assert not ports.exists() or machine.port not in json.loads(ports.read_text()).values()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("c.JupyterHub.spawner_class = 'no-such-spawner'", "no-such-spawner"),
        (
            "c.JupyterHub.update(internal_ssl=True, external_ssl_authorities={'hub-ca': {}})",
            "external_ssl_authorities does not work with kaos_hub",
        ),
        ("limits = unheard", "NameError: name 'unheard' is not defined ({}, line 1)"),
    ],
)
def test_broken_configuration_ends_with_its_reason(machine, line, reason):
    extra = machine.directory / "extra.py"
    extra.write_text(line + "\n")
    machine.log.parent.mkdir(parents=True, exist_ok=True)
    machine.log.write_text("[E an earlier start] said this\n")
    process = machine.up("-f", str(extra))
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert reason.format(extra) in err
    assert "earlier start" not in err
    assert "hub.log" in err
    assert 'File "' not in err


def test_light_installation_says_what_is_missing(machine):
    code = "import sys; sys.modules['jupyterhub'] = None; from kaos_hub.cli import main; main()"
    seen = subprocess.run(
        [sys.executable, "-c", code, "up", "--data-dir", str(machine.data)],
        env=machine.environment,
        capture_output=True,
        text=True,
    )
    assert seen.returncode == 2
    assert "pip install 'kaos-hub[hub]'" in seen.stderr
    assert not machine.data.exists()


def test_doctor_says_what_is_wrong_and_what_to_do(machine):
    machine.environment["XDG_CACHE_HOME"] = str(machine.directory / "cache")
    data = DataDir(machine.data)
    machine.data.chmod(0o755)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        data.set_port("public", stranger.getsockname()[1])
        seen = machine.kaos("doctor", "--data-dir", str(machine.data))
    assert seen.returncode == 1
    assert "✗ port:" in seen.stdout and "--port" in seen.stdout
    assert f"chmod 700 {machine.data}" in seen.stdout
    assert "! login: not logged in" in seen.stdout
    assert "! proxy: not fetched yet" in seen.stdout
    assert "Traceback" not in seen.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_doctor_names_what_is_closed_to_us(machine):
    data = DataDir(machine.data)
    data.store.chmod(0)
    seen = machine.kaos("doctor", "--data-dir", str(machine.data))
    inside = machine.kaos("doctor", "--data-dir", str(data.store / "deeper"))
    data.store.chmod(0o700)
    assert seen.returncode == inside.returncode == 1
    assert f"✗ data directory: {data.store} cannot be read" in seen.stdout
    assert f"chmod -R u+rwX {data.store}" in seen.stdout
    assert "✗ data directory:" in inside.stdout
    assert "Traceback" not in seen.stderr + inside.stderr


def test_doctor_touches_nothing(machine):
    seen = machine.kaos("doctor", "--data-dir", str(machine.data))
    assert seen.returncode == 0, seen.stdout
    assert not machine.data.exists()


BASE = "/jupyter/kaos"


@pytest.mark.parametrize(
    "lines",
    [
        'c.JupyterHub.base_url = "{base}/"',
        'c.JupyterHub.bind_url = "http://127.0.0.1:{port}{base}"',
        'c.JupyterHub.bind_url = "http://127.0.0.1:{port}"\nc.JupyterHub.base_url = "{base}"',
    ],
)
def test_a_hub_may_have_a_path(machine, lines):
    """However that is said, it listens on this machine alone, and the command line finds it."""
    extra = machine.directory / "hub.py"
    extra.write_text("c = get_config()\n" + lines.format(base=BASE, port=machine.port))
    root, machine.url = machine.url, machine.url + BASE
    machine.ready(machine.up("-f", str(extra)))
    assert listeners({machine.port}) == {"127.0.0.1"}
    whoami = machine.kaos("whoami").stdout
    assert f"hub        {machine.url}\n" in whoami, whoami
    doctor = machine.kaos("doctor")
    assert f"hub: answers at {machine.url}" in doctor.stdout, doctor.stdout
    assert "login:" in doctor.stdout and "!" not in doctor.stdout.partition("login:")[2]
    assert request("GET", f"{root}/services/kaos/health").status == 404
    assert machine.url in machine.kaos("up", "--data-dir", str(machine.data)).stderr


@pytest.mark.parametrize(
    ("public", "reason"),
    [
        ("hub.example.org", "https://hub.example.org or"),
        ("ftp://hub.example.org", "https://hub.example.org or"),
        ("https://example.org/user/kaos", "Take another"),
        ("https://example.org/jupyter?x=1", "nothing may follow"),
        ("https://[::1", "https://hub.example.org or"),
    ],
)
def test_a_public_url_that_is_none_is_refused_at_once(machine, public, reason):
    machine.environment["KAOS_PUBLIC_URL"] = public
    began = time.monotonic()
    done = machine.kaos("up", "--data-dir", str(machine.data))
    assert done.returncode == 2
    assert reason in done.stderr and "Traceback" not in done.stderr
    assert not machine.data.exists()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("line", "public", "reason"),
    [
        ('base_url = "/a"', "https://example.org/b", "has one path"),
        ('base_url = "/a"', "https://example.org", "https://example.org/a"),
        ('base_url = "/hub/a"', "", "Take another"),
        ('bind_url = "http://127.0.0.1:8000/a"; c.JupyterHub.base_url = "/b"', "", "has one path"),
    ],
)
def test_addresses_that_contradict_each_other_are_refused(machine, line, public, reason):
    extra = machine.directory / "hub.py"
    extra.write_text(f"c = get_config()\nc.JupyterHub.{line}")
    machine.environment["KAOS_PUBLIC_URL"] = public
    done = machine.kaos("up", "--data-dir", str(machine.data), "-f", str(extra))
    assert done.returncode == 1
    assert reason in done.stderr and "Traceback" not in done.stderr
    assert listeners({machine.port}) == set()


@pytest.mark.docker
@needs_docker
class TestBuilders:
    """Which builder is in force on a Docker Engine follows from who can log in."""

    def extra(self, machine: Machine, *lines: str) -> str:
        path = machine.directory / "hub.py"
        path.write_text("\n".join(["c = get_config()", *lines]))
        return str(path)

    def doctor(self, machine: Machine) -> str:
        done = machine.kaos(
            "--json", "doctor", "--engine", "docker", "--data-dir", str(machine.data)
        )
        checks = json.loads(done.stdout)["checks"]
        return next(c["text"] for c in checks if c["name"] == "docker builds")

    def test_the_engines_own_is_refused_where_several_log_in(self, machine):
        extra = self.extra(machine, "c.DockerEngine.builder = 'engine'")
        up = ["up", "--engine", "docker", "--data-dir", str(machine.data), "-f", extra]
        done = machine.kaos(*up, "--port", str(machine.port))
        assert done.returncode == 1
        assert "one person alone can log in" in done.stderr and "allow_all" in done.stderr
        assert "user_password = ''" in done.stderr and "Traceback" not in done.stderr
        assert not machine.left()

    def test_the_safe_one_is_said(self, machine):
        process = machine.up("--engine", "docker")
        machine.ready(process)
        assert "each in a container of its own, since everybody" in self.doctor(machine)
        out, err = interrupt(process)
        assert "builds        each in a container of its own" in out, err
        assert "others        any name" in out
        dismiss(machine.data)

    def test_the_engines_own_for_one_person(self, machine):
        lines = [
            "c.DockerEngine.builder = 'engine'",
            "c.SharedPasswordAuthenticator.user_password = ''",
            "c.JupyterHub.services.append({'name': 'else', 'api_token': 'e' * 32})",
            "c.JupyterHub.load_roles.append({'name': 'else', 'services': ['else'],",
            "    'scopes': ['admin:users', 'tokens']})",
        ]
        process = machine.up("--engine", "docker", "-f", self.extra(machine, *lines))
        machine.ready(process)
        user = DataDir(machine.data).user
        assert (
            f"own builder, as c.DockerEngine.builder asks: only {user} can log in"
            in self.doctor(machine)
        )
        secrets = machine.data / "secrets"
        others = (secrets / "users-password").read_text()
        assert Browser(machine.url, "bob", others).get("/hub/home").status == 302
        # Nor is another user served whom another service made, with a token of its own.
        bob = f"{machine.url}/hub/api/users/bob"
        assert request("POST", bob, "e" * 32).status == 201
        made = request("POST", f"{bob}/tokens", "e" * 32, {"note": "for a test"})
        url = f"{machine.url}/services/kaos/api/v1/whoami"
        answer = request("GET", url, made.json["token"])
        assert answer.status == 403 and f"Only '{user}' is served" in answer.json["message"]
        out, err = interrupt(process)
        assert "the Docker Engine's own builder" in out, err
        assert "others" not in out
        dismiss(machine.data)


def test_commands_wait_for_a_hub_that_is_starting(machine):
    process = machine.up()
    wait_until(lambda: (machine.data / "up.lock").exists(), 30, "the start")
    waited = machine.kaos("whoami")
    assert waited.returncode == 0, waited.stderr
    assert "starting" in waited.stderr
    machine.ready(process)
    assert "starting" not in machine.kaos("whoami").stderr


def test_commands_do_not_wait_for_a_start_that_failed(machine):
    with socket.create_server(("127.0.0.1", machine.port)):
        assert machine.up().wait(60)
    done = machine.kaos("whoami")
    assert done.returncode == 4
    assert "not logged in" in done.stderr


def test_doctor_looks_at_the_hub_that_one_is_logged_in_to(machine):
    machine.ready(machine.up())
    seen = json.loads(machine.kaos("--json", "doctor").stdout)["checks"]
    assert str(machine.data) in next(c["text"] for c in seen if c["name"] == "data directory")
    machine.environment["KAOS_DATA_DIR"] = str(machine.directory / "other")
    seen = json.loads(machine.kaos("--json", "doctor").stdout)["checks"]
    assert "other" in next(c["text"] for c in seen if c["name"] == "data directory")
