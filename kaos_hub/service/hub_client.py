"""The Hub as the service sees it: servers of users, over its REST API."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from kaos_hub.errors import Forbidden, HubUnavailable, KaosError, LimitExceeded, NotBuilt, NotFound

_SOON = 5.0
"""Seconds that the Hub has to say who owners are. It needs a few milliseconds."""


@dataclass(frozen=True)
class Server:
    """One server of a user."""

    user: str
    name: str
    ready: bool
    pending: str | None

    @property
    def active(self) -> bool:
        return self.ready or self.pending is not None


@dataclass(frozen=True)
class HubUser:
    """A user as the Hub has it now."""

    identity: str
    name: str
    groups: Mapping[str, str]
    """Identities by the names of the groups that the user is in."""


@dataclass(frozen=True)
class Progress:
    """A line of a starting server's progress."""

    message: str
    progress: int = 0
    ready: bool = False
    failed: bool = False


class Hub:
    """A client of the Hub's API.

    Args:
        api_url: ``JUPYTERHUB_API_URL``.
        token: the service's own token, with the scopes of its role.
        context: for TLS, if the Hub speaks it.
    """

    def __init__(self, api_url: str, token: str, context: ssl.SSLContext | None = None) -> None:
        self._url, self._token = api_url.rstrip("/"), token
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self, method: str, path: str, **kwargs: Any) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Authorization": f"token {self._token}"},
                connector=aiohttp.TCPConnector(ssl=self._context or True),
            )
        kwargs.setdefault("timeout", aiohttp.ClientTimeout(total=60))
        return self._session.request(method, self._url + path, **kwargs)

    async def _call(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        try:
            async with self._open(method, path, **kwargs) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as e:
            raise HubUnavailable(
                f"The Hub does not answer ({type(e).__name__}). Try again in a moment; on its"
                " machine, `kaos doctor` tells why."
            ) from e
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = {"message": text[:200]}
        if response.status >= 400 and not (isinstance(body, dict) and "status" in body):
            # Where a name still leads to an address of yesterday, another program may answer. Its
            # answer that a server is not there must not be believed.
            raise HubUnavailable(
                f"What answers HTTP {response.status} at {self._url} is not the Hub. Try again in a"
                " moment."
            )
        if response.status in (502, 503, 504):
            raise HubUnavailable(
                f"The Hub answers HTTP {response.status}. Its log tells why; try again in a moment."
            )
        return response.status, body

    @staticmethod
    def _server_path(user: str, server: str) -> str:
        path = f"/users/{quote(user, safe='')}"
        return f"{path}/servers/{quote(server)}" if server else f"{path}/server"

    async def server(self, user: str, server: str) -> Server | None:
        """The server, or None if the Hub has none of that name."""
        status, body = await self._call("GET", f"/users/{quote(user, safe='')}")
        if status == 404:
            return None
        _check(status, body)
        model = (body.get("servers") or {}).get(server)
        return None if model is None else _server(user, model)

    async def owners(
        self,
        names: Collection[str] = (),
        identities: Collection[str] = (),
        groups: Collection[str] = (),
    ) -> tuple[list[HubUser], dict[str, str]]:
        """Users by name or identity, and names of groups by identity; what is gone is left out.

        Raises:
            HubUnavailable: the Hub does not answer soon.
        """
        asked = {"names": list(names), "identities": list(identities), "groups": list(groups)}
        soon = aiohttp.ClientTimeout(total=_SOON)
        status, body = await self._call("POST", "/kaos/owners", json=asked, timeout=soon)
        if status == 404:
            raise HubUnavailable(
                "The Hub does not say who its users are: it was not started with the"
                " jupyterhub_config.py of this kaos_hub. `kaos doctor` tells more."
            )
        _check(status, body)
        users = [
            HubUser(
                str(user["identity"]),
                str(user["name"]),
                {str(group["name"]): str(group["identity"]) for group in user["groups"]},
            )
            for user in body["users"]
        ]
        return users, {str(group["identity"]): str(group["name"]) for group in body["groups"]}

    async def active(self) -> list[Server]:
        """All servers that run, start or stop, of all users."""
        found: list[Server] = []
        offset, page = 0, 200
        while True:
            status, body = await self._call(
                "GET", f"/users?state=active&offset={offset}&limit={page}"
            )
            _check(status, body)
            for user in body:
                servers = (_server(user["name"], s) for s in (user.get("servers") or {}).values())
                found += [s for s in servers if s.active]
            if len(body) < page:
                return found
            offset += page

    async def start(self, user: str, server: str, options: dict[str, Any]) -> None:
        """Ask for a server. Returns once it is ready or on its way.

        Raises:
            KaosError: the Hub, or our own admission behind it, refused; in its words.
        """
        status, body = await self._call(
            "POST", self._server_path(user, server), json={"user_options": options}
        )
        if status == 400 and "already running" in str(body.get("message", "")):
            return
        _check(status, body)

    async def stop(self, user: str, server: str, remove: bool = False) -> None:
        """Stop a server (and, of a named one, let the Hub forget it). Gone already is success."""
        status, body = await self._call(
            "DELETE", self._server_path(user, server), json={"remove": remove}
        )
        if status not in (404, 400):
            _check(status, body)

    async def progress(self, user: str, server: str) -> AsyncIterator[Progress]:
        """A starting server's progress, until it is ready or has failed.

        Ends without either if the Hub knows nothing of the server.
        """
        path = self._server_path(user, server) + "/progress"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        try:
            async with self._open("GET", path, timeout=timeout) as response:
                if response.status != 200:
                    return
                async for line in response.content:
                    if line.startswith(b"data:"):
                        seen = json.loads(line[5:])
                        yield Progress(
                            message=str(seen.get("message", "")),
                            progress=int(seen.get("progress", 0)),
                            ready=bool(seen.get("ready")),
                            failed=bool(seen.get("failed")),
                        )
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as e:
            raise HubUnavailable(
                f"The Hub does not answer ({type(e).__name__}). Try again in a moment; on its"
                " machine, `kaos doctor` tells why."
            ) from e


def _server(user: str, model: dict[str, Any]) -> Server:
    return Server(user, model["name"], bool(model.get("ready")), model.get("pending") or None)


def _check(status: int, body: Any) -> None:
    if status < 400:
        return
    message = str((body or {}).get("message") or f"The Hub answers HTTP {status}.")
    by_status: dict[int, type[KaosError]] = {
        403: Forbidden,
        404: NotFound,
        409: NotBuilt,
        429: LimitExceeded,
    }
    raise by_status.get(status, KaosError)(message)
