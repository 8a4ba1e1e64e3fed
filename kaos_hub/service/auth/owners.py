"""Owners that requests mean: the calling user, or a group that the user is in.

A workspace is a group of the Hub's. Its members see and use what it owns; other users cannot even
tell whether it exists.
"""

import time
from collections.abc import Awaitable, Callable, Mapping

from kaos_hub.errors import InvalidRequest, NotFound
from kaos_hub.service.auth.auth import Caller

HEADER = "X-Kaos-Owner"
"""The header that names the owner: ``group:vision`` or ``user:ada``, percent-encoded."""

_FRESH = 20.0
"""Seconds for which the Hub's answer is trusted when something is only read."""
_MOST = 2000
"""Users whose groups are remembered."""
_LONGEST = 300


class Owners:
    """A cache of the groups of users.

    Args:
        ask: asks the Hub for the groups of a user, who is given as an owner.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Mapping[str, str]]]) -> None:
        self._ask = ask
        self._known: dict[str, tuple[float, Mapping[str, str]]] = {}

    async def groups(self, user: str, fresh: bool = False) -> Mapping[str, str]:
        """Return the owners of a user's groups by the groups' names; ``fresh``: as they are now.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        at, groups = self._known.get(user, (float("-inf"), {}))
        now = time.monotonic()
        if fresh or now - at > _FRESH:
            groups = await self._ask(user)
            self._remember(user, now, groups)
        return groups

    def _remember(self, user: str, now: float, groups: Mapping[str, str]) -> None:
        self._known.pop(user, None)
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[user] = now, groups

    async def meant(self, caller: Caller, text: str, fresh: bool = False) -> str:
        """Return the owner that a caller means.

        Args:
            caller: the calling user.
            text: the owner as the request names it; empty means the caller.
            fresh: ask the Hub, even if the groups are remembered.

        Raises:
            InvalidRequest: ``text`` is not an owner.
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
        groups = await self.groups(caller.owner, fresh)
        if name not in groups:
            raise NotFound(
                f"You are not in a group called {name!r}. `kaos workspace list` shows yours."
            )
        return groups[name]

    async def still(self, caller: Caller, owner: str) -> None:
        """Check that a caller may go on with things of an owner.

        Raises:
            NotFound: the caller is not in that group any more.
            HubUnavailable: the Hub does not answer.
        """
        if owner != caller.owner and owner not in (await self.groups(caller.owner)).values():
            raise NotFound("You are not in that group any more. `kaos workspace list` shows yours.")
