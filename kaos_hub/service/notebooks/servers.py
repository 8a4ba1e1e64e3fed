"""Servers of the Hub: asked for, waited for, ended."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.hub_client import Hub, Progress, Server
from kaos_hub.service.notebooks.records import server_of
from kaos_hub.service.users.identities import Identities


class Servers:
    """The requests of drivers to the Hub.

    Args:
        hub: the Hub.
        identities: knows how owners are called now: the Hub knows servers by that.
        heard: is told each line of a starting server's progress, with the notebook's id.
    """

    def __init__(
        self,
        hub: Hub,
        identities: Identities,
        heard: Callable[[str, Progress], Awaitable[None]],
    ) -> None:
        self._hub, self._identities, self._heard = hub, identities, heard
        self._asked: dict[str, asyncio.Task[None]] = {}

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """Questions that the Hub has not answered yet."""
        return list(self._asked.values())

    async def start(self, row: NotebookRow) -> None:
        """Ask the Hub to start the notebook's server.

        The question is not taken back when the driver is ended: the Hub has heard it, and the next
        stop of the notebook must wait until it shows.
        """
        user = (await self._identities.require(row.owner)).name
        server = server_of(row.name)
        asked = asyncio.create_task(self._hub.start(user, server, {"notebook": row.name}))
        self._asked[row.id] = asked
        asked.add_done_callback(partial(self._answered, row.id))
        await asyncio.shield(asked)

    def _answered(self, notebook_id: str, asked: asyncio.Task[None]) -> None:
        if self._asked.get(notebook_id) is asked:
            del self._asked[notebook_id]
        if not asked.cancelled():
            asked.exception()  # a caller that still waits for it hears it, too

    async def settled(self, row: NotebookRow) -> Server | None:
        """The server when nothing is pending with it any more; tells of its progress meanwhile."""
        server = server_of(row.name)
        while True:
            owner = await self._identities.user(row.owner)
            user = owner.name if owner else ""
            seen = await self._hub.server(user, server) if owner else None
            if seen is None or seen.pending is None:
                return seen
            if seen.pending == "spawn":
                async for line in self._hub.progress(user, server):
                    await self._heard(row.id, line)
                    if line.failed:
                        break
            # a Hub that was restarted checks its servers for a while before it says more
            await asyncio.sleep(0.1)

    async def end(self, row: NotebookRow) -> None:
        """Have the Hub stop it; returns when the Hub has done all that belongs to that.

        A start that a user asks the Hub for afterwards is left alone: the admission decides on it.
        """
        server, told = server_of(row.name), False
        while True:
            owner = await self._identities.user(row.owner)
            if owner is None:
                return
            user = owner.name
            asked = row.id in self._asked
            seen = await self._hub.server(user, server)
            another = told and seen is not None and seen.pending == "spawn"
            if not asked and (another or seen is None or not seen.active):
                return
            if seen is not None and seen.active and seen.pending != "stop":
                await self._hub.stop(user, server)
                told = True
            await asyncio.sleep(0.25)
