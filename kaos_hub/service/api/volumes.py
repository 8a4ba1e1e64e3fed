"""Volumes over REST."""

from kaos_hub.errors import Conflict, EngineUnavailable, LimitExceeded, NotFound
from kaos_hub.schemas import Model, Volume, VolumeRequest
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


class Deleted(Model):
    """The volume that is deleted."""

    deleted: str


async def list_volumes(call: Call) -> list[Volume]:
    """List all volumes of the owner."""
    return await call.core.volumes.list(call.owner)


async def create(call: Call) -> Volume:
    """Make a volume."""
    request: VolumeRequest = call.body
    return await call.core.volumes.create(call.owner, request.name)


async def delete(call: Call) -> Deleted:
    """Delete a volume with all that is in it."""
    await call.core.volumes.delete(call.owner, call.path["name"])
    return Deleted(deleted=call.path["name"])


ROUTES = [
    Route("GET", "/volumes", list_volumes, "All volumes, by name.", answer=list[Volume]),
    Route(
        "POST",
        "/volumes",
        create,
        "Make a volume. A deploy that names one makes it, too.",
        body=VolumeRequest,
        answer=Volume,
        status=201,
        errors=(Conflict, LimitExceeded),
    ),
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
