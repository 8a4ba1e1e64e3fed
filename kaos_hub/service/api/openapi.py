"""OpenAPI 3.1 from the route table and the models."""

import re
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from kaos_hub import __version__
from kaos_hub.errors import (
    Forbidden,
    InvalidRequest,
    KaosError,
    NotAuthenticated,
    NotFound,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unavailable,
)
from kaos_hub.schemas import ErrorBody, Model
from kaos_hub.service.api.routes import LONGEST_NAME, Route
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.auth.owners import HEADER

_REF = "#/components/schemas/{model}"

_DESCRIPTION = """Bundles, notebooks, trainings and models of kaos_hub.

Send a JupyterHub token as `Authorization: token …` (or `Bearer …`). Errors have the shape of
`ErrorBody`; `code` is stable and meant for programs, `message` is for people."""

_OWNER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "whose things are meant, `group:vision` or `user:ada`; also as the parameter"
    " `owner` of the query. None: the asking user's",
    "schema": {"type": "string"},
}

_RETRY_AFTER = {
    "Retry-After": {
        "description": "seconds after which it may be asked again",
        "schema": {"type": "integer", "minimum": 1},
    }
}

_RIGHTS = {
    Right.ANYONE: "Needs no login.",
    Right.USE: "",
    Right.MANAGE: "Not with a notebook's own token.",
    Right.REPORT: "Only with the token of that notebook's own server.",
}


def openapi(routes: list[Route], server: str) -> dict[str, Any]:
    """Return the document for these routes.

    Args:
        routes: all routes.
        server: the path they are below, e.g. ``/services/kaos/api/v1``.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "kaos_hub", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"}
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    described = " ".join(part for part in (route.summary, _RIGHTS[route.right]) if part)
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary.split(". ")[0].rstrip("."),
        "description": described,
        "tags": [route.path.split("/")[1]],
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(route),
            *([_OWNER] if route.shared else []),
        ],
        "responses": _responses(route),
    }
    if route.right is Right.ANYONE:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = _content("application/json", _reference(route.body), True)
    elif route.reader:
        binary = {"type": "string", "format": "binary"}
        operation["requestBody"] = _content("application/octet-stream", binary, True)
    return operation


def _operation_id(route: Route) -> str:
    words = re.sub(r"[{}]", "", f"{route.method.lower()}{route.path}")
    return re.sub(r"[^a-z0-9]+", "_", words).strip("_")


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
        }
        for name in route.parameters
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    properties = route.query.model_json_schema(ref_template=_REF)["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": schema,
        }
        for name, schema in properties.items()
    ]


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {str(route.status): {"description": "Done.", **_answer(route)}}
    general: tuple[type[KaosError], ...] = (InvalidRequest, TooManyRequests, Unavailable)
    if route.right is not Right.ANYONE:
        general += (NotAuthenticated, Forbidden)
    if route.parameters or route.shared:
        general += (NotFound,)
    if route.body is not None or route.reader:
        general += (TooSlow, TooLarge)
    for error in general + route.errors:
        known = responses.setdefault(
            str(error.status),
            {"description": "", **_content("application/json", _reference(ErrorBody))},
        )
        if error is TooManyRequests:
            known["headers"] = _RETRY_AFTER
        line = f"`{error.code}`: {(error.__doc__ or '').strip()}"
        if line not in known["description"]:
            known["description"] = f"{known['description']}\n\n{line}".strip()
    return responses


def _answer(route: Route) -> dict[str, Any]:
    streams = {media: {"schema": {"type": "string"}} for media in route.media}
    inner = _item_model(route.answer)
    if inner is None:
        return {"content": streams or {"application/json": {"schema": {"type": "object"}}}}
    schema = _reference(inner)
    if inner is not route.answer:
        schema = {"type": "array", "items": schema}
    return {"content": {"application/json": {"schema": schema}, **streams}}


def _content(media: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"content": {media: {"schema": schema}}}
    return content | {"required": True} if required else content


def _item_model(answer: Any) -> type[Model] | None:
    """Return the model of an answer that is one or a list of it; None for other answers."""
    candidate = (get_args(answer) or (answer,))[0]
    return candidate if isinstance(candidate, type) and issubclass(candidate, Model) else None


def _reference(model: type[Model]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def _schemas(routes: list[Route]) -> dict[str, Any]:
    used: dict[type[Model], None] = {ErrorBody: None}
    for route in routes:
        for model in (route.body, route.query, _item_model(route.answer)):
            if model is not None:
                used[model] = None
    _, document = models_json_schema([(model, "validation") for model in used], ref_template=_REF)
    schemas: dict[str, Any] = document["$defs"]
    return schemas
