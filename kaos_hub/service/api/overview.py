"""Event streams for the first page: the events of the other one of our services.

A browser's session with one service is of no use with the other, and the first page of either shows
notebooks and trainings alike, as far as its reader may have both.
"""

from kaos_hub.errors import Forbidden
from kaos_hub.service.api import notebooks as handlers_notebooks, trainings as handlers_trainings
from kaos_hub.service.api.routes import Call, Events, Route
from kaos_hub.service.auth.auth import KAOS, TRAIN


async def notebooks(call: Call) -> Events:
    """Stream the events of all notebooks of the caller."""
    call.caller.reach(KAOS)
    return await handlers_notebooks.all_events(call)


async def trainings(call: Call) -> Events:
    """Stream the events of all trainings of the caller."""
    call.caller.reach(TRAIN)
    return await handlers_trainings.all_events(call)


OF_KAOS = Route(
    "GET",
    "/trainings/events",
    trainings,
    "What happens to all trainings of the asker, who must have access to kaos-train, too: what"
    " `/events` of that says.",
    media=("text/event-stream",),
    errors=(Forbidden,),
)
OF_TRAIN = Route(
    "GET",
    "/notebooks/events",
    notebooks,
    "What happens to all notebooks of the asker, who must have access to kaos, too: what"
    " `/notebooks/events` of that says.",
    media=("text/event-stream",),
    errors=(Forbidden,),
)
