"""What workers say to the service, whatever becomes of service and connection."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from kaos_hub.bundles.scan import scan
from kaos_hub.errors import InvalidRequest, KaosError, LimitExceeded
from kaos_hub.schemas import Beat, BeatAnswer
from kaos_hub.transport import workload as send
from kaos_hub.transport.workload import Over, Sender, Work
from tests.strategies import EXAMPLE, File, fill
from tests.work_server import CUT, WorkServer, work_server

UNAVAILABLE = (503, {"code": "unavailable", "message": "later"})


@pytest.fixture
def work(tmp_path: Path) -> Iterator[WorkServer]:
    with work_server(tmp_path / "objects") as server:
        yield server


def test_a_tree_is_sent_once(work: WorkServer, tmp_path: Path) -> None:
    many = {f"file-{n}": File(b"%d" % n) for n in range(3000)}
    found = scan(fill(tmp_path / "out", EXAMPLE | many | {"large": File(os.urandom(20 << 20))}))
    sender = Sender(Work(work.url, work.ticket))
    sender.send(found.objects, found.read)
    assert work.tree(found.root)["file-77"] == b"77"
    assert work.received == len(found.objects) and work.times("missing") == 1
    sender.send(found.objects, found.read)
    assert work.times("missing") == 1, "what it has sent it remembers"
    Sender(Work(work.url, work.ticket)).send(found.objects, found.read)
    assert work.times("missing") == 2 and work.received == len(found.objects)


@pytest.mark.parametrize("trouble", [(CUT, None), UNAVAILABLE, (502, b"<html>"), (404, b"<html>")])
def test_trouble_is_waited_for(work: WorkServer, tmp_path: Path, trouble: Any) -> None:
    work.trouble = lambda path, number: trouble if number in (1, 3) else None
    found = scan(fill(tmp_path / "out", EXAMPLE))
    Sender(Work(work.url, work.ticket)).send(found.objects, found.read)
    assert work.tree(found.root)["Dockerfile"] == b"FROM python:3.13-slim\n"
    assert work.times("objects") == 2 and work.received == len(found.objects)


def test_what_came_before_the_cut_is_not_sent_again(
    work: WorkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {f"blake3:{blake3(data).hexdigest()}": data for data in map(str.encode, "abcdefgh")}
    read, sent, take = lambda digest: [content[digest]], list[str](), work.take

    def cut(body: Any, size: int) -> Any:
        """Take only the first two objects of each request."""
        first = 2 * (len(f"{'0' * 64} 1\n") + 1)
        taken = take(body, min(size, first))
        sent.append(str(size))
        return taken if size <= first else (CUT, None)

    monkeypatch.setattr(work, "take", cut)
    Sender(Work(work.url, work.ticket)).send(dict.fromkeys(content, 1), read)
    assert len(sent) == 4 and work.received == len(content)


def test_refusals_and_the_end_are_final(work: WorkServer, tmp_path: Path) -> None:
    found = scan(fill(tmp_path / "out", {"a": File(b"a" * 1000)}))
    said = LimitExceeded("You may store 1Gi.").body()
    work.trouble = lambda path, number: (403, said) if path == "missing" else None
    with pytest.raises(LimitExceeded, match="You may store"):
        Sender(Work(work.url, work.ticket)).send(found.objects, found.read)
    work.trouble = lambda path, number: None
    with pytest.raises(Over):
        Sender(Work(work.url, "another")).send(found.objects, found.read)
    (tmp_path / "out/a").unlink()
    with pytest.raises(KaosError, match="'a'"):
        Sender(Work(work.url, work.ticket)).send(found.objects, found.read)
    with pytest.raises(KaosError, match="Is a directory"):
        Sender(Work(work.url, work.ticket)).send(found.objects, lambda d: _open(tmp_path))
    for url, ticket in (("ftp://h/", "t"), ("http://h/", "a\nb"), ("http://h/", "")):
        with pytest.raises(InvalidRequest):
            Work(url, ticket)


def _open(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.read()


def test_patience_has_an_end(
    work: WorkServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "_QUIET", 0.2)
    work.trouble = lambda path, number: UNAVAILABLE
    beat = Beat(trial=1, attempt=1)
    with pytest.raises(KaosError, match=r"away for 1 s \(later\); gave up"):
        Work(work.url, work.ticket, patience=0.7).post("beat", beat, BeatAnswer)
    assert capfd.readouterr().out.count("does not answer (later)") == 1
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Over, match="ended"):
        Work(work.url, work.ticket, stop=stop).post("beat", beat, BeatAnswer)
    assert time.monotonic() - began < 5
    work.trouble = lambda path, number: None
    work.routes["beat"] = lambda query, body: {"cancel": b'"attempt":1' in body}
    assert Work(work.url, work.ticket).post("beat", beat, BeatAnswer).cancel
