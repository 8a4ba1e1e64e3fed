"""Attacks on the wire within a hub whose parts speak TLS (``c.JupyterHub.internal_ssl``).

Cause 2 of the review: whoever is on the network of a notebook listens to, or talks to, what should
be for the Hub's parts alone. On a local hub every port is in reach of all that runs there.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kaos_hub.client import Client
from kaos_hub.installation.certificates import Certificates
from tests.hub import RunningHub, running_hub
from tests.internal_tls import SECURE, TRY, certificates, port

USERS = ("ada", "service")
"""To JupyterHub, certificates of a user of the second name would be those of its services."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on a machine that believes one authority more."""
    directory = tmp_path_factory.mktemp("wire")
    Certificates(directory / "elsewhere").prepare([])
    theirs = (directory / "elsewhere/hub-ca/hub-ca.crt").read_text()
    believed = directory / "believed.crt"
    believed.write_text(Path("/etc/ssl/certs/ca-certificates.crt").read_text() + theirs)
    environment = {"SSL_CERT_FILE": str(believed)}
    with running_hub(directory, config=SECURE, environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def before(hub: RunningHub) -> dict[Path, bytes]:
    """Keys of the hub's parts before anything of a user's has started."""
    return {path: path.read_bytes() for path in certificates(hub).rglob("*.key")}


@pytest.fixture(scope="module")
def notebooks(hub: RunningHub, before: dict[Path, bytes]) -> dict[str, int]:
    """A notebook of each user; the ports of their servers."""
    for user in USERS:
        Client(hub.url, hub.token(user)).notebooks.deploy(name="nb").wait(240)
    routes = [environment(pid) for pid in servers(hub)]
    found = {r["JUPYTERHUB_USER"]: urlsplit(r["JUPYTERHUB_SERVICE_URL"]).port for r in routes}
    assert set(found) == set(USERS)
    return {user: number or 0 for user, number in found.items()}


def servers(hub: RunningHub) -> list[int]:
    """Processes that are the server of a notebook, or started it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (told := environment(int(entry.name))):
            ours = told.get("KAOS_URL", "").startswith(f"https://127.0.0.1:{port(hub, 'service')}/")
            found += [int(entry.name)] if ours and "JUPYTERHUB_SERVICE_URL" in told else []
    return found


def environment(pid: int) -> dict[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_text()
    except (OSError, UnicodeError):
        return {}
    return dict(each.split("=", 1) for each in content.split("\0") if "=" in each)


def identities(hub: RunningHub) -> dict[str, Path]:
    """What notebooks hold, by workload: here the test reads it, being root of all."""
    return {p.parents[1].name: p for p in hub.data.glob("scratch/*/tls/identity.pem")}


def tried(*targets: list[Any]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", TRY, json.dumps(targets)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def parts(hub: RunningHub, notebooks: dict[str, int]) -> dict[str, int]:
    """Ports that are for parts of the hub alone."""
    inner = {role: port(hub, role) for role in ("hub", "service", "admission", "proxy")}
    return inner | {f"notebook of {user}": number for user, number in notebooks.items()}


def test_who_has_no_certificate_is_not_heard(hub: RunningHub, notebooks: dict[str, int]) -> None:
    """Cause 2: plain HTTP, and TLS without a certificate, to each port within the hub."""
    at = parts(hub, notebooks)
    said = tried(*([f"{kind} {name}", kind, "127.0.0.1", number]
                   for name, number in at.items() for kind in ("plain", "nobody")))  # fmt: skip
    assert said == dict.fromkeys(said, "")
    assert len(said) == 2 * 6


def test_an_authority_of_the_machine_is_none_of_the_hubs(
    hub: RunningHub, notebooks: dict[str, int], tmp_path: Path
) -> None:
    """Cause 2: with a certificate for some name or other, from an authority that signs them for
    anybody and that this machine believes when it asks elsewhere. JupyterHub takes those."""
    theirs = hub.directory / "elsewhere/hub-internal/hub-internal"
    mine = tmp_path / "mine.pem"
    mine.write_text("".join(theirs.with_suffix(end).read_text() for end in (".key", ".crt")))
    at = parts(hub, notebooks)
    said = tried(*([name, "own", "127.0.0.1", number, str(mine)] for name, number in at.items()))
    assert said == dict.fromkeys(at, "")


def test_a_notebook_is_heard_by_hub_and_service_alone(
    hub: RunningHub, notebooks: dict[str, int]
) -> None:
    """Cause 2: with the certificate of one's own notebook to another's, to the private listener
    and to the proxy's, which would route others' requests to whom one likes."""
    at = parts(hub, notebooks)
    for file in identities(hub).values():
        said = tried(*([name, "own", "127.0.0.1", number, str(file)]
                       for name, number in at.items()))  # fmt: skip
        assert {name for name, answer in said.items() if answer.startswith("HTTP/1.")} == {
            "hub", "service",
        }  # fmt: skip


def test_a_worker_is_heard_by_the_service_alone(
    hub: RunningHub, notebooks: dict[str, int], tmp_path: Path
) -> None:
    """Cause 2: with the certificate of a trial to everything else."""
    file = tmp_path / "identity.pem"
    file.write_text(Certificates(certificates(hub)).worker("kaos-train-1", 600))
    at = parts(hub, notebooks)
    said = tried(*([name, "own", "127.0.0.1", number, str(file)] for name, number in at.items()))
    assert {name for name, answer in said.items() if answer} == {"service"}


LISTEN = """
import ssl, socket, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        try:
            context.wrap_socket(server.accept()[0], server_side=True).recv(1)
        except OSError:
            pass
"""


def test_a_notebook_cannot_pass_for_the_service(
    hub: RunningHub, notebooks: dict[str, int], tmp_path: Path
) -> None:
    """Cause 2: a server with a notebook's certificate, where another asks for the service."""
    mine, other = identities(hub).values()
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(mine)], stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    address = f"https://127.0.0.1:{int(listener.stdout.readline())}"
    code = "import http.client as h, sys, kaos_hub.util.tls as t, urllib.parse as u\n"
    code += (
        "t.connection(u.urlsplit(sys.argv[1]), 5, t.of_identity(sys.argv[2])).request('GET', '/')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, address, str(other)], capture_output=True, text=True
        )
    finally:
        listener.kill()
    assert done.returncode != 0 and "CERTIFICATE_VERIFY_FAILED" in done.stderr, done.stderr


def test_keys_are_each_ones_own(
    hub: RunningHub, notebooks: dict[str, int], before: dict[Path, bytes]
) -> None:
    """Cause 2: a user called `service`, whose certificate JupyterHub takes for its services'; keys
    in files that others may read, in environments, or left by JupyterHub for all of a user's."""
    assert before and {p: p.read_bytes() for p in before} == before
    kept = [*certificates(hub).rglob("*.key"), *identities(hub).values()]
    assert {p.stat().st_mode & 0o777 for p in kept} <= {0o600}
    assert {p.stat().st_mode & 0o077 for p in (hub.data, hub.data / "scratch")} == {0}
    keys = [re.search(r"-----BEGIN.*?KEY-----.*?END", p.read_text(), re.S) for p in kept]
    assert all(keys) and len({found[0] for found in keys if found}) == len(kept)
    seen = [environment(pid) for pid in servers(hub)]
    assert seen and all("PRIVATE KEY" not in value for told in seen for value in told.values())
    assert not list(certificates(hub).glob("user-ada*"))
    assert os.stat(certificates(hub) / "user-service").st_uid == os.getuid()
