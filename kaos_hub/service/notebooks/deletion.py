"""Ends and deletes notebooks in the background: servers take their time to end, and no request has
to wait for that. With a server that the Hub forgets for good, its notebook goes, too.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.errors import KaosError, NotFound, Unavailable
from kaos_hub.schemas import NotebookState
from kaos_hub.service.db.tables import EventRow, NotebookRow
from kaos_hub.service.notebooks.records import server_of

if TYPE_CHECKING:
    from kaos_hub.service.notebooks.hosting import Hosting

log = logging.getLogger(__name__)

_LONGEST = 110.0
"""Seconds that a deletion waits for an end."""
_PAUSE = 60.0
"""Seconds after which a deletion that was not possible is tried again."""
_TIMES = 60
"""Times that the Hub is asked, once a second, whether it has forgotten a server."""


class Deletions:
    """Deletes notebooks of which that is wanted.

    What the Hub or the engine keeps from it now is tried again. A service that ends meanwhile goes
    on with it: see ``Notebooks.recover``.

    Args:
        hosting: whose notebooks.
    """

    def __init__(self, hosting: "Hosting") -> None:
        self._hosting = hosting
        self._going: dict[str, asyncio.Task[None]] = {}

    def end(self, row: NotebookRow) -> None:
        """Begin to end what runs of a notebook, without asking it."""
        if row.held and row.workload:
            self._begin(f"end-{row.id}", self._hosting.end(row.workload))

    def begin(self, row: NotebookRow) -> asyncio.Task[None]:
        """Begin to delete a notebook, which is to stop already, unless that goes on."""
        return self._begin(row.id, self._delete(row), lambda: self._again(row.id))

    async def delete(self, row: NotebookRow, seconds: float | None = None) -> bool:
        """Begin to delete a notebook, and wait for that.

        Args:
            row: the notebook, which is to stop already.
            seconds: to wait at most; None waits until it is over.

        Returns:
            whether it is gone. Else it goes by itself.

        Raises:
            KaosError: it cannot be deleted.
        """
        going = self.begin(row)
        done, _ = await asyncio.wait({going}, timeout=seconds)
        if done:
            await going
        return bool(done)

    def _begin(
        self,
        key: str,
        work: Coroutine[Any, Any, None],
        again: Callable[[], object] | None = None,
    ) -> asyncio.Task[None]:
        going = self._going.get(key)
        if going is not None:
            work.close()
            return going
        task = asyncio.create_task(work, name=f"deleting-{key}")
        self._going[key] = task
        task.add_done_callback(lambda task: self._over(key, task, again))
        return task

    def _over(self, key: str, task: asyncio.Task[None], again: Callable[[], object] | None) -> None:
        del self._going[key]
        error = None if task.cancelled() else task.exception()
        if again is not None and isinstance(error, Unavailable):
            asyncio.get_running_loop().call_later(_PAUSE, again)
        if isinstance(error, KaosError):
            log.info("Not deleted: %s", error.message)
        elif error is not None:
            log.error("A notebook could not be ended or deleted", exc_info=error)

    def _again(self, notebook_id: str) -> None:
        self._begin(notebook_id, self._delete_again(notebook_id), lambda: self._again(notebook_id))

    async def _delete_again(self, notebook_id: str) -> None:
        row = await self._hosting.db.run(lambda session: session.get(NotebookRow, notebook_id))
        if row is not None and row.wanted == "DELETED":
            await self._delete(row)

    async def _delete(self, row: NotebookRow) -> None:
        if row.held:
            await self._hosting.end(row.workload)
        try:
            async with asyncio.timeout(_LONGEST):
                await self._ended(row.id)
                # It is let go of before the Hub is through with it, and what the Hub still has to
                # do with a server it cannot do with one that it has forgotten. Nor may the driver
                # still look at it: it would take the next server of that name for this one.
                await self._hosting.at_rest(row.id)
                await self._hosting.servers.end(row)
        except TimeoutError:
            raise Unavailable(
                f"Notebook {row.name!r} is being stopped, which takes long; it is deleted after"
                " that."
            ) from None
        user, server = await self._hosting.identities.user(row.owner), server_of(row.name)
        if user is not None:
            await self._hosting.hub.stop(user.name, server, remove=bool(server))
        if await self._hosting.db.run(lambda session: _forget(session, row.id)):
            await self._hosting.engine.places.remove_home(row.id)

    async def _ended(self, notebook_id: str) -> None:
        while True:
            ring = self._hosting.bell.listen()
            row = await self._hosting.db.run(lambda session: session.get(NotebookRow, notebook_id))
            if row is None or (not row.held and NotebookState(row.state).settled):
                return
            await ring.wait()


def _forget(session: Session, notebook_id: str) -> bool:
    """Remove its row and events; returns whether it was there."""
    row = session.get(NotebookRow, notebook_id)
    if row is None:
        return False
    session.delete(row)
    session.execute(
        delete(EventRow).where(EventRow.owner == row.owner, EventRow.notebook == row.name)
    )
    return True


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
