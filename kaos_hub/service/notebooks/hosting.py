"""Build, then Host: what is wanted of a notebook is made so, step by step.

Each notebook that is on its way somewhere has one driver task. A driver may be ended and begun anew
between any two steps (a changed wish does just that, and so does a crash): every step looks first
at what is already so.
"""

import asyncio
import contextlib
import logging
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import BuildFailed, KaosError, Unavailable
from kaos_hub.schemas import JobState, NotebookState
from kaos_hub.service.builds.environments import (
    Environment,
    Environments,
    lay_out,
    others_wait,
    refuse_musl,
)
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import (
    ACTIVE_JOBS,
    JobRow,
    NotebookRow,
    VersionRow,
    WorkloadRow,
    now,
)
from kaos_hub.service.hub_client import Hub, Progress
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.jobs.outcomes import TRIES, unforeseen
from kaos_hub.service.notebooks.admission import Inside, release
from kaos_hub.service.notebooks.mounting import Mounts
from kaos_hub.service.notebooks.records import (
    announce,
    never_built,
    no_longer_wanted,
    not_prepared,
    options_of,
    set_state,
)
from kaos_hub.service.notebooks.rights import Rights
from kaos_hub.service.notebooks.servers import Servers
from kaos_hub.service.notebooks.trees import Trees
from kaos_hub.service.notebooks.watching import HostLogs, HubSync
from kaos_hub.service.users.identities import Identities
from kaos_hub.util.notifier import Bell

log = logging.getLogger(__name__)

ON_ITS_WAY = (
    NotebookState.QUEUED,
    NotebookState.BUILDING,
    NotebookState.STARTING,
    NotebookState.STOPPING,
)


class Hosting:
    """Drives notebooks to what is wanted of them, and notices when they are gone.

    Args:
        db, bell, jobs, engine, environments, logs, hub: what it works with.
        trees, mounts, rights: what notebooks see, and of whose things they may.
        identities: knows who owners are.
        store_url: where bundles' bytes rest, for jobs that lay them out.
        inside: what is the same in all notebooks.
        resync: seconds, see :class:`~kaos_hub.service.notebooks.watching.HubSync`.
    """

    def __init__(
        self,
        db: Database,
        bell: Bell,
        jobs: Jobs,
        engine: Engine,
        environments: Environments,
        logs: LogStore,
        hub: Hub,
        trees: Trees,
        mounts: Mounts,
        store_url: str,
        inside: Inside,
        rights: Rights,
        identities: Identities,
        resync: float = 15,
    ) -> None:
        self.db, self.bell, self.jobs, self.engine = db, bell, jobs, engine
        self.environments, self.logs, self.hub = environments, logs, hub
        self.trees, self.mounts, self.store_url, self.inside = trees, mounts, store_url, inside
        self.rights, self.identities = rights, identities
        self.host_logs = HostLogs(db, engine, logs)
        self._watch = HubSync(self, resync)
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self.servers = Servers(hub, identities, self._heard)
        self._loop: asyncio.Task[None] | None = None

    # --- life ---

    async def start(self) -> None:
        """Drive every notebook that was on its way; follow, or clean up after, what ran."""

        def unsettled(session: Session) -> tuple[list[str], list[str]]:
            going = session.scalars(
                select(NotebookRow.id).where(
                    NotebookRow.state.in_(ON_ITS_WAY)
                    | NotebookRow.restart
                    | (NotebookRow.held & (NotebookRow.wanted != "RUNNING"))
                )
            )
            return list(going), list(session.scalars(select(WorkloadRow.name)))

        with contextlib.suppress(Unavailable):
            await self.engine.places.finish_removals()
        going, left = await self.db.run(unsettled)
        for notebook_id in going:
            self.wake(notebook_id)
        for workload in left:
            self.host_logs.follow(workload)
        self._loop = asyncio.create_task(self._watch.run(), name="notebooks")

    async def close(self) -> None:
        """Stop driving. Notebooks go on."""
        await self.host_logs.close()
        tasks = [*self._drivers.values(), *self.servers.under_way]
        if self._loop is not None:
            tasks.append(self._loop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, notebook_id: str) -> None:
        """The wish changed: begin to drive, from the beginning."""
        running = self._drivers.get(notebook_id)
        if running is not None:
            running.cancel()
        task = asyncio.create_task(self._guard(notebook_id, running), name=f"nb-{notebook_id}")
        self._drivers[notebook_id] = task

    def attend(self, notebook_id: str) -> None:
        """Make sure that the notebook has a driver; one that runs already is left alone."""
        running = self._drivers.get(notebook_id)
        if running is None or running.done():
            self.wake(notebook_id)

    async def at_rest(self, notebook_id: str) -> None:
        """Wait until no driver of the notebook runs any more."""
        while (driver := self._drivers.get(notebook_id)) is not None and not driver.done():
            await asyncio.wait([driver])

    # --- driving ---

    async def _guard(self, notebook_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._keep_driving(notebook_id)
        finally:
            if self._drivers.get(notebook_id) is asyncio.current_task():
                del self._drivers[notebook_id]

    async def _keep_driving(self, notebook_id: str) -> None:
        pause, failures = 1.0, 0
        while True:
            try:
                await self._drive(notebook_id)
                return
            except Unavailable as e:
                log.warning("notebook %s: %s", notebook_id, e)
                with contextlib.suppress(Unavailable):
                    await self._set(notebook_id, None, f"waiting: {e.message}")
            except KaosError as e:
                await self._not_prepared(notebook_id, e.message)
                return
            except Exception as e:
                # one broken notebook must not stop the others, nor be forgotten
                log.exception("notebook %s: driving failed", notebook_id)
                failures += 1
                if failures >= TRIES:
                    await self._not_prepared(notebook_id, unforeseen(e))
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30)

    async def _drive(self, notebook_id: str) -> None:
        row = await self._row(notebook_id)
        if row is None:
            return
        if row.wanted != "RUNNING":
            await self._stop(row)
            return
        await self.prepare(row)
        row = await self._row(notebook_id) or row
        if row.held and not row.restart:
            await self._follow_source(row)
        if row.restart and row.held:
            await self._set(notebook_id, NotebookState.STOPPING, "restarting with the new version")
            await self.servers.end(row)
            await self._released(notebook_id, NotebookState.STARTING, "restarting")
            row = await self._row(notebook_id) or row
        await self._start(row)

    async def _row(self, notebook_id: str) -> NotebookRow | None:
        return await self.db.run(lambda session: session.get(NotebookRow, notebook_id))

    async def prepare(self, row: NotebookRow) -> None:
        """Have the environment built and the bundles laid out.

        Raises:
            BuildFailed, Forbidden: in the words of the build, or of :class:`.Rights`.
        """
        await self.rights.check(row)
        for digest in await self.trees.all(row):
            await lay_out(self.engine, self.jobs, self.store_url, row.owner, digest)
        environment = await self.environment_of(row)
        refuse_musl(environment)
        if environment.result is None:
            await self._build(row, environment)
        else:
            await self._built(row.id, environment, None)

    async def environment_of(self, row: NotebookRow, ask: bool = True) -> Environment:
        """Return what the notebook's source needs to run, and whether that is there.

        ``ask`` is as of :meth:`.Environments.find`.
        """
        source = await self.db.run(
            lambda session: session.get(VersionRow, row.source_id) if row.source_id else None
        )
        image = options_of(row).image
        return await self.environments.find(
            row.owner, source, row.pull, row.environment_key, ask,
            self.inside.images.reference(image) if image else None,
        )  # fmt: skip

    async def _follow_source(self, row: NotebookRow) -> None:
        """The new version is ready: have the running notebook's working copy follow it."""
        tree = await self.trees.followed(row)

        def note(session: Session) -> None:
            fresh = session.get_one(NotebookRow, row.id)
            if (fresh.good_source_id, fresh.good_tree) != (row.source_id, tree):
                fresh.good_source_id, fresh.good_tree = row.source_id, tree
                announce(session, fresh)

        await self._write(note)

    async def _build(self, row: NotebookRow, environment: Environment) -> None:
        begun = row.build_job if row.build_state in ACTIVE_JOBS else None
        job_id = await self.environments.build(row.owner, environment, begun)

        def begin(session: Session) -> None:
            fresh = session.get_one(NotebookRow, row.id)
            fresh.build_job, fresh.build_state = job_id, JobState.QUEUED
            if not fresh.held:
                set_state(session, fresh, NotebookState.BUILDING, environment.why)

        await self._write(begin)
        job = await self.jobs.wait(job_id, lambda job: self._building(row.id, job))
        if job.state == JobState.SUCCEEDED:
            environment = await self.environments.keep(row.owner, environment, job)
            refuse_musl(environment)
            await self._built(row.id, environment, job)
            return
        words = "was cancelled" if job.state == JobState.CANCELLED else f"failed: {job.reason}"
        await self._built(row.id, None, job)
        raise BuildFailed(f"The build {words}")

    async def _building(self, notebook_id: str, job: JobRow) -> None:
        def note(session: Session) -> None:
            row = session.get(NotebookRow, notebook_id)
            if row is not None and not row.held:
                reason = job.reason or "its environment is being built"
                set_state(session, row, NotebookState.BUILDING, reason, job.progress // 2)

        await self._write(note)

    async def _built(
        self, notebook_id: str, environment: Environment | None, job: JobRow | None
    ) -> None:
        def note(session: Session) -> None:
            row = session.get_one(NotebookRow, notebook_id)
            # the newest build's log stays at hand, also when it failed and another version runs
            row.build_job = job.id if job else row.build_job
            if row.build_job is None and environment is not None:
                row.build_job = environment.job
            row.build_state = job.state if job else "SKIPPED"
            row.build_reason = job.reason if job else "nothing to build: the environment is known"
            if environment is not None:
                row.pull = False
                if not row.held or row.restart:
                    row.environment_key = environment.key
                else:
                    announce(session, row)  # what was pending is done

        await self._write(note)

    async def _start(self, row: NotebookRow) -> None:
        """Have the Hub start the server, unless it does or did so already."""
        seen = await self.servers.settled(row)
        if seen is None or not seen.ready:
            fresh = await self._row(row.id)
            if fresh is None or NotebookState(fresh.state).settled:
                return  # it was on its way and failed; that is recorded
            if fresh.held:
                # admitted, but the Hub knows nothing of it: it died on the way. Begin again.
                await self._released(row.id, NotebookState.STARTING, "the Hub was restarted")
            await self._set(row.id, NotebookState.STARTING, "asking the Hub", progress=50)
            try:
                await self.servers.start(row)
            except Unavailable:
                raise
            except KaosError as e:
                if type(e) is not KaosError or not await self._was_stopped(row.id):
                    await self._released(row.id, NotebookState.FAILED, e.message)
                return
            seen = await self.servers.settled(row)
        if seen is not None and seen.ready:
            await self._running(row.id)
        elif (fresh := await self._row(row.id)) is not None and fresh.held:
            why = "it did not start; its log tells more"
            await self._released(row.id, NotebookState.FAILED, why)

    async def _was_stopped(self, notebook_id: str) -> bool:
        """Return whether the notebook was stopped at the Hub, or deleted, while it started.

        At the Hub it fails first, with an error that says nothing; its spawner tells a second
        later.
        """
        for _ in range(30):
            row = await self._row(notebook_id)
            if row is None or row.state == NotebookState.STOPPED:
                return True
            await asyncio.sleep(0.1)
        return False

    async def _heard(self, notebook_id: str, line: Progress) -> None:
        """Note what the Hub says of a server that is starting."""
        if line.failed:
            message = line.message.removeprefix("Spawn failed: ")
            await self._released(notebook_id, NotebookState.FAILED, message)
        elif not line.ready and line.message:
            progress = 50 + min(line.progress, 98) // 2
            await self._set(notebook_id, NotebookState.STARTING, line.message, progress=progress)

    async def _running(self, notebook_id: str) -> None:
        def note(session: Session) -> None:
            row = session.get_one(NotebookRow, notebook_id)
            if row.held and row.wanted == "RUNNING":
                row.started = row.started or now()
                set_state(session, row, NotebookState.RUNNING)

        await self._write(note)

    async def _stop(self, row: NotebookRow) -> None:
        """End the build it waits for (unless others wait too) and its server."""
        job = await self._unfinished_build(row)
        if job is not None:
            await self.jobs.cancel(job)
            await self._built(row.id, None, await self.jobs.wait(job))
        elif row.build_state in ACTIVE_JOBS:
            await self._write(lambda session: never_built(session.get_one(NotebookRow, row.id)))
        await self.servers.end(row)
        if row.held or not NotebookState(row.state).settled:
            await self._released(row.id, NotebookState.STOPPED, row.stop_reason or "stopped")

    async def _unfinished_build(self, row: NotebookRow) -> str | None:
        """The build that only this notebook still waits for."""
        job = row.build_job
        if not job or row.build_state not in ACTIVE_JOBS:
            return None

        def look(session: Session) -> bool:
            found = session.get(JobRow, job)  # it may be an earlier one, while its own is to come
            alive = found is not None and found.state in ACTIVE_JOBS
            return alive and not others_wait(session, job, row.id)

        return job if await self.db.run(look) else None

    async def _set(
        self, notebook_id: str, state: NotebookState | None, reason: str, progress: int = 0
    ) -> None:
        def note(session: Session) -> None:
            row = session.get(NotebookRow, notebook_id)
            if row is not None:
                kept = progress or row.progress
                set_state(session, row, state or NotebookState(row.state), reason, kept)

        await self._write(note)

    async def _not_prepared(self, notebook_id: str, message: str) -> None:
        """Its environment or bundles cannot be had; what runs goes on running."""

        def note(session: Session) -> None:
            row = session.get(NotebookRow, notebook_id)
            if row is not None:
                not_prepared(session, row, message)

        await self._write(note)

    async def _released(self, notebook_id: str, state: NotebookState, reason: str) -> None:
        def note(session: Session) -> str:
            row = session.get(NotebookRow, notebook_id)
            if row is None:
                return ""
            if state.settled:
                no_longer_wanted(row)
            release(session, row, state, reason)
            return row.workload

        workload = await self.db.run(note)
        self.bell.ring()
        await self.end(workload)

    async def end(self, workload: str) -> None:
        """Make sure that nothing runs under that name any more, whatever the Hub knew of it."""
        if workload:
            with contextlib.suppress(Unavailable):
                await self.engine.cancel(workload)

    async def _write(self, change: Any) -> None:
        await self.db.run(change)
        self.bell.ring()
