"""Being told when a pod changes, instead of asking all the time."""

import asyncio
import contextlib
import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from kaos_hub.engines.kubernetes_api import Api, Gone, Object, answering
from kaos_hub.errors import EngineUnavailable, KaosError

log = logging.getLogger(__name__)

_SLOWEST = 10.0
_WATCH = 300


class Watch:
    """One watch of all our pods, in a thread, for any number of listeners.

    Whoever listens is also woken when the watch breaks off or begins anew: then anything may have
    happened, and one must look.

    Args:
        connect: makes a connection to the cluster; blocks.
        selector: which pods.
    """

    def __init__(self, connect: Callable[[], Api], selector: str) -> None:
        self._connect, self._selector = connect, selector
        self._lock = threading.Lock()
        self._listeners: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = (
            defaultdict(set)
        )
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._stream: Any = None

    @contextlib.contextmanager
    def listen(self, name: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something happens to the pod of that name."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listeners[name].add(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kaos-pods", daemon=True)
                self._thread.start()
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listeners[name].discard(entry)
                if not self._listeners[name]:
                    del self._listeners[name]

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        hang_up(self._stream)

    def _run(self) -> None:
        pause = 0.5
        while not self._closed.is_set():
            try:
                with answering():
                    self._follow()
                pause = 0.5
            except Gone:
                continue
            except EngineUnavailable as e:
                if not self._closed.is_set():
                    log.warning("cannot watch pods: %s", e)
            except Exception:
                # without this thread every watch would only see what its slow resync finds
                if not self._closed.is_set():
                    log.exception("watching pods failed, trying again")
            self._wake_all()
            self._closed.wait(pause)
            pause = min(_SLOWEST, pause * 2)

    def _follow(self) -> None:
        """From a look at everything on, until the watch breaks off."""
        api = self._connect()
        version = str(api.pods(self._selector)["metadata"]["resourceVersion"])
        self._wake_all()
        while not self._closed.is_set():
            self._stream = api.watch_pods(self._selector, version, _WATCH)
            if self._closed.is_set():
                hang_up(self._stream)
            for event in _events(self._stream):
                version = self._take(event) or version

    def _take(self, event: Object) -> str:
        """Wake who listens; the version after the event."""
        about = event.get("object", {})
        if event.get("type") == "ERROR":
            if about.get("code") == 410:
                raise Gone(about.get("message", ""))
            raise KaosError(f"watching pods: {about.get('message', about)}")
        if event.get("type") != "BOOKMARK":
            self._wake(about["metadata"]["name"])
        return str(about["metadata"].get("resourceVersion") or "")

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


def lines(stream: Any) -> Iterator[list[bytes]]:
    """The lines of a response, as many at once as there are; the last may lack its end."""
    rest = b""
    for piece in stream.stream(1 << 16, decode_content=False):
        *whole, rest = (rest + piece).split(b"\n")
        if whole:
            yield [line + b"\n" for line in whole]
    if rest:
        yield [rest]


def _events(stream: Any) -> Iterator[Object]:
    try:
        for batch in lines(stream):
            yield from (json.loads(line) for line in batch if line.strip())
    finally:
        stream.release_conn()


def hang_up(stream: Any) -> None:
    """End a response that another thread sits reading in."""
    if stream is None:
        return
    with contextlib.suppress(Exception):
        # What only newer versions of urllib3 have; `close` would wait for the reader.
        getattr(stream, "shutdown", stream.close)()
