"""A page of the Hub's that stands between a person and another user's server.

Without a domain per user, what a user's server shows could do all that its visitor may in the Hub.
``proxy/gate.mjs`` sends each visitor here who has not said yes.
"""

import hashlib
import hmac
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyterhub.handlers.base import BaseHandler
from tornado import web

_OWN = 7 * 24 * 3600
_OTHER = 3600
"""Seconds for which a yes is good."""
_USER = re.compile(r"user/([^/]+)(?:/([^/]*))?")


def cookie_of(token: str, user: str, session: str, until: int) -> tuple[str, str]:
    """Name and value of the cookie with which the proxy lets a browser through.

    Args:
        token: the secret that the Hub and its proxy share.
        user: whose servers.
        session: the browser's session with the Hub.
        until: seconds since 1970.
    """
    key = hmac.new(token.encode(), b"kaos visits", hashlib.sha256).digest()
    said = f"{user}\n{until}\n{session}".encode()
    name = "kaos-visit-" + hashlib.sha256(user.encode()).hexdigest()[:16]
    return name, f"{until}.{hmac.new(key, said, hashlib.sha256).hexdigest()}"


class VisitHandler(BaseHandler):
    """``/hub/kaos/visit?next=/user/…``: may this browser show what a user's server answers?"""

    @web.authenticated
    async def get(self) -> None:
        """Send the user on to their own server; ask first if it is another user's."""
        owner, _ = self._meant()
        if owner == self.current_user.name:
            self._let_through(owner, _OWN)
            return
        html = await self.render_template(
            "kaos_visit.html", owner=owner, next=self.get_argument("next"),
            admin=self.current_user.admin,
        )  # fmt: skip
        self.set_header("Cache-Control", "no-store")
        self.finish(html)

    @web.authenticated
    def post(self) -> None:
        """The person has said yes: pages themselves cannot, without this page's XSRF token."""
        owner, _ = self._meant()
        self._let_through(owner, _OTHER)

    def _meant(self) -> tuple[str, str]:
        """Return the owner and the name of the server that is meant.

        Raises:
            HTTPError: the address is none of a server, or the visitor may not enter it.
        """
        parts = urlsplit(self.get_argument("next", ""))
        path = unquote(parts.path)
        base = str(self.base_url)
        match = _USER.match(path.removeprefix(base)) if path.startswith(base) else None
        if parts.scheme or parts.netloc or match is None or "\\" in path or path[:2] == "//":
            raise web.HTTPError(400, "That is not the address of a server.")
        owner, server = match[1], match[2] or ""
        if owner != self.current_user.name and not self._may_enter(owner, server):
            raise web.HTTPError(403, f"You have no access to servers of {owner}.")
        return owner, server

    def _may_enter(self, owner: str, server: str) -> bool:
        user = self.find_user(owner)
        if user is None:
            return False
        allowed = self.get_scope_filter("access:servers")
        return any(allowed(each, kind="server") for each in user.orm_user._orm_spawners)

    def _let_through(self, owner: str, seconds: int) -> None:
        token: Any = self.settings["proxy"].auth_token
        session = self.get_session_cookie() or ""
        name, value = cookie_of(token, owner, session, int(time.time()) + seconds)
        secure = self.request.protocol == "https"
        self.set_cookie(
            name, value, path=self.base_url, httponly=True, samesite="Lax", secure=secure
        )
        self.redirect(self.get_argument("next"))
