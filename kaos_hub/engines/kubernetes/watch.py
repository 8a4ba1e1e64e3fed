"""A watch of pods, and what its connections need."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from kaos_hub.engines.kubernetes.api import Api, Gone, Object, answering
from kaos_hub.engines.listening import Listening
from kaos_hub.errors import KaosError

_WATCH = 300
"""Seconds after which the API server ends a watch, so that none hangs for ever."""


class Watch(Listening):
    """One watch of all our pods.

    Args:
        connect: makes a connection to the cluster; blocks.
        selector: which pods.
    """

    def __init__(self, connect: Callable[[], Api], selector: str) -> None:
        super().__init__("pods of the cluster")
        self._connect, self._selector = connect, selector

    def _hang_up(self) -> None:
        hang_up(self._stream)

    def _follow(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(Gone), answering():
                self._watch()

    def _watch(self) -> None:
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
