"""Volumes over REST."""

from kaos_hub.errors import Conflict, EngineUnavailable, NotFound
from kaos_hub.models import Model, Volume
from kaos_hub.service.auth import Right
from kaos_hub.service.routes import Call, Route


class Deleted(Model):
    """The volume is deleted."""

    deleted: str


async def list_volumes(call: Call) -> list[Volume]:
    """All of the owner's."""
    return await call.core.volumes.list(call.owner)


async def delete(call: Call) -> Deleted:
    """Delete one with all that is in it."""
    await call.core.volumes.delete(call.owner, call.path["name"])
    return Deleted(deleted=call.path["name"])


ROUTES = [
    Route("GET", "/volumes", list_volumes, "All volumes, by name.", answer=list[Volume]),
    Route(
        "DELETE",
        "/volumes/{name}",
        delete,
        "Delete a volume with all files in it. One that a notebook uses is refused.",
        right=Right.MANAGE,
        answer=Deleted,
        errors=(NotFound, Conflict, EngineUnavailable),
    ),
]
