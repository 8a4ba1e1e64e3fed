"""Where bytes rest. A store is one module and one entry point of the group ``kaos_hub.stores``."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from kaos_hub.bundles.objects import ReadObject
from kaos_hub.errors import InvalidRequest
from kaos_hub.stores.base import Store

GROUP = "kaos_hub.stores"


def open_store(url: str) -> Store:
    """Open a store by its URL, whose scheme is the store's name: ``file:///srv/kaos/store``.

    Raises:
        InvalidRequest: there is no such kind of store, or the URL is wrong; says which there are.
        Unavailable: the store cannot be opened.
    """
    stores = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = stores.get(url.partition(":")[0])
    if entry is None:
        known = ", ".join(sorted(stores)) or "none"
        raise InvalidRequest(f"{url!r} names no store; the kinds installed are: {known}")
    cls: type[Store] = entry.load()
    return cls.from_url(url)


def reader(store: Store) -> ReadObject:
    """Read objects from synchronous code that runs outside of any event loop, as in a thread."""

    def read(digest: str) -> Path | Iterator[bytes]:
        return store.local_path(digest) or _pieces(store.read(digest))

    return read


def _pieces(source: AsyncIterator[bytes]) -> Iterator[bytes]:
    with asyncio.Runner() as runner:
        while piece := runner.run(_next(source)):
            yield piece


async def _next(source: AsyncIterator[bytes]) -> bytes:
    return await anext(source, b"")
