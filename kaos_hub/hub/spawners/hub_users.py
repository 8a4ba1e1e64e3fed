"""Users of the Hub who are renamed or deleted while their servers run.

JupyterHub keeps the addresses of a renamed user's servers as they were: another user who takes the
old name then shares them. And it refuses to delete a user whose named servers run. Both are mended
here, in the Hub's process, for the JupyterHub that setup.cfg names.
"""

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote

from jupyterhub.user import User
from jupyterhub.utils import url_escape_path, url_path_join


def install() -> None:
    """Change the Hub's own class of users. Doing it again changes nothing."""
    if getattr(User, "kaos_hub", False):
        return
    User.kaos_hub = True
    User.__setattr__ = _moves_when_renamed(User.__setattr__)
    User.stop = _forgets_old_addresses(User.stop)
    User.delete_spawners = _stops_first(User.delete_spawners)


def _moves_when_renamed(original: Any) -> Any:
    def __setattr__(self: Any, attr: str, value: Any) -> None:
        before = self.name if attr == "name" and self.orm_user else value
        original(self, attr, value)
        if attr == "name" and before != value:
            _move(self)

    return __setattr__


def _move(user: Any) -> None:
    """Give a renamed user addresses of the new name, and leave nothing at the old ones."""
    old = user.base_url
    routes = [_route(user, name) for name, spawner in user.spawners.items() if spawner.active]
    user.base_url = user.prefix = (
        url_path_join(user.settings.get("base_url", "/"), "user", user.escaped_name) + "/"
    )
    if old == user.base_url:
        return
    for name, spawner in list(user.spawners.items()):
        if not spawner.active:
            user.spawners.pop(name)
    for spawner in user.orm_user._orm_spawners:
        # It is known by the old name, and would be shared with a user who takes that.
        spawner.oauth_client = None
    proxy = user.settings.get("proxy")
    if proxy is not None and routes:
        user.kaos_moving = asyncio.ensure_future(_delete_routes(proxy, routes))


def _route(user: Any, server: str) -> str:
    spec = str(user.proxy_spec)
    return str(url_path_join(spec, url_escape_path(server), "/")) if server else spec


async def _delete_routes(proxy: Any, routes: list[str]) -> None:
    for route in routes:
        with contextlib.suppress(Exception):  # the proxy may be away; it is compared later
            await proxy.delete_route(route)


def _forgets_old_addresses(original: Any) -> Any:
    async def stop(self: Any, server_name: str = "") -> None:
        """Stop the server; one that began under another name is made anew by its next start."""
        await original(self, server_name)
        spawner = self.spawners.get(server_name)
        name = f"jupyterhub-user-{quote(self.name)}"
        expected = f"{name}-{quote(server_name)}" if server_name else name
        if spawner is not None and spawner.oauth_client_id != expected and not spawner.active:
            self.spawners.pop(server_name)

    return stop


def _stops_first(original: Any) -> Any:
    async def delete_spawners(self: Any) -> None:
        """Stop the user's servers, named ones too, and delete them."""
        for name, spawner in list(self.spawners.items()):
            if spawner.pending == "spawn" and spawner._spawn_future is not None:
                spawner._spawn_future.cancel()
                await asyncio.wait([spawner._spawn_future], timeout=10)
            if spawner.active:
                await _delete_routes(self.settings["proxy"], [_route(self, name)])
                await self.stop(name)
        # What a removed user had waits for an admin: nothing is deleted with the servers.
        self.kaos_leaving = True
        try:
            await original(self)
        finally:
            self.kaos_leaving = False

    return delete_spawners
