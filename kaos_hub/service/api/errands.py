"""Requests to notebooks' own servers to save files or fetch data, over REST."""

from kaos_hub.errors import Conflict, Forbidden, LimitExceeded, NotFound
from kaos_hub.schemas import AttachRequest, Errand, ErrandReport, SaveRequest, Wait
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


async def save(call: Call) -> Errand:
    """Ask the notebook's server to save."""
    return await call.core.errands.save(call.owner, call.path["name"], call.body)


async def attach(call: Call) -> Errand:
    """Ask the notebook's server to fetch data."""
    return await call.core.errands.attach(call.owner, call.path["name"], call.body)


async def get_errand(call: Call) -> Errand:
    """Return the state of an errand; wait for news of it if the query says so."""
    wait: Wait = call.query
    return await call.core.errands.get(
        call.owner, call.path["name"], call.path["errand"], wait.wait
    )


async def report(call: Call) -> Errand:
    """Take the report of the notebook's own server on an errand."""
    return await call.core.errands.report(
        call.owner, call.caller.author, call.path["name"], call.path["errand"], call.body
    )


_ONE = "/notebooks/{name}"

ROUTES = [
    Route(
        "POST",
        _ONE + "/save",
        save,
        "Make the working copy of a running notebook the next version of a source bundle, which it"
        " follows from then on. The answer comes at once; ask for the errand until it has ended.",
        body=SaveRequest,
        answer=Errand,
        status=202,
        errors=(NotFound, Conflict, LimitExceeded),
    ),
    Route(
        "POST",
        _ONE + "/attach",
        attach,
        "Bring a data bundle into a running notebook, below `~/attached`; from its next start on"
        " the data are the notebook's. The answer comes at once, as for saving.",
        body=AttachRequest,
        answer=Errand,
        status=202,
        errors=(NotFound, Conflict),
    ),
    Route(
        "GET",
        _ONE + "/errands/{errand}",
        get_errand,
        "How saving or attaching stands; waits for news of it, if told so.",
        query=Wait,
        answer=Errand,
        errors=(NotFound,),
    ),
    Route(
        "POST",
        _ONE + "/errands/{errand}",
        report,
        "The notebook's own server tells how far it is, and what it found.",
        right=Right.REPORT,
        body=ErrandReport,
        answer=Errand,
        errors=(NotFound, Forbidden),
    ),
]
