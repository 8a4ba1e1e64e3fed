"""What only a store in a bucket can be asked: keys, parts, servers that are not as they should."""

import asyncio
import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from kaos_hub.bundles.tree import digest
from kaos_hub.doctor import storage
from kaos_hub.doctor.finding import BAD, GOOD
from kaos_hub.errors import InvalidRequest, KaosError, Unavailable
from kaos_hub.installation.datadir import DataDir
from kaos_hub.stores.access import open_store
from kaos_hub.stores.s3.address import Address
from kaos_hub.stores.s3.client import Client, KeyFiles
from kaos_hub.stores.s3.store import S3Store
from kaos_hub.stores.s3.upload import PART, LargeObject, Turns
from tests import s3
from tests.hub import free_port, wait_until
from tests.private_registry import Authority
from tests.test_stores import get, put

HUGE = os.urandom(1 << 20) * (3 * PART >> 20)
NEWEST = timedelta(minutes=-1)  # servers round


@pytest.fixture
def bucket(s3_server: s3.Server) -> str:
    """An empty bucket."""
    return s3_server.bucket()


@pytest.fixture
def store(s3_server: s3.Server, bucket: str, tmp_path: Path) -> S3Store:
    """A store in it."""
    opened = open_store(s3_server.url(bucket), s3_server.key_files(tmp_path / "secrets"))
    assert isinstance(opened, S3Store)
    return opened


# --- addresses ---


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "s3://bucket/a/b%20c",
        "s3://bucket?endpoint=http://127.0.0.1:9000&region=here",
        "s3://bucket/p?endpoint=https://s3.example.org&style=virtual",
    ],
)
def test_an_address_is_written_as_it_was_read(url: str) -> None:
    assert Address.parse(url).url == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "no store's URL"),
        ("s3://me:hunter2@bucket", "no store's URL"),
        ("s3://bucket?secret_access_key=hunter2", "Credentials do not belong there"),
        ("s3://bucket?endpoint=https://me:hunter2@host", "Credentials do not belong there"),
        ("s3://bucket?endpoint=host:9000", "URL of a server"),
        ("s3://bucket?style=odd", "`path` or `virtual`"),
    ],
)
def test_a_wrong_address_is_refused_and_shows_no_password(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Address.parse(url)
    assert said in refused.value.message
    assert "hunter2" not in refused.value.message


# --- what may be wrong at the start ---


async def probe(url: str, secrets: Path) -> str:
    """What is wrong with a store."""
    with pytest.raises(Unavailable) as problem:
        await open_store(url, secrets).probe()
    return problem.value.message


async def test_a_missing_bucket_is_said(s3_server: s3.Server, tmp_path: Path) -> None:
    secrets = s3_server.key_files(tmp_path)
    said = await probe(s3_server.url("not-there"), secrets)
    assert f"There is no bucket 'not-there' on {s3_server.endpoint}. Make it" in said


@pytest.mark.parametrize("name", ["s3-access-key-id", "s3-secret-access-key"])
async def test_a_wrong_key_is_said_but_not_shown(
    s3_server: s3.Server, bucket: str, tmp_path: Path, name: str
) -> None:
    secrets = s3_server.key_files(tmp_path)
    (secrets / name).write_text("wrong:hunter2")
    said = await probe(s3_server.url(bucket), secrets)
    assert f"{s3_server.endpoint} refuses our key for the bucket '{bucket}'" in said
    assert f"files s3-access-key-id and s3-secret-access-key in {secrets}" in said
    assert "hunter2" not in said and s3_server.secret not in said and s3_server.user not in said


async def test_half_a_key_is_said(s3_server: s3.Server, bucket: str, tmp_path: Path) -> None:
    secrets = s3_server.key_files(tmp_path)
    (secrets / "s3-secret-access-key").unlink()
    said = await probe(s3_server.url(bucket), secrets)
    assert f"{secrets}/s3-secret-access-key: No such file or directory" in said


async def test_a_server_that_does_not_answer_is_said(tmp_path: Path) -> None:
    s3.Server.key_files(s3.Server, tmp_path)  # type: ignore[arg-type]
    endpoint = f"http://127.0.0.1:{free_port()}"
    said = await probe(f"s3://bucket?endpoint={endpoint}", tmp_path)
    assert f"The store at {endpoint}, bucket 'bucket', does not work now" in said
    assert "Is that address right" in said


def test_missing_certificates_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(Unavailable, match=r"none\.pem.*cannot be read"):
        open_store("s3://bucket?endpoint=https://127.0.0.1")


# --- where a key may come from ---

PROBE = """
import asyncio, sys
from pathlib import Path
from kaos_hub.errors import KaosError
from kaos_hub.stores.access import open_store
try:
    asyncio.run(open_store(sys.argv[1], Path("/nonexistent")).probe())
except KaosError as e:
    sys.exit(e.message)
"""


def probe_with(url: str, **environment: str) -> str:
    """Probe in a process of its own; what is wrong, or nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, url],
        env={**kept, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr.strip()


def test_a_key_from_the_environment(s3_server: s3.Server, bucket: str) -> None:
    key = {"AWS_ACCESS_KEY_ID": s3_server.user, "AWS_SECRET_ACCESS_KEY": s3_server.secret}
    assert probe_with(s3_server.url(bucket), **key) == ""
    said = probe_with(s3_server.url(bucket), **key | {"AWS_SECRET_ACCESS_KEY": "hunter2"})
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" in said
    assert "hunter2" not in said


class TokenService(http.server.BaseHTTPRequestHandler):
    """Gives a key to whom it knows, as clouds do for pods with an identity of theirs."""

    key: Mapping[str, str]

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.answer(parse_qs(urlsplit(self.path).query) | parse_qs(sent))

    def do_GET(self) -> None:
        self.answer(parse_qs(urlsplit(self.path).query))

    def answer(self, asked: Mapping[str, list[str]]) -> None:
        if asked.get("WebIdentityToken") != ["who I am"]:
            self.send_error(403)
            return
        key = "".join(f"<{name}>{value}</{name}>" for name, value in self.key.items())
        text = (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<AssumeRoleWithWebIdentityResult><Credentials>{key}</Credentials>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def token_service(s3_server: s3.Server, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Where it is, and what it takes to trust it."""
    authority = Authority(tmp_path)
    TokenService.key = {
        "AccessKeyId": s3_server.user,
        "SecretAccessKey": s3_server.secret,
        "SessionToken": "of this session",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), TokenService) as serving:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.issue("127.0.0.1"))
        serving.socket = tls.wrap_socket(serving.socket, server_side=True)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield {
            "AWS_ENDPOINT_URL_STS": f"https://127.0.0.1:{serving.server_port}",
            "AWS_CA_BUNDLE": str(authority.certificate),
        }
        serving.shutdown()


def test_the_identity_of_a_pod(
    s3_server: s3.Server, bucket: str, tmp_path: Path, token_service: Mapping[str, str]
) -> None:
    token = tmp_path / "token"
    token.write_text("who I am")
    identity = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/kaos",
        **token_service,
    }
    assert probe_with(s3_server.url(bucket), **identity) == ""
    token.write_text("hunter2")
    said = probe_with(s3_server.url(bucket), **identity)
    assert bucket in said and "key" in said
    assert "hunter2" not in said


def test_a_changed_key_is_read_anew(s3_server: s3.Server, tmp_path: Path) -> None:
    files = KeyFiles(s3_server.key_files(tmp_path))
    first = files()
    assert first["access_key_id"] == s3_server.user
    assert first["expires_at"] is not None
    (tmp_path / "s3-access-key-id").write_text("another")
    (tmp_path / "s3-session-token").write_text("token")
    assert files()["access_key_id"] == "another"
    assert files()["token"] == "token"


# --- what is on its way ---


async def test_a_large_object_goes_in_parts(
    s3_server: s3.Server, bucket: str, store: S3Store
) -> None:
    upload = await store.upload(digest(HUGE), len(HUGE))
    assert isinstance(upload, LargeObject)
    for start in range(0, len(HUGE), 1 << 18):
        await upload.write(HUGE[start : start + (1 << 18)])
    assert s3_server.unfinished(bucket)
    assert await store.size(digest(HUGE)) is None
    await upload.finish()
    assert await get(store, digest(HUGE)) == HUGE
    assert s3_server.unfinished(bucket) == []


async def test_what_breaks_off_is_taken_back(
    s3_server: s3.Server, bucket: str, store: S3Store
) -> None:
    for wrong in (False, True):
        upload = await store.upload(digest(HUGE), len(HUGE))
        await upload.write(HUGE[:-1])
        if wrong:
            with pytest.raises(InvalidRequest, match="the bytes sent"):
                await upload.write(b"x")
                await upload.finish()
        await upload.abort()
        assert s3_server.unfinished(bucket) == []
    assert s3_server.keys(bucket) == {}


async def test_a_cancelled_upload_leaves_nothing(
    s3_server: s3.Server, bucket: str, store: S3Store
) -> None:
    upload = await store.upload(digest(HUGE), len(HUGE))
    writing = asyncio.create_task(upload.write(HUGE))
    await asyncio.sleep(0.05)
    writing.cancel()
    await asyncio.wait({writing})
    await upload.abort()
    assert s3_server.unfinished(bucket) == []
    assert s3_server.keys(bucket) == {}


async def test_who_sends_nothing_more_gives_his_turn_to_others(
    s3_server: s3.Server, bucket: str, store: S3Store
) -> None:
    turns = Turns(many=1, stalled=3)
    client, key = store._client, store._key(digest(HUGE))
    slow = LargeObject(client, key, digest(HUGE), len(HUGE), await turns.take())
    await slow.write(HUGE[:PART])
    turn = await turns.take()  # after a while
    with pytest.raises(InvalidRequest, match="has ended"):
        await slow.write(HUGE[PART:])
    assert s3_server.unfinished(bucket) == []
    turn.give()


KILLED = """
import asyncio, sys
from pathlib import Path
from kaos_hub.stores.access import open_store
async def main():
    upload = await open_store(sys.argv[1], Path(sys.argv[2])).upload(sys.argv[3], 1 << 30)
    while True:
        await upload.write(bytes(1 << 20))
        print("on its way", flush=True)
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


async def test_what_a_killed_service_left_is_taken_back_later(
    s3_server: s3.Server, bucket: str, store: S3Store, tmp_path: Path
) -> None:
    name = digest(b"whatever")
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, store.url, tmp_path / "secrets", name,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.to_thread(
        wait_until, lambda: s3_server.unfinished(bucket), 30, "the upload of a part"
    )
    service.kill()
    await service.wait()
    assert await store.size(name) is None
    # It may still be at work, for all one can know.
    assert await store.tidy() == 0
    assert s3_server.unfinished(bucket)
    assert await asyncio.to_thread(store.take_back, NEWEST) == 1
    assert s3_server.unfinished(bucket) == []


async def test_uploads_of_others_in_the_bucket_stay(
    s3_server: s3.Server, bucket: str, tmp_path: Path
) -> None:
    secrets = s3_server.key_files(tmp_path)
    ours, other = (open_store(s3_server.url(bucket, name), secrets) for name in ("ours", "other"))
    assert isinstance(ours, S3Store)
    upload = await other.upload(digest(HUGE), len(HUGE))
    await upload.write(HUGE)
    assert await asyncio.to_thread(ours.take_back, NEWEST) == 0
    await upload.finish()
    assert await get(other, digest(HUGE)) == HUGE


# --- a server that goes away ---


async def test_a_server_that_goes_away_is_said_and_found_again(tmp_path: Path) -> None:
    if not s3.available():
        pytest.skip(s3.WHY_NOT)
    with s3.server() as server:
        store = open_store(server.url(server.bucket()), server.key_files(tmp_path))
        name = await put(store, b"kept")
        upload = await store.upload(digest(HUGE), len(HUGE))
        await upload.write(HUGE[:PART])
    with pytest.raises(Unavailable, match="does not work now"):
        await upload.write(HUGE[PART:])
        await upload.finish()
    await upload.abort()
    with pytest.raises(Unavailable, match="does not work now"):
        await get(store, name)


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ("HTTP error: error sending request", "does not work now"),
        ("Server returned non-2xx status code: 500 Internal Server Error: ", "does not work now"),
        ("Server returned non-2xx status code: 403 Forbidden: ", "refuses our key"),
        ("Server returned non-2xx status code: 401 Unauthorized: ", "refuses our key"),
        ("Server returned non-2xx status code: 404 Not Found: ", "There is no bucket"),
        ("Server returned non-2xx status code: 507 Insufficient Storage: ", "store is full"),
    ],
)
def test_what_is_wrong_is_told_by_the_answer_not_by_what_was_asked(
    answered: str, said: str
) -> None:
    """Names of objects and uploads hold any digits."""
    client = Client(Address.parse("s3://bucket?endpoint=http://127.0.0.1:40307"), None)
    asked = "Error performing PUT http://127.0.0.1:40307/b/401/403?uploadId=404-507 in 403.507 ms"
    with pytest.raises(KaosError, match=said), client.errors():
        raise OSError(f"Generic S3 error: {asked} - {answered}")


async def test_rot_is_found(s3_server: s3.Server, bucket: str, store: S3Store) -> None:
    name = await put(store, b"hello")
    (key,) = s3_server.keys(bucket)
    s3_server.put(bucket, key, b"hellO")
    assert not await store.check(name)


def test_the_doctor_looks_at_it(
    s3_server: s3.Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir(tmp_path)
    s3_server.key_files(data.secrets)
    monkeypatch.setenv("KAOS_STORE", s3_server.url(bucket))
    (found,) = storage.checks(data)
    assert (found.name, found.state) == ("store", GOOD)
    monkeypatch.setenv("KAOS_STORE", s3_server.url("not-there"))
    (found,) = storage.checks(data)
    assert (found.name, found.state) == ("store", BAD)
    assert "There is no bucket" in found.text
