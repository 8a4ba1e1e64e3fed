"""All routes of the API, and the documents that describe them.

Two services of the Hub stand before one process. Access to ``kaos`` gives bundles and notebooks,
access to ``kaos-train`` gives bundles, trainings and models: so either right is of use alone.
"""

import json
from typing import Any

from kaos_hub.service.api import (
    bundles,
    errands,
    git,
    info,
    login,
    models,
    notebooks,
    overview,
    owners,
    trainings,
    volumes,
)
from kaos_hub.service.api.openapi import openapi
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


def all_routes(logins: login.Logins, server: str) -> list[Route]:
    """Return the routes of the service ``kaos``.

    Args:
        logins: the logins that wait.
        server: the path of the API, e.g. ``/services/kaos/api/v1``.
    """
    own = [*notebooks.ROUTES, *errands.ROUTES, *git.ROUTES]
    own += [*volumes.ROUTES, *owners.ROUTES]
    return _table([*own, overview.OF_KAOS], logins, server)


def training_routes(logins: login.Logins, server: str) -> list[Route]:
    """Return the routes of the service ``kaos-train``.

    Args:
        logins: the logins that wait.
        server: the path of the API, e.g. ``/services/kaos-train/api/v1``.
    """
    own = [*trainings.ROUTES, *models.ROUTES]
    return _table([*own, overview.OF_TRAIN], logins, server)


def _table(own: list[Route], logins: login.Logins, server: str) -> list[Route]:
    document: dict[str, Any] = {}

    async def describe(call: Call) -> dict[str, Any]:
        # Made when first asked for: most services are never asked.
        if not document:
            document.update(json.loads(json.dumps(openapi(table, server))))
        return document

    table = [
        *info.ROUTES,
        Route("GET", "/openapi.json", describe, "This document.", right=Right.ANYONE),
        *bundles.ROUTES,
        *own,
        *login.routes(logins, service_of(server)),
    ]
    return table


def service_of(server: str) -> str:
    """Return the name of the Hub's service whose API is below a path."""
    return server.split("/services/", 1)[1].partition("/")[0]
