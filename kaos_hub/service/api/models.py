"""Models over REST. Users with access to the Hub's service ``kaos-train`` may use all of these."""

from collections.abc import AsyncIterator

from pydantic import Field

from kaos_hub.errors import Conflict, InvalidName, NotFound
from kaos_hub.schemas import Model, ModelId, NameRequest, Provenance, TrainedModel
from kaos_hub.service.api.provenance import dot
from kaos_hub.service.api.routes import Call, Download, Route
from kaos_hub.service.auth.auth import Right

_GRAPHVIZ = "text/vnd.graphviz"


class ListModels(Model):
    """The models to list."""

    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    after: ModelId | None = Field(None, description="id of the last one seen")
    named: bool = Field(False, description="only those that have a name")


class ModelGone(Model):
    """The model whose name was removed."""

    deleted: str


async def list_models(call: Call) -> list[TrainedModel]:
    """List models, the youngest first."""
    q: ListModels = call.query
    return list(await call.core.trainings.models(call.owner, q.limit, q.after, q.named))


async def get_model(call: Call) -> TrainedModel:
    """Return one model."""
    return await call.core.trainings.model(call.owner, call.path["id"])


async def name_model(call: Call) -> TrainedModel:
    """Give a model a name."""
    body: NameRequest = call.body
    owner, user = call.owner, call.caller.author
    return await call.core.trainings.name_model(owner, user, call.path["id"], body.name)


async def delete_model(call: Call) -> ModelGone:
    """Remove a name, or one version of it, from its models."""
    await call.core.trainings.delete_model(call.owner, call.path["id"])
    return ModelGone(deleted=call.path["id"])


async def archive(call: Call) -> Download:
    """Stream all files that the trial left as a tar archive."""
    model = await get_model(call)
    content = await call.core.trainings.model_archive(call.owner, call.path["id"])
    return Download(content, "application/x-tar", f"{model.name or model.id}.tar")


async def provenance(call: Call) -> Provenance | Download:
    """Return the origin of a model, for programs or as a graph."""
    found = await call.core.trainings.provenance(call.owner, call.path["id"])
    if _GRAPHVIZ not in call.accept:
        return found
    return Download(_once(dot(found)), f"{_GRAPHVIZ}; charset=utf-8")


async def _once(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


_ONE = "/models/{id}"

ROUTES = [
    Route(
        "GET",
        "/models",
        list_models,
        "Models: what trials left, the youngest first.",
        query=ListModels,
        answer=list[TrainedModel],
        shared=True,
    ),
    Route(
        "GET",
        _ONE,
        get_model,
        "One model, by id (`<training>.<trial>`), name, or name and version (`mnist@v3`).",
        answer=TrainedModel,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "POST",
        _ONE + "/name",
        name_model,
        "Give a model a name. The same name again makes a new version.",
        body=NameRequest,
        answer=TrainedModel,
        shared=True,
        errors=(NotFound, InvalidName),
    ),
    Route(
        "DELETE",
        _ONE,
        delete_model,
        "Take a name (`mnist`), or one version of it (`mnist@v3`), from its models. What trials"
        " left stays with them.",
        right=Right.MANAGE,
        answer=ModelGone,
        shared=True,
        errors=(NotFound, Conflict),
    ),
    Route(
        "GET",
        _ONE + "/archive",
        archive,
        "All files of a model as a tar archive.",
        media=("application/x-tar",),
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/provenance",
        provenance,
        "All that made a model, as JSON, or as a graph in the language of Graphviz.",
        answer=Provenance,
        media=(_GRAPHVIZ,),
        shared=True,
        errors=(NotFound,),
    ),
]
