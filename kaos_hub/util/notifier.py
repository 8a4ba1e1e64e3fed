"""A bell: rings when something was written that streams wait for; and such streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar


class Numbered(Protocol):
    """An item after which a stream can be resumed."""

    @property
    def id(self) -> int:
        """A number that grows from item to item."""


Item = TypeVar("Item", bound=Numbered)


class Bell:
    """Rings when events were written; streams wait for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all that listen."""
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The ring that comes next. Take it before looking, so that none is missed."""
        return self._event


async def resumable(
    bell: Bell,
    after: int | None,
    present: Callable[[], Awaitable[tuple[Sequence[Item], int]]],
    since: Callable[[int], Awaitable[Sequence[Item]]],
) -> AsyncIterator[Item]:
    """Yield what has happened since ``after``, then what happens; never ends.

    Args:
        bell: rings when there is more.
        after: id of the last one that is known; None begins with how it is now.
        present: how it is now, and the id of the last one that this contains.
        since: those after an id, the oldest first; not necessarily all.
    """
    last = after if after is not None else 0
    if after is None:
        items, last = await present()
        for item in items:
            yield item
    while True:
        ring = bell.listen()
        news = await since(last)
        for item in news:
            yield item
            last = item.id
        if not news:
            await ring.wait()
