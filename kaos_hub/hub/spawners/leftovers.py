"""Servers of which the Hub has a row although there is no notebook.

The Hub makes a row when its form is opened, or when a start is asked for that is refused. Such rows
are taken back, or its Home would fill with them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from jupyterhub.spawner import Spawner
from sqlalchemy.orm import object_session

from kaos_hub.errors import KaosError
from kaos_hub.hub.spawners.admission import FormOptions

_LATER = 10.0
"""Seconds after a refusal until its row is taken back: the Hub shows the refusal meanwhile."""

_tasks: set["asyncio.Task[None]"] = set()


def take_back(spawner: Spawner) -> None:
    """Remove the Hub's row of a named server that does not run, and of which there is no notebook.

    The next request for a server of that name makes a row anew.
    """
    row = spawner.orm_spawner
    session = object_session(row) if row else None
    if not spawner.name or spawner.active or session is None:
        return
    if spawner.user.spawners.get(spawner.name) is not spawner:
        return
    session.delete(row)
    spawner.user.spawners.pop(spawner.name, None)
    session.commit()


def take_back_later(spawner: Spawner, look: Callable[[], Awaitable[FormOptions]]) -> None:
    """The same in a while, if there is no notebook then.

    Args:
        spawner: whose start was refused.
        look: says, among what can be chosen for it, whether there is a notebook.
    """

    async def wait() -> None:
        await asyncio.sleep(_LATER)
        try:
            if (await look()).notebook is None:
                take_back(spawner)
        except KaosError as e:
            spawner.log.debug("Cannot tell whether %s is a notebook: %s", spawner._log_name, e)

    task = asyncio.ensure_future(wait())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
