"""Limits of requests by each user, and by each address without a login: per second, and at once.

A request beyond them is refused with 429 and the time after which it may be sent again. Nothing of
this is stored: after a restart all users and addresses begin with their full allowance.
"""

import asyncio
import contextlib
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kaos_hub.errors import TooManyRequests, TooSlow
from kaos_hub.util.quantities import plural

Kind = Literal["bodies", "streams"]
"""The kinds of things that are limited at once: bodies on their way to us, streamed answers."""

_COSTLY = 2
"""Expensive requests of one user that are worked on at once; more wait."""
_MOST_KNOWN = 10_000
"""Users and addresses that are remembered, apart from those with something open."""
_LOOKS = 4
"""The number of looks at bodies in a period."""
_WHAT: dict[Kind, str] = {"bodies": "requests with a body", "streams": "streams"}


@dataclass(frozen=True)
class Allowed:
    """The limits of one user or address. Zero is no limit."""

    rate: float = 100.0
    """Requests per second."""
    burst: int = 1000
    """Requests that may come at once, after a pause."""
    bodies: int = 32
    """Requests whose bodies are on their way."""
    streams: int = 64
    """Answers being streamed: events, logs, archives."""


@dataclass(frozen=True)
class Pace:
    """The minimum pace of a body."""

    least: int = 1024
    """Bytes per second."""
    period: float = 30.0
    """Seconds over which that is measured."""
    longest: float = 86400.0
    """Seconds that a body may take in all."""


class Body(Protocol):
    """A body on its way to us."""

    def arrived(self) -> int | None:
        """Return the bytes that came since the last call.

        None means that the client was not to blame: we were working on a piece.
        """

    def end_slow(self, error: TooSlow) -> None:
        """Give up the body."""


@dataclass
class _Who:
    """The state of one user or address."""

    tokens: float
    at: float
    open: dict[Kind, int] = field(default_factory=lambda: {"bodies": 0, "streams": 0})
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_COSTLY))


class Traffic:
    """A counter of the requests of all users and addresses.

    Args:
        allowed: the limits of a user, and of an address without a login.
        pace: the minimum pace of bodies.
    """

    def __init__(self, allowed: Allowed, pace: Pace) -> None:
        self.allowed, self.pace = allowed, pace
        self._known: OrderedDict[str, _Who] = OrderedDict()
        self._slow: dict[Body, tuple[float, int]] = {}
        self._watching: asyncio.TimerHandle | None = None

    def _who(self, key: str) -> _Who:
        found = self._known.get(key)
        if found is None:
            self._forget()
            found = self._known[key] = _Who(self.allowed.burst, time.monotonic())
        self._known.move_to_end(key)
        return found

    def _forget(self) -> None:
        """Forget the user or address that was silent for longest and has nothing open."""
        for _ in range(len(self._known)):
            if len(self._known) < _MOST_KNOWN:
                return
            key, who = next(iter(self._known.items()))
            if not any(who.open.values()):
                del self._known[key]
                return
            self._known.move_to_end(key)

    def spend(self, key: str) -> None:
        """Count a request.

        Raises:
            TooManyRequests: there were too many; it says when the next may come.
        """
        if not self.allowed.rate:
            return
        who, now = self._who(key), time.monotonic()
        earned = (now - who.at) * self.allowed.rate
        who.tokens, who.at = min(self.allowed.burst, who.tokens + earned), now
        if who.tokens < 1:
            wait = math.ceil((1 - who.tokens) / self.allowed.rate)
            raise TooManyRequests(
                f"Too many requests: {self.allowed.rate:g} a second are allowed. Try again in"
                f" {plural(wait, 'second')}.",
                retry_after=wait,
            )
        who.tokens -= 1

    def begin(self, kind: Kind, key: str) -> None:
        """Count something that is open until :meth:`end`.

        Raises:
            TooManyRequests: there are too many.
        """
        who, most = self._who(key), getattr(self.allowed, kind)
        if most and who.open[kind] >= most:
            raise TooManyRequests(
                f"{most:,} {_WHAT[kind]} at once are allowed, and as many are open. End one, or try"
                " again in a moment.",
                retry_after=1,
            )
        who.open[kind] += 1

    def end(self, kind: Kind, key: str) -> None:
        """Stop counting something that :meth:`begin` counted."""
        self._who(key).open[kind] -= 1

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait until another expensive request of the same user is done, if there are too many."""
        who = self._who(key)
        async with who.turns:
            yield

    # --- slow bodies ---

    def watch(self, body: Body) -> None:
        """Look whether a body comes fast enough, until :meth:`forget`."""
        if self.pace.least:
            self._slow[body] = (time.monotonic(), 0)
            if self._watching is None:
                self._look_later()

    def forget(self, body: Body) -> None:
        """Stop watching a body: it is complete, or will not come."""
        self._slow.pop(body, None)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._watching = loop.call_later(self.pace.period / _LOOKS, self._look)

    def _look(self) -> None:
        now, pace = time.monotonic(), self.pace
        for body in list(self._slow):
            since, had = self._slow[body]
            arrived = body.arrived()
            if arrived is None:
                self._slow[body] = (now, 0)
            elif now - since < pace.period:
                self._slow[body] = (since, had + arrived)
            elif had + arrived < pace.least * (now - since):
                del self._slow[body]
                body.end_slow(TooSlow(f"The body came slower than {pace.least:,} bytes a second."))
            else:
                self._slow[body] = (now, 0)
        self._watching = None
        if self._slow:
            self._look_later()


def of_user(name: str) -> str:
    """Return the key of a user."""
    return f"user:{name}"


def of_address(address: str | None) -> str:
    """Return the key of the address of a request without a login.

    For IPv6 it is the network of one line (/64).
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return f"address:{address}"
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"
