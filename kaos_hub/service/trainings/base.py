"""The base of all requests about trainings, and the services that they work with."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.service.builds.environments import Environments
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import TrainingRow
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.quota import Ledger
from kaos_hub.service.trainings.execution.driver import Driver
from kaos_hub.service.trainings.execution.ingests import Ingests
from kaos_hub.service.trainings.execution.leavers import Leavers
from kaos_hub.service.trainings.execution.preparing import Preparing
from kaos_hub.service.trainings.records import find
from kaos_hub.service.trainings.requests import Requests
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.service.users.membership import Membership
from kaos_hub.util.notifier import Bell

T = TypeVar("T")


@dataclass(frozen=True)
class Tools:
    """The services that trainings work with."""

    db: Database
    engine: Engine
    jobs: Jobs
    environments: Environments
    versions: Versions
    ledger: Ledger
    logs: LogStore
    store_url: str
    """The URL from which jobs that lay out bundles fetch their bytes."""
    membership: Membership | None = None
    """Knows the groups of users; without it there are none."""


class Base:
    """The parts of trainings.

    Args:
        tools: what they work with.
        settings: how they run here.
    """

    def __init__(self, tools: Tools, settings: Settings) -> None:
        self._db, self._logs, self._versions = tools.db, tools.logs, tools.versions
        self._jobs, self._settings = tools.jobs, settings
        self._bell = Bell()
        self._requests = Requests(
            tools.db, tools.engine, tools.ledger, tools.versions, tools.environments, settings
        )
        self._ingests = Ingests(tools.db, tools.versions, tools.ledger, settings)
        preparing = Preparing(
            tools.db, self._bell, tools.jobs, tools.engine, tools.environments, tools.store_url,
            settings,
        )  # fmt: skip
        self._leavers = Leavers(tools.db, tools.membership, settings.leaver_grace)
        self._driver = Driver(
            tools.db, self._bell, tools.jobs, tools.engine, tools.logs, preparing, settings,
            self._leavers,
        )  # fmt: skip
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what was going on."""
        await self._driver.start()
        self._sweeping = asyncio.create_task(self._leavers.run(self._driver.wake), name="leavers")

    async def close(self) -> None:
        """Stop driving. What runs in the engine goes on."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})
        await self._driver.close()

    async def _with(
        self, owner: str, training: str, look: Callable[[Session, TrainingRow], T]
    ) -> T:
        """Run a function in a transaction, with the owner's training of that id.

        Raises:
            NotFound: there is none, or it is another owner's.
        """
        return await self._db.run(lambda session: look(session, find(session, owner, training)))
