"""Information about the service, the calling user and the API."""

from kaos_hub.errors import Unavailable
from kaos_hub.schemas import Info, Whoami
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


async def info(call: Call) -> Info:
    """Return what this service offers."""
    return call.core.info


async def whoami(call: Call) -> Whoami:
    """Return the calling user, with limits and usage."""
    caller = call.caller
    return Whoami(
        user=caller.user,
        owner=call.core.identities.shown(call.owner),
        admin=caller.admin,
        services=sorted(caller.services),
        limits=call.core.ledger.limits(call.owner),
        usage=await call.core.ledger.usage(call.owner),
        capacity=call.core.ledger.capacity,
    )


ROUTES = [
    Route(
        "GET", "/info", info, "What this service is and offers.", right=Right.ANYONE, answer=Info
    ),
    Route(
        "GET",
        "/whoami",
        whoami,
        "The asking user, with limits and use.",
        answer=Whoami,
        shared=True,
        errors=(Unavailable,),
    ),
]
