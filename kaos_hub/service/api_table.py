"""All routes of the API, and the document that describes them."""

import json
from typing import Any

from kaos_hub.service import handlers_bundles, handlers_info, handlers_notebooks, login
from kaos_hub.service.auth import Right
from kaos_hub.service.openapi import openapi
from kaos_hub.service.routes import Call, Route


def all_routes(logins: login.Logins, server: str) -> list[Route]:
    """The table.

    Args:
        logins: the logins that wait.
        server: the path of the API, e.g. ``/services/kaos/api/v1``.
    """
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
        *handlers_notebooks.ROUTES,
        *login.routes(logins),
    ]
    return table
