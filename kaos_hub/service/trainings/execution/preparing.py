"""Before a training can run: its data fetched, its environment built, its trees laid out."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import BuildFailed
from kaos_hub.schemas import JobKind, JobState, TrainingState
from kaos_hub.service.builds.environments import Environment, Environments, lay_out, others_wait
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, IngestRow, JobRow, TrainingRow, VersionRow
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.trainings.execution import workers
from kaos_hub.service.trainings.records import GOING, set_state
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.util.notifier import Bell

T = TypeVar("T")


class Preparing:
    """Makes ready what a training needs.

    Args:
        db, bell, jobs, engine, environments: what it works with.
        store_url: where bundles' bytes rest, for jobs that lay them out.
        settings: how trainings run here.
        deadline: seconds that fetching may take.
    """

    def __init__(
        self,
        db: Database,
        bell: Bell,
        jobs: Jobs,
        engine: Engine,
        environments: Environments,
        store_url: str,
        settings: Settings,
        deadline: int = 24 * 3600,
    ) -> None:
        self._db, self._bell, self._jobs, self._engine = db, bell, jobs, engine
        self._environments, self._store_url = environments, store_url
        self._settings, self._deadline = settings, deadline

    async def prepare(self, row: TrainingRow) -> bool:
        """Fetch, build and lay out; whether it can run then (else it lacks an input, or ended).

        Raises:
            BuildFailed: in the words of the build, or of the fetching.
        """
        steps = [self._build(row)] if row.source_id else []
        if row.manifest_id is not None and row.data_id is None:
            steps.append(self._fetch(row))
        tasks = [asyncio.ensure_future(step) for step in steps]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        row = await self._again(row)
        if row.state == TrainingState.WAITING or TrainingState(row.state).ended:
            return False
        for version in await self._db.run(lambda session: _versions(session, row)):
            await self._lay_out(row.owner, version.digest)
        return True

    async def _again(self, row: TrainingRow) -> TrainingRow:
        return await self._db.run(lambda session: session.get_one(TrainingRow, row.number))

    async def _lay_out(self, owner: str, digest: str) -> None:
        await lay_out(self._engine, self._jobs, self._store_url, owner, digest)

    # --- building ---

    async def _build(self, row: TrainingRow) -> None:
        if row.environment and await self._engine.has(row.environment):
            return
        source = await self._db.run(lambda session: session.get_one(VersionRow, row.source_id))
        await self._lay_out(row.owner, source.digest)
        # A repetition has what was installed then; anything else is free to have what is newest.
        packages = row.environment.get("packages", []) if row.reproduces else []
        environment = await self._environments.find(
            row.owner, source, pull=row.pull, packages=packages
        )
        if environment.result is not None:
            reason = "nothing to build: the environment is known"
            await self._built(row, environment, environment.job, reason)
            return
        # Only where its result was not kept: what was kept and is gone has to be built again.
        waited = row.state == TrainingState.BUILDING and not row.environment
        begun = row.build_job if waited else None
        job_id = await self._environments.build(row.owner, environment, begun)
        await self._note(row, TrainingState.BUILDING, environment.why, build_job=job_id)
        job = await self._jobs.wait(job_id, lambda job: self._follow(row, "build", job))
        if job.state != JobState.SUCCEEDED:
            raise BuildFailed(_words("build", job))
        environment = await self._environments.keep(row.owner, environment, job)
        await self._built(row, environment, job.id, "")

    async def _built(
        self, row: TrainingRow, environment: Environment, job: str | None, reason: str
    ) -> None:
        def write(session: Session) -> None:
            fresh = session.get_one(TrainingRow, row.number)
            fresh.environment, fresh.environment_key = environment.result or {}, environment.key
            fresh.engine, fresh.pull = self._engine.name, False
            fresh.build_job, fresh.build_reason = job, reason

        await self._write(write)

    async def _follow(self, row: TrainingRow, stage: str, job: JobRow) -> None:
        if stage == "build":
            words = job.reason or "its environment is being built"
            await self._note(row, TrainingState.BUILDING, words, job.progress)
        else:
            words = job.reason or "its data is being fetched"
            await self._note(row, TrainingState.INGESTING, words, job.progress)

    async def _note(
        self,
        row: TrainingRow,
        state: TrainingState,
        reason: str,
        progress: int = 0,
        **columns: str,
    ) -> None:
        """Tell how far it is. While data is fetched, a build goes on without being told of."""

        def write(session: Session) -> None:
            fresh = session.get_one(TrainingRow, row.number)
            for name, value in columns.items():
                setattr(fresh, name, value)
            if "build_job" in columns:
                fresh.build_reason = ""
            still = fresh.state in GOING and fresh.state != TrainingState.WAITING
            fetching = fresh.manifest_id is not None and fresh.data_id is None
            if still and not (state is TrainingState.BUILDING and fetching):
                set_state(session, fresh, state, reason, progress)

        await self._write(write)

    # --- fetching ---

    async def _fetch(self, row: TrainingRow) -> None:
        manifest = await self._db.run(lambda session: session.get_one(VersionRow, row.manifest_id))
        if await self._take(row, manifest):
            return
        await self._lay_out(row.owner, manifest.digest)
        image = None
        if self._engine.images:
            default = await self._environments.find(row.owner, None)
            image = (default.result or {}).get("image")
        job_id = await self._jobs.ensure(
            JobKind.INGEST,
            row.owner,
            manifest.digest,
            workers.ingest(self._engine, self._settings, image, manifest),
            deadline=self._deadline,
            author=row.author,
        )
        await self._note(
            row, TrainingState.INGESTING, "its data is being fetched", ingest_job=job_id
        )
        job = await self._jobs.wait(job_id, lambda job: self._follow(row, "ingest", job))
        if job.state != JobState.SUCCEEDED:
            raise BuildFailed(_words("ingest", job))
        if not await self._take(row, manifest):
            raise BuildFailed("The data was fetched, but not handed over. Try again.")
        if not (await self._again(row)).environment:
            await self._note(row, TrainingState.BUILDING, "its environment is being built")

    async def _take(self, row: TrainingRow, manifest: VersionRow) -> bool:
        """Use what was fetched by the manifest, if it was."""

        def write(session: Session) -> bool:
            done = session.get(IngestRow, (row.owner, manifest.digest))
            if done is None or done.data_id is None:
                return False
            session.get_one(TrainingRow, row.number).data_id = done.data_id
            return True

        return await self._write(write)

    # --- stopping ---

    async def stop(self, row: TrainingRow) -> None:
        """End the build and the fetching that only this training waits for."""
        for job_id in await self._db.run(lambda session: _alone(session, row)):
            await self._jobs.cancel(job_id)
            await self._jobs.wait(job_id)

    async def _write(self, change: Callable[[Session], T]) -> T:
        result = await self._db.run(change)
        self._bell.ring()
        return result


def _versions(session: Session, row: TrainingRow) -> list[VersionRow]:
    return [session.get_one(VersionRow, i) for i in (row.source_id, row.data_id)]


def _words(what: str, job: JobRow) -> str:
    name = "The build" if what == "build" else "Fetching the data"
    if job.state == JobState.CANCELLED:
        return f"{name} was cancelled"
    return f"{name} failed: {job.reason}"


def _alone(session: Session, row: TrainingRow) -> list[str]:
    """Return the training's active jobs that no other training or notebook waits for."""
    found = []
    for job_id in filter(None, (row.build_job, row.ingest_job)):
        job = session.get(JobRow, job_id)
        if job is None or job.state not in ACTIVE_JOBS:
            continue
        if job.kind == JobKind.INGEST:
            query = select(TrainingRow.id).where(
                TrainingRow.ingest_job == job_id,
                TrainingRow.id != row.id,
                TrainingRow.state.in_(GOING),
                TrainingRow.kill_reason == "",
            )
            wanted = session.scalar(query.limit(1)) is not None
        else:
            wanted = others_wait(session, job_id, row.id)
        if not wanted:
            found.append(job_id)
    return found
