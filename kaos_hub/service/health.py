"""The health of the service.

Anyone may ask often, so the answer is short and cached briefly.
"""

import asyncio
import time
from collections.abc import Awaitable

from sqlalchemy import text
from sqlalchemy.orm import Session

from kaos_hub.errors import KaosError
from kaos_hub.service.core import Core
from kaos_hub.service.web.base import Handler

_FRESH = 5.0
"""Seconds for which an answer is cached: frequent requests must not cause work."""

_PATIENCE = 3.0
"""Seconds after which a part that does not answer counts as gone."""


class Health:
    """A check of the database and the engine, made at most every few seconds."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen: dict[str, str] = {}
        self._at = float("-inf")
        self._turn = asyncio.Lock()

    async def look(self) -> dict[str, str]:
        """Return ``{"status", "database", "engine"}``, each ``ok`` or the problem in one word.

        Without the database nothing works: status ``unavailable``. Without the engine running work
        goes on and bundles can be sent: status ``degraded``.
        """
        async with self._turn:
            if time.monotonic() - self._at > _FRESH:
                self._seen = await self._look()
                self._at = time.monotonic()
            return self._seen

    async def _look(self) -> dict[str, str]:
        database = await _answers(self._core.db.run(_touch))
        engine = await _answers(self._core.engine.observe("kaos-health"))
        status = "ok" if engine else "degraded"
        return {
            "status": status if database else "unavailable",
            "database": "ok" if database else "unavailable",
            "engine": "ok" if engine else "unavailable",
        }


def _touch(session: Session) -> None:
    session.execute(text("SELECT 1"))


async def _answers(question: Awaitable[object]) -> bool:
    try:
        await asyncio.wait_for(question, _PATIENCE)
    except (KaosError, TimeoutError):
        return False
    return True


class HealthHandler(Handler):
    """``GET /health``: 200, or 503 when the service can do nothing."""

    route_name = "/health"

    def initialize(self, health: Health) -> None:
        self._health = health

    async def get(self) -> None:
        """Answer with the health. This needs no login."""
        seen = await self._health.look()
        self.set_status(503 if seen["status"] == "unavailable" else 200)
        self.finish(seen)
