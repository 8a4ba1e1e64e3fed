"""Errands that the service gives to this notebook's server, done in threads of their own."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kaos_hub.bundles.limits import shown
from kaos_hub.errors import InvalidBundle, KaosError
from kaos_hub.schemas import Errand, ErrandKind, ErrandOrder, ErrandReport
from kaos_hub.transport.workload import Api, Over

_PATIENCE = 300.0
"""Seconds without an answer of the service, after which an errand is given up."""
_REMEMBERED = 100


class ErrandRunner:
    """Does each errand once, those of a kind one after the other.

    Args:
        url: the service's.
        notebook: its name there.
        token: the server's own.
        home: the notebook's home.
        log: for what goes wrong here.
        after: called after each.
    """

    def __init__(
        self,
        url: str,
        notebook: str,
        token: str,
        home: Path,
        log: logging.Logger | logging.LoggerAdapter[Any],
        after: Callable[[], Awaitable[None]],
    ) -> None:
        self._url, self._token, self._home, self._log = url, token, home, log
        self._after = after
        self._place = f"notebooks/{quote(notebook, safe='')}/errands"
        self._stopped = threading.Event()
        # Data may take hours to come; saving does not wait for that.
        self._turns = {kind: asyncio.Lock() for kind in ErrandKind}
        self._known: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, orders: Iterable[ErrandOrder]) -> None:
        """Begin with those that are new."""
        for order in orders:
            if order.id in self._known:
                continue
            self._known[order.id] = None
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
            task = asyncio.create_task(self._run(order), name=f"kaos-{order.kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is under way."""
        self._stopped.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, order: ErrandOrder) -> None:
        async with self._turns[order.kind]:
            await asyncio.to_thread(self._do, order)
            await self._after()

    def _do(self, order: ErrandOrder) -> None:
        api = Api(self._url, self._token, _PATIENCE, self._stopped)
        path = f"{self._place}/{order.id}"

        def tell(report: ErrandReport) -> None:
            ended = api.post(path, report, Errand).state.ended
            if ended and not (report.done or report.code):
                raise Over("nobody waits for it any more")

        try:
            self._errand(order, api, tell)
        except Over as e:
            self._log.info("kaos: %s: %s", order.kind, e)
        except KaosError as e:
            self._failed(tell, order, e)
        except OSError as e:
            where = f"{shown(str(e.filename))}: " if e.filename else ""
            self._failed(tell, order, InvalidBundle(f"{where}{e.strerror or e}"))
        except Exception:
            self._log.exception("kaos: %s failed", order.kind)
            problem = "something went wrong in the notebook's server; its log tells more"
            self._failed(tell, order, KaosError(problem))

    def _errand(self, order: ErrandOrder, api: Api, tell: Any) -> None:
        if order.kind is ErrandKind.SAVE:
            from kaos_hub.workload.notebook.saving import save

            done = save(self._home, order, api, tell)
            self._log.info("kaos: saved: %s %s", done.version or done.note, done.state)
        else:
            from kaos_hub.workload.notebook.attaching import attach

            place = attach(self._home, order, self._url, tell, self._stopped)
            self._log.info("kaos: attached %s", place)

    def _failed(self, tell: Any, order: ErrandOrder, error: KaosError) -> None:
        self._log.warning("kaos: %s: %s", order.kind, error.message)
        try:
            tell(ErrandReport(note=error.message[:1900], code=error.code))
        except (Over, KaosError) as e:
            self._log.warning("kaos: nobody heard of it: %s", e)
