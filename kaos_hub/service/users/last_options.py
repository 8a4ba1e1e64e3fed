"""The last choices of owners: kept beyond the notebook they were for, forgotten with the owner."""

from datetime import datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import KaosError
from kaos_hub.schemas import Choices, Notebook
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ChoiceRow, now
from kaos_hub.service.users.identities import Identities

_AGAIN = timedelta(hours=1)
"""After so long the Hub is asked again whether it still has the user."""


def remember(session: Session, owner: str, notebook: Notebook) -> None:
    """Keep what an owner chose for a notebook, in place of what was chosen before."""
    chosen = Choices.of(notebook).model_dump(mode="json", exclude_defaults=True)
    at = now()
    session.merge(ChoiceRow(owner=owner, chosen=chosen, at=at, asked=at))


async def recall(db: Database, owner: str, since: datetime | None = None) -> Choices | None:
    """Return what the owner chose last, if anything.

    Args:
        db: the service's database.
        owner: whose choices.
        since: when the owner was created; older choices are of another user of the same name.
    """

    def look(session: Session) -> Choices | None:
        row = session.get(ChoiceRow, owner)
        if row is None or (since is not None and row.at < since):
            return None
        try:
            return Choices.model_validate(row.chosen)
        except (ValidationError, KaosError):  # written by another release
            return None

    return await db.run(look)


async def forget_one_who_is_gone(db: Database, identities: Identities) -> None:
    """Look after the owner who was not looked after for the longest time. One at a time: however
    many there are, the Hub is asked no more often than this is called.

    Raises:
        HubUnavailable: the Hub does not answer.
    """
    due = select(ChoiceRow.owner).where(ChoiceRow.asked < now() - _AGAIN)
    owner = await db.run(lambda session: session.scalar(due.order_by(ChoiceRow.asked).limit(1)))
    if owner is None:
        return
    there = await identities.user(owner) is not None

    def write(session: Session) -> None:
        row = session.get(ChoiceRow, owner)
        if row is None:
            return
        if there:
            row.asked = now()
        else:
            session.delete(row)

    await db.run(write)
