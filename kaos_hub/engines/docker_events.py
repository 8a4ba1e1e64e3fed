"""Being told when a container changes, instead of asking all the time."""

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kaos_hub.engines.docker_client import answering
from kaos_hub.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

log = logging.getLogger(__name__)

_SLOWEST = 10.0


class Events:
    """One connection to the Engine's events, in a thread, for any number of listeners.

    Whoever listens is also woken when the connection breaks or comes back: then anything may have
    happened, and one must look.
    """

    def __init__(self, connect: Callable[[], "DockerClient"], label: str) -> None:
        self._connect = connect
        self._label = label
        self._lock = threading.Lock()
        self._listeners: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = (
            defaultdict(set)
        )
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._stream: Any = None

    @contextlib.contextmanager
    def listen(self, name: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something happens to the container of that name."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listeners[name].add(entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="kaos-docker-events", daemon=True
                )
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
        if self._stream is not None:
            # The thread sits in a read: this ends it.
            self._stream.close()

    def _run(self) -> None:
        pause = 0.5
        while not self._closed.is_set():
            try:
                with answering():
                    self._read()
                pause = 0.5
            except EngineUnavailable as e:
                if not self._closed.is_set():
                    log.warning("no events from the Docker Engine: %s", e)
            except Exception:
                # without this thread every watch would only see what its slow resync finds
                if not self._closed.is_set():
                    log.exception("reading events of the Docker Engine failed, trying again")
            self._wake_all()
            self._closed.wait(pause)
            pause = min(_SLOWEST, pause * 2)

    def _read(self) -> None:
        client = self._connect()
        filters = {"type": "container", "label": self._label}
        self._stream = client.api.events(decode=True, filters=filters)
        self._wake_all()
        for event in self._stream:
            self._wake(str(event.get("Actor", {}).get("Attributes", {}).get("name", "")))

    def _wake(self, name: str) -> None:
        with self._lock:
            listeners = list(self._listeners.get(name, ()))
        for loop, event in listeners:
            # A loop that was closed has nobody left to wake.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def _wake_all(self) -> None:
        with self._lock:
            names = list(self._listeners)
        for name in names:
            self._wake(name)
