"""Workers at the service: tickets, uploads, logs, leases; a real server and a real database."""

import resource
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path

import pytest
import pytest_asyncio
from blake3 import blake3
from sqlalchemy import update

from kaos_hub.database import Database, HoldingRow, JobRow
from kaos_hub.service.working import LOG_LIMIT
from tests.wire import digest, frame, refused, sized
from tests.work_desk import WorkDesk, pieces, work_desk

NOTHING = "There is nothing here, or the ticket for it is not valid (any more)."
ADDRESSES = [
    ("POST", "lease"),
    ("POST", "beat"),
    ("POST", "log?trial=1&attempt=1&offset=0"),
    ("POST", "missing"),
    ("POST", "objects"),
    ("POST", "fetched"),
    ("POST", "ingested"),
    ("GET", "order"),
    ("GET", f"object/{digest(b'x')}"),
    ("POST", "nowhere"),
]


@pytest_asyncio.fixture
async def desk(db: Database, tmp_path: Path) -> AsyncIterator[WorkDesk]:
    async with work_desk(db, tmp_path, "1Mi") as desk:
        yield desk


# --- who may ---


async def test_without_a_living_ticket_nothing_is_there(desk: WorkDesk) -> None:
    job, built, noted = await desk.job(), await desk.job("build"), await desk.job("materialise")
    over = await desk.job(state="SUCCEEDED")
    good = desk.ticket(job)
    bad = [
        None, "", "x", good[:-1], good + "0", good.replace("kaos1", "kaos2"),
        desk.ticket(job, key="another key"),
        desk.ticket(job, seconds=-1),
        desk.ticket(over),
        desk.ticket("0" * 16),
        desk.ticket(job, kind="ingest"),
        desk.ticket(built, kind="build"),
        desk.ticket(noted, kind="materialise"),
        desk.ticket(f"{job}-1", kind="notebook"),
    ]  # fmt: skip
    for ticket in bad:
        for method, path in ADDRESSES:
            for body in (b"", b"{}"):
                answer = await desk.ask(method, path, ticket, body if method == "POST" else b"")
                assert refused(answer, 404, "not_found") == NOTHING


async def test_a_ticket_dies_with_its_job(desk: WorkDesk) -> None:
    job = await desk.job()
    ticket, asked = desk.ticket(job), {"objects": sized(b"a")}
    assert (await desk.ask("POST", "missing", ticket, asked)).json == {"missing": [digest(b"a")]}
    # who is being ended may still hand over what there is
    await change(desk, job, cancel_requested=True)
    assert (await desk.ask("POST", "missing", ticket, asked)).status == 200
    await change(desk, job, state="FAILED")
    assert refused(await desk.ask("POST", "missing", ticket, asked), 404, "not_found") == NOTHING


async def change(desk: WorkDesk, job: str, **values: object) -> None:
    await desk.db.run(
        lambda session: session.execute(update(JobRow).where(JobRow.id == job).values(**values))
    )


async def test_trainings_and_ingests_have_their_own(desk: WorkDesk) -> None:
    train = desk.ticket(await desk.job())
    ingest = desk.ticket(await desk.job("ingest"), "ingest")
    fetching = ("order", "object", "fetched", "ing")
    for ticket, mine in ((train, ("lease", "beat", "log")), (ingest, fetching)):
        for method, path in ADDRESSES[:3] + ADDRESSES[5:9]:
            body = b"[]" if method == "POST" else b""
            answer = await desk.ask(method, path, ticket, body)
            assert (NOTHING in answer.text) is not path.startswith(mine), (path, answer.text)


# --- objects ---


async def test_objects_become_the_owners(desk: WorkDesk) -> None:
    job = await desk.job(owner="group:vision")
    ticket, things = desk.ticket(job), [b"", b"a", b"b" * 100_000]
    asked = {"objects": sized(*things)}
    assert len((await desk.ask("POST", "missing", ticket, asked)).json["missing"]) == 3
    wire = b"".join(map(frame, things))
    sent = await desk.ask("POST", "objects", ticket, [wire[i : i + 999] for i in steps(wire)])
    assert sent.json == {"received": 3}
    assert (await desk.ask("POST", "missing", ticket, asked)).json == {"missing": []}
    other = desk.ticket(await desk.job(owner="user:vision"))
    assert len((await desk.ask("POST", "missing", other, asked)).json["missing"]) == 3
    held = await desk.db.run(lambda s: {(h.owner, h.size) for h in s.query(HoldingRow)})
    assert held == {("group:vision", len(thing)) for thing in things}


def steps(wire: bytes) -> range:
    return range(0, len(wire), 999)


async def test_what_is_not_right_is_refused_and_what_was_right_is_kept(desk: WorkDesk) -> None:
    ticket = desk.ticket(await desk.job())
    wrong = frame(b"right") + frame(b"wrong").replace(b"wrong", b"WRONG")
    assert refused(await desk.ask("POST", "objects", ticket, wrong), 400, "invalid_request")
    cut = frame(b"whole") + frame(b"cut off")[:-1]
    assert refused(await desk.ask("POST", "objects", ticket, cut), 400, "invalid_request")
    asked = {"objects": sized(b"right", b"wrong", b"whole", b"cut off")}
    missing = (await desk.ask("POST", "missing", ticket, asked)).json["missing"]
    assert sorted(missing) == sorted([digest(b"wrong"), digest(b"cut off")])


async def test_the_owners_storage_is_the_limit(desk: WorkDesk) -> None:
    ticket = desk.ticket(await desk.job())
    big = b"x" * (2 << 20)
    for path, body in (("missing", {"objects": sized(big)}), ("objects", frame(big))):
        said = refused(await desk.ask("POST", path, ticket, body), 403, "limit_exceeded")
        assert "1Mi" in said


async def test_uploads_are_never_held_in_memory(db: Database, tmp_path: Path) -> None:
    piece, times = b"0123456789abcdef" * (1 << 14), 600
    hasher = blake3()
    for part in pieces(piece, times):
        hasher.update(part)
    head = f"{hasher.hexdigest()} {len(piece) * times}\n".encode()
    async with work_desk(db, tmp_path) as desk:
        ticket = desk.ticket(await desk.job())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        body: Iterator[bytes] = chain([head], pieces(piece, times))
        assert (await desk.ask("POST", "objects", ticket, body, 60)).json == {"received": 1}
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 40_000, f"{grown} KiB more for {len(piece) * times >> 20} MiB"


# --- bodies ---


@pytest.mark.parametrize("path", ["lease", "beat", "log?trial=1&attempt=1&offset=0"])
async def test_huge_bodies_are_refused(desk: WorkDesk, path: str) -> None:
    ticket = desk.ticket(await desk.job())
    announced = b" " * (9 << 20)
    for body in (announced, pieces(b" " * (1 << 20), 9)):
        said = refused(await desk.ask("POST", path, ticket, body), 413, "too_large")
        assert "larger than the" in said


@pytest.mark.parametrize(
    "body", [b"no JSON", b"[]", b'{"ended": 1}', b'{"unknown": 1}', b"[" * 999]
)
async def test_nonsense_is_refused(desk: WorkDesk, body: bytes) -> None:
    ticket = desk.ticket(await desk.job())
    assert refused(await desk.ask("POST", "lease", ticket, body), 400, "invalid_request")


@pytest.mark.parametrize("query", ["", "?trial=1&attempt=1", "?trial=1&attempt=1&offset=-1"])
async def test_a_log_says_where_it_belongs(desk: WorkDesk, query: str) -> None:
    ticket = desk.ticket(await desk.job())
    said = refused(await desk.ask("POST", "log" + query, ticket, b"x"), 400, "invalid_request")
    assert "must be a number" in said
    assert LOG_LIMIT < 9 << 20
