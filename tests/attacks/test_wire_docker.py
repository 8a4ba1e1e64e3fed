"""Attacks on the wire from containers of a hub with ``c.JupyterHub.internal_ssl``.

Cause 2 of the review: what is in one network with a notebook listens to it, and talks to it. Here
the attacker is the notebook's neighbour: another container of the same owner's.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kaos_hub.client import Client
from kaos_hub.schemas import NotebookState, TrainingState
from tests.engines import needs_docker
from tests.hub import RunningHub, running_hub, wait_until
from tests.internal_tls import SECURE, TRY, port
from tests.kernels import Kernel
from tests.trainers import make_data, make_source

pytestmark = [pytest.mark.docker, needs_docker]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp("wire")
    with running_hub(directory, engine="docker", config=SECURE) as running:
        yield running


class Ada:
    """The owner of the notebooks.

    Args:
        hub: where they are.
    """

    def __init__(self, hub: RunningHub) -> None:
        self._token = hub.token("ada")
        self.client = Client(hub.url, self._token)

    def begin(self, name: str) -> Kernel:
        """Start a notebook; a kernel in it."""
        self.client.notebooks.deploy(name=name).wait(240)
        return Kernel(self.client.notebooks.get(name).url, self._token)


@pytest.fixture(scope="module")
def ada(hub: RunningHub) -> Ada:
    return Ada(hub)


@pytest.fixture(scope="module")
def victim(ada: Ada) -> Kernel:
    return ada.begin("victim")


@pytest.fixture(scope="module")
def neighbour(ada: Ada, victim: Kernel) -> Kernel:
    """Another notebook of the same owner's."""
    return ada.begin("neighbour")


def test_notebooks_and_trainings_work(ada: Ada, victim: Kernel, tmp_path: Path) -> None:
    """What is shut to others is open to those whom it is for."""

    def reported() -> bool:
        verdict = ada.client.notebooks.get("victim").verdict
        return verdict is not None and "1 kernels" in verdict.reason

    wait_until(reported, 60, "a report of the kernel")
    code = "import subprocess as s; print(s.check_output(['kaos', 'notebook', 'list'], text=True))"
    assert "victim" in victim.run(code)
    source, rows = make_source(tmp_path / "source"), make_data(tmp_path / "rows")
    found = ada.client.trainings.deploy(source, rows, cpu=0.5, memory="200Mi").wait()
    assert found.state is TrainingState.SUCCEEDED, found.reason
    assert ada.client.trainings.trial(found.id, 1).metrics == {"score": 35, "said": 0.5}


def test_a_neighbour_is_not_heard(hub: RunningHub, victim: Kernel, neighbour: Kernel) -> None:
    """Cause 2: plain HTTP, TLS without a certificate, and with the neighbour's own, to the server
    of a notebook; the first two to the port of the service that workloads ask at, and the Hub's."""
    code = "import os, socket; print(socket.gethostbyname(socket.gethostname()))"
    address = victim.run(code).strip()
    server = urlsplit(victim.run("print(os.environ['JUPYTERHUB_SERVICE_URL'])").strip())
    service = urlsplit(neighbour.run("import os; print(os.environ['KAOS_URL'])").strip())
    own = neighbour.run("print(os.environ['KAOS_TLS'])").strip()
    at = {
        "notebook": (address, server.port),
        "service": (service.hostname, service.port),
        "hub": (service.hostname, port(hub, "hub")),
    }
    kinds = {"plain": (), "nobody": (), "own": (own,)}
    targets = [[f"{k} {n}", k, *at[n], *more] for n in at for k, more in kinds.items()]
    command = ["python3", "-c", TRY, json.dumps(targets)]
    run = f"import subprocess as s; r = s.run({command!r}, capture_output=True, text=True)"
    said = json.loads(neighbour.run(f"{run}\nprint(r.stdout, r.stderr)"))
    assert {name for name, answer in said.items() if answer} == {"own service", "own hub"}, said
    assert len(said) == 9


def test_the_key_is_the_servers_alone(hub: RunningHub, neighbour: Kernel) -> None:
    """Cause 2: a notebook's key where others look: in what the Engine tells of containers (their
    environment, say), and in the files of the machine (homes, which stay, among them)."""
    stat = "import os; d = os.stat('/kaos/tls'); f = os.stat('/kaos/tls/identity.pem')\n"
    told = "print(oct(d.st_mode), oct(f.st_mode), d.st_uid == f.st_uid == os.getuid())"
    assert neighbour.run(stat + told) == "0o40500 0o100400 True\n"
    key = neighbour.run("print(open('/kaos/tls/identity.pem').read())").strip()
    secret = key.splitlines()[1]
    assert "PRIVATE KEY" in key and len(secret) == 64
    home = f"volume={next((hub.data / 'homes').iterdir())}"
    names = subprocess.check_output(["docker", "ps", "-q", "--filter", home], text=True).split()
    assert names and secret not in subprocess.check_output(["docker", "inspect", *names], text=True)
    kept = [p for p in hub.data.rglob("*") if p.is_file() and os.access(p, os.R_OK)]
    assert kept and not [p for p in kept if secret.encode() in p.read_bytes()]


def test_a_hub_that_died_before_it_knew_the_address_certifies_again(
    hub: RunningHub, ada: Ada, victim: Kernel
) -> None:
    """Else a killed Hub would leave a server that waits for its certificate in vain."""
    shown = "print(open('/kaos/tls/identity.pem').read())"
    before, service = victim.run(shown), hub.service_pid()
    hub.kill()
    wait_until(lambda: not Path(f"/proc/{service}").exists(), 30, "the end of the service")
    with contextlib.closing(sqlite3.connect(hub.data / "jupyterhub.sqlite")) as database, database:
        cut = "update spawners set state = json_remove(state, '$.address') where name = 'victim'"
        assert database.execute(cut).rowcount == 1
    hub.start()
    assert victim.run(shown) != before
    run = "import subprocess as s; s.run(['kaos', 'notebook', 'list'], check=True)"
    victim.run(run)
    assert ada.client.notebooks.get("victim").state is NotebookState.RUNNING
