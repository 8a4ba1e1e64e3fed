"""TLS between Hub, proxy, service and workloads (``c.JupyterHub.internal_ssl``), on a local hub."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.doctor import wire
from kaos_hub.doctor.finding import BAD, GOOD
from kaos_hub.errors import Unsupported
from kaos_hub.installation import internal_ssl
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.public_address import Settled, remember
from kaos_hub.schemas import NotebookState, TrainingState
from tests.hub import RunningHub, request, running_hub, wait_until
from tests.internal_tls import SECURE
from tests.kernels import Kernel
from tests.sites import serving
from tests.trainers import make_data, make_source

CONFIG = SECURE + "c.KaosService.manifest_networks = ['127.0.0.1']\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("tls"), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: RunningHub) -> Client:
    return Client(hub.url, hub.token("ada"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source")) / "mnist"


@pytest.fixture(scope="module")
def kernel(hub: RunningHub, client: Client, source: Path) -> Kernel:
    client.notebooks.deploy(source, name="lab").wait(240)
    kernel = Kernel(client.notebooks.get("lab").url, hub.token("ada"))
    kernel.run("import subprocess\nfrom pathlib import Path")
    return kernel


def run(kernel: Kernel, *command: str) -> str:
    """Run a command in a notebook; its output."""
    code = f"r = subprocess.run({list(command)}, capture_output=True, text=True)"
    return kernel.run(f"{code}\nassert r.returncode == 0, r\nprint(r.stdout, end='')")


def test_a_notebook_runs_cells_and_reports(client: Client, kernel: Kernel) -> None:
    assert kernel.run("print(6 * 7)") == "42\n"

    def in_use() -> bool:
        verdict = client.notebooks.get("lab").verdict
        return verdict is not None and "1 kernels" in verdict.reason

    wait_until(in_use, 60, "a report of the kernel")


def test_kaos_in_a_notebook_asks_the_service(kernel: Kernel) -> None:
    assert "lab" in run(kernel, "kaos", "notebook", "list")
    # Others who ask there say which certificate: what a terminal would do without kaos.
    code = "import os, urllib.request, kaos_hub.util.tls as t"
    code += "\nu = os.environ['KAOS_URL'] + '/health'"
    opened = "urllib.request.urlopen(u, context=t.of_environment())"
    assert kernel.run(f"{code}\nprint({opened}.status)") == "200\n"


def test_people_come_in_by_any_name(hub: RunningHub, client: Client, kernel: Kernel) -> None:
    """The proxy knows those behind it by their addresses, not by what visitors call the hub."""
    lab = client.notebooks.get("lab").url
    urls = (f"{hub.url}/hub/health", f"{hub.kaos}/health", f"{lab}/api")
    for name in ("hub.example.org", "localhost:8000", "127.0.0.1", "[::1]:80"):
        said = {url: request("GET", url, headers={"Host": name}).status for url in urls}
        assert said == dict.fromkeys(urls, 200), name


def test_saving_and_attaching(client: Client, kernel: Kernel, tmp_path: Path) -> None:
    """What the notebook's server does with the service besides reports: sends, and fetches."""
    kernel.run("Path('work/notes.txt').write_text('kept')")
    assert "mnist@v2" in run(kernel, "kaos", "notebook", "save")
    client.notebooks.attach("lab", make_data(tmp_path / "rows") / "features")
    found = "print(*sorted(p.name for p in Path('attached/features').rglob('*.csv')))"
    assert kernel.run(found) == "one.csv two.csv\n"


def test_a_training_ends_with_metrics(client: Client, source: Path, tmp_path: Path) -> None:
    rows = make_data(tmp_path / "rows")
    found = client.trainings.deploy(source.parent, rows, cpu=0.5, memory="200Mi").wait()
    assert found.state is TrainingState.SUCCEEDED, found.reason
    assert client.trainings.trial(found.id, 1).metrics == {"score": 35, "said": 0.5}


def test_data_are_fetched_by_a_manifest(client: Client, source: Path, tmp_path: Path) -> None:
    with serving() as site:
        lines = [
            {"url": site.put(f"/{name}", b"1\n2\n"), "path": f"training/{name}"}
            for name in ("one.csv", "two.csv")
        ]
        manifest = tmp_path / "list.mf"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        handle = client.trainings.deploy(
            source.parent, manifest=manifest, without_params=True, cpu=0.5, memory="200Mi"
        )
        found = handle.wait()
    assert found.state is TrainingState.SUCCEEDED, found.reason
    assert client.trainings.trial(found.id, 1).metrics["score"] == 4 * 7


def test_doctor_looks_at_the_wire(hub: RunningHub, tmp_path: Path) -> None:
    (found,) = wire.checks(DataDir(hub.data))
    assert found.state == GOOD, found
    assert wire.checks(DataDir(tmp_path)) == []


def test_a_notebook_is_found_again_by_the_next_hub(
    hub: RunningHub, client: Client, kernel: Kernel
) -> None:
    """Its certificate, and those of the hub's parts, are good beyond the death of a Hub."""
    service = hub.service_pid()
    hub.kill()
    wait_until(lambda: not Path(f"/proc/{service}").exists(), 30, "the end of the service")
    hub.start()
    assert kernel.run("print('still here')") == "still here\n"
    assert client.notebooks.get("lab").state is NotebookState.RUNNING
    kernel.end()

    def told() -> bool:
        verdict = client.notebooks.get("lab").verdict
        return verdict is not None and "no kernel" in verdict.reason

    wait_until(told, 90, "a report of the kernel's end")


def test_what_began_without_is_ended_and_can_be_started(tmp_path: Path) -> None:
    """A notebook that speaks plain HTTP could neither ask a hub that does not, nor be asked."""
    hub = RunningHub(tmp_path / "hub")
    hub.start()
    try:
        client = Client(hub.url, hub.token("ada"))
        client.notebooks.deploy(name="old").wait(240)
        service = hub.service_pid()
        hub.kill()
        wait_until(lambda: not Path(f"/proc/{service}").exists(), 30, "the end of the service")
        hub.config = SECURE
        hub.start()

        def ended() -> bool:
            return client.notebooks.get("old").state is NotebookState.STOPPED

        wait_until(ended, 60, "the end of the notebook")
        assert "before c.JupyterHub.internal_ssl was changed" in hub.log.read_text()
        client.notebooks.deploy(name="old").wait(120)
        Kernel(client.notebooks.get("old").url, hub.token("ada")).run("1")
    finally:
        hub.stop()


def test_certificates_are_made_once_and_for_all_names(tmp_path: Path) -> None:
    made = Certificates(tmp_path / "ssl")
    assert not made.prepare(["IP:172.17.0.1"])
    pairs = {p: p.read_bytes() for p in (tmp_path / "ssl").rglob("*.key")}
    assert {p.stat().st_mode & 0o777 for p in pairs} == {0o600}
    assert not made.prepare(["IP:172.17.0.1"])
    assert {p: p.read_bytes() for p in pairs} == pairs
    assert not made.prepare(["IP:172.17.0.1", "DNS:hub.example.org"])
    changed = {p.stem for p in pairs if p.read_bytes() != pairs[p]}
    assert changed == {"hub-internal", "proxy-api", "proxy-client", "kaos-service"}
    assert made.prepare([], anew=True)
    assert all(p.read_bytes() != pairs[p] for p in pairs)
    assert made.until() > datetime.now(UTC) + timedelta(days=4 * 365)


@pytest.mark.parametrize("harm", ["record", "empty key", "other key", "cut certificate"])
def test_what_a_killed_hub_left_half_written_is_made_anew(tmp_path: Path, harm: str) -> None:
    made = Certificates(tmp_path)
    made.prepare([])
    if harm == "record":
        record = tmp_path / "certipy.json"
        record.write_bytes(record.read_bytes()[:100])
    if harm == "empty key":
        (tmp_path / "services-ca/services-ca.key").write_bytes(b"")
    if harm == "other key":
        other = tmp_path / "hub-ca/hub-ca.key"
        (tmp_path / "services-ca/services-ca.key").write_bytes(other.read_bytes())
    if harm == "cut certificate":
        cut = tmp_path / "hub-ca/hub-ca.crt"
        cut.write_bytes(cut.read_bytes()[:100])
    assert made.prepare([])
    made.service_server()
    made.hub_client()
    assert made.notebook("w", "127.0.0.1").identity.count("BEGIN CERTIFICATE") == 2


def test_doctor_tells_of_certificates_that_end_or_are_gone(tmp_path: Path) -> None:
    data, place = DataDir(tmp_path), tmp_path / "ssl"
    remember(data, Settled("", "", "", "", str(place)))
    assert [f.state for f in wire.checks(data)] == [BAD]
    Certificates(place).prepare([])
    (found,) = wire.checks(data)
    assert (found.state, "does not answer" in found.text) == (BAD, True)


@pytest.mark.parametrize(
    ("hub", "line", "where", "reason"),
    [
        ({"internal_ssl": True}, {}, "kubernetes", "on Kubernetes"),
        ({}, {"internal_ssl": True}, "local", "comes too late"),
        ({"internal_ssl": True}, {"recreate_internal_certs": True}, "docker", "in a file"),
        ({"internal_ssl": True, "external_ssl_authorities": {"a": {}}}, {}, "local", "Leave it"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(
    hub: dict[str, object], line: dict[str, object], where: str, reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        internal_ssl.check(hub, line, where)
