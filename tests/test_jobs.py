"""Jobs on the real local engine: driven to their end, through every crash."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from kaos_hub.bundles.scan import scan
from kaos_hub.engines.base import Build, JobSpec, Materialise, Phase
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.errors import NotFound
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import JobKind, JobState
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow
from kaos_hub.service.jobs.jobs import Jobs, workload_name
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.quota import Ledger
from kaos_hub.stores.file import FileStore
from tests.bundled import laid

ADA = "user:ada"


def explain(row: JobRow, lines: list[str]) -> str:
    return f"explained {len(lines)} lines"


@pytest_asyncio.fixture
async def world(usual_db: Database, tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """A service's parts that matter to jobs, and a way to make them anew, as after a crash."""
    data = DataDir(tmp_path / "data")
    db = usual_db
    engine = LocalEngine(data_dir=str(data.path))
    await engine.start()
    opened: list[Jobs] = []

    def jobs(limits: dict[str, object] | None = None, max_builds: int = 2) -> Jobs:
        ledger = Ledger(db, {"default": limits or {}})
        made = Jobs(db, engine, LogStore(data.logs), ledger, max_builds, explain)
        opened.append(made)
        return made

    yield SimpleNamespace(db=db, engine=engine, data=data, jobs=jobs)
    for made in opened:
        await made.close()
    await engine.close()


async def bundle(world: SimpleNamespace, directory: Path) -> Materialise:
    """A folder in the store, and the work of laying it out."""
    store = FileStore(world.data.store)
    found = scan(directory)
    for digest, size in found.objects.items():
        upload = await store.upload(digest, size)
        for piece in found.read(digest):
            await upload.write(piece)
        await upload.finish()
    return Materialise(digest=found.root, store=store.url)


def source(path: Path, requirements: str) -> Path:
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.11-slim\n")
    (path / "model" / "requirements.txt").write_text(requirements)
    return path


async def test_a_tree_is_laid_out_and_nothing_is_left_behind(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    jobs = world.jobs()
    work = await bundle(world, source(tmp_path / "s", "x"))
    job_id = await jobs.ensure(JobKind.MATERIALISE, ADA, work.digest, work)
    row = await jobs.wait(job_id)
    assert (row.state, row.reason) == (JobState.SUCCEEDED, "")
    assert (world.engine.places.path(work.digest) / "model" / "requirements.txt").read_text() == "x"
    await jobs.close()
    name = workload_name(JobKind.MATERIALISE, job_id)
    assert (await world.engine.observe(name)).phase is Phase.ABSENT


class EngineWithABug(LocalEngine):
    """Cannot start anything, and says so in no way that is foreseen."""

    asked = 0

    async def submit(self, spec: JobSpec) -> None:
        type(self).asked += 1
        raise ZeroDivisionError(spec.name)


async def test_what_cannot_be_driven_on_is_given_up_after_some_tries(
    world: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits neither for ever nor silently, and takes no other job with it."""
    monkeypatch.setattr("kaos_hub.service.jobs.jobs.TRIES", 2)
    monkeypatch.setattr(EngineWithABug, "asked", 0)
    work = await bundle(world, source(tmp_path / "s", ""))
    engine = EngineWithABug(data_dir=str(world.data.path))
    ledger = Ledger(world.db, {"default": {}})
    jobs = Jobs(world.db, engine, LogStore(world.data.logs), ledger, 2, explain)
    row = await jobs.wait(await jobs.ensure(JobKind.MATERIALISE, ADA, work.digest, work))
    assert (row.state, EngineWithABug.asked) == (JobState.FAILED, 2)
    assert "something went wrong in the service" in row.reason and "ZeroDivision" in row.reason
    await jobs.close()
    jobs = world.jobs()
    row = await jobs.wait(await jobs.ensure(JobKind.MATERIALISE, ADA, work.digest, work))
    assert row.state == JobState.SUCCEEDED


async def test_whoever_asks_for_the_same_joins(world: SimpleNamespace, tmp_path: Path) -> None:
    jobs = world.jobs()
    work = await bundle(world, source(tmp_path / "s", ""))
    ids = await asyncio.gather(
        *(jobs.ensure(JobKind.MATERIALISE, ADA, work.digest, work) for _ in range(5))
    )
    assert len(set(ids)) == 1
    await jobs.wait(ids[0])
    with pytest.raises(NotFound):
        await jobs.get("user:bob", ids[0])


async def test_a_failed_build_is_explained_from_its_whole_log(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    jobs = world.jobs()
    work = Build(
        source=laid(world.data.path, source(tmp_path / "s", "no==such==thing\n")),
        key="a" * 32,
        image="",
    )
    job_id = await jobs.ensure(JobKind.BUILD, ADA, work.key, work)
    row = await jobs.wait(job_id)
    assert row.state == JobState.FAILED
    lines = await LogStore(world.data.logs).lines(job_id)
    assert row.reason == f"explained {len(lines)} lines"
    assert "no==such==thing" in "\n".join(lines)


async def test_a_result_that_was_not_kept_is_not_made_again(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    """The service is killed after a job succeeded, before who waited for it knew."""
    works = [await bundle(world, source(tmp_path / name, name)) for name in "ab"]
    first = world.jobs()
    job_id = await first.ensure(JobKind.MATERIALISE, ADA, works[0].digest, works[0])
    await first.wait(job_id)
    await first.close()
    jobs = world.jobs()
    wanted = [(works[0], ADA), (works[0], "user:bob"), (works[1], ADA)]
    found = [
        await jobs.ensure(JobKind.MATERIALISE, owner, work.digest, work, begun=job_id)
        for work, owner in wanted
    ]
    assert found[0] == job_id and len(set(found)) == 3
    assert await jobs.ensure(JobKind.MATERIALISE, ADA, works[0].digest, works[0]) not in found
    for other in found[1:]:
        await jobs.wait(other)


async def test_a_killed_service_adopts_what_it_left(world: SimpleNamespace, tmp_path: Path) -> None:
    """At each step the driver is gone without a word; the next one ends the job, once."""
    work = Build(source=laid(world.data.path, source(tmp_path / "s", "")), key="b" * 32, image="")
    first = world.jobs()
    job_id = await first.ensure(JobKind.BUILD, ADA, work.key, work)
    for patience in (0.0, 0.05, 0.2, 0.4):
        await asyncio.sleep(patience)
        await first.close()  # nothing is written when a driver is ended
        first = world.jobs()
        await first.recover()
    row = await first.wait(job_id)
    assert (row.state, row.attempt) == (JobState.SUCCEEDED, 1)
    assert Path(row.result["python"]).exists()
    text = (world.data.logs / f"{job_id}.log").read_text().splitlines()
    assert len(text) == len(set(text)), "a line was kept twice"


async def running(jobs: Jobs, job_id: str) -> None:
    async with asyncio.timeout(20):
        while (await jobs.row(job_id)).state != JobState.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def end_supervisor(workload: str) -> None:
    seen = subprocess.run(
        ["pgrep", "-f", f"supervisor.*{workload}"], capture_output=True, text=True
    )
    for pid in seen.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


async def test_cancelling_ends_the_work(world: SimpleNamespace, tmp_path: Path) -> None:
    jobs = world.jobs(max_builds=1)
    works = [
        Build(
            source=laid(world.data.path, source(tmp_path / key, "jupyterlab\n")),
            key=key * 32,
            image="",
        )
        for key in ("c", "d")
    ]
    ids = [await jobs.ensure(JobKind.BUILD, ADA, work.key, work) for work in works]
    await running(jobs, ids[0])
    waiting = await jobs.row(ids[1])
    assert waiting.state == JobState.QUEUED
    assert "1 of 1 builds run" in waiting.reason
    for job_id in reversed(ids):
        await jobs.cancel(job_id)
        assert (await jobs.wait(job_id)).state == JobState.CANCELLED
        name = workload_name(JobKind.BUILD, job_id)
        assert (await world.engine.observe(name)).phase is not Phase.RUNNING
    # the same may be asked for again
    again = await jobs.ensure(JobKind.BUILD, ADA, works[0].key, works[0])
    assert again not in ids
    await jobs.cancel(again)


async def test_what_the_machine_lost_is_tried_again(world: SimpleNamespace, tmp_path: Path) -> None:
    """Its supervisor is killed as by a machine that dies: the job runs once more and succeeds."""
    jobs = world.jobs()
    work = Build(
        source=laid(world.data.path, source(tmp_path / "s", "humanize\n")), key="e" * 32, image=""
    )
    job_id = await jobs.ensure(JobKind.BUILD, ADA, work.key, work)
    await running(jobs, job_id)
    end_supervisor(workload_name(JobKind.BUILD, job_id))
    row = await asyncio.wait_for(jobs.wait(job_id), 60)
    assert row.state == JobState.SUCCEEDED
    assert row.attempt == 2
