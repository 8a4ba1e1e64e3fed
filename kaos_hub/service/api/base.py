"""The one handler of the REST API. It checks, parses, calls the route's endpoint and answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from tornado.web import HTTPError

from kaos_hub.errors import HubUnavailable, InvalidRequest, KaosError, NotAuthenticated, NotFound
from kaos_hub.schemas import Model, parse_request
from kaos_hub.service.api.routes import (
    JSON_LIMIT,
    LONGEST_NAME,
    Answer,
    Call,
    Download,
    Events,
    Route,
    any_json,
)
from kaos_hub.service.auth.auth import Caller
from kaos_hub.service.auth.owners import HEADER
from kaos_hub.service.web import sse
from kaos_hub.service.web.base import Handler
from kaos_hub.service.web.bodies import BodyHandler
from kaos_hub.service.web.uploads import BodyReader, JsonReader, ObjectReader, check_text, is_text
from kaos_hub.transport.tickets import for_upload


class ApiHandler(BodyHandler):
    """The handler of one path of the API.

    Args:
        routes: the path's routes by method.
    """

    def initialize(self, routes: dict[str, Route]) -> None:
        self.routes = routes
        self._whose: str | None = None

    @property
    def route(self) -> Route:
        """The route that was asked for."""
        route = self.routes.get(self.request.method or "")
        if route is None:
            raise HTTPError(405)
        return route

    @property
    def route_name(self) -> str:
        """The path with its parameters' names, for metrics."""
        return next(iter(self.routes.values())).path

    def allowed_methods(self) -> list[str]:
        return sorted(self.routes)

    async def let_in(self) -> BodyReader | None:
        route = self.route
        named = self.path_kwargs.values()
        if not all(is_text(text) and len(text) <= LONGEST_NAME for text in named):
            raise NotFound("There is nothing with such a name.")
        caller = self._with_ticket(route) or await self.admit(route.right)
        if caller is not None:
            caller.require(route.right, self.path_kwargs.get("name"))
            self._whose = await self._owner(route, caller)
        self.check_announced(route.limit)
        if route.reader == "objects" and self._whose is not None:
            receiver = self.core.versions.receive(self._whose, self.announced)
            return ObjectReader(receiver, self.settings)
        return JsonReader(route.limit) if route.body is not None else None

    def _with_ticket(self, route: Route) -> Caller | None:
        """Return the caller that a ticket for uploads names, or None without such a ticket.

        The ticket stands in for a login on routes of uploads, and only for the user's own bundles.

        Raises:
            NotAuthenticated: the ticket is invalid or has expired.
        """
        scheme, _, given = self.request.headers.get("Authorization", "").partition(" ")
        if not route.uploads or scheme.lower() != "bearer" or not for_upload(given):
            return None
        try:
            author = self.core.tickets.check_upload(given)
        except NotAuthenticated:
            raise NotAuthenticated("The page is too old to send something. Reload it.") from None
        owner = f"user:{author}"
        self.caller = Caller(self.core.identities.name(owner), known_as=owner)
        self.traffic.spend(self.traffic_key)
        self.core.admit(self.caller)
        return self.caller

    async def _owner(self, route: Route, caller: Caller) -> str:
        """Return the owner whose things the request means.

        It is named by a header, or by the query: links and event streams of pages cannot send
        headers.
        """
        if not route.shared or not caller.services:
            return caller.owner
        said = unquote(self.request.headers.get(HEADER, ""))
        said = said or self.get_query_argument("owner", "")
        writes = self.request.method != "GET"
        return await self.core.owners.meant(caller, said, fresh=writes)

    async def _answer(self, **_: str) -> None:
        route = self.route
        if not route.costly:
            await self._send(await self._asked(route))
            return
        async with self.traffic.turn(self.traffic_key):
            answer = await self._asked(route)
        await self._send(answer)

    async def _asked(self, route: Route) -> Answer:
        """Call the route's endpoint and return its answer."""
        call = Call(
            core=self.core,
            asker=self.caller,
            path=self.path_kwargs,
            query=self._query(route),
            body=await self._body(route),
            accept=self.request.headers.get("Accept", ""),
            last_event_id=_event_id(self.request.headers.get("Last-Event-ID")),
            remote_ip=self.request.remote_ip or "",
            origin=f"{self.request.protocol}://{self.request.host}",
            whose=self._whose,
        )
        self.set_status(route.status)
        return await route.endpoint(call)

    get = post = put = patch = delete = _answer

    def _query(self, route: Route) -> Model | None:
        ours = {"_xsrf", "owner"} if route.shared else {"_xsrf"}
        names = self.request.query_arguments.keys() - ours
        given = {name: self.get_query_argument(name) for name in names}
        for text in (*given, *given.values()):
            check_text(text)
        if route.query is None:
            if given:
                unknown = ", ".join(sorted(given))
                raise InvalidRequest(f"unknown parameter: {unknown}; this address takes none")
            return None
        return parse_request(route.query, given)

    async def _body(self, route: Route) -> Any:
        content = await self.content()
        if route.body is None:
            return content
        if route.limit <= JSON_LIMIT:
            return parse_request(route.body, content)
        return await asyncio.to_thread(parse_request, route.body, content)

    async def _send(self, answer: Answer) -> None:
        if isinstance(answer, Download | Events):
            await self._send_stream(answer)
        else:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.finish(any_json().dump_json(answer, by_alias=True))

    async def _send_stream(self, answer: Download | Events) -> None:
        key = self.traffic_key
        try:
            self.traffic.begin("streams", key)
        except KaosError:
            await sse.close(answer.content if isinstance(answer, Download) else answer.messages)
            raise
        try:
            if isinstance(answer, Download):
                await self._send_download(answer)
            else:
                await self._send_events(answer)
        finally:
            self.traffic.end("streams", key)

    async def _send_download(self, download: Download) -> None:
        self.set_header("Content-Type", download.media_type)
        self.set_header("X-Accel-Buffering", "no")
        if download.filename is not None:
            name = download.filename.encode("ascii", "replace").decode().replace('"', "")
            self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        await self.stream(download.content)

    async def _send_events(self, events: Events) -> None:
        for name, value in sse.HEADERS.items():
            self.set_header(name, value)
        # Else a short message waits until the one before is acknowledged, up to 40 ms.
        connection: Any = self.request.connection
        connection.stream.set_nodelay(True)
        # Headers go out at once: a client must see that it is connected before anything happens.
        self.write(sse.COMMENT)
        await self.flush()
        await self.stream(_encoded(events.messages, self._look_again))

    async def _look_again(self) -> None:
        """Check that the caller may still see what the stream is about.

        Streams may last for days, and a user who was removed from a group must get no more of its
        events. If the Hub does not answer, the stream goes on.

        Raises:
            NotFound: the caller is not in it any more.
        """
        if self.caller is not None and self._whose not in (None, self.caller.owner):
            with contextlib.suppress(HubUnavailable):
                await self.core.owners.still(self.caller, str(self._whose))


class UnknownAddress(Handler):
    """Any address below the API that is not a route."""

    async def prepare(self) -> None:
        raise HTTPError(404, f"{self.request.path} is not part of this API")


async def _encoded(
    messages: AsyncIterator[sse.Message], look_again: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Encode messages as bytes.

    An error becomes the last message, because the status line was sent long before.
    """
    stream = sse.with_keepalive(messages)
    try:
        async for message in stream:
            await look_again()
            yield sse.COMMENT if message is None else message.encode()
    except KaosError as e:
        yield sse.Message("error", json.dumps(e.body())).encode()
    finally:
        await sse.close(stream)


def _event_id(value: str | None) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise InvalidRequest("Last-Event-ID is not one of ours")
    return int(value)


def api_rules(
    table: dict[str, dict[str, Route]], prefix: str
) -> list[tuple[str, Any, dict[str, Any]]]:
    """Return tornado's rules for the routes below ``prefix``."""
    rules: list[tuple[str, Any, dict[str, Any]]] = []
    for methods in table.values():
        route = next(iter(methods.values()))
        rules.append((prefix + route.pattern, ApiHandler, {"routes": methods}))
    rules.append((prefix + "/.*", UnknownAddress, {}))
    return rules
