"""Workloads fetch trees from a real service: all of it, or nothing and one clear line."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings

from kaos_hub.bundles import tree
from kaos_hub.bundles.materialise import materialise, remove_tree
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow, NotebookRow, now
from kaos_hub.service.workers.fetching import is_alive
from kaos_hub.stores.file import FileStore
from kaos_hub.transport.fetch import Source
from kaos_hub.workload.fetch import fetch as fetching_inside
from tests.fetching import direct, run, start, ticket_for, waiting_job
from tests.history import notebook
from tests.hub import Answer, RunningHub, request, running_hub, wait_until
from tests.strategies import EXAMPLE, File, Folder, folders, scanned, snapshot


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A service that may be killed."""
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def stored(hub: RunningHub, found: Scan) -> str:
    """Put all objects of a scanned folder into the service's store; returns the root."""

    async def put() -> None:
        store = FileStore(hub.data / "store")
        for digest in found.objects:
            content = b"".join(found.read(digest))
            upload = await store.upload(digest, len(content))
            await upload.write(content)
            await upload.finish()

    asyncio.run(put())
    return found.root


@pytest.fixture(scope="module")
def example(service: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    return stored(service, scanned(tmp_path_factory.mktemp("example"), EXAMPLE))


@pytest.fixture(scope="module")
def many(service: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tree of 10,000 files of a few kilobytes, and a large one."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(10_000):
        if number % 100 == 0:
            (folder / f"{number // 100:03}").mkdir()
        content = f"{number} ".encode() * (number % 1000)
        (folder / f"{number // 100:03}" / f"{number:05}.txt").write_bytes(content)
    (folder / "large").write_bytes(os.urandom(30_000_000))
    return stored(service, scan(folder))


def object_of(hub: RunningHub, digest: str) -> Path:
    hexadecimal = digest.removeprefix("blake3:")
    return hub.data / "store" / "objects" / hexadecimal[:2] / hexadecimal[2:]


def refused(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    """It failed with one line, which says so."""
    assert done.returncode == 1, done
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert words in done.stderr


# --- what comes ---


def test_ten_thousand_files(service: RunningHub, many: str, tmp_path: Path) -> None:
    done = run(
        direct(service), ticket_for(service, [many]), tmp_path,
        "--digest", many, "--target", tmp_path / "out" / "tree",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"0% 0 of [\d,]+ bytes", lines[0])
    assert re.fullmatch(r"100% ([\d,]+) of \1 bytes", lines[-2])
    assert lines[-1] == f"laid out {tmp_path / 'out' / 'tree'}"
    assert len(lines) <= 102
    assert scan(tmp_path / "out" / "tree").root == many
    assert os.listdir(tmp_path / "out") == ["tree"]


def test_several_trees_with_one_ticket(service: RunningHub, example: str, tmp_path: Path) -> None:
    other = stored(service, scanned(tmp_path / "b", {"b": File(b"b"), "empty": {}}))
    ticket = ticket_for(service, [example, other])
    # through the proxy, where that is how the service is reached
    done = run(
        service.kaos, ticket, tmp_path,
        "--tree", f"{example}={tmp_path / 'one'}", "--tree", f"{other}={tmp_path / 'two'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [scan(tmp_path / name).root for name in ("one", "two")] == [example, other]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(folders())
def test_what_is_fetched_is_what_would_be_laid_out(service: RunningHub, folder: Folder) -> None:
    """Scanned, stored, served and fetched: nothing differs, not even a mode."""
    with tempfile.TemporaryDirectory() as directory:
        found = scanned(Path(directory, "a"), folder)
        root, job = stored(service, found), waiting_job(service)
        source = Source(direct(service), ticket_for(service, [root], job))
        fetched, laid = Path(directory, "fetched"), Path(directory, "laid")
        assert fetching_inside.fetch(source, root, fetched)
        materialise(root, found.read, laid)
        assert scan(fetched).root == root
        assert snapshot(fetched) == snapshot(laid)
        for path in (fetched, laid):
            assert path.stat().st_mode & 0o7777 == 0o555
            remove_tree(path)
        assert os.listdir(directory) == ["a"]


def test_only_python_and_blake3_are_needed() -> None:
    script = (
        "import sys; import kaos_hub.workload.fetch.fetch;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))"
    )
    # without the site's own hooks, which may import anything
    line = [sys.executable, "-S", "-c", f"import sys; sys.path = {sys.path!r}; {script}"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__main__", "blake3", "kaos_hub"]


# --- who may ---


def get(hub: RunningHub, path: str, ticket: str | None) -> Answer:
    headers = {"Authorization": f"Bearer {ticket}"} if ticket is not None else {}
    return request("GET", f"{direct(hub)}/fetch/v1/{path}", headers=headers)


def test_whoever_has_no_right_learns_nothing(
    service: RunningHub, example: str, many: str, tmp_path: Path
) -> None:
    good, other = ticket_for(service, [example]), ticket_for(service, [many])
    over = ticket_for(service, [example], f"kaos-build-{token_hex(8)}")
    user = service.token("ada")
    nowhere = tree.digest(b"nowhere")
    answers = []
    for ticket in (None, "", "x", good[:-1], good + "0", "ü", other, over, user):
        for path in ("listing", "files?from=0&to=1", "files"):
            answers.append(get(service, f"{example}/{path}", ticket))
    answers += [get(service, f"{nowhere}/listing", ticket) for ticket in (None, good, other)]
    answers += [get(service, f"{example}/{path}", good) for path in ("", "other", "listing/x")]
    answers.append(get(service, "listing", good))
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    # a ticket is no login
    assert service.ask("GET", "/notebooks", good).status in (401, 403)
    assert get(service, f"{example}/listing", good).status == 200
    done = run(direct(service), other, tmp_path, "--tree", f"{example}={tmp_path / 'out'}")
    refused(done, "no such tree, or the ticket for it is not valid")
    assert [path.name for path in tmp_path.iterdir() if "ticket" not in path.name] == []


def test_a_question_that_makes_no_sense(service: RunningHub, example: str) -> None:
    ticket = ticket_for(service, [example])
    for query in (
        "", "?from=0", "?from=a&to=1", "?from=-1&to=1", "?from=1&to=0", "?from=0&to=99999",
        "?from=0&to=1&offset=100000", f"?from=0&to={'9' * 30}", "?from=5&to=4",
    ):  # fmt: skip
        answer = get(service, f"{example}/files{query}", ticket)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), query
    assert get(service, f"{example}/files?from=1&to=1", ticket).body == b""
    content = get(service, f"{example}/files?from=0&to=4", ticket)
    assert content.body == b"FROM python:3.13-slim\nhumanize==4.9.0\n#!/bin/sh\n"
    assert get(service, f"{example}/files?from=0&to=3&offset=5", ticket).body == content.body[5:38]


async def test_a_workload_is_alive_until_it_is_over(db: Database) -> None:
    job = JobRow(
        id="1a", kind="build", owner="user:ada", key="k", state="RUNNING", work={}, deadline=1,
        created=now(),
    )  # fmt: skip
    held = notebook("a", "RUNNING", workload="kaos-notebook-2b-3", held=True)
    await db.run(lambda session: session.add_all([job, held]))

    async def alive(*workloads: str) -> list[bool]:
        return await db.run(lambda session: [is_alive(session, name) for name in workloads])

    ours = ("kaos-build-1a", "kaos-notebook-2b-3")
    assert await alive(*ours) == [True, True]
    others = ("kaos-train-1a", "1a", "", "kaos-notebook-2b-2", "kaos-notebook-2b", "kaos-build-")
    assert await alive(*others) == [False] * 6

    def end(session: object) -> None:
        session.get_one(JobRow, "1a").state = "SUCCEEDED"  # type: ignore[attr-defined]
        session.get_one(NotebookRow, held.id).held = False  # type: ignore[attr-defined]

    await db.run(end)
    assert await alive(*ours) == [False, False]


def test_tickets_stand_in_no_log_and_metrics_name_no_tree(
    service: RunningHub, example: str
) -> None:
    ticket = ticket_for(service, [example])
    get(service, f"{example}/listing", ticket)
    get(service, f"{example}/files?from=0&to=1", ticket)
    get(service, f"{example}/listing", ticket + "x")
    log = service.log.read_text()
    assert "Bearer" not in log and "kaos1." not in log
    secret = {"Authorization": f"Bearer {service.secret('metrics')}"}
    metrics = request("GET", service.admission + "/metrics", headers=secret).text
    assert 'route="/fetch/v1/{digest}/files"' in metrics
    assert example not in metrics and "kaos1." not in metrics


# --- bad days ---


def read_until(process: "subprocess.Popen[str]", percent: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.partition("%")[0]) >= percent:
            return
    raise AssertionError("it ended before")


def test_a_service_that_dies_meanwhile(service: RunningHub, many: str, tmp_path: Path) -> None:
    """It goes on where it was, once the service is back."""
    ticket = ticket_for(service, [many])
    fetching = start(
        direct(service), ticket, tmp_path, "--tree", f"{many}={tmp_path / 'out'}", "--jobs", "2"
    )
    read_until(fetching, 10)
    service.end_service(signal.SIGSTOP)
    time.sleep(0.3)
    assert fetching.poll() is None
    service.end_service(signal.SIGKILL)
    output, errors = fetching.communicate(timeout=120)
    assert (fetching.returncode, errors) == (0, "")
    shown = [int(line.partition("%")[0]) for line in output.splitlines() if "%" in line]
    assert shown == sorted(shown) and shown[-1] == 100
    assert scan(tmp_path / "out").root == many
    wait_until(service.answers, what="the service's return")


@pytest.mark.parametrize("size", [1000, 300_000, 3_000_000])
@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "missing"])
def test_a_damaged_object_is_never_success(
    service: RunningHub, tmp_path: Path, size: int, damage: str
) -> None:
    content = os.urandom(size)
    folder = {"before": File(token_hex(8).encode()), "lost": File(content), "z": File(b"z" * 9)}
    root = stored(service, scanned(tmp_path / "a", folder))
    path = object_of(service, tree.digest(content))
    path.unlink()
    if damage != "missing":
        wrong = {"cut": content[:-1], "longer": content + b"x", "changed": content[:-1] + b"\0"}
        path.write_bytes(wrong[damage])
    ticket = ticket_for(service, [root])
    (tmp_path / "out").mkdir()
    done = run(direct(service), ticket, tmp_path, "--tree", f"{root}={tmp_path / 'out' / 'tree'}")
    refused(done, "admin should check the store")
    assert os.listdir(tmp_path / "out") == []
    # nor is it to somebody who believes whatever ends well
    address = urlsplit(direct(service))
    connection = http.client.HTTPConnection(address.netloc, timeout=20)
    connection.request(
        "GET", f"{address.path}/fetch/v1/{root}/files?from=0&to=3",
        headers={"Authorization": f"Bearer {ticket}"},
    )  # fmt: skip
    answer = connection.getresponse()
    if answer.status == 200:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    else:
        assert (answer.status, json.loads(answer.read())["code"]) == (500, "damaged")


def test_a_damaged_listing_is_no_listing(service: RunningHub, tmp_path: Path) -> None:
    root = stored(service, scanned(tmp_path / "a", {"sub": {"x": File(token_hex(8).encode())}}))
    node = scan(tmp_path / "a" / "sub").root
    object_of(service, node).unlink()
    done = run(
        direct(service), ticket_for(service, [root]), tmp_path, "--tree", f"{root}={tmp_path / 'o'}"
    )
    refused(done, "admin should check the store")


def test_many_at_once(service: RunningHub, many: str, tmp_path: Path) -> None:
    """Several fetch the same; all are content, one tree is there, and nothing is left over."""
    target, ticket = tmp_path / "shared" / "tree", ticket_for(service, [many])
    several = [
        start(direct(service), ticket, tmp_path, "--tree", f"{many}={target}") for _ in range(3)
    ]
    for fetching in several:
        output, errors = fetching.communicate(timeout=120)
        assert (fetching.returncode, errors) == (0, "")
        assert output.endswith(f"laid out {target}\n")
    assert os.listdir(target.parent) == ["tree"]
    assert scan(target).root == many


def test_the_service_answers_others_meanwhile(
    service: RunningHub, many: str, tmp_path: Path
) -> None:
    slow: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            begun = time.perf_counter()
            assert request("GET", f"{direct(service)}/health").status == 200
            slow.append(time.perf_counter() - begun)
            time.sleep(0.01)

    watching = threading.Thread(target=look)
    watching.start()
    done = run(
        direct(service), ticket_for(service, [many]), tmp_path, "--tree", f"{many}={tmp_path / 'o'}"
    )
    over.set()
    watching.join()
    assert done.returncode == 0
    assert len(slow) > 10
    assert sorted(slow)[len(slow) // 2] < 0.1


def test_no_part_of_the_service_complained(service: RunningHub) -> None:
    log = service.log.read_text()
    assert "Incident" not in log and "never retrieved" not in log
    assert re.findall(r"kaos\] [^\n]*\n *Traceback", log) == []
