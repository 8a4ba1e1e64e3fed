"""A bell: rings when something was written that streams wait for."""

import asyncio


class Bell:
    """Rings when events were written; streams wait for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever listens."""
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The ring that comes next. Take it before looking, so that none is missed."""
        return self._event
