"""Workers at the service: tickets, uploads, logs, leases; a real server and a real database."""

import resource
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import pytest_asyncio
from blake3 import blake3
from sqlalchemy import select, update

from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow, JobRow, TrialRow, VersionRow
from kaos_hub.service.workers.working import LOG_LIMIT
from tests.history import version
from tests.training_history import training, trials_of
from tests.wire import digest, frame, refused, sized, tree
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


# --- what a worker does ---


async def at_work(desk: WorkDesk, trials: int = 2) -> tuple[str, str]:
    """The id of a training that runs, and the ticket of its worker."""
    row = training(
        token_number(), state="TRAINING", total=trials, succeeded=0, queued=trials, started=None,
        finished=None, goal_metric="loss", goal_direction="min", metrics=[],
    )  # fmt: skip
    queued = {"state": "QUEUED", "metrics": {}, "score": None, "output": None, "exit_code": None}
    await desk.db.run(lambda session: session.add(row))
    todo = trials_of(row, **queued, started=None, finished=None)
    await desk.db.run(lambda session: session.add_all(todo))
    return row.id, desk.ticket(await desk.job(key=f"{row.id}/0"))


def token_number() -> int:
    return int(token_hex(8), 16)


def end_of(lease: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a worker says of a trial that went well."""
    at = "2026-01-31T12:00:00Z"
    told = {"trial": lease["trial"], "attempt": lease["attempt"], "exit_code": 0}
    return {"ended": {**told, "started": at, "finished": at, **more}}


async def states(desk: WorkDesk) -> list[str]:
    rows = select(TrialRow.state).order_by(TrialRow.number)
    return await desk.db.run(lambda session: list(session.scalars(rows)))


async def test_trials_are_leased_one_after_the_other(desk: WorkDesk) -> None:
    _, ticket = await at_work(desk)
    first = (await desk.ask("POST", "lease", ticket)).json["lease"]
    assert first == {
        "trial": 1, "attempt": 1, "params": {"rate": 0.1, "kind": "b", "seed": 7}, "deadline": 3600,
    }  # fmt: skip
    # an answer that was lost is given again
    assert (await desk.ask("POST", "lease", ticket, {})).json["lease"] == first
    told = end_of(first, metrics={"loss": 0.25})
    second = (await desk.ask("POST", "lease", ticket, told)).json["lease"]
    assert second["trial"] == 2 and await states(desk) == ["SUCCEEDED", "RUNNING"]
    # told twice, it counts once
    assert (await desk.ask("POST", "lease", ticket, told)).json["lease"] == second
    failed = end_of(second, exit_code=1, reason="train line 3: ValueError")
    assert (await desk.ask("POST", "lease", ticket, failed)).json == {"lease": None}
    assert await states(desk) == ["SUCCEEDED", "FAILED"]


async def test_what_a_trial_left_must_have_been_sent(desk: WorkDesk) -> None:
    _, ticket = await at_work(desk)
    lease = (await desk.ask("POST", "lease", ticket)).json["lease"]
    node, left = tree("weights", b"1 2 3"), {"size": 1, "files": 99}
    told = end_of(lease, output={"digest": digest(node), **left})
    assert refused(await desk.ask("POST", "lease", ticket, told), 409, "missing_objects")
    assert await states(desk) == ["RUNNING", "QUEUED"]
    await desk.ask("POST", "objects", ticket, frame(node) + frame(b"1 2 3"))
    assert (await desk.ask("POST", "lease", ticket, told)).json["lease"]["trial"] == 2
    kept = select(TrialRow.output, TrialRow.output_size, TrialRow.output_files)
    found = await desk.db.run(lambda s: s.execute(kept.where(TrialRow.number == 1)).one())
    assert tuple(found) == (digest(node), 5, 1), "counted here, not as told"


async def test_a_beat_brings_metrics_and_hears_of_a_kill(desk: WorkDesk) -> None:
    _, ticket = await at_work(desk)
    lease = (await desk.ask("POST", "lease", ticket)).json["lease"]
    now = {"trial": lease["trial"], "attempt": lease["attempt"]}
    at, none = "2026-01-31T12:00:00Z", {"cancel": False}
    points = [{"trial": 1, "at": at, "step": n, "values": {"loss": 1 / n}} for n in (1, 2, 4)]
    assert (await desk.ask("POST", "beat", ticket, {**now, "points": points})).json == none
    found = await desk.db.run(lambda s: s.query(TrialRow).filter_by(number=1).one().metrics)
    assert found == {"loss": 0.25}
    foreign = desk.ticket(await desk.job(key="0" * 16 + "/0"))
    assert (await desk.ask("POST", "beat", foreign, now)).status == 404
    assert (await desk.ask("POST", "beat", ticket, {**now, "attempt": 9})).json == {"cancel": True}
    killed = update(TrialRow).where(TrialRow.number == 1).values(cancel_reason="killed by ada")
    await desk.db.run(lambda session: session.execute(killed))
    assert (await desk.ask("POST", "beat", ticket, now)).json == {"cancel": True}
    many = {**now, "points": points * 400}
    assert refused(await desk.ask("POST", "beat", ticket, many), 400, "invalid_request")


async def test_a_log_has_no_gaps_and_nothing_twice(desk: WorkDesk) -> None:
    training_id, ticket = await at_work(desk)
    await desk.ask("POST", "lease", ticket)

    async def send(offset: int, data: bytes, where: str = "trial=1&attempt=1") -> Any:
        return await desk.ask("POST", f"log?{where}&offset={offset}", ticket, data)

    assert (await send(0, b"one\n")).json == {"size": 4}
    assert (await send(9, b"gap\n")).json == {"size": 4}, "refused, with the size had"
    assert (await send(0, b"one\n")).json == {"size": 4}, "a repeat is harmless"
    assert (await send(2, b"e\ntwo\n")).json == {"size": 8}, "only what is new counts"
    assert (await send(8, b"")).json == {"size": 8}
    big = b"x" * (LOG_LIMIT - 1) + b"\n"
    assert (await send(8, big)).json == {"size": 8 + LOG_LIMIT}
    log = desk.logs._path(f"trial-{training_id}-1").read_bytes()
    assert log == b"one\ntwo\n" + big
    for where in ("trial=2&attempt=1", "trial=1&attempt=2"):
        assert (await send(0, b"x", where)).status == 404


async def test_an_ingest_sees_its_order_and_what_that_names(desk: WorkDesk) -> None:
    manifest = tree("files.json", b"{}")
    sender = desk.ticket(await desk.job())
    things = (manifest, b"{}", b"index", b"other")
    assert (await desk.ask("POST", "objects", sender, b"".join(map(frame, things)))).status == 200
    row = version(9000, "manifest", "digits")
    row.digest = digest(manifest)
    await desk.db.run(lambda session: session.add(row))
    ticket = desk.ticket(await desk.job("ingest", key=row.digest), "ingest")
    order = (await desk.ask("GET", "order", ticket)).json
    assert (order["manifest"], order["index"]) == (digest(manifest), None)
    assert order["max_size"] < 1 << 20
    assert (await desk.ask("GET", f"object/{digest(b'index')}", ticket)).status == 404
    part = {"index": digest(b"index")}
    assert (await desk.ask("POST", "fetched", ticket, part)).json == {}
    assert (await desk.ask("GET", "order", ticket)).json["index"] == digest(b"index")
    assert (await desk.ask("GET", f"object/{digest(b'index')}", ticket)).body == b"index"
    for thing in (b"other", b"{}", b"nowhere"):
        said = refused(await desk.ask("GET", f"object/{digest(thing)}", ticket), 404, "not_found")
        assert said == NOTHING
    data = tree("a", b"other")
    await desk.ask("POST", "objects", ticket, frame(data))
    ended = {"root": digest(data), "index": digest(b"index"), "files": 1, "size": 5, "fetched": 1}
    for _ in range(2):
        assert (await desk.ask("POST", "ingested", ticket, ended)).json == {}
    made = await desk.db.run(lambda s: s.query(VersionRow).filter_by(kind="data").one().name)
    assert made == "digits"
