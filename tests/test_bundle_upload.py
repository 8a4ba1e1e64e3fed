"""The form that takes an archive, as browsers without JavaScript send it."""

import io
import re
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client
from tests.hub import Answer, Browser, RunningHub, running_hub, wait_until
from tests.posting import Form
from tests.test_forms import MARK, TYPE, form
from tests.test_service_pages import words
from tests.test_unpack import FILE, tarred, zipped

LIMITS = 'c.KaosService.limits = {"default": {}, "user:sam": {"storage": "1Mi"}}\n'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=LIMITS) as hub:
        yield hub


@pytest.fixture(scope="module")
def ula(hub: RunningHub) -> Browser:
    return Browser(hub, "ula")


def send(
    browser: Browser, archive: bytes, called: str = "my data.zip", at: str = "", **more: str
) -> Answer:
    """Fill in the form and send it."""
    hub = browser.hub
    fields = {"_xsrf": browser.xsrf(), "kind": "data", "name": "", **more}
    body = form(*((k, v.encode()) for k, v in fields.items()), file=(called, archive))
    url = f"{hub.kaos}/bundles/upload{at}"
    return browser._send(urllib.request.Request(url, body, {"Content-Type": TYPE}))


def left(hub: RunningHub) -> list[Path]:
    """What uploads have left on the disk."""
    return list((hub.data / "uploads").iterdir())


def test_the_form_says_what_it_takes(hub: RunningHub, ula: Browser) -> None:
    page = ula.get(f"{hub.kaos}/bundles/upload")
    assert 'enctype="multipart/form-data"' in page.text and "<script>" not in page.text
    assert "Wait" not in page.text and ".tar.gz" in words(page.text)


@pytest.mark.parametrize("pack", ["zip", "tar.gz", "tar"])
def test_an_archive_becomes_a_version(hub: RunningHub, ula: Browser, pack: str) -> None:
    content = secrets.token_bytes(300_000)
    members = (("sub/a.bin", content), ("b.txt", b"hello"))
    if pack == "zip":
        archive = zipped(*((name, data, FILE) for name, data in members))
    else:
        mode = "w:gz" if pack == "tar.gz" else "w"
        archive = tarred(*((name, data, b"0") for name, data in members), mode=mode)
    page = send(ula, archive, f"of kind {pack}.{pack}")
    assert page.status == 200 and f"of kind {pack} v1" in words(page.text), words(page.text)
    found = Client(hub.url, hub.token("ula")).bundles.get("data", f"of kind {pack}")
    assert (found.files, found.size, found.author) == (2, 300_005, "ula")
    read = ula.get(f"{hub.kaos}/bundles/data/of%20kind%20{pack}/1/file/sub/a.bin")
    assert read.body == content
    assert left(hub) == []


def test_a_folder_that_was_packed_by_its_name_is_the_bundle(hub: RunningHub, ula: Browser) -> None:
    archive = zipped(("digits/a", b"1", FILE), ("digits/b", b"2", FILE))
    assert " a " in words(send(ula, archive, "digits.zip").text)
    assert "digits/" in words(send(ula, archive, "other.zip").text), "else it is as it is packed"


def test_code_is_found_in_the_only_folder_that_has_it(hub: RunningHub, ula: Browser) -> None:
    archive = zipped(
        ("repo-main/Dockerfile", b"FROM python:3.13-slim\n", FILE),
        ("repo-main/model/train", b"#!/bin/sh\n", FILE | 0o111),
        ("repo-main/model/__pycache__/x.pyc", b"", FILE),
    )
    page = send(ula, archive, "repo.zip", kind="source", name="my code")
    text = words(page.text)
    assert "my code v1 is there" in text and "model/__pycache__/" in text
    entries = Client(hub.url, hub.token("ula")).bundles.entries("source", "my code", path="model")
    assert [entry.kind.value for entry in entries] == ["executable"]
    again = send(ula, archive, "repo.zip", kind="source", name="my code")
    assert "my code v1 is there" in words(again.text), "the same is no new version"


def test_something_else_of_that_name_is_replaced_only_if_wished(hub: RunningHub) -> None:
    """Where no file is alike the page asks, without scripts; until then nothing is made."""
    fern, kaos = Browser(hub, "fern"), Client(hub.url, hub.token("fern"))
    assert send(fern, zipped(("a.csv", b"1", FILE)), "proj.zip").status == 200
    other = zipped(("b.csv", b"2", FILE))
    page = send(fern, other, "proj.zip")
    assert "There is already data called proj" in words(page.text), words(page.text)
    assert "no file in common with proj@v1" in words(page.text) and "1 file" in words(page.text)
    assert [v.name for v in kaos.bundles.list()] == ["proj"]
    fields = Form(page.text).values
    url = f"{hub.kaos}/bundles/upload/decided"
    for wrong, status in (
        ({"_xsrf": ""}, 403),
        ({"kind": "artifact"}, 400),
        ({"root": "blake3:x"}, 400),
        ({"name": "../x"}, 400),
        ({"root": "blake3:" + "0" * 64}, 409),
    ):
        refused = fern.post(url, fields | {"name": "proj-2"} | wrong)
        assert refused.status == status and "Try again" in words(refused.text), wrong
    assert "proj-2 v1" in words(fern.post(url, fields | {"name": "proj-2"}).text)
    # What it became earlier it goes on as; or it is meant to replace the other.
    assert "proj-2" in words(send(fern, other, "proj.zip").text)
    assert "proj v2" in words(fern.post(url, fields | {"name": "proj"}).text)
    assert kaos.bundles.get("data", "proj").digest == kaos.bundles.get("data", "proj-2").digest
    # Another state of what is there needs no question.
    assert "proj v3" in words(
        send(fern, zipped(("b.csv", b"2", FILE), ("c.csv", b"3", FILE)), "proj.zip").text
    )


@pytest.mark.parametrize(
    ("archive", "more", "status", "said"),
    [
        (zipped(("../evil", b"", FILE)), {}, 400, "'../evil' has a path that no bundle may hold"),
        (zipped(("l", b"/etc/passwd", 0o120777)), {}, 400, "'l' is a link to the absolute path"),
        (b"nonsense", {}, 400, "The archive cannot be read"),
        (b"", {}, 400, "Choose an archive"),
        (zipped(("x", b"", FILE)), {"kind": "source"}, 400, "holds a Dockerfile"),
        (zipped(("x", b"", FILE)), {"kind": "artifact"}, 400, "code (source) or data"),
        (zipped(("x", b"", FILE)), {"name": "../x"}, 400, "cannot name a bundle"),
        (zipped((".DS_Store", b"", FILE)), {}, 400, "only what the ignore rules leave out"),
        (zipped(("x", b"", FILE)), {"_xsrf": "wrong"}, 403, "Reload the page"),
        (zipped(("x", b"", FILE)), {"_xsrf": ""}, 403, "Reload the page"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said_on_a_page(
    hub: RunningHub, ula: Browser, archive: bytes, more: dict[str, str], status: int, said: str
) -> None:
    page = send(ula, archive, "hostile.zip", **more)
    assert page.status == status and said in words(page.text), words(page.text)
    assert "Try again" in words(page.text)
    assert ula.get(f"{hub.kaos}/bundles/data/hostile").status == 404
    wait_until(lambda: left(hub) == [], 10, "the end of what was sent")


def test_the_file_is_not_taken_before_the_sender_is_known(hub: RunningHub, ula: Browser) -> None:
    fields = [("kind", b"data"), ("name", b"late")]
    body = form(*fields, file=("x.zip", zipped(("x", b"", FILE))))
    token = f'--{MARK}\r\nContent-Disposition: form-data; name="_xsrf"\r\n\r\n{ula.xsrf()}\r\n'
    body = body.replace(f"--{MARK}--".encode(), token.encode() + f"--{MARK}--".encode())
    url = f"{hub.kaos}/bundles/upload"
    page = ula._send(urllib.request.Request(url, body, {"Content-Type": TYPE}))
    assert page.status == 403
    stranger = Browser(hub)._send(urllib.request.Request(url, body, {"Content-Type": TYPE}))
    assert stranger.status == 401
    other = ula._send(urllib.request.Request(url, b"a=1"))
    assert other.status == 400 and "multipart/form-data" in words(other.text)


def test_a_limit_is_kept_and_said(hub: RunningHub) -> None:
    sam = Browser(hub, "sam")
    noise = secrets.token_bytes(2 << 20)
    page = send(sam, zipped(("noise", noise, FILE)))
    assert page.status == 403 and "Your limit is 1Mi" in words(page.text)
    page = send(sam, zipped(("zeros", bytes(5 << 20), FILE)))
    assert page.status == 400 and "'zeros' makes the bundle larger" in words(page.text)
    assert send(sam, zipped(("a", noise[: 600 << 10], FILE)), name="one").status == 200
    page = send(sam, zipped(("b", noise[-(600 << 10) :], FILE)), name="two")
    assert page.status == 403 and "Your limit is 1Mi" in words(page.text)
    wait_until(lambda: left(hub) == [], 10, "the end of what was sent")


def test_a_browser_that_goes_away_leaves_nothing(hub: RunningHub, ula: Browser) -> None:
    import http.client

    body = form(("_xsrf", ula.xsrf().encode()), ("kind", b"data"), file=("x.zip", bytes(1 << 20)))
    connection = http.client.HTTPConnection("127.0.0.1", hub.port)
    connection.putrequest("POST", "/services/kaos/bundles/upload")
    cookies = "; ".join(
        f"{c.name}={c.value}" for c in ula.cookies if "/services/kaos/".startswith(c.path)
    )
    connection.putheader("Cookie", cookies)
    connection.putheader("Content-Type", TYPE)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: 1 << 19])
    wait_until(lambda: left(hub), 10, "the beginning of the file")
    connection.close()
    wait_until(lambda: left(hub) == [], 10, "the end of what was sent")


def test_memory_stays_small(hub: RunningHub, ula: Browser) -> None:
    """Sixty megabytes, of which nothing is held."""
    noise = io.BytesIO(secrets.token_bytes(60 << 20))
    before = hub.service_memory()
    archive = tarred(("noise", noise.getvalue(), b"0"), mode="w")
    assert send(ula, archive, "noise.tar").status == 200
    assert hub.service_memory() - before < 40 << 20


def test_what_a_killed_service_left_is_cleared(hub: RunningHub, ula: Browser) -> None:
    (hub.data / "uploads" / "old").mkdir()
    hub.end_service()
    wait_until(lambda: left(hub) == [], 30, "the service's next start")
    wait_until(hub.answers, 30, "the service")


def test_members_upload_for_their_group(hub: RunningHub) -> None:
    hub.put_into("vision", "vic")
    vic = Browser(hub, "vic")
    page = send(vic, zipped(("x", b"1", FILE)), at="?owner=group:vision", name="ours")
    assert page.status == 200 and re.search(r"owner=group(:|%3A)vision", page.text)
    assert "ours" in vic.get(f"{hub.kaos}/bundles?owner=group:vision").text
    assert "ours" not in vic.get(f"{hub.kaos}/bundles").text
    assert send(vic, b"", at="?owner=group:other").status == 404
