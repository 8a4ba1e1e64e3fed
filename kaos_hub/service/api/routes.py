"""The table of the REST API: one list of routes, from which both handlers and OpenAPI are made."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from kaos_hub.errors import KaosError
from kaos_hub.schemas import Model
from kaos_hub.service.auth.auth import Caller, Right
from kaos_hub.service.core import Core
from kaos_hub.service.web.sse import Message

JSON_LIMIT = 1 << 20
"""Bytes of a JSON body, unless the route says otherwise."""

LONGEST_NAME = 255
"""Characters of a name in an address."""


@dataclass(frozen=True)
class Call:
    """One request, checked and parsed."""

    core: Core
    asker: Caller | None
    path: Mapping[str, str]
    query: Any
    """The route's query model."""
    body: Any
    """The route's body model, or what the route's own reader made of the body."""
    accept: str
    last_event_id: int | None
    remote_ip: str
    origin: str
    """The scheme, host and port that the caller used."""
    whose: str | None = None
    """The owner whose things are meant, on routes where that can be chosen."""

    @property
    def caller(self) -> Caller:
        """The calling user, on routes that need a login."""
        assert self.asker is not None, "the route needs a login"
        return self.asker

    @property
    def owner(self) -> str:
        """The owner whose things are meant."""
        return self.whose or self.caller.owner


@dataclass(frozen=True)
class Download:
    """An answer that is streamed as it is."""

    content: AsyncIterator[bytes]
    media_type: str
    filename: str | None = None
    """The name under which it is offered as a file."""


@dataclass(frozen=True)
class Events:
    """An answer that is a stream of events."""

    messages: AsyncIterator[Message]


Answer = Model | list[Any] | dict[str, Any] | Download | Events
Endpoint = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One operation of the API."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    right: Right = Right.USE
    body: type[Model] | None = None
    query: type[Model] | None = None
    answer: Any = None
    """The model (or list of a model) of a JSON answer."""
    status: int = 200
    media: tuple[str, ...] = ()
    """Media types of a streamed answer."""
    limit: int = JSON_LIMIT
    errors: tuple[type[KaosError], ...] = ()
    reader: str = ""
    """The reader of the body. ``objects``: the body is a stream of objects, not JSON."""
    shared: bool = False
    """True if a group may own the things as well: requests may name the owner."""
    costly: bool = False
    """True if it may take a second: only a few such requests of one user are worked on at once."""
    uploads: bool = False
    """True if a ticket for uploads does as well as a login."""

    @property
    def pattern(self) -> str:
        """The path as a regular expression with named groups."""
        return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in the path."""
        return re.findall(r"\{(\w+)\}", self.path)


def by_path(routes: list[Route]) -> dict[str, dict[str, Route]]:
    """Return routes by path, then by method."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = table.setdefault(route.path, {})
        if route.method in methods:
            raise ValueError(f"two routes for {route.method} {route.path}")
        methods[route.method] = route
    return table


@cache
def any_json() -> TypeAdapter[Any]:
    """Return the adapter that writes any answer of an endpoint as JSON."""
    return TypeAdapter(Any)
