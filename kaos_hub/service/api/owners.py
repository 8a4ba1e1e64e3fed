"""Owners over REST, for admins: what they have, and who gets it."""

from kaos_hub.errors import Conflict, Forbidden, HubUnavailable, NotFound
from kaos_hub.schemas import HandOver, Model, OwnerSummary
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


class OwnersQuery(Model):
    """The owners to list."""

    gone: bool = False


def _require_admin(call: Call) -> None:
    if not call.caller.admin:
        raise Forbidden("Only admins of the Hub may see and hand over what others have.")


async def list_owners(call: Call) -> list[OwnerSummary]:
    """List all owners, or those that are gone."""
    _require_admin(call)
    return await call.core.handover.list(call.query.gone)


async def hand_over(call: Call) -> OwnerSummary:
    """Give all that an owner has to another owner."""
    _require_admin(call)
    kind, _, name = call.body.to.partition(":")
    to = await call.core.identities.owner_called(kind, name)
    return await call.core.handover.hand_over(call.path["id"], to)


async def delete(call: Call) -> OwnerSummary:
    """Delete all that an owner has."""
    _require_admin(call)
    return await call.core.handover.delete(call.path["id"])


_ERRORS = (Forbidden, NotFound, Conflict, HubUnavailable)

ROUTES = [
    Route(
        "GET",
        "/owners",
        list_owners,
        "All owners and how much they have; `gone`: only those that the Hub has no more. For"
        " admins.",
        right=Right.MANAGE,
        query=OwnersQuery,
        answer=list[OwnerSummary],
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/owners/{id}/hand-over",
        hand_over,
        "Give all that an owner has, whom the Hub has no more, to another. For admins.",
        right=Right.MANAGE,
        body=HandOver,
        answer=OwnerSummary,
        errors=_ERRORS,
    ),
    Route(
        "DELETE",
        "/owners/{id}",
        delete,
        "Delete all that an owner has, whom the Hub has no more: bundles, notebooks with their"
        " homes, volumes, trainings. For admins.",
        right=Right.MANAGE,
        answer=OwnerSummary,
        errors=_ERRORS,
    ),
]
