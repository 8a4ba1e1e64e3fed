"""Servers that the Hub forgets for good: their notebooks go with them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sqlalchemy import select

from kaos_hub.errors import NotFound, Unavailable
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.records import server_of

if TYPE_CHECKING:
    from kaos_hub.service.notebooks.hosting import Hosting

_TIMES = 60
"""Times that the Hub is asked, once a second, whether it has forgotten a server."""


class Forgotten:
    """Follows what the Hub is about to forget.

    Args:
        hosting: whose notebooks.
    """

    def __init__(self, hosting: "Hosting") -> None:
        self._hosting = hosting
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(
        self, owner: str, name: str, delete: Callable[[str, str], Awaitable[object]]
    ) -> None:
        """Have a notebook deleted once its server is forgotten. Where the Hub forgets the whole
        user, what that user had stays; what was not forgotten after all stays, too.

        Args:
            owner: of the notebook.
            name: of the notebook.
            delete: deletes it.
        """
        # One that is being deleted has its server removed on the way.
        query = select(NotebookRow.id).where(
            NotebookRow.owner == owner, NotebookRow.name == name, NotebookRow.wanted != "DELETED"
        )
        notebook_id = await self._hosting.db.run(lambda session: session.scalar(query))
        if notebook_id is None:
            return

        async def wait() -> None:
            if not await self._is_gone(owner, name):
                return
            # Under its name there may be another one by now.
            if await self._hosting.db.run(lambda session: session.scalar(query)) == notebook_id:
                with contextlib.suppress(NotFound):
                    await delete(owner, name)

        task = asyncio.create_task(wait(), name=f"forgotten-{notebook_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _is_gone(self, owner: str, name: str) -> bool:
        """Return whether the Hub forgets the server, and not its user, within a minute."""
        for _ in range(_TIMES):
            with contextlib.suppress(Unavailable):
                user = await self._hosting.identities.user(owner)
                if user is None:
                    return False
                if await self._hosting.hub.server(user.name, server_of(name)) is None:
                    return True
            await asyncio.sleep(1)
        return False
