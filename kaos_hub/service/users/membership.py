"""Membership at the moment of use: a right to a group's things ends with the membership."""

from collections.abc import Awaitable, Callable, Collection

GROUP = "group:"


class Membership:
    """Answers to which groups a user belongs, asking the Hub each time.

    Args:
        ask: asks the Hub for the groups of an owner who is a user, as owners.
        gone: asks the Hub which of some owners are users whom it has no more.
        shown: says how an owner is called now, with its kind.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Collection[str]]],
        gone: Callable[[Collection[str]], Awaitable[Collection[str]]] | None = None,
        shown: Callable[[str], str] = str,
    ) -> None:
        self._ask, self._gone, self._shown = ask, gone, shown

    def name(self, owner: str) -> str:
        """The name that an owner has now."""
        return self._shown(owner).partition(":")[2]

    async def gone(self, owners: Collection[str]) -> Collection[str]:
        """Those of the owners that are users whom the Hub has no more.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        users = {owner for owner in owners if not owner.startswith(GROUP)}
        return await self._gone(users) if self._gone is not None and users else ()

    async def lost(self, owner: str, owners: Collection[str]) -> list[str]:
        """Those of the owners whose things the user may not use now.

        Asks nothing where everything is the user's own.

        Args:
            owner: the user, as an owner.
            owners: owners of the things to be used.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        others = {other for other in owners if other != owner}
        if not others:
            return []
        return sorted(others - set(await self._ask(owner)))
