"""Rights of notebooks: a notebook uses things of a group only while its owner is a member."""

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import Forbidden
from kaos_hub.schemas import NotebookState
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, VersionRow
from kaos_hub.service.notebooks.records import set_state
from kaos_hub.service.notebooks.runs import find_run
from kaos_hub.service.users.membership import Membership
from kaos_hub.util.quantities import duration


class Rights:
    """Checks whose things notebooks use, and stops those that have lost the right.

    Args:
        db: the service's database.
        membership: knows the groups of users.
        grace: seconds that a running notebook keeps after its owner has left the group; None:
            it runs until it is stopped otherwise.
    """

    def __init__(self, db: Database, membership: Membership, grace: float | None) -> None:
        self._db, self._membership, self._grace = db, membership, grace
        self._since: dict[str, float] = {}

    async def check(self, row: NotebookRow) -> None:
        """Refuse a notebook on things that its owner may not use now.

        Args:
            row: a notebook, as it is or as it is wanted.

        Raises:
            Forbidden: names the group and says what to do.
            HubUnavailable: the Hub does not answer.
        """
        owners = await self._db.run(lambda session: owners_used(session, row))
        lost = await self._membership.lost(row.owner, owners)
        if lost:
            raise Forbidden(f"{self._lost(row, lost)} {_remedy(row)}")

    async def sweep(self) -> list[str]:
        """Tell running notebooks that have lost the right, and stop them after the grace period.

        Returns ids of notebooks to be stopped.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        lost = await self._losers()
        at = time.monotonic()
        back = self._since.keys() - lost.keys()
        self._since = {key: self._since.get(key, at) for key in lost}
        due = {
            key
            for key, since in self._since.items()
            if self._grace is not None and at - since >= self._grace
        }

        def write(session: Session) -> list[str]:
            stopped = []
            for key in back:
                row = session.get(NotebookRow, key)
                if row is not None and row.state == NotebookState.RUNNING:
                    set_state(session, row, NotebookState.RUNNING)
            for key, owners in lost.items():
                row = session.get(NotebookRow, key)
                if row is None or not row.held or row.wanted != "RUNNING":
                    continue
                if key in due:
                    row.wanted, row.stop_reason = "STOPPED", self._lost(row, owners)
                    stopped.append(key)
                elif row.state == NotebookState.RUNNING:
                    set_state(session, row, NotebookState.RUNNING, self._warning(row, owners))
            return stopped

        return await self._db.run(write) if lost or back else []

    async def _losers(self) -> dict[str, list[str]]:
        """Notebooks that run on things of groups which their owners have left, with the groups."""

        def look(session: Session) -> list[tuple[NotebookRow, set[str]]]:
            rows = session.scalars(select(NotebookRow).where(NotebookRow.held))
            found = [(row, owners_used(session, row)) for row in rows]
            return [(row, owners) for row, owners in found if owners - {row.owner}]

        found = await self._db.run(look)
        lost = {row.id: await self._membership.lost(row.owner, owners) for row, owners in found}
        return {key: owners for key, owners in lost.items() if owners}

    def _warning(self, row: NotebookRow, owners: list[str]) -> str:
        grace = self._grace
        within = "" if grace is None else duration(int(grace))
        rest = f" It is stopped within {within}; your files stay." if within else ""
        return f"{self._lost(row, owners)}{rest}"

    def _lost(self, row: NotebookRow, owners: list[str]) -> str:
        names = " and ".join(repr(self._membership.name(owner)) for owner in owners)
        what = f"run {row.run}" if row.run else "bundles"
        return f"Notebook {row.name!r} uses {what} of the group {names}, which you have left."


def owners_used(session: Session, row: NotebookRow) -> set[str]:
    """Owners of everything that a notebook sees: code, data, context, model."""
    ids = {
        row.source_id, row.data_id, row.context_id, row.good_source_id, row.mounted_data_id,
    } if row.held else {row.source_id, row.data_id, row.context_id}  # fmt: skip
    known = [i for i in ids if i is not None]
    owners = set(session.scalars(select(VersionRow.owner).where(VersionRow.id.in_(known))))
    found = find_run(session, row.run) if row.run else None
    return owners | ({found[1].owner} if found else set())


def _remedy(row: NotebookRow) -> str:
    return (
        f"To go on with code and data of your own: kaos notebook deploy -n {row.name} -s DIR -d DIR"
    )
