"""Stores of bytes. Each is one module and one entry point of the group ``kaos_hub.stores``."""

import asyncio
import logging
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from kaos_hub.bundles.objects import ReadObject
from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.stores.base import Store

GROUP = "kaos_hub.stores"
_TIDY = 6 * 3600.0
"""Seconds between two looks for what unfinished uploads left."""

log = logging.getLogger("kaos.store")


def open_store(url: str, secrets: Path | None = None) -> Store:
    """Open a store by its URL, whose scheme is the store's name: ``file:///srv/kaos/store``.

    Args:
        url: of the store; holds no secret.
        secrets: the folder in which lies what it takes to open it.

    Raises:
        InvalidRequest: there is no such kind of store, or the URL is wrong; says which there are.
        Unavailable: the store cannot be opened.
    """
    stores = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = stores.get(url.partition(":")[0])
    if entry is None:
        known = ", ".join(sorted(stores)) or "none"
        raise InvalidRequest(f"{url!r} names no store; the kinds installed are: {known}")
    try:
        cls: type[Store] = entry.load()
    except ModuleNotFoundError as e:
        raise InvalidRequest(
            f"The store `{entry.name}` needs {e.name}: pip install 'kaos-hub[{entry.name}]'"
        ) from None
    return cls.from_url(url, secrets)


def reader(store: Store) -> ReadObject:
    """Read objects from synchronous code that runs outside of any event loop, as in a thread."""

    def read(digest: str) -> Path | Pieces:
        return store.local_path(digest) or Pieces(store, digest)

    return read


async def keep_tidy(store: Store) -> None:
    """Tidy the store up now, and again every few hours; until cancelled."""
    while True:
        try:
            many = await store.tidy()
            if many:
                log.info("The store: removed %d uploads that were given up", many)
        except KaosError as e:
            log.info("The store: what was given up cannot be looked for: %s", e.message)
        except Exception:  # a look that fails must not end all looks
            log.exception("The store could not be tidied up")
        await asyncio.sleep(_TIDY)


class Pieces:
    """The bytes of an object that lies in no file.

    Args:
        store: where it lies.
        digest: its name.
    """

    def __init__(self, store: Store, digest: str) -> None:
        self._store, self._digest = store, digest

    def __iter__(self) -> Iterator[bytes]:
        return self._store.pieces(self._digest)

    def after(self, offset: int) -> Iterator[bytes]:
        """Its bytes from ``offset`` on."""
        return self._store.pieces(self._digest, offset)
