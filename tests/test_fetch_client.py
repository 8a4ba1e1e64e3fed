"""The fetching side alone: services that lie, break or go away, and places that are in trouble."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kaos_hub.bundles import tree
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.service.workers import wire_listing
from kaos_hub.transport import fetch as fetch_wire
from kaos_hub.transport.fetch import FetchError, Source
from kaos_hub.workload.fetch import place
from kaos_hub.workload.fetch.fetch import fetch
from tests.fetching import run, start
from tests.hub import wait_until
from tests.strategies import EXAMPLE, File, Link, fill, ordinary_user, scanned


@pytest.fixture
def found(tmp_path: Path) -> Scan:
    return scanned(tmp_path / "a", EXAMPLE)


# --- services in trouble ---


Twist = Callable[[int, bytes], Any]
"""Given the number of a request and the right body, what is sent: a body, or status and body."""


class Fake:
    """A service that serves one tree as it is told to.

    Args:
        found: the tree.
        twist: says what is sent; a body of None cuts the connection.
    """

    def __init__(self, found: Scan, twist: Twist) -> None:
        self.asked: list[str] = []
        fake, form = self, wire_listing.flatten(found.root, found.read)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.asked.append(self.path)
                query = {k: int(v[0]) for k, v in parse_qs(urlsplit(self.path).query).items()}
                if query:
                    read = lambda digest: [b"".join(found.read(digest))]  # noqa: E731
                    numbers = (query["from"], query["to"], query.get("offset", 0))
                    body = b"".join(form.content(read, *numbers))
                else:
                    body = b"".join(form.listing())
                answer = twist(len(fake.asked), body)
                status, sent = answer if isinstance(answer, tuple) else (200, answer)
                if sent is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if status == 200 else len(sent)))
                self.end_headers()
                self.wfile.write(sent)
                self.close_connection = len(sent) != len(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(
    found: Scan, twist: Callable[[int, bytes], Any] = lambda n, body: body
) -> Iterator[Fake]:
    fake = Fake(found, twist)
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


def test_connections_that_break_cost_nothing_that_came(tmp_path: Path) -> None:
    """Answers are cut in their middle; each next one goes on from there."""
    found = scanned(tmp_path / "a", {"a": File(b"a" * 50), "big": File(os.urandom(2_000_000))})
    with serving(found, lambda n, body: body[: len(body) // 2] if n in (1, 3, 4) else body) as fake:
        assert fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert scan(tmp_path / "out").root == found.root
    offsets = [int(path.rpartition("=")[2]) for path in fake.asked if "offset" in path]
    assert offsets[0] == 0 and 700_000 < offsets[1] < offsets[2] and len(offsets) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (200, None),
        (503, b'{"code":"unavailable","message":"later"}'),
        (502, b"<html>Bad gateway</html>"),
        (404, b"<html>no route yet</html>"),
        (500, b""),
    ],
)
def test_what_passes_is_waited_for(found: Scan, tmp_path: Path, answer: Any) -> None:
    with serving(found, lambda n, body: answer if n in (1, 2, 4) else body) as fake:
        assert fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert len(fake.asked) == 5


def test_patience_ends(found: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_wire, "PATIENCE", 0.5)
    with serving(found, lambda n, body: (503, b"")) as fake, pytest.raises(FetchError) as e:
        fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert re.fullmatch(r"gave up after \d+ s: HTTP status 503", str(e.value))
    with pytest.raises(FetchError, match=r"gave up .* refused"):
        fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("where", ["listing", "files"])
def test_a_refusal_is_final(found: Scan, tmp_path: Path, where: str) -> None:
    no = (404, b'{"code":"not_found","message":"There is\\nno such tree."}')
    with (
        serving(
            found, lambda n, body: no if n == (1 if where == "listing" else 2) else body
        ) as fake,
        pytest.raises(FetchError, match=r"^There is no such tree\.$"),
    ):
        fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_wrong_content_is_asked_for_once_more(tmp_path: Path, size: int) -> None:
    found = scanned(tmp_path / "a", {"file": File(os.urandom(size))})
    with serving(found, lambda n, body: body if n != 2 else bytes(len(body))) as fake:
        assert fetch(Source(fake.url, "t"), found.root, tmp_path / "out")
    assert len(fake.asked) == 3
    assert scan(tmp_path / "out").root == found.root
    with (
        serving(found, lambda n, body: body if n == 1 else bytes(len(body))) as fake,
        pytest.raises(FetchError, match="content of 'file' arrives damaged"),
    ):
        fetch(Source(fake.url, "t"), found.root, tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == ["a", "out"]


def test_a_wrong_listing_lays_nothing(found: Scan, tmp_path: Path) -> None:
    lie = b'{"path":"../x","kind":"file","size":1,"digest":"blake3:%s"}\n' % (b"0" * 64)
    with serving(found, lambda n, body: lie.ljust(len(body))) as fake:
        done = run(fake.url, "t", tmp_path, "--tree", f"{found.root}={tmp_path / 'out'}")
    assert done.returncode == 1
    assert re.fullmatch(r"error: the service sent a wrong listing of [^\n]*\n", done.stderr)
    assert not (tmp_path / "out").exists()


# --- places in trouble ---


def test_what_is_there_is_not_asked_for(found: Scan, tmp_path: Path) -> None:
    nowhere = Source("http://127.0.0.1:9", "t")
    assert not fetch(nowhere, found.root, tmp_path / "a")


def test_an_empty_folder_is_no_tree(found: Scan, tmp_path: Path) -> None:
    """A pod that mounts a part of a volume makes the folder, if nobody else did."""
    (tmp_path / "out").mkdir()
    with serving(found) as fake:
        assert fetch(Source(fake.url, "t"), found.root, tmp_path / "out", sync=False)
    assert scan(tmp_path / "out").root == found.root


def test_somebody_else_was_quicker(found: Scan, tmp_path: Path) -> None:
    target = tmp_path / "out"

    def meanwhile(number: int, body: bytes) -> bytes:
        if number == 2:
            fill(target, EXAMPLE)
        return body

    with serving(found, meanwhile) as fake:
        assert not fetch(Source(fake.url, "t"), found.root, target)
    assert sorted(os.listdir(tmp_path)) == ["a", "out"]


def test_an_ordinary_user_can_fetch() -> None:
    with ordinary_user() as home:
        found = scanned(home / "a", EXAMPLE)
        with serving(found) as fake:
            assert fetch(Source(fake.url, "t"), found.root, home / "deep" / "out")
            with pytest.raises(PermissionError):
                (home / "deep" / "out" / "new").touch()
            (home / "deep" / "out" / "Dockerfile").stat()
        with (
            serving(found, lambda n, body: bytes(len(body))) as fake,
            pytest.raises(FetchError),
        ):
            fetch(Source(fake.url, "t"), found.root, home / "deep" / "other")
        assert os.listdir(home / "deep") == ["out"]


def test_a_full_disk_is_said(small_disk: Path, tmp_path: Path) -> None:
    found = scanned(
        tmp_path / "a", {f"f{n}": File(os.urandom(100_000)) for n in range(40)} | {"l": Link("f1")}
    )
    with serving(found) as fake:
        done = run(fake.url, "t", tmp_path, "--tree", f"{found.root}={small_disk / 'out'}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: no space left to lay out {small_disk / 'out'}; nothing of it was kept\n"
    )
    assert os.listdir(small_disk) == []


def slow(number: int, body: bytes) -> bytes:
    """All but the listing takes its time."""
    if number > 1:
        time.sleep(30)
    return body


def partials(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.startswith(".kaos-")]


def test_what_a_killed_one_left_goes_when_it_is_old(found: Scan, tmp_path: Path) -> None:
    with serving(found, slow) as fake:
        killed = start(fake.url, "t", tmp_path, "--tree", f"{found.root}={tmp_path / 'out'}")
        wait_until(lambda: partials(tmp_path) and len(fake.asked) > 1, what="a beginning")
        killed.kill()
        killed.wait()
    (left,) = partials(tmp_path)
    with serving(found) as fake:
        source = Source(fake.url, "t")
        assert fetch(source, found.root, tmp_path / "out")
        assert partials(tmp_path) == [left]  # whoever makes it may still be alive
        old = time.time() - place.STALE - 60
        os.utime(left, (old, old))
        assert fetch(source, found.root, tmp_path / "another")
    assert partials(tmp_path) == []


def test_whoever_lives_renews_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_RENEWED", 0.05)
    with place.Target(tmp_path / "out"):
        (mine,) = partials(tmp_path)
        os.utime(mine, (0, 0))
        wait_until(lambda: mine.stat().st_mtime > time.time() - 60, 5, "the renewal")
    assert os.listdir(tmp_path) == []


def test_asked_to_end_it_cleans_up(found: Scan, tmp_path: Path) -> None:
    with serving(found, slow) as fake:
        ended = start(fake.url, "t", tmp_path, "--tree", f"{found.root}={tmp_path / 'out'}")
        wait_until(lambda: len(fake.asked) > 1, what="a beginning")
        ended.send_signal(signal.SIGTERM)
        _, errors = ended.communicate(timeout=10)
        assert (ended.returncode, errors) == (1, "error: ended by signal 15\n")
    assert partials(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which trees?"),
        (["--tree", "x"], "which trees?"),
        (["--tree", "blake3:1=x"], "which trees?"),
        (["--tree", f"{tree.EMPTY}="], "which trees?"),
        (["--digest", tree.EMPTY], "belong together"),
        (["--tree", f"{tree.EMPTY}=x", "--jobs", "0"], "--jobs"),
        (["--tree", f"{tree.EMPTY}=x", "--url", "ftp://x"], "no URL"),
        (["--tree", f"{tree.EMPTY}=x", "--url", "x"], "no URL"),
        (["--tree", f"{tree.EMPTY}=x", "--url", "http://x:99999"], "no URL"),
        (["--tree", f"{tree.EMPTY}=x", "--ticket", "/nowhere"], "ticket cannot be read"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("http://127.0.0.1:9", "t", tmp_path, *arguments)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr) and words in done.stderr


def test_url_and_ticket_can_stand_in_the_environment(found: Scan, tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text("t\n")
    line = [sys.executable, "-m", "kaos_hub.workload.fetch.fetch"]
    with serving(found) as fake:
        environment = {"KAOS_FETCH_URL": fake.url, "KAOS_FETCH_TICKET": str(tmp_path / "ticket")}
        subprocess.run(
            [*line, "--digest", found.root, "--target", tmp_path / "out"],
            env=os.environ | environment, check=True, capture_output=True,
        )  # fmt: skip
    assert scan(tmp_path / "out").root == found.root
    bare = {name: value for name, value in os.environ.items() if not name.startswith("KAOS_")}
    for missing, words in ((environment, ""), ({}, "where from?")):
        done = subprocess.run(
            [*line, "--digest", found.root, "--target", tmp_path / "out"],
            env=bare | missing, capture_output=True, text=True,
        )  # fmt: skip
        assert words in done.stderr
