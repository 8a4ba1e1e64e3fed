"""The trees that a notebook sees: its code with the context laid over it, its data, its model."""

from sqlalchemy.orm import Session

from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, VersionRow
from kaos_hub.service.notebooks.runs import output_of


class Trees:
    """Finds, and where need be composes, what notebooks see.

    Args:
        db, versions: what it works with.
    """

    def __init__(self, db: Database, versions: Versions) -> None:
        self._db, self._versions = db, versions
        self._composed: dict[tuple[str, str], str] = {}

    async def followed(self, row: NotebookRow) -> str | None:
        """The tree that a notebook's working copy is to follow; None if it has no code.

        Raises:
            InvalidBundle: source and context cannot be laid over one another; names what is in
                the way.
        """
        ids = (row.source_id, row.context_id)
        source, context = await self._db.run(
            lambda session: [session.get_one(VersionRow, i).digest if i else None for i in ids]
        )
        if source is None or context is None:
            return source or context
        pair = (source, context)
        known = self._composed.get(pair)
        if known is None or not await self._versions.has(known):
            if len(self._composed) > 1000:
                self._composed.clear()
            known = self._composed[pair] = await self._versions.compose(source, context)
        return known

    async def all(self, row: NotebookRow) -> list[str]:
        """All trees that have to be at hand when it starts."""
        followed = await self.followed(row)

        def look(session: Session) -> list[str | None]:
            ids = [i for i in (row.source_id, row.data_id) if i is not None]
            return [
                *(session.get_one(VersionRow, i).digest for i in ids),
                output_of(session, row),
            ]

        found = [followed, *await self._db.run(look)]
        return list(dict.fromkeys(digest for digest in found if digest))
