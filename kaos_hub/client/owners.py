"""The SDK's owners, for admins."""

from kaos_hub.schemas import OwnerSummary
from kaos_hub.transport.http import Transport, parse, quoted


class Owners:
    """The things of users and groups, also of those that the Hub has no more; for admins only."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, gone: bool = False) -> "list[OwnerSummary]":
        """All owners, or those that the Hub has no more.

        Raises:
            Forbidden: the asker is no admin.
        """
        query = "?gone=true" if gone else ""
        found = self._transport.json("GET", f"/api/v1/owners{query}")
        return [parse(OwnerSummary, each) for each in found]

    def hand_over(self, owner: str, to: str) -> OwnerSummary:
        """Give all that an owner has, whom the Hub has no more, to another.

        Args:
            owner: the id, as listed.
            to: ``user:NAME`` or ``group:NAME``.

        Raises:
            NotFound: there is no such owner.
            Conflict: the Hub still has the owner, or something of it runs.
        """
        path = "/api/v1" + quoted("owners", owner, "hand-over")
        return parse(OwnerSummary, self._transport.json("POST", path, {"to": to}))

    def delete(self, owner: str) -> OwnerSummary:
        """Delete all that an owner has, whom the Hub has no more; says what that was.

        Raises:
            NotFound: there is no such owner.
            Conflict: the Hub still has the owner, or something of it runs.
        """
        path = "/api/v1" + quoted("owners", owner)
        return parse(OwnerSummary, self._transport.json("DELETE", path))
