"""Authentication by Hub tokens for the API and Hub OAuth for pages, and each token's rights."""

import asyncio
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from jupyterhub.services.auth import HubOAuth, _ExpiringDict
from tornado.web import HTTPError, RequestHandler
from traitlets import Instance, Integer, Unicode, default

from kaos_hub.errors import Forbidden, HubUnavailable, NotAuthenticated
from kaos_hub.installation.addresses import SERVICES
from kaos_hub.installation.certificates import Certificates
from kaos_hub.schemas import DEFAULT_SERVER

KAOS, TRAIN = SERVICES
"""The Hub's services.

Access to the first is the right to use bundles and notebooks, access to the second the right to use
bundles, trainings and models.
"""

_WHAT = {KAOS: "use kaos", TRAIN: "train"}
"""The uses that access to a service allows, in words."""

_OWN_SERVER = re.compile(r"access:servers!server=(?P<user>[^/]+)/(?P<server>[^/]*)")


_LOGINS_UNDER_WAY = 5000
"""Browsers that may be on their way through the Hub's login at once."""


_HUB_PATIENCE = 15.0
"""Seconds that the Hub has to say whose a token is. It needs a few milliseconds."""


class Right(IntEnum):
    """The right that a request needs, from none to the highest."""

    ANYONE = 0
    """No login."""
    USE = 1
    """The right to read, submit and deploy. A notebook's own token has it as well."""
    MANAGE = 2
    """The right to kill, delete, stop others and confirm logins. No notebook's own token has it."""
    REPORT = 3
    """The right to report a server's state. Only the token of that very server has it."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request."""

    user: str
    admin: bool = False
    notebook: str | None = None
    """The notebook whose own token this is, else None. Such a token may read, submit and deploy."""
    cookie: bool = False
    """True for a browser's session, false for a token."""
    services: frozenset[str] = frozenset()
    """Those of our services that the token may use."""
    identity: str = ""
    """The user's identity at the Hub. It stays the same when the user is renamed."""
    known_as: str = ""
    """The owner that was found to belong to the identity."""

    @property
    def owner(self) -> str:
        """The owner of what this user makes."""
        return self.known_as or f"user:{self.user}"

    @property
    def author(self) -> str:
        """The author recorded with what this user makes: the owner without its kind."""
        return self.owner.removeprefix("user:")

    def reach(self, service: str) -> None:
        """Check that another of our services may be used, too.

        Raises:
            Forbidden: it may not; the message names the scope that this needs.
        """
        if service not in self.services:
            raise _no_access(service, self.notebook)

    def require(self, right: Right, notebook: str | None = None) -> None:
        """Check a right, for the notebook of that name where one is meant.

        Raises:
            Forbidden: the token lacks it; the message says what to use instead.
        """
        if right is Right.REPORT and (self.notebook is None or self.notebook != notebook):
            raise Forbidden("Only the notebook's own server may report its activity.")
        if right is Right.MANAGE and self.notebook is not None:
            raise Forbidden(
                f"The token of notebook {self.notebook!r} may read, submit and deploy, not do this."
                " Use the pages, or `kaos login` on your own machine."
            )


def caller_of(model: dict[str, Any], *, service: str, cookie: bool) -> Caller:
    """Return the caller that the Hub's answer about a token describes.

    A server's own token is known by its scope ``access:servers!server=user/name``: tokens that
    people make, and those of browser sessions, reach all servers of the user or none.

    Raises:
        Forbidden: the token lacks the right to use this service, or is another service's.
    """
    scopes = set(model.get("scopes") or ())
    user, services = str(model.get("name")), _services(scopes)
    # A renamed user's servers have tokens that name them as they were called.
    lost = set(model.get("made_with") or ()) - scopes
    own = _own_server(user, scopes) or _own_server(None, lost)
    if service not in services:
        raise _no_access(service, own)
    if model.get("kind", "user") != "user":
        raise Forbidden(
            "Only users have bundles and notebooks; this token is a service's. Use one of a user:"
            " `kaos token` prints yours."
        )
    identity = str(model.get("identity") or "")
    return Caller(user, bool(model.get("admin")), own, cookie, services, identity)


def _no_access(service: str, notebook: str | None) -> Forbidden:
    whose = "This token" if notebook is None else f"The token of notebook {notebook!r}"
    todo = "Run `kaos login`, or ask the admin for that scope."
    if notebook is not None:
        # It was given what its user had when it started.
        todo = "Ask the admin for that scope; who has it restarts the notebook."
    lacks = f"it lacks the scope {_access(service)}"
    what = _WHAT.get(service, "use this")
    return Forbidden(f"{whose} may not {what}: {lacks}. {todo}", scope=_access(service))


def _access(service: str) -> str:
    """Return the scope of the Hub that allows the use of a service."""
    return f"access:services!service={service}"


def _services(scopes: set[str]) -> frozenset[str]:
    """Return those of our services that a token with these scopes may use."""
    everything = "access:services" in scopes
    return frozenset(s for s in SERVICES if everything or _access(s) in scopes)


def _own_server(user: str | None, scopes: Iterable[str]) -> str | None:
    for scope in scopes:
        match = _OWN_SERVER.fullmatch(scope)
        if match and user in (None, match["user"]):
            return match["server"] or DEFAULT_SERVER
    return None


class BoundedCache(_ExpiringDict):
    """The Hub's answers for a short while, never more than ``size`` of them.

    Tokens and session ids come from strangers: without a bound they could fill our memory.
    """

    def __init__(self, max_age: int, size: int) -> None:
        super().__init__(max_age)
        self._size = size

    def __setitem__(self, key: str, value: object) -> None:
        while len(self.values) >= self._size and key not in self.values:
            oldest = next(iter(self.values))
            del self[oldest]
        super().__setitem__(key, value)


class KaosHubAuth(HubOAuth):
    """Hub OAuth that forgets soon, and asks the Hub without blocking the event loop."""

    cache_max_age = Integer(
        20,
        help="""Seconds for which the Hub's answer about a token is believed.

        A revoked token works that long. Shorter is safer, longer spares the Hub a request
        (a few milliseconds) per token and period.""",
    ).tag(config=True)

    cache_size = Integer(
        2000,
        help="""Tokens (count) of which the Hub's answer is remembered at once.

        Beyond it the oldest is forgotten and asked again. 2000 take about 2 MB.""",
    ).tag(config=True)

    cache = Instance(_ExpiringDict, allow_none=False)

    # JupyterHub would read these anew for each request; ours are read once.
    certfile = Unicode("")
    keyfile = Unicode("")

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        certificates = Certificates.of_service()
        return certificates.service_client() if certificates else None

    async def _api_request(self, method: str, url: str, /, **kwargs: Any) -> Any:
        if self._context is not None:
            kwargs["ssl"] = self._context
        return await super()._api_request(method, url, **kwargs)

    @default("cache")
    def _bounded_cache(self) -> BoundedCache:
        return BoundedCache(self.cache_max_age, self.cache_size)

    @default("_oauth_states")
    def _bounded_states(self) -> BoundedCache:
        # Every page asked for without a session leaves one, and anyone may ask.
        return BoundedCache(self.oauth_state_max_age, _LOGINS_UNDER_WAY)

    @property
    def service(self) -> str:
        """The name of our service of the Hub."""
        return str(self.base_url).strip("/").rpartition("/")[2]

    def beside(self, service: str, token: str) -> "KaosHubAuth":
        """Return the authentication of another service of the Hub in this process.

        Each service has cookies, XSRF tokens and logins of its own, below its own path: what a
        browser has for one is of no use for the other. The Hub's answers about tokens are shared by
        both.

        Args:
            service: its name.
            token: its own secret, with which it asks for tokens of browsers that log in.
        """
        prefix = str(self.base_url).removesuffix(f"{self.service}/") + f"{service}/"
        return type(self)(
            config=self.config,
            base_url=prefix,
            api_token=token,
            oauth_client_id=f"service-{service}",
            # The default is made of variables that the Hub sets for the service it starts.
            oauth_redirect_uri=str(self.oauth_redirect_uri).replace(str(self.base_url), prefix),
            access_scopes={_access(service)},
            cache=self.cache,
        )

    def _check_hub_authorization(self, url: str, *args: Any, **kwargs: Any) -> Any:
        # The Hub's own answer, with the identity of the user, which does not change with the name.
        return super()._check_hub_authorization(f"{self.api_url}/kaos/user", *args, **kwargs)

    async def caller(self, handler: RequestHandler) -> Caller | None:
        """Return the sender of the request, or None if the sender is not known.

        A request with a cookie must carry the XSRF token unless it is a plain page view: the Hub's
        rule. One with a token never needs it; tornado's own check would come too early to know, so
        applications here must not set ``xsrf_cookies``.

        Raises:
            HubUnavailable: the Hub did not answer.
            Forbidden: known, but not allowed here; or a cookie without its XSRF token.
        """
        try:
            async with asyncio.timeout(_HUB_PATIENCE):
                model = await self.get_user(handler, sync=False)
        except (HTTPError, TimeoutError) as e:
            raise HubUnavailable(
                "The Hub did not answer when asked who you are. Try again in a moment."
            ) from e
        if model:
            token = bool(getattr(handler, "_token_authenticated", False))
            return caller_of(model, service=self.service, cookie=not token)
        self._explain_xsrf(handler)
        return None

    def _explain_xsrf(self, handler: RequestHandler) -> None:
        """Refuse a logged-in browser without XSRF token with that reason.

        Otherwise it would be asked to log in.
        """
        if self.get_token(handler, in_cookie=False) or not self._get_token_cookie(handler):
            return
        try:
            handler.check_xsrf_cookie()
        except HTTPError:
            raise Forbidden(
                "The request lacks the page's XSRF token. Reload the page and try again.",
                stale=True,
            ) from None

    def page_token(self, handler: RequestHandler) -> str:
        """Return the access token behind a browser's session.

        Raises:
            NotAuthenticated: there is none.
        """
        token = self._get_token_cookie(handler)
        if not token:
            raise NotAuthenticated("This needs a login in the browser.")
        return str(token)
