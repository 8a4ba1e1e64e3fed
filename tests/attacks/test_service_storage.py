"""Nobody stores more than the limit, however much comes at once (cause 8 of the review)."""

import io
import socket
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import LimitExceeded
from kaos_hub.service.bundles.upload import Receiver
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ReservationRow
from kaos_hub.service.quota import Ledger, reserved, stored
from kaos_hub.stores.file import FileStore
from tests.history import read
from tests.hub import Browser, RunningHub, request, running_hub, wait_until
from tests.test_unpack import FILE, zipped
from tests.wire import frame

_MiB = 1 << 20
LIMIT = 20 * _MiB
_CONFIG = f"""
c.KaosService.limits = {{"default": {{"storage": {LIMIT}}}}}
c.KaosService.min_upload_rate = 0
"""


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on which everybody may store twenty megabytes."""
    with running_hub(tmp_path_factory.mktemp("bounded"), config=_CONFIG) as running:
        yield running


def held(hub: RunningHub, token: str) -> int:
    return int(hub.ask("GET", "/whoami", token).json["usage"]["storage"])


def on_disk(hub: RunningHub) -> int:
    """Bytes in the store, with what is not complete."""
    return sum(p.stat().st_size for p in (hub.data / "store").rglob("*") if p.is_file())


def content(number: int, size: int) -> bytes:
    return f"{number:08}".encode() + bytes(size - 8)


@pytest.mark.parametrize("size", [_MiB, 6 * _MiB, 19 * _MiB])
def test_forty_uploads_at_once_exceed_nothing(bounded: RunningHub, size: int) -> None:
    """Attack of cause 8: twelve uploads at once stored 3.6 times the limit."""
    mallory = bounded.token(f"mallory{size}")
    bodies = [frame(content(number, size)) for number in range(40)]

    def send(body: bytes) -> int:
        return request("POST", f"{bounded.api}/objects", mallory, body, timeout=120).status

    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(send, bodies))
    fits = LIMIT // size
    assert set(statuses) <= {200, 403, 429}, statuses
    assert held(bounded, mallory) <= LIMIT
    # All that fits comes in, at the latest when it is sent again alone.
    for body in bodies:
        send(body)
    assert held(bounded, mallory) == fits * size


def test_what_stands_still_half_way_counts(bounded: RunningHub) -> None:
    """Attack of cause 8: six streams that stop short of the end filled the disk, uncounted."""
    mallory = bounded.token("stopper")
    address = urlsplit(bounded.api)
    half: list[socket.socket] = []
    before, refused = on_disk(bounded), 0
    for number in range(6):
        body = frame(content(number, 9 * _MiB))
        head = (
            f"POST {address.path}/objects HTTP/1.1\r\nHost: x\r\nAuthorization: token {mallory}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        connection = socket.create_connection((address.hostname, address.port), timeout=30)
        connection.sendall(head + body[: 1 << 16])
        half.append(connection)
        time.sleep(0.3)
    for number, connection in enumerate(half):
        body = frame(content(number, 9 * _MiB))
        connection.settimeout(5)
        try:
            connection.sendall(body[1 << 16 : 8 * _MiB])
            connection.sendall(body[8 * _MiB : -1])
            connection.settimeout(0.5)
            assert b" 403 " in connection.recv(1000)[:20]
            refused += 1
        except TimeoutError:
            continue
        except OSError:
            refused += 1
    assert on_disk(bounded) - before < LIMIT
    other = request("POST", f"{bounded.api}/objects", mallory, frame(content(99, 9 * _MiB)))
    assert other.status == 403 and other.json["code"] == "limit_exceeded", other.text
    for connection in half:
        connection.close()
    # Gone with the connection, so that there is room again.
    wait_until(
        lambda: (
            request("POST", f"{bounded.api}/objects", mallory, frame(content(99, 9 * _MiB))).status
            == 200
        ),
        what="room again",
    )


def _reserved_by_killer(hub: RunningHub) -> int:
    return read(hub.data, lambda session: reserved(session, "user:killer"))


def test_a_killed_service_holds_nothing_afterwards(bounded: RunningHub) -> None:
    """Reservations do not outlive the process that made them."""
    mallory = bounded.token("killer")
    address = urlsplit(bounded.api)
    body = frame(content(1, 19 * _MiB))
    head = (
        f"POST {address.path}/objects HTTP/1.1\r\nHost: x\r\nAuthorization: token {mallory}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head + body[:_MiB])
        wait_until(lambda: _reserved_by_killer(bounded), what="the reservation")
        before = bounded.service_pid()
        bounded.end_service()
        wait_until(lambda: bounded.service_pid() not in (before, None), 60, "another service")
        wait_until(bounded.answers, 60, "its answer")
    assert request("POST", f"{bounded.api}/objects", mallory, body).status == 200


def test_archives_compare_with_what_is_left(bounded: RunningHub) -> None:
    """Attack of cause 8: the form compared with the limit, not with what is left of it."""
    user = "packer"
    token = bounded.token(user)
    assert bounded.ask("POST", "/objects", token, frame(content(1, 15 * _MiB))).status == 200
    browser = Browser(bounded, user)
    url = f"{bounded.kaos}/bundles/upload"
    browser.get(url)

    def post(name: str, archive: bytes) -> int:
        mark = "kaos-mark"
        fields = {"_xsrf": browser.xsrf(), "kind": "data", "name": name}
        text = "".join(
            f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        )
        text += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        form = text.encode() + archive + f"\r\n--{mark}--\r\n".encode()
        return browser.send(url, form, f"multipart/form-data; boundary={mark}").status

    small = zipped(("a", b"small", FILE))
    bomb = zipped(("a", bytes(8 * _MiB), FILE))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a", bytes(6 * _MiB))
    assert post("large", file.getvalue()) in (403, 507)
    assert post("bomb", bomb) >= 400
    assert held(bounded, token) == 15 * _MiB
    assert post("small", small) == 200


# --- the parts alone ---


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return Ledger(db, {"default": {"storage": 1000}})


def total(session: Session) -> tuple[int, int]:
    return stored(session, "user:ada"), reserved(session, "user:ada")


async def test_what_is_held_and_what_is_on_its_way_is_one_sum(
    db: Database, ledger: Ledger, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "store")
    receiver = Receiver(db, store, ledger, 10**6, "user:ada", announced=800)
    one, two = frame(b"a" * 400), frame(b"b" * 300)
    await receiver.feed(one + two[:100])
    assert await db.run(total) == (0, 800)
    other = Receiver(db, store, ledger, 10**6, "user:ada", announced=10**6)
    with pytest.raises(LimitExceeded):
        await other.feed(frame(b"c" * 201))
    # What was announced does not fit, what is needed does.
    another = Receiver(db, store, ledger, 10**6, "user:ada", announced=10**6)
    await another.feed(frame(b"d" * 200))
    assert await db.run(total) == (0, 1000)
    await another.finish()
    await receiver.feed(two[100:])
    await receiver.finish()
    assert await db.run(total) == (900, 0)


async def test_what_broke_off_lets_go(db: Database, ledger: Ledger, tmp_path: Path) -> None:
    receiver = Receiver(db, FileStore(tmp_path / "store"), ledger, 10**6, "user:ada", 900)
    await receiver.feed(frame(b"a" * 400) + frame(b"b" * 300)[:100])
    await receiver.abort()
    assert await db.run(total) == (400, 0)
    assert await db.run(lambda session: session.scalar(select(ReservationRow.id))) is None


async def test_a_new_service_begins_without(db: Database, ledger: Ledger) -> None:
    await ledger.reserve("user:ada").grow(1000)
    fresh = Ledger(db, {"default": {"storage": 1000}})
    await fresh.clear()
    assert await fresh.reserve("user:ada").grow(1, 1000) == 1000
