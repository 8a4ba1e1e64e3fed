"""Other people, who only want an answer while somebody attacks."""

import threading
import time
from collections import Counter
from typing import Self

from tests.hub import RunningHub, request


class Victim:
    """Asks again and again for the list of notebooks, and measures how long that takes.

    Args:
        hub: whose service is asked, through the proxy.
        token: the victim's own.
    """

    def __init__(self, hub: RunningHub, token: str) -> None:
        self._url, self._token = f"{hub.api}/notebooks", token
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            answer = request("GET", self._url, self._token, timeout=120)
            self.times.append(time.monotonic() - began)
            self.statuses[answer.status] += 1
            self._over.wait(0.02)

    @property
    def longest(self) -> float:
        """Seconds of the slowest answer."""
        return max(self.times)

    def check(self, longest: float = 2.0) -> None:
        """All were answered, each within so many seconds.

        Raises:
            AssertionError: one was not.
        """
        assert set(self.statuses) == {200}, self.statuses
        assert self.longest < longest, f"{self.longest:.1f} s of {len(self.times)} answers"
