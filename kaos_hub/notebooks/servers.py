"""Servers of the Hub: asked for, waited for, ended."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from kaos_hub.hub import Hub, Progress, Server
from kaos_hub.notebooks.records import server_of, user_of
from kaos_hub.tables import NotebookRow


class Servers:
    """What drivers have the Hub do.

    Args:
        hub: the Hub.
        heard: is told each line of a starting server's progress, with the notebook's id.
    """

    def __init__(self, hub: Hub, heard: Callable[[str, Progress], Awaitable[None]]) -> None:
        self._hub, self._heard = hub, heard
        self._asked: dict[str, asyncio.Task[None]] = {}

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """Questions that the Hub has not answered yet."""
        return list(self._asked.values())

    async def start(self, row: NotebookRow) -> None:
        """Ask the Hub to start it. The question is not taken back when the driver is ended: the Hub
        has heard it, and whoever stops the notebook next must wait until it shows."""
        user, server = user_of(row.owner), server_of(row.name)
        asked = asyncio.create_task(self._hub.start(user, server, {"notebook": row.name}))
        self._asked[row.id] = asked
        asked.add_done_callback(partial(self._answered, row.id))
        await asyncio.shield(asked)

    def _answered(self, notebook_id: str, asked: asyncio.Task[None]) -> None:
        if self._asked.get(notebook_id) is asked:
            del self._asked[notebook_id]
        if not asked.cancelled():
            asked.exception()  # whoever still waits for it hears it, too

    async def settled(self, row: NotebookRow) -> Server | None:
        """The server when nothing is pending with it any more; tells of its progress meanwhile."""
        user, server = user_of(row.owner), server_of(row.name)
        while True:
            seen = await self._hub.server(user, server)
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
        """Have the Hub stop it; returns when the Hub has done all that belongs to that."""
        user, server = user_of(row.owner), server_of(row.name)
        while True:
            asked = row.id in self._asked
            seen = await self._hub.server(user, server)
            if seen is not None and seen.active:
                if seen.pending != "stop":
                    await self._hub.stop(user, server)
            elif not asked:
                return
            await asyncio.sleep(0.25)
