"""Watching: what is compared now and then, whatever events were lost."""

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import Unavailable
from kaos_hub.schemas import NotebookState
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, WorkloadRow, now
from kaos_hub.service.hub_client import Server
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.notebooks.admission import release
from kaos_hub.service.notebooks.records import no_longer_wanted, server_of
from kaos_hub.service.users.last_options import forget_one_who_is_gone

if TYPE_CHECKING:
    from kaos_hub.service.notebooks.hosting import Hosting

log = logging.getLogger(__name__)


class HostLogs:
    """Keeps the output of notebooks' processes and containers, and removes what has ended."""

    def __init__(self, db: Database, engine: Engine, logs: LogStore) -> None:
        self._db, self._engine, self._logs = db, engine, logs
        self._followers: dict[str, asyncio.Task[None]] = {}

    def follow(self, workload: str) -> None:
        """Keep the output of a notebook's process or container, until it ends."""
        if workload not in self._followers:
            self._logs.open(workload)
            task = asyncio.create_task(self._follow(workload), name=f"log-{workload}")
            self._followers[workload] = task

    async def _follow(self, workload: str) -> None:
        try:
            while True:
                # a full disk costs lines of the log, and then it goes on
                with contextlib.suppress(Unavailable, OSError):
                    async for piece in self._engine.logs(workload, self._logs.size(workload)):
                        self._logs.append(workload, piece)
                    if not await self._holds(workload):
                        # what is kept of it is in our log now
                        await self._engine.remove(workload)
                        await self._forget(workload)
                        return
                await asyncio.sleep(0.5)
        finally:
            self._followers.pop(workload, None)
            self._logs.close(workload)

    async def _forget(self, workload: str) -> None:
        def forget(session: Session) -> None:
            session.execute(delete(WorkloadRow).where(WorkloadRow.name == workload))

        await self._db.run(forget)

    async def _holds(self, workload: str) -> bool:
        query = select(NotebookRow.id).where(NotebookRow.workload == workload, NotebookRow.held)
        return await self._db.run(lambda session: session.scalar(query)) is not None

    async def close(self) -> None:
        """Stop following. The notebooks go on."""
        tasks = list(self._followers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_AGAIN = 4
"""Seconds after which a server that was absent is looked for again; longer than a Hub takes between
two steps of a start or a stop."""


class HubSync:
    """Now and then compares with the Hub.

    Args:
        hosting: whose notebooks.
        resync: seconds between two looks at all of the Hub's servers. Events come much sooner; this
            is for those that were lost.
    """

    def __init__(self, hosting: "Hosting", resync: float) -> None:
        self._hosting = hosting
        self._resync = resync
        self._missing: set[str] = set()

    async def run(self) -> None:
        """Now and then compare with the Hub."""
        last_resync = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(min(self._resync, 2))
            try:
                # A server that was absent once is looked for again soon.
                pause = min(self._resync, _AGAIN) if self._missing else self._resync
                if clock() - last_resync >= pause:
                    last_resync = clock()
                    await self.compare(await self._hosting.hub.active())
                    await self._stop_leavers()
                    await forget_one_who_is_gone(self._hosting.db, self._hosting.identities)
            except Unavailable as e:
                log.warning("waiting: %s", e)
            except Exception:
                log.exception("watching the notebooks failed once")

    async def _stop_leavers(self) -> None:
        for notebook_id in await self._hosting.rights.sweep():
            self._hosting.wake(notebook_id)
        self._hosting.bell.ring()

    async def compare(self, servers: list[Server]) -> None:
        """Release what is held for servers that are no longer there.

        What is released is ended for good, so one look is not enough: a server counts as gone when
        it was absent twice in a row. One admitted a moment ago may not show yet.
        """
        active = {(s.user, s.name) for s in servers if s.active}
        ready = {(s.user, s.name) for s in servers if s.ready}
        young = now() - timedelta(seconds=20)

        missing: set[str] = set()
        held = select(NotebookRow.owner).where(NotebookRow.held).distinct()
        owners = await self._hosting.db.run(lambda session: list(session.scalars(held)))
        users = await self._hosting.identities.users(owners)

        def look(session: Session) -> tuple[list[str], list[str]]:
            to_drive, gone = [], []
            for row in session.scalars(select(NotebookRow).where(NotebookRow.held)):
                user = users.get(row.owner)
                place = (user.name if user else None, server_of(row.name))
                if user and row.state == NotebookState.RUNNING and row.held_name != user.name:
                    # Its address, and what its token may, were made of the name before.
                    row.held_name, row.restart = user.name, True
                    to_drive.append(row.id)
                elif place not in active and (row.admitted is None or row.admitted < young):
                    missing.add(row.workload)
                    if row.workload not in self._missing:
                        continue
                    no_longer_wanted(row)
                    release(session, row, NotebookState.STOPPED, row.stop_reason or "it was gone")
                    gone.append(row.workload)
                elif place in ready and row.state == NotebookState.STARTING:
                    to_drive.append(row.id)
            return to_drive, gone

        to_drive, gone = await self._hosting.db.run(look)
        self._missing = missing
        for notebook_id in to_drive:
            self._hosting.attend(notebook_id)
        for workload in gone:
            await self._hosting.end(workload)
        if gone:
            self._hosting.bell.ring()
