"""The whole service on a bucket: the key stays in the service, and workloads fetch with tickets."""

import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kaos_hub.client import Client
from tests import s3
from tests.hub import RunningHub, running_hub, wait_until
from tests.test_service_life import only_line, start_by_hand

CONTENT = secrets.token_bytes(20 << 20)


@pytest.fixture(scope="module")
def bucket(s3_server: s3.Server) -> str:
    return s3_server.bucket()


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, s3_server: s3.Server, bucket: str
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp("hub")
    s3_server.key_files(directory / "data" / "secrets")
    environment = {"KAOS_STORE": s3_server.url(bucket, "kaos")}
    with running_hub(directory, environment=environment) as hub:
        yield hub


@pytest.fixture(scope="module")
def kaos(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Ada, who has sent a bundle with a large file."""
    kaos = Client(hub.url, hub.token("ada"))
    folder = tmp_path_factory.mktemp("data")
    (folder / "large").write_bytes(CONTENT)
    (folder / "sub").mkdir()
    for number in range(40):
        (folder / "sub" / f"{number}.txt").write_text(f"number {number}")
    kaos.bundles.submit(folder, "data", "things")
    return kaos


def test_bundles_go_in_and_come_out(
    hub: RunningHub, kaos: Client, s3_server: s3.Server, bucket: str, tmp_path: Path
) -> None:
    keys = s3_server.keys(bucket)
    assert len(keys) == 44  # 41 files, two folders, and the mark
    assert all(key.startswith("kaos/") for key in keys)
    assert s3_server.unfinished(bucket) == []
    assert list((hub.data / "store").iterdir()) == []
    kaos.bundles.get("data", "things", target=tmp_path / "got")
    assert (tmp_path / "got" / "large").read_bytes() == CONTENT
    assert (tmp_path / "got" / "sub" / "7.txt").read_text() == "number 7"


def test_a_notebook_sees_its_data_and_nobody_else_the_key(
    hub: RunningHub, kaos: Client, s3_server: s3.Server
) -> None:
    version = kaos.bundles.list("data")[0]
    notebook = kaos.notebooks.deploy(name="one", data="things")
    try:
        assert notebook.wait().state == "RUNNING"
        tree = hub.data / "trees" / version.digest.removeprefix("blake3:")
        assert (tree / "large").read_bytes() == CONTENT
        assert (tree / "sub" / "39.txt").read_text() == "number 39"
        assert not (tree / "large").stat().st_mode & 0o222
        service = hub.service_pid()
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) not in (service, os.getpid()):
                try:
                    said = (process / "environ").read_bytes()
                except OSError:
                    continue
                assert s3_server.secret.encode() not in said, (process / "cmdline").read_bytes()
        for place in ("workloads", "scratch", "logs", "homes"):
            for path in (p for p in (hub.data / place).rglob("*") if p.is_file()):
                assert s3_server.secret.encode() not in path.read_bytes(), path
        assert s3_server.secret not in hub.log.read_text()
    finally:
        kaos.notebooks.delete("one")


def test_a_client_that_dies_leaves_nothing(
    hub: RunningHub, s3_server: s3.Server, bucket: str
) -> None:
    before = s3_server.keys(bucket)
    address = urlsplit(hub.api)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST {address.path}/objects HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: token {hub.token('ada')}\r\nContent-Length: {1 << 28}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        connection.sendall(head.encode() + f"{'ab' * 32} {(1 << 28) - 76}\n".encode())
        connection.sendall(bytes(30 << 20))
        wait_until(lambda: s3_server.unfinished(bucket), 20, "the upload of a part")
    wait_until(lambda: not s3_server.unfinished(bucket), 20, "the end of the upload")
    assert s3_server.keys(bucket) == before


def test_memory_stays_flat(hub: RunningHub, kaos: Client, tmp_path: Path) -> None:
    before = hub.service_memory()
    with (tmp_path / "large").open("wb") as file:
        for _ in range(20):
            file.write(secrets.token_bytes(10 << 20))
    kaos.bundles.submit(tmp_path, "data", "much")
    kaos.bundles.get("data", "much", target=tmp_path / "got")
    assert hub.service_memory() - before < 100 << 20


def test_a_service_that_cannot_use_its_bucket_does_not_start(
    s3_server: s3.Server, tmp_path: Path
) -> None:
    s3_server.key_files(tmp_path / "secrets")
    environment = {
        "KAOS_STORE": s3_server.url("nowhere"),
        "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:1",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
        "JUPYTERHUB_API_TOKEN": "x",
    }
    said = only_line(start_by_hand(tmp_path, **environment))
    assert "There is no bucket 'nowhere'" in said
    assert not re.search(s3_server.secret, said)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("bucket", "neither `file` nor a URL"), ("s9://x", "kinds installed are: file, s3")],
)
def test_what_is_no_store_is_said(tmp_path: Path, value: str, expected: str) -> None:
    environment = {
        "KAOS_STORE": value,
        "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:1",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
        "JUPYTERHUB_API_TOKEN": "x",
    }
    assert expected in only_line(start_by_hand(tmp_path, **environment))
