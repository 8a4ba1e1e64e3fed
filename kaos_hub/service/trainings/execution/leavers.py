"""Trainings of those who have left the group that owns them: nothing more is started for them."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import Unavailable
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import TrainingRow
from kaos_hub.service.trainings.execution.settling import kill
from kaos_hub.service.trainings.records import GOING
from kaos_hub.service.users.membership import GROUP, Membership

log = logging.getLogger(__name__)

_RESYNC = 15.0
"""Seconds between two looks at all trainings of groups that have not ended."""


class Leavers:
    """Ends what was asked for by users who have left the group since.

    Args:
        db: the service's database.
        membership: knows the groups of users.
        grace: seconds that a training which runs is left; None: until its end.
    """

    def __init__(self, db: Database, membership: Membership | None, grace: float | None) -> None:
        self._db, self._membership, self._grace = db, membership, grace
        self._since: dict[str, float] = {}

    async def reason(self, row: TrainingRow) -> str:
        """Return why nothing more may be started for a training; empty if something may.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        if self._membership is None or not row.owner.startswith(GROUP):
            return ""
        if not await self._membership.lost(f"user:{row.author}", [row.owner]):
            return ""
        group = self._membership.name(row.owner)
        who = self._membership.name(f"user:{row.author}")
        return (
            f"{who}, who asked for it, has left the group {group!r}; a member may begin it again:"
            f" kaos train reproduce -j {row.id}"
        )

    async def run(self, wake: Callable[[str], None]) -> None:
        """Look now and then, for ever; ``wake`` is told of trainings that have to end."""
        while True:
            await asyncio.sleep(_RESYNC)
            try:
                for training in await self.sweep():
                    wake(training)
            except Unavailable as e:
                log.warning("waiting: %s", e)
            except Exception:
                # one broken row must not keep the others from being looked at
                log.exception("looking for trainings of former members failed once")

    async def sweep(self) -> list[str]:
        """Have trainings end whose grace period is over; returns their ids.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        query = select(TrainingRow).where(TrainingRow.state.in_(GOING))
        rows = await self._db.run(lambda session: list(session.scalars(query)))
        removed = await self._end_of_removed(rows)
        reasons = {row.id: await self.reason(row) for row in rows if not row.kill_reason}
        at = time.monotonic()
        self._since = {key: self._since.get(key, at) for key, reason in reasons.items() if reason}
        due = [
            key
            for key, since in self._since.items()
            if self._grace is not None and at - since >= self._grace
        ]
        for key in due:
            await self.end(key, reasons[key])
        return [*removed, *due]

    async def _end_of_removed(self, rows: Sequence[TrainingRow]) -> list[str]:
        """Have trainings end whose user the Hub has no more."""
        if self._membership is None:
            return []
        gone = await self._membership.gone({row.owner for row in rows})
        ended = [row.id for row in rows if row.owner in gone and not row.kill_reason]
        for training in ended:
            await self.end(
                training, "the Hub has its user no more; what there is waits for an admin"
            )
        return ended

    async def end(self, training: str, reason: str) -> None:
        """Have a training end."""

        def write(session: Session) -> None:
            row = session.scalar(select(TrainingRow).where(TrainingRow.id == training))
            if row is not None and row.state in GOING and not row.kill_reason:
                kill(session, row, reason)

        await self._db.run(write)
