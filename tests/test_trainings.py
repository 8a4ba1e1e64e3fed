"""Trainings with the real worker on the local engine: from a request to models."""

import asyncio
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import select

from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.errors import Conflict, EngineUnavailable, NotFound, StorageFull, Unsupported
from kaos_hub.schemas import Beat, BundleKind, MetricPoint, TrainingRequest, TrialState
from kaos_hub.service.api.provenance import dot
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow, TrainingRow, now
from tests.train_world import ADA, World, world

TRAIN = """#!/bin/sh
echo "trial $KAOS_TRIAL"
mkdir -p "$1/metrics" "$1/model"
cat "$KAOS_DATA/x.txt" "$KAOS_PARAMS" > "$1/model/weights"
echo "{\\"score\\": $KAOS_TRIAL}" > "$1/metrics/metrics.json"
"""
SLOW = "#!/bin/sh\necho begun\nsleep 60\n"
FAILS = '#!/bin/sh\n[ "$KAOS_TRIAL" = 2 ] && { echo "no such thing" >&2; exit 3; }\nexit 0\n'

Make = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments that all worlds share."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def make(db: Database, tmp_path: Path, environments: Path) -> Make:
    """Makes a world over the database."""
    return partial(world, db, tmp_path, environments=environments)


@pytest.fixture
def quick(usual_db: Database, tmp_path: Path, environments: Path) -> Make:
    """Makes a world over one database, for what does not depend on its kind."""
    return partial(world, usual_db, tmp_path, environments=environments)


async def content(pieces: AsyncIterator[bytes]) -> dict[str, bytes]:
    """The files of an archive."""
    data = b"".join([piece async for piece in pieces])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


async def given(w: World, train: str, params: Any = None, **more: Any) -> Any:
    """A training of a script, with some data."""
    await w.source(train)
    await w.files(BundleKind.DATA, "numbers", x_txt="1 2 3")
    if params is not None:
        more["params"] = (await w.params(params)).digest
    return await w.request(source="code", data="numbers", **more)


async def test_from_a_request_to_models_and_again(make: Make) -> None:
    async with make() as w:
        goal = {"metric": "score", "direction": "max"}
        asked = await given(w, TRAIN, {"a": [1, 2], "b": ["x", "y"]}, slots=2, goal=goal)
        assert (asked.state, asked.trials.total) == ("QUEUED", 4)
        done = await w.until(asked.id)
        assert (done.state, done.reason, done.best.trial) == ("SUCCEEDED", "", 4)
        assert [stage.state for stage in done.stages] == ["SUCCEEDED", "SUCCEEDED"]
        assert await w.text(asked.id, 3) == "trial 3\n"
        trials = await w.trainings.trials(ADA, asked.id, "score")
        assert [t.number for t in trials] == [4, 3, 2, 1]
        assert {json.dumps(t.params) for t in trials} == {
            json.dumps({"a": a, "b": b}) for a in (1, 2) for b in "xy"
        }

        model = await w.trainings.name_model(ADA, "ada", f"{asked.id}.2", "digits")
        assert (model.name, model.params) == ("digits@v1", {"a": 1, "b": "y"})
        assert await w.trainings.model(ADA, "digits@v1") == model
        assert [m.trial for m in await w.trainings.models(ADA, named=True)] == [2]
        assert len(await w.trainings.models(ADA, limit=3)) == 3
        with pytest.raises(Conflict, match="digits@v1"):
            await w.trainings.delete(ADA, "ada", asked.id)
        origin = await w.trainings.provenance(ADA, "digits")
        assert (origin.source.name, origin.data.name, origin.engine) == ("code", "numbers", "local")
        assert "digits@v1" in dot(origin) and '\\"y\\"' in dot(origin)

        one = await content(await w.trainings.archive(ADA, asked.id, 2))
        assert set(one) == {
            "code/Dockerfile", "code/model/train", "data/x.txt", "params/params.json",
            "model/metrics/metrics.json", "model/model/weights",
        }  # fmt: skip
        assert json.loads(one["params/params.json"]) == {"a": 1, "b": "y"}
        everything = await content(await w.trainings.archive(ADA, asked.id, None, ["model"]))
        assert {name.split("/")[1] for name in everything} == set("1234")
        assert await content(await w.trainings.model_archive(ADA, "digits")) == {
            name.removeprefix("model/"): data
            for name, data in one.items()
            if name.startswith("model/")
        }

        again = (await w.trainings.reproduce(ADA, "bob", asked.id)).training
        assert again is not None and (again.reproduces, again.author) == (asked.id, "bob")
        assert (await w.until(again.id)).state == "SUCCEEDED"
        compared = await w.trainings.comparison(ADA, again.id)
        assert [c.same_output for c in compared] == [True] * 4
        assert [(m.before, m.after) for m in compared[2].metrics] == [(3.0, 3.0)]

        await w.trainings.delete_model(ADA, "digits")
        await w.trainings.delete(ADA, "ada", asked.id)
        with pytest.raises(NotFound):
            await w.trainings.get(ADA, asked.id)
        with pytest.raises(NotFound):
            await w.trainings.get("user:bob", again.id)
        assert not list(w.data.logs.glob(f"*{asked.id}*"))


async def test_what_is_not_given_is_the_current_input(make: Make) -> None:
    async with make() as w:
        with pytest.raises(Exception, match="nothing to train with"):
            await w.request()
        first = await w.source(TRAIN)
        waiting = await w.request(source="code", slots=3)
        assert waiting.state == "WAITING" and "waits for data" in waiting.reason

        async def builds() -> bool:
            return (await w.trainings.get(ADA, waiting.id)).stages[0].state != "QUEUED"

        await w.see(builds)
        with pytest.raises(Conflict, match="waits for data already"):
            await w.request()
        old = await w.files(BundleKind.DATA, "numbers", x_txt="old")
        going = await w.request(data="numbers")
        assert (going.id, going.slots) == (waiting.id, 3)
        assert (await w.until(going.id)).state == "SUCCEEDED"

        new = await w.files(BundleKind.DATA, "numbers", x_txt="new")
        second = await w.source(TRAIN + "# changed\n")
        together = await w.request(source=second.digest, data=new.digest)
        assert (together.source.version, together.data.version) == (2, 2)
        selected = await w.request(source=first.digest)
        assert (selected.source.version, selected.data.version) == (1, 2)
        inputs = await w.trainings.inputs(ADA)
        assert (inputs.source.digest, inputs.data.digest) == (first.digest, new.digest)

        shown = {"source": first.digest, "data": old.digest}
        with pytest.raises(Conflict, match="current data is no longer") as e:
            await w.request(expected=shown)
        assert e.value.details == {"kind": "data"}
        dry = {"data": old.digest, "expected": shown, "dry_run": True}
        await asyncio.gather(*(w.until(t.id) for t in (together, selected)))
        answer = await w.trainings.request(ADA, "ada", TrainingRequest.model_validate(dry))
        assert answer.training is None
        assert answer.inputs.data is not None and answer.inputs.data.digest == old.digest
        assert answer.actions[:2] == [
            "use source code@v1 from before: none is given now",
            "nothing to build",
        ]
        assert (await w.trainings.inputs(ADA)).data.digest == new.digest


async def test_inputs_of_one_project_never_slip_into_another(quick: Make) -> None:
    """What is current belongs to the source's name; what was left out stays so."""
    async with quick() as w:
        await w.source(TRAIN)
        await w.files(BundleKind.DATA, "numbers", x_txt="1")
        await w.params({"degree": [1, 2]})
        first = await w.request(source="code", data="numbers", params="grid")
        assert (first.trials.total, first.reused) == (2, [])

        await w.source(TRAIN + "#", "moons")
        await w.files(BundleKind.DATA, "points", x_txt="2")
        fresh = await w.request(source="moons", data="points")
        assert (fresh.trials.total, fresh.params, fresh.reused) == (1, None, [])
        asked = TrainingRequest(source="moons@v1", dry_run=True)
        answer = await w.trainings.request(ADA, "ada", asked)
        assert (answer.inputs.data.name, answer.inputs.params) == ("points", None)
        assert answer.actions[0] == "use data points@v1 from before: none is given now"
        only_data = await w.request(data="points")
        assert (only_data.source.name, only_data.params, only_data.reused) == (
            "moons", None, ["source"],
        )  # fmt: skip

        again = await w.request(source="code")
        assert (again.data.name, again.params.name) == ("numbers", "grid")
        assert again.reused == ["data", "params"]
        without = await w.request(source="code", without_params=True)
        assert (without.trials.total, without.reused) == (1, ["data"])
        later = await w.request(source="code")
        assert (later.data.name, later.params) == ("numbers", None)

        await w.source(TRAIN + "##", "third")
        lacking = await w.request(source="third")
        assert (lacking.state, lacking.data) == ("WAITING", None)
        nothing = await w.trainings.inputs(ADA, "never-seen")
        assert nothing.source is nothing.data is nothing.params is None
        assert (await w.trainings.inputs(ADA, "moons@v1")).data.name == "points"
        assert (await w.trainings.get(ADA, again.id)).reused == ["data", "params"]


class LeaversWithABug:
    """Cannot tell who has left, and says so in no way that is foreseen."""

    asked = 0

    async def reason(self, row: TrainingRow) -> str:
        self.asked += 1
        raise ZeroDivisionError(row.name)


async def test_what_cannot_be_driven_on_is_given_up_after_some_tries(
    quick: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits neither for ever nor silently, and takes no other training with it."""
    monkeypatch.setattr("kaos_hub.service.trainings.execution.driver.TRIES", 2)
    async with quick() as w:
        bug, driver = LeaversWithABug(), w.trainings._driver
        monkeypatch.setattr(driver, "_leavers", bug)
        asked = await given(w, TRAIN)
        failed = await w.until(asked.id)
        assert (failed.state, bug.asked) == ("FAILED", 2)
        assert "something went wrong in the service" in failed.reason
        assert "ZeroDivision" in failed.reason
        monkeypatch.undo()
        assert (await w.until((await given(w, TRAIN + "#")).id)).state == "SUCCEEDED"


async def test_what_came_before_its_source_goes_with_it(quick: Make) -> None:
    async with quick() as w:
        await w.files(BundleKind.DATA, "numbers", x_txt="1")
        waiting = await w.request(data="numbers")
        assert "waits for source" in waiting.reason
        assert (await w.trainings.inputs(ADA, "code")).data.name == "numbers"
        await w.source(TRAIN)
        going = await w.request(source="code")
        assert (going.id, going.reused) == (waiting.id, ["data"])
        await w.source(TRAIN + "#", "other")
        assert (await w.request(source="other")).data is None
        assert (await w.request(source="code")).data.name == "numbers"


async def test_a_source_that_nobody_continues_makes_room(quick: Make, tmp_path: Path) -> None:
    async with quick() as w:
        first, second = await w.source(TRAIN), await w.source(FAILS)
        waiting = await w.request(source=first.digest)
        newer = await w.request(source=second.digest)
        assert (await w.trainings.get(ADA, waiting.id)).state == "CANCELLED"
        assert (await w.trainings.get(ADA, newer.id)).state == "WAITING"
        (tmp_path / "notebook" / "model").mkdir(parents=True)
        (tmp_path / "notebook" / "Dockerfile").write_text("FROM python:3.11-slim\n")
        await w.commit(BundleKind.SOURCE, "notebook", tmp_path / "notebook")
        with pytest.raises(Unsupported, match="kaos notebook deploy -s DIR"):
            await w.request(source="notebook")
        await w.trainings.kill(ADA, "ada", newer.id)
        killed = await w.until(newer.id)
        assert (killed.state, killed.stages[1].state) == ("CANCELLED", "SKIPPED")


async def test_a_failed_trial_does_not_stop_the_rest_unless_told(quick: Make) -> None:
    async with quick() as w:
        asked = await given(w, FAILS, {"a": [1, 2, 3]})
        done = await w.until(asked.id)
        assert (done.state, done.trials.succeeded, done.trials.failed) == ("SUCCEEDED", 2, 1)
        assert done.reason.startswith("1 of 3 trials failed; the first, 2: ")
        failed = await w.trainings.trial(ADA, asked.id, 2)
        assert (failed.state, failed.exit_code, failed.attempt) == ("FAILED", 3, 1)
        assert "no such thing" in await w.text(asked.id, 2)
        stopped = await w.until((await w.request(stop_on_failure=True)).id)
        assert (stopped.state, stopped.trials.cancelled) == ("FAILED", 1)


async def begun(w: World, training: str, trials: int = 1, times: int = 1) -> None:
    """Wait until so many trials run, and the first has said so that many times."""

    async def look() -> bool:
        running = (await w.trainings.get(ADA, training)).trials.running >= trials
        return running and (await w.text(training)).count("begun") == times

    await w.see(look)


def end_workers(which: str = "kaos_hub.workload.trial.trials") -> None:
    """Kill our worker programs without a word."""
    seen = subprocess.run(["pgrep", "-f", which], capture_output=True, text=True)
    for pid in seen.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


async def test_a_killed_workers_trial_is_tried_once_more(quick: Make) -> None:
    async with quick() as w:
        asked = await given(w, SLOW)
        await begun(w, asked.id)
        end_workers(str(w.data.path))
        await begun(w, asked.id, times=2)
        reason = (await w.trainings.trial(ADA, asked.id, 1)).reason
        assert reason.startswith("second attempt; at the first, its worker was lost")
        end_workers(str(w.data.path))
        done = await w.until(asked.id)
        assert done.state == "FAILED" and done.reason.startswith("lost twice: ")
        assert (await w.text(asked.id)).count("begun") == 2


async def test_killing_one_trial_and_all(quick: Make) -> None:
    async with quick() as w:
        asked = await given(w, SLOW, {"a": [1, 2, 3]}, slots=2)

        async def followed(trial: int) -> bytes:
            log = await w.trainings.log(ADA, asked.id, trial, follow=True)
            return b"".join([piece async for _, piece in log])

        followers = [asyncio.create_task(followed(trial)) for trial in (1, 2, 3)]
        await begun(w, asked.id, 2)
        await w.trainings.kill(ADA, "ada", asked.id, 3)
        assert await asyncio.wait_for(followers[2], 20) == b""
        await w.trainings.kill(ADA, "bob", asked.id, 1)

        async def ended() -> bool:
            return (await w.trainings.trial(ADA, asked.id, 1)).state.ended

        await w.see(ended)
        assert (await w.trainings.trial(ADA, asked.id, 1)).reason == "killed by bob"
        assert (await w.trainings.trial(ADA, asked.id, 2)).state == "RUNNING"
        with pytest.raises(Conflict, match="not ended"):
            await w.trainings.delete(ADA, "ada", asked.id)
        await w.trainings.kill(ADA, "ada", asked.id)
        done = await w.until(asked.id)
        assert (done.state, done.reason) == ("CANCELLED", "killed by ada")
        assert done.trials.cancelled == 3
        async with asyncio.timeout(20):  # nobody waits for more of what has ended
            texts = await asyncio.gather(*followers[:2])
        assert all(b"begun" in text for text in texts)


async def test_killing_a_build(quick: Make, tmp_path: Path) -> None:
    async with quick() as w:
        folder = tmp_path / "slow"
        (folder / "model").mkdir(parents=True)
        (folder / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . /opt/program\n")
        (folder / "model" / "train").write_text(TRAIN)
        (folder / "model" / "requirements.txt").write_text(f"no-such @ file://{tmp_path}/x.whl\n")
        (tmp_path / "x.whl").mkdir()
        await w.commit(BundleKind.SOURCE, "slow", folder)
        await w.files(BundleKind.DATA, "numbers", x_txt="1")
        asked = await w.request(source="slow", data="numbers")
        await w.until(asked.id, "BUILDING")
        await w.trainings.kill(ADA, "ada", asked.id)
        done = await w.until(asked.id)
        assert (done.state, done.reason) == ("CANCELLED", "killed by ada")
        assert done.stages[0].state == "CANCELLED"
        failed = await w.until((await w.request()).id)
        assert failed.state == "FAILED" and failed.reason.startswith("The build failed: ")
        assert failed.trials.cancelled == 1


async def test_the_service_killed_again_and_again_runs_each_trial_once(quick: Make) -> None:
    """Drivers are gone without a word, the server with them; workers go on, and are found again."""
    async with quick() as w:
        train = '#!/bin/sh\necho "trial $KAOS_TRIAL"\nsleep 0.2\ntouch "$1.x"; mkdir "$1"\n'
        asked = await given(w, train, {"a": list(range(24))}, slots=3)
        for patience in (0.0, 0.1, 0.4, 0.7, 1.1, 0.3, 0.9, 1.3):
            await asyncio.sleep(patience)
            await w.stop()
            await asyncio.sleep(patience / 3)
            await w.start()
        done = await w.until(asked.id)
        assert (done.state, done.trials.succeeded) == ("SUCCEEDED", 24), done
        trials = await w.trainings.trials(ADA, asked.id)
        assert {t.attempt for t in trials} == {1}
        texts = [await w.text(asked.id, n) for n in range(1, 25)]
        assert texts == [f"trial {n}\n" for n in range(1, 25)]


async def test_workers_keep_to_limits_and_users_take_turns(quick: Make) -> None:
    limits = {"user:ada": {"trials": 1}}
    async with quick(limits=limits, max_workers=2) as w:
        train = "#!/bin/sh\nsleep 0.3\n"
        asked = await given(w, train, {"a": [1, 2, 3, 4, 5, 6]}, slots=4)
        also = await w.request(user="bob", params="grid", slots=4)
        most, reasons = {"ada": 0, "bob": 0}, set()
        async with asyncio.timeout(60):
            while True:
                seen = {r.author: r for r in await w.trainings.list(ADA)}
                for author, row in seen.items():
                    most[author] = max(most[author], row.trials.running)
                reasons |= {job.reason for job in await jobs(w, "QUEUED")}
                if all(row.state.ended for row in seen.values()):
                    break
                await asyncio.sleep(0.02)
        assert most["ada"] == 1
        assert 1 <= most["bob"] <= 2
        assert any("ada may have 1 trials at once" in reason for reason in reasons)
        assert any("2 of 2 workers run" in reason for reason in reasons), reasons
        for training in (asked, also):
            assert (await w.trainings.get(ADA, training.id)).state == "SUCCEEDED"


async def test_two_people_submit_to_one_workspace_at_once(quick: Make) -> None:
    """What is given in one request is used together; nobody's half is paired with another's."""
    async with quick() as w:
        owner = "group:vision"
        for name in ("one", "two"):
            await w.source(f"#!/bin/sh\ncat $KAOS_DATA/x.txt # {name}\n", name, owner)
            await w.files(BundleKind.DATA, name, owner, x_txt=name)
        people = (("one", "ada"), ("two", "bob")) * 4
        await w.request(owner, "ada", source="one", data="one")
        asked = await asyncio.gather(
            *(w.request(owner, user, source=name, data=name) for name, user in people),
            *(w.request(owner, "eve", data=name) for name in ("one", "two")),
        )
        assert [t.author for t in asked[:2]] == ["ada", "bob"]
        assert all(t.source.name == t.data.name for t in asked[:8])
        done = [await w.until(t.id, owner=owner) for t in asked]
        assert {t.state for t in done} == {"SUCCEEDED"}
        texts = [await w.text(t.id, owner=owner) for t in asked]
        assert texts == [f"{t.data.name}" + "\n" for t in asked]


async def jobs(w: World, state: str = "RUNNING") -> list[Any]:
    """Jobs in that state."""
    query = select(JobRow).where(JobRow.state == state)
    return await w.db.run(lambda session: list(session.scalars(query)))


async def test_what_a_trial_logs_is_seen_live(quick: Make) -> None:
    async with quick() as w:
        train = (
            "#!/usr/bin/env python3\nimport time\nfrom kaos_hub import log\n"
            "for step in range(3000):\n    log(loss=1 / (step + 1), step=step)\n"
            "time.sleep(3)\nlog(loss=float('nan'), final=7)\n"
        )
        asked = await given(w, train, goal={"metric": "loss", "direction": "min"})
        seen: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            await w.until(asked.id, "TRAINING")
            async for _, piece in await w.trainings.points(ADA, asked.id, 1, follow=True):
                seen += [json.loads(line) for line in piece.splitlines()]
                if not (await w.trainings.trial(ADA, asked.id, 1)).state.ended:
                    assert (await w.trainings.trial(ADA, asked.id, 1)).metrics
        done = await w.until(asked.id)
        trial = await w.trainings.trial(ADA, asked.id, 1)
        assert trial.state == TrialState.SUCCEEDED, trial
        assert trial.metrics == {"loss": 1 / 3000, "final": 7.0}
        assert seen[0]["values"] == {"loss": 1.0} and seen[-1]["values"] == {"final": 7.0}
        assert done.best is not None and done.metrics == ["final", "loss"]


class Files(SimpleHTTPRequestHandler):
    """A folder over HTTP, which remembers what was asked of it."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL at which a folder is served."""
    Files.asked.clear()
    handler = partial(Files, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ONLY_CHILD = """#!/bin/sh
set -- "$1" /pfs/data/*
[ $# = 2 ] || { echo "not one entry in /pfs/data" >&2; exit 1; }
cat "$2"/training/*.csv && mkdir "$1"
"""
SHAPES = {
    "as the documents give it": (["features/training/a.csv", "features/test/b.csv"], ["features"]),
    "one level too high": (["data/features/training/a.csv"], ["data"]),
    "one level too low": (["test/b.csv", "training/a.csv"], ["test", "training"]),
    "several": (
        ["features/training/a.csv", "more/c.csv", "README"],
        ["README", "features", "more"],
    ),
    "a file": (["a.csv"], ["a.csv"]),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_data_lie_where_bundles_of_the_ancestor_look(
    quick: Make, tmp_path: Path, shape: str
) -> None:
    """The top entries of the bundle, whatever its name; the variable names the same."""
    files, top = SHAPES[shape]
    data = tmp_path / "given"
    for file in files:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_text(f"{file}\n")
    async with quick() as w:
        await w.source('#!/bin/sh\ncd /pfs/data; find . -type f | sort; ls "$KAOS_DATA"\n')
        await w.commit(BundleKind.DATA, "digits", data)
        done = await w.until((await w.request(source="code", data="digits")).id)
        assert (done.state, done.reason) == ("SUCCEEDED", "")
        seen = (await w.text(done.id)).splitlines()
        assert seen == [*sorted(f"./{file}" for file in files), *top]


async def test_an_only_child_is_found_and_else_is_said_what_is_there(
    quick: Make, tmp_path: Path
) -> None:
    data = tmp_path / "given" / "data"
    (data / "features/training").mkdir(parents=True)
    (data / "features/training/a.csv").write_text("1\n")
    async with quick() as w:
        await w.source(ONLY_CHILD)
        await w.commit(BundleKind.DATA, "right", data)
        done = await w.until((await w.request(source="code", data="right")).id)
        assert (done.state, done.reason) == ("SUCCEEDED", "")
        await w.commit(BundleKind.DATA, "high", data.parent)
        failed = await w.until((await w.request(source="code", data="high")).id)
        assert failed.state == "FAILED"
        assert "in /pfs/data/data there is features" in failed.reason
        assert "kaos: in /pfs/data/data there is features" in await w.text(failed.id)


async def test_without_a_sandbox_it_is_said_before_and_after(quick: Make) -> None:
    """At each deploy; and in log and reason of what looked for a path in vain."""
    async with quick() as w:
        w.engine.use_sandbox = False
        await w.source("#!/bin/sh\ncat /pfs/data/x.txt\n")
        await w.files(BundleKind.DATA, "numbers", x_txt="1")
        asked = TrainingRequest(source="code", data="numbers", dry_run=True)
        answer = await w.trainings.request(ADA, "ada", asked)
        assert any("There is no sandbox here (it is turned off)" in a for a in answer.actions)
        asked_for = await w.request(source="code", data="numbers")
        failed = await w.until(asked_for.id, seconds=200)
        assert failed.state == "FAILED"
        assert "there are no paths /pfs/… and /kaos/… on this hub" in failed.reason
        assert "kaos: there are no paths /pfs/…" in await w.text(failed.id)


async def test_data_is_fetched_by_a_manifest(quick: Make, tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.mkdir()
    for name in "abc":
        (web / name).write_text(name * 10)
    with serving(web) as url:

        def lines(*names: str) -> str:
            return "".join(
                json.dumps({"url": f"{url}/{n}", "path": f"/x/{n}"}) + "\n" for n in names
            )

        async with quick(allow=("127.0.0.0/8",)) as w:
            train = '#!/bin/sh\ncat "$KAOS_DATA"/x/*; ls /pfs/data 2>/dev/null\n'
            await w.source(train)
            await w.files(BundleKind.MANIFEST, "sets", list_jsonl=lines("a", "b"))
            asked = await w.request(source="code", manifest="sets")
            done = await w.until(asked.id)
            assert (done.state, done.reason) == ("SUCCEEDED", "")
            assert [stage.state for stage in done.stages] == ["SUCCEEDED"] * 3
            assert done.data is not None and (done.data.name, done.data.version) == ("sets", 1)
            assert await w.text(asked.id) == "aaaaaaaaaabbbbbbbbbbsets\n"
            assert b"Step 1/2" in b"".join(
                [piece async for _, piece in await w.trainings.ingest_log(ADA, asked.id)]
            )
            inputs = await w.trainings.inputs(ADA)
            assert (inputs.data.name, inputs.manifest.name) == ("sets", "sets")

            same = await w.until((await w.request(manifest="sets")).id)
            assert same.stages[0].state == "SKIPPED"
            await w.files(BundleKind.MANIFEST, "sets", list_jsonl=lines("a", "b", "c"))
            Files.asked.clear()
            more = await w.until((await w.request(manifest="sets")).id)
            assert (more.state, more.data.version) == ("SUCCEEDED", 2)
            assert set(Files.asked) == {"/c"}

            await w.files(BundleKind.MANIFEST, "broken", list_jsonl=lines("a", "nowhere"))
            failed = await w.until((await w.request(manifest="broken")).id)
            assert failed.state == "FAILED" and "list.jsonl:2" in failed.reason
            assert failed.stages[0].state == "FAILED"


async def test_private_addresses_are_not_fetched_from(quick: Make, tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        async with quick() as w:
            await w.source(TRAIN)
            line = json.dumps({"url": f"{url}/a", "path": "a"})
            await w.files(BundleKind.MANIFEST, "sets", list_jsonl=line)
            failed = await w.until((await w.request(source="code", manifest="sets")).id)
            assert failed.state == "FAILED" and "127.0.0.1" in failed.reason
            assert Files.asked == []


class EngineThatGoesAway(LocalEngine):
    """Does not answer while a file says so."""

    async def resolve(self, image: str, pull: bool = False) -> str:
        if (self._data.path / "away").exists():
            raise EngineUnavailable("The engine does not answer.")
        return await super().resolve(image, pull)


async def test_an_engine_that_is_away_is_waited_for_and_told(quick: Make) -> None:
    async with quick(engine=EngineThatGoesAway) as w:
        (w.data.path / "away").touch()
        asked = await given(w, TRAIN)

        async def told() -> bool:
            reason = (await w.trainings.get(ADA, asked.id)).reason
            return reason == "waiting: The engine does not answer."

        await w.see(told)
        (w.data.path / "away").unlink()
        assert (await w.until(asked.id)).state == "SUCCEEDED"


async def test_a_full_disk_refuses_logs_and_costs_no_trial(
    usual_db: Database, small_disk: Path, tmp_path: Path, environments: Path
) -> None:
    """Where logs lie there is no room; whoever writes them is told, and tries again for a while."""
    async with world(usual_db, tmp_path, environments=environments) as w:
        asked = await given(w, SLOW)
        await begun(w, asked.id)
        [job] = [job for job in await jobs(w) if job.kind == "train"]
        w.logs._directory = small_disk
        (small_disk / "fill").write_bytes(bytes((2 << 20) - 8192))
        with pytest.raises(StorageFull, match="log cannot be kept"):
            await w.trainings.append_log(job.id, 1, 1, 0, b"x" * 100_000)
        points = [MetricPoint(trial=1, at=now(), values={"a": float(n)}) for n in range(1000)]
        beat = Beat(trial=1, attempt=1, points=points)
        assert not (await w.trainings.beat(job.id, beat)).cancel
        assert (await w.trainings.trial(ADA, asked.id, 1)).metrics == {"a": 999.0}
