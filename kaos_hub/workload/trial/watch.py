"""The work beside a trial that takes a while: beats and logs to the service, and disk use."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kaos_hub.schemas import Beat, BeatAnswer, Lease
from kaos_hub.transport.worker import Gone, Link, Refused, Trouble
from kaos_hub.workload.trial import folders as folders
from kaos_hub.workload.trial.metrics import Metrics
from kaos_hub.workload.trial.output import LogSender

BEAT = 2.0
"""Seconds between two beats."""
LOG = 0.5
"""Seconds after which what was printed is on its way."""
_LONGEST_PAUSE = 15.0
_LAST_WORD = 2.0
_LOOK = 0.5
_MEASURE = 2.0
"""Seconds between two looks at all files; more if a look takes long."""


class Hand(threading.Thread):
    """A thread that waits for something to do.

    Made before any trial: one that holds all the processes there may be cannot keep it from us.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = queue.SimpleQueue[Callable[[], None]]()
        self.start()

    def run(self) -> None:
        """Do one thing after the other, for ever."""
        while True:
            self._work.get()()

    def give(self, do: Callable[[], None]) -> None:
        """Have something done, after what was given before."""
        self._work.put(do)


class Heart:
    """Tells the service that a trial lives, and what it has said since.

    Args:
        link: of its own.
        lease: whose trial it is.
        metrics, log: what it tells.
        on_cancel: called when the trial is no longer wanted.
        on_gone: called when the job is over.
    """

    def __init__(
        self,
        link: Link,
        lease: Lease,
        metrics: Metrics,
        log: LogSender,
        on_cancel: Callable[[], object],
        on_gone: Callable[[], object],
    ) -> None:
        self._link, self._lease, self._metrics, self._log = link, lease, metrics, log
        self._on_cancel, self._on_gone = on_cancel, on_gone
        self._stopped, self._done = threading.Event(), threading.Event()

    def run(self) -> None:
        """Beat until stopped."""
        try:
            self._run()
        finally:
            self._link.close()
            self._done.set()

    def _run(self) -> None:
        pause, due = LOG, time.monotonic() + BEAT
        while not self._stopped.wait(pause):
            try:
                if self._log.behind:
                    self._log.send(self._link)
                if time.monotonic() >= due:
                    due = time.monotonic() + BEAT
                    self._beat()
                pause = LOG
            except Gone:
                self._on_gone()
                return
            except (Trouble, Refused):
                # The trial goes on; what could not be told waits.
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _beat(self) -> None:
        points = self._metrics.take()
        beat = Beat(trial=self._lease.trial, attempt=self._lease.attempt, points=points)
        try:
            answer = self._link.ask("beat", beat, BeatAnswer)
        except Trouble:
            self._metrics.give_back(points)
            raise
        if answer.cancel:
            self._on_cancel()

    def stop(self) -> None:
        """Stop; what it is saying right now may not take long."""
        self._stopped.set()
        if not self._done.wait(_LAST_WORD):
            self._link.abort()
            self._done.wait()


class StorageWatch:
    """Looks how much a trial has written.

    Args:
        places: gives the folders to look at.
        limit: bytes.
        on_over: called when it is more.
    """

    def __init__(
        self, places: Callable[[], list[Path]], limit: int, on_over: Callable[[], object]
    ) -> None:
        self._places, self._limit, self._on_over = places, limit, on_over
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopped.is_set():
            began = time.monotonic()
            places = self._existing()
            used = folders.used(places)
            if used > self._limit:
                self._on_over()
                return
            self._rest(places, self._limit - used, time.monotonic() - began)

    def _rest(self, places: list[Path], room: int, took: float) -> None:
        """Wait until it is time to look again: sooner if the disk fills quickly."""
        until = time.monotonic() + max(_MEASURE, 20 * took)
        free = _free(places)
        while time.monotonic() < until and not self._stopped.wait(_LOOK):
            if free - _free(places) > room / 2:
                return

    def _existing(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return self._places()
        return []

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()


def _free(places: list[Path]) -> int:
    """Bytes that are left where the trial writes; others may write there, too."""
    for place in places:
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize
    return 0
