"""All routes of the API, and the documents that describe them.

Two services of the Hub stand before one process. Access to ``kaos`` gives bundles and notebooks,
access to ``kaos-train`` gives bundles, trainings and models: so either right is of use alone.
"""

import json
from typing import Any

from kaos_hub.service import (
    handlers_bundles,
    handlers_errands,
    handlers_git,
    handlers_info,
    handlers_models,
    handlers_notebooks,
    handlers_overview,
    handlers_owners,
    handlers_trainings,
    handlers_volumes,
    login,
)
from kaos_hub.service.auth import Right
from kaos_hub.service.openapi import openapi
from kaos_hub.service.routes import Call, Route


def all_routes(logins: login.Logins, server: str) -> list[Route]:
    """Return the routes of the service ``kaos``.

    Args:
        logins: the logins that wait.
        server: the path of the API, e.g. ``/services/kaos/api/v1``.
    """
    own = [*handlers_notebooks.ROUTES, *handlers_errands.ROUTES, *handlers_git.ROUTES]
    own += [*handlers_volumes.ROUTES, *handlers_owners.ROUTES]
    return _table([*own, handlers_overview.OF_KAOS], logins, server)


def training_routes(logins: login.Logins, server: str) -> list[Route]:
    """Return the routes of the service ``kaos-train``.

    Args:
        logins: the logins that wait.
        server: the path of the API, e.g. ``/services/kaos-train/api/v1``.
    """
    own = [*handlers_trainings.ROUTES, *handlers_models.ROUTES]
    return _table([*own, handlers_overview.OF_TRAIN], logins, server)


def _table(own: list[Route], logins: login.Logins, server: str) -> list[Route]:
    document: dict[str, Any] = {}

    async def describe(call: Call) -> dict[str, Any]:
        # Made when first asked for: most services are never asked.
        if not document:
            document.update(json.loads(json.dumps(openapi(table, server))))
        return document

    table = [
        *handlers_info.ROUTES,
        Route("GET", "/openapi.json", describe, "This document.", right=Right.ANYONE),
        *handlers_bundles.ROUTES,
        *own,
        *login.routes(logins, service_of(server)),
    ]
    return table


def service_of(server: str) -> str:
    """Return the name of the Hub's service whose API is below a path."""
    return server.split("/services/", 1)[1].partition("/")[0]
