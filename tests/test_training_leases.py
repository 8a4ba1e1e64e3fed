"""Leases, counters and lists of trainings: in the database alone, on SQLite and PostgreSQL."""

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidRequest, LimitExceeded, NotFound
from kaos_hub.schemas import (
    Beat,
    EndedBy,
    MetricPoint,
    Resources,
    TrainingState,
    TrialEnd,
    TrialState,
)
from kaos_hub.service.bundles.versions import in_use
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import (
    InputRow,
    JobRow,
    NotebookRow,
    TrainingRow,
    TrialRow,
    VersionRow,
    now,
)
from kaos_hub.service.quota import Ledger
from kaos_hub.service.trainings import listing
from kaos_hub.service.trainings.execution import leases, settling
from kaos_hub.service.trainings.metrics import stride
from kaos_hub.service.trainings.requests import add_trials

ADA = "user:ada"


async def training(db: Database, trials: int | list[Any], **more: Any) -> TrainingRow:
    """A training that is ready to run."""
    values: dict[str, Any] = {
        "id": "a" * 16, "owner": ADA, "name": "t", "author": "ada", "deadline": 60,
        "state": TrainingState.TRAINING, "created": now(), **more,
    }  # fmt: skip
    row = TrainingRow(**values)

    def write(session: Session) -> None:
        session.add(row)
        session.flush()
        add_trials(session, row, trials if isinstance(trials, list) else [None] * trials)

    await db.run(write)
    return row


async def worker(db: Database, name: str, state: str = "RUNNING", **more: Any) -> str:
    """A worker's job."""
    values: dict[str, Any] = {
        "id": name, "kind": "train", "owner": ADA, "key": f"{'a' * 16}/{name}", "work": {},
        "deadline": 60, "created": now(), "author": "ada", "state": state, **more,
    }  # fmt: skip
    await db.run(lambda session: session.add(JobRow(**values)))
    return name


def ended(trial: int, attempt: int = 1, code: int = 0, **more: Any) -> TrialEnd:
    """What a worker tells."""
    return TrialEnd(
        trial=trial, attempt=attempt, exit_code=code, started=now(), finished=now(), **more
    )


class Desk:
    """Asks in transactions of their own, and checks the counters after each."""

    def __init__(self, db: Database, row: TrainingRow) -> None:
        self.db, self.number = db, row.number

    async def do(self, function: Any, *given: Any) -> Any:
        """Run one step."""
        result = await self.db.run(lambda session: function(session, *given))
        row, found = await self.db.run(self._look)
        counted = {state.value: getattr(row, state.value.lower()) for state in TrialState}
        assert counted == {state.value: found[state.value] for state in TrialState}
        assert sum(found.values()) == row.total
        return result

    def _look(self, session: Session) -> tuple[TrainingRow, Counter[str]]:
        query = select(TrialRow.state, func.count()).where(TrialRow.training == self.number)
        found = session.execute(query.group_by(TrialRow.state))
        return session.get_one(TrainingRow, self.number), Counter(dict(tuple(f) for f in found))

    async def take(self, job: str) -> tuple[int, int] | None:
        """Trial and attempt that the worker gets."""
        taken = await self.do(leases.take, job)
        return None if taken is None else (taken[1].trial, taken[1].attempt)

    async def end(self, job: str, told: TrialEnd) -> bool:
        """Whether it was news."""
        return await self.do(leases.end, job, told, None, lambda name: 7) is not None

    async def settle(self) -> settling.Situation:
        """What is to be done."""

        def settle(session: Session) -> settling.Situation:
            row = session.get_one(TrainingRow, self.number)
            return settling.settle(session, row, lambda name: 7)

        return await self.do(settle)

    async def over(self, job: str, state: str = "FAILED", **more: Any) -> None:
        """A worker's job ends."""

        def write(session: Session) -> None:
            row = session.get_one(JobRow, job)
            row.state = state
            for name, value in more.items():
                setattr(row, name, value)

        await self.do(write)

    async def trial(self, number: int) -> TrialRow:
        """A trial."""
        return await self.db.run(lambda s: s.get_one(TrialRow, (self.number, number)))

    async def row(self) -> TrainingRow:
        """The training."""
        return await self.db.run(lambda s: s.get_one(TrainingRow, self.number))


async def test_a_lease_is_given_once_and_its_end_counts_once(db: Database) -> None:
    desk = Desk(db, await training(db, 3, goal_metric="loss", goal_direction="min"))
    one, two = await worker(db, "one"), await worker(db, "two")
    assert await desk.take(one) == (1, 1)
    assert await desk.take(one) == (1, 1)  # its answer was lost
    assert await desk.take(two) == (2, 1)
    assert await desk.end(one, ended(1, metrics={"loss": 0.5, "odd": float("inf")}))
    assert not await desk.end(one, ended(1, code=1))
    assert not await desk.end(one, ended(2))  # another's
    assert not await desk.end(two, ended(2, attempt=2))
    assert await desk.end(two, ended(2, metrics={"loss": 0.25}))
    assert await desk.take(one) == (3, 1)
    assert await desk.end(one, ended(3, code=1, metrics={"loss": 0.1}))
    assert await desk.take(one) is None
    row = await desk.row()
    assert (row.best_trial, row.best_score, row.metrics) == (2, 0.25, ["loss"])
    situation = await desk.settle()
    assert situation.over and set(situation.workers) == {one, two}
    row = await desk.row()
    assert row.state == "SUCCEEDED"
    assert row.reason.startswith("1 of 3 trials failed; the first, 3: train ended with exit code 1")
    await desk.over(one)
    with pytest.raises(NotFound):
        await desk.take(one)


async def test_a_lost_trial_is_tried_once_more_and_what_the_lost_one_says_is_not_heard(
    db: Database,
) -> None:
    desk = Desk(db, await training(db, 1))
    one, two = await worker(db, "one"), await worker(db, "two")
    assert await desk.take(one) == (1, 1)
    await desk.over(one, reason="was lost: the machine went away")
    assert (await desk.settle()).hire is None, "another worker is there"
    lost = await desk.trial(1)
    assert (lost.state, lost.attempt, lost.log_base) == ("QUEUED", 2, 7)
    assert "was lost: the machine went away" in lost.reason
    assert await desk.take(two) == (1, 2)
    assert not await desk.end(two, ended(1, attempt=1))
    answer, _, _ = await desk.do(leases.beat, two, Beat(trial=1, attempt=1))
    assert answer.cancel
    await desk.over(two)
    assert (await desk.settle()).over
    assert (await desk.trial(1)).state == "FAILED"


@pytest.mark.parametrize("cause", ["out_of_memory", "storage"])
async def test_what_would_happen_again_is_not_tried_again(db: Database, cause: str) -> None:
    desk = Desk(db, await training(db, 2))
    one = await worker(db, "one")
    await desk.take(one)
    await desk.over(one, cause=cause, reason="ran out of it")
    assert (await desk.settle()).hire == 0
    trial = await desk.trial(1)
    assert (trial.state, trial.reason) == ("FAILED", "ran out of it")


async def test_a_worker_that_is_sent_away_gives_its_trial_back(db: Database) -> None:
    desk = Desk(db, await training(db, 2))
    one, two = await worker(db, "one"), await worker(db, "two")
    await desk.take(one), await desk.take(two)
    assert await desk.end(one, ended(1, code=143, by=EndedBy.CANCELLED))
    assert (await desk.trial(1)).state == "QUEUED"
    await desk.over(two, cancel_requested=True, state="RUNNING")
    assert await desk.end(two, ended(2, code=143, by=EndedBy.CANCELLED))
    assert (await desk.trial(2)).state == "CANCELLED"


async def test_workers_that_never_run_anything_end_the_training(db: Database) -> None:
    desk = Desk(db, await training(db, 2, slots=2))

    def note(session: Session, job: str) -> None:
        settling.note_worker(session, session.get_one(TrainingRow, desk.number), job)

    for number in range(settling.LOSSES):
        assert (await desk.settle()).hire == 0
        job = await worker(db, f"w{number}", "FAILED", reason="there is no such image")
        await desk.do(note, job)
    row = await desk.row()
    assert (row.state, row.cancelled) == ("FAILED", 2)
    assert row.reason == "No worker could run: there is no such image"


async def test_one_worker_at_a_time_waits_for_its_turn(db: Database) -> None:
    desk = Desk(db, await training(db, 3, slots=5))
    assert (await desk.settle()).hire == 0
    await worker(db, "0", "QUEUED", reason="waiting: too many")
    assert (await desk.settle()).hire is None
    assert (await desk.row()).reason == "waiting: too many"
    await desk.over("0", "RUNNING")
    assert (await desk.settle()).hire == 1
    await worker(db, "1"), await worker(db, "2")
    assert (await desk.settle()).hire is None, "no more than there are trials"


async def test_a_trial_that_hangs_with_its_worker_is_given_up(db: Database) -> None:
    desk = Desk(db, await training(db, 1))
    one = await worker(db, "one")
    await desk.take(one)

    def age(session: Session) -> None:
        trial = session.get_one(TrialRow, (desk.number, 1))
        trial.started = now() - settling.OVERDUE - settling.timedelta(seconds=61)

    await desk.do(age)
    await desk.settle()
    trial = await desk.trial(1)
    assert trial.state == "FAILED" and "did not answer" in trial.reason
    assert (await desk.do(leases.beat, one, Beat(trial=1, attempt=1)))[0].cancel


async def test_a_failure_or_a_kill_stops_the_rest(db: Database) -> None:
    desk = Desk(db, await training(db, 4, stop_on_failure=True))
    one, two = await worker(db, "one"), await worker(db, "two")
    await desk.take(one), await desk.take(two)
    await desk.end(one, ended(1, code=1))
    row = await desk.row()
    assert (row.failed, row.cancelled, row.running) == (1, 2, 1)
    answer, _, _ = await desk.do(leases.beat, two, Beat(trial=2, attempt=1))
    assert answer.cancel
    assert (await desk.settle()).cancelling == [(two, 2, 1)]
    await desk.end(two, ended(2, code=143, by=EndedBy.CANCELLED))
    assert (await desk.settle()).over
    assert (await desk.trial(2)).reason == "trial 1 failed"
    assert (await desk.row()).state == "FAILED"


async def test_whatever_happens_the_counts_are_right_and_no_trial_ends_twice(db: Database) -> None:
    """A long random walk of workers that come, go, tell twice and too late."""
    dice = random.Random(4)
    desk = Desk(db, await training(db, 30, slots=3))
    alive: list[str] = []
    told: list[tuple[str, TrialEnd]] = []
    finished: dict[int, str] = {}
    for step in range(600):
        if len(alive) < 3:
            alive.append(await worker(db, f"w{step}"))
        job = dice.choice(alive)
        match dice.randrange(8):
            case 0 if told:
                late = dice.choice(told)
                if late[0] in alive:
                    assert not await desk.end(*late)
            case 1 if dice.random() < 0.3:
                await desk.over(job, dice.choice(["FAILED", "SUCCEEDED", "CANCELLED"]))
                alive.remove(job)
            case 2:
                await desk.settle()
            case _:
                taken = await desk.take(job)
                if taken is not None and dice.random() < 0.5:
                    end = ended(*taken, code=dice.choice([0, 0, 1]))
                    given = (job, end, None, lambda name: 7)
                    if dice.random() < 0.5:
                        news, after = await desk.do(leases.end_and_take, *given)
                        assert after is None or (after[1].trial, after[1].attempt) != taken
                        assert after == await desk.do(leases.take, job)
                    else:
                        news = await desk.do(leases.end, *given)
                    assert news
                    told.append((job, end))
        for number in range(1, 31):
            trial = await desk.trial(number) if step % 50 == 0 else None
            if trial is not None and TrialState(trial.state).ended:
                assert finished.setdefault(number, trial.state) == trial.state
    for job in alive:
        await desk.over(job)
    await desk.settle()
    last = await worker(db, "last")
    while taken := await desk.take(last):
        await desk.end(last, ended(*taken))
    assert (await desk.settle()).over
    assert (await desk.row()).queued == 0


async def test_points_are_kept_evenly_and_last_values_exactly(db: Database) -> None:
    desk = Desk(db, await training(db, 1))
    one = await worker(db, "one")
    await desk.take(one)
    points = [MetricPoint(trial=1, at=now(), values={"loss": 1 / n}) for n in range(1, 6)]
    for before in (0, 5):
        answer = await desk.do(leases.beat, one, Beat(trial=1, attempt=1, points=points))
        assert (answer[0].cancel, answer[2]) == (False, before)
    assert (await desk.trial(1)).metrics == {"loss": 0.2}
    assert [stride(n) for n in (0, 1999, 2000, 3999, 4000, 8000, 1 << 20)] == [
        1, 1, 2, 2, 4, 8, 1024,
    ]  # fmt: skip


async def test_trials_are_sorted_by_the_database(db: Database) -> None:
    params = [{"c": 10, "k": "rbf"}, {"c": 9.5, "k": "poly"}, {"c": 100, "k": "a"}, {"k": 3}]
    row = await training(db, params, goal_metric="acc", goal_direction="max")
    desk = Desk(db, row)
    one = await worker(db, "one")
    for number, value in ((1, 0.5), (2, 10.0), (3, 9.0)):
        await desk.take(one)
        await desk.end(one, ended(number, metrics={"acc": value, "x.y z": -value}))

    async def order(sort: str, way: str | None = None, **more: Any) -> list[int]:
        given = {"state": None, "limit": 10, "after": 0, **more}
        found = await db.run(lambda s: listing.trials(s, row, sort, way, **given))
        return [trial.number for trial in found]

    assert await order("number", "desc") == [4, 3, 2, 1]
    assert await order("score") == [2, 3, 1, 4]
    assert await order("score", "asc") == [1, 3, 2, 4]
    assert [await order("score", limit=2, after=n) for n in (1, 2, 3, 4)] == [
        [3, 1], [1, 4], [4], []
    ]  # fmt: skip
    assert await order("metrics.x.y z") == [2, 3, 1, 4]
    assert await order("params.c") == [2, 1, 3, 4]
    assert await order("params.c", "desc") == [3, 1, 2, 4]
    assert await order("params.k") == [4, 3, 2, 1], "numbers before texts"
    assert await order("params.nothing", limit=2, after=1) == [2, 3]
    assert await order("duration", state=TrialState.QUEUED) == [4]
    assert len(await order("finished")) == len(await order("started", "desc")) == 4
    for nonsense in ("", "metrics.", 'metrics.a"b', "owner", "params.a\\b", "x.y"):
        with pytest.raises(InvalidRequest, match="cannot be sorted"):
            await order(nonsense)


async def test_users_take_turns(db: Database) -> None:
    ledger = Ledger(db, {"default": {"memory": "8Gi"}, "user:eve": {"trials": 0}})
    await training(db, 1)
    await worker(db, "ada1", memory=1 << 30, cpu=1.0)
    await worker(db, "ada2", memory=1 << 30)
    await worker(db, "ada3", "QUEUED")
    await worker(db, "bob1", "QUEUED", author="bob")
    await worker(db, "bob2", "QUEUED", author="bob", memory=9 << 30)
    await worker(db, "eve1", "QUEUED", author="eve")

    async def waits(job: str, most: int) -> str:
        return await db.run(lambda s: ledger.worker_waits(s, s.get_one(JobRow, job), most))

    assert await waits("ada3", 0) == ""
    assert await waits("ada3", 4) == ""
    assert await waits("bob1", 3) == ""
    assert await waits("ada3", 3) == "waiting: 2 of 3 workers run, 1 wait before this one"
    assert "bob may have 8Gi memory, and has 0" in await waits("bob2", 9)
    assert "eve may have 0 trials at once" in await waits("eve1", 9)
    used = await ledger.usage(ADA)
    assert (used.trials, used.memory, used.cpu) == (2, 2 << 30, 1.0)
    assert (await ledger.usage("group:ada")).trials == 0
    refusal = r"8Gi memory: 2Gi held, 7Gi asked for; 6Gi would fit. Stop a notebook or training"
    notebook = NotebookRow(id="n", owner=ADA, name="n", created=now())
    with pytest.raises(LimitExceeded, match=refusal):
        await db.run(lambda s: ledger.check(s, notebook, 0, 7 << 30, 0))


async def test_builds_take_turns_and_hold_what_they_use(db: Database) -> None:
    limits = {"default": {"memory": "8Gi", "cpu": 4}, "user:eve": {"memory": "512Mi"}}
    ledger, share = Ledger(db, limits), Resources(cpu=2, memory="4Gi")

    async def build(job: str, state: str, owner: str = ADA) -> None:
        row = JobRow(
            id=job, kind="build", owner=owner, key=job, state=state, work={}, deadline=1,
            created=now(), cpu=2.0 if state == "RUNNING" else None,
            memory=4 << 30 if state == "RUNNING" else None,
        )  # fmt: skip
        await db.run(lambda session: session.add(row))

    async def waits(job: str, most: int) -> str:
        def ask(session: Session) -> str:
            return ledger.build_waits(session, session.get_one(JobRow, job), most, share)

        return await db.run(ask)

    await build("ada1", "RUNNING")
    await build("ada2", "QUEUED")
    await build("bob1", "QUEUED", "user:bob")
    assert await waits("ada2", 1) == "waiting: 1 of 1 builds run"
    assert await waits("ada2", 2) == "waiting: 1 of 2 builds run, 1 wait before this one"
    assert await waits("bob1", 2) == ""
    used = await ledger.usage(ADA)
    assert (used.builds, used.cpu, used.memory) == (1, 2, 4 << 30)
    await build("eve1", "QUEUED", "user:eve")
    assert await db.run(lambda s: ledger.job_gets(s, "user:eve", 2, 1 << 30)) == (2, 512 << 20)
    assert await db.run(lambda s: ledger.job_gets(s, ADA, 4, 8 << 30)) == (2, 4 << 30)
    full = await db.run(lambda s: ledger.job_gets(s, "user:eve", 2, 8 << 30))
    assert full == "waiting: of your memory 512Mi is left; stop something that runs"
    assert await waits("ada2", 3) == "", "one that cannot run keeps nobody waiting"


async def test_trainings_come_in_pages_and_what_they_use_is_in_use(db: Database) -> None:
    def version(session: Session, number: int) -> int:
        row = VersionRow(
            owner=ADA, kind="data", name="d", number=number, digest=f"blake3:{number:064x}",
            size=1, files=1, author="ada", created=now(), current=True,
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id

    used, once, current, never = [await db.run(lambda s, n=n: version(s, n)) for n in range(1, 5)]
    for number in range(5):
        more = {"data_id": used if number else once, "state": "TRAINING" if number else "FAILED"}
        await training(db, 1, id=f"{number:016x}", **more)
    given = InputRow(owner=ADA, source="", kind="data", version_id=current, author="ada", at=now())
    await db.run(lambda session: session.add(given))

    async def page(*states: TrainingState, limit: int = 2, after: int | None = None) -> list[int]:
        last = None if after is None else f"{after:016x}"
        found = await db.run(lambda s: listing.trainings(s, ADA, states, limit, last))
        return [int(row.id, 16) for row in found]

    assert [await page(), await page(after=3), await page(after=1)] == [[4, 3], [2, 1], [0]]
    assert await page(TrainingState.FAILED) == [0]
    assert await page(TrainingState.TRAINING, limit=9, after=2) == [1]
    held = [await db.run(lambda s, i=i: in_use(s, i)) for i in (used, once, current, never)]
    assert held == [True, False, True, False]
    with pytest.raises(NotFound):
        await page(after=77)
