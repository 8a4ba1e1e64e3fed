"""Being told when a workload changes, instead of asking all the time."""

import asyncio
import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from kaos_hub.errors import EngineUnavailable

log = logging.getLogger(__name__)

_FIRST, _SLOWEST = 0.5, 10.0
"""Seconds between two tries to connect."""


class Listening(ABC):
    """One connection to what an engine tells, in a thread, for any number of listeners.

    Listeners are also woken when the connection breaks or comes back: then anything may have
    happened, and they must look.

    Args:
        what: what is listened to, for people.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._listeners: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = (
            defaultdict(set)
        )
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._stream: Any = None
        """The stream that is being read, for :meth:`_hang_up`."""

    @abstractmethod
    def _follow(self) -> None:
        """Connect, wake all, and wake one after the other until the connection breaks off. Blocks.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    def _hang_up(self) -> None:
        """End what is being read, from another thread."""

    @contextlib.contextmanager
    def listen(self, name: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something happens to the workload of that name."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listeners[name].add(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._what, daemon=True)
                self._thread.start()
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listeners[name].discard(entry)
                if not self._listeners[name]:
                    del self._listeners[name]

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        # The thread sits in a read: this ends it.
        self._hang_up()

    def _run(self) -> None:
        pause = _FIRST
        while not self._closed.is_set():
            try:
                self._follow()
                pause = _FIRST
            except EngineUnavailable as e:
                if not self._closed.is_set():
                    log.warning("cannot listen to %s: %s", self._what, e)
            except Exception:
                # without this thread every watch would only see what its slow resync finds
                if not self._closed.is_set():
                    log.exception("listening to %s failed, trying again", self._what)
            self._wake_all()
            self._closed.wait(pause)
            pause = min(_SLOWEST, pause * 2)

    def _wake(self, name: str) -> None:
        with self._lock:
            listeners = list(self._listeners.get(name, ()))
        for loop, event in listeners:
            # A loop that was closed has no listener left to wake.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def _wake_all(self) -> None:
        with self._lock:
            names = list(self._listeners)
        for name in names:
            self._wake(name)
