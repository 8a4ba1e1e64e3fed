"""Whose things a request means: the asking user's, or those of a group that the user is in.

A workspace is a group of the Hub's. Its members see and use what it owns; whoever is not in it
cannot even tell whether it exists.
"""

import time
from collections.abc import Awaitable, Callable

from kaos_hub.errors import InvalidRequest, NotFound
from kaos_hub.service.auth import Caller

HEADER = "X-Kaos-Owner"
"""``group:vision`` or ``user:ada``, percent-encoded."""

_FRESH = 20.0
"""Seconds for which the Hub's answer is believed when something is only read."""
_MOST = 2000
"""Users whose groups are remembered."""
_LONGEST = 300


class Owners:
    """Knows the groups of users.

    Args:
        ask: asks the Hub for the groups of a user.
    """

    def __init__(self, ask: Callable[[str], Awaitable[frozenset[str]]]) -> None:
        self._ask = ask
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def groups(self, user: str, fresh: bool = False) -> frozenset[str]:
        """The user's groups; ``fresh``: as they are now.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        at, groups = self._known.get(user, (float("-inf"), frozenset()))
        now = time.monotonic()
        if fresh or now - at > _FRESH:
            groups = await self._ask(user)
            self._remember(user, now, groups)
        return groups

    def _remember(self, user: str, now: float, groups: frozenset[str]) -> None:
        self._known.pop(user, None)
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[user] = now, groups

    async def meant(self, caller: Caller, text: str, fresh: bool = False) -> str:
        """The owner that a caller means.

        Args:
            caller: who asks.
            text: as it came with the request; nothing means the user.
            fresh: ask the Hub, whatever is remembered.

        Raises:
            InvalidRequest: it is no owner.
            NotFound: it is not the caller, nor a group that the caller is in.
            HubUnavailable: the Hub does not answer.
        """
        if not text:
            return caller.owner
        kind, _, name = text.partition(":")
        if kind not in ("user", "group") or not 0 < len(name) <= _LONGEST:
            raise InvalidRequest(f"{HEADER} must be like group:vision or user:{caller.user}.")
        if kind == "user":
            if name != caller.user:
                raise NotFound(
                    f"You are not the user {name!r}. `kaos workspace list` shows whose things are"
                    " yours to use."
                )
            return caller.owner
        if name not in await self.groups(caller.user, fresh):
            raise NotFound(
                f"You are not in a group called {name!r}. `kaos workspace list` shows yours."
            )
        return f"group:{name}"
