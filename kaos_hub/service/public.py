"""The public application: API, pages, health, trees for workloads, the Hub's OAuth callback."""

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import Application

from kaos_hub.datadir import DataDir
from kaos_hub.errors import KaosError
from kaos_hub.service.api import api_rules
from kaos_hub.service.api_table import all_routes
from kaos_hub.service.auth import KaosHubAuth
from kaos_hub.service.core import Core
from kaos_hub.service.fetching import fetch_rules
from kaos_hub.service.health import Health, HealthHandler
from kaos_hub.service.listings import Listings
from kaos_hub.service.login import Logins
from kaos_hub.service.metrics import Metrics
from kaos_hub.service.pages import PageHandler, page_rules
from kaos_hub.service.routes import by_path
from kaos_hub.service.streaming import StreamingHandler
from kaos_hub.service.templating import Pages
from kaos_hub.service.web import log_request
from kaos_hub.tickets import Tickets

if TYPE_CHECKING:
    from kaos_hub.service.config import ServiceConfig

API = "api/v1"


class OAuthCallback(PageHandler, HubOAuthCallbackHandler):
    """Where the Hub sends a browser back after login. Its errors are pages like all others."""

    route_name = "/oauth_callback"

    async def prepare(self) -> None:
        # Somebody who is logged in and comes back here late is sent on, not refused.
        with contextlib.suppress(KaosError):
            await self.identify()


def public_app(
    config: "ServiceConfig", core: Core, data: DataDir, metrics: Metrics, health: Health
) -> Application:
    """The application behind the proxy.

    Args:
        config: the settings; also the Hub's, which are in the same file.
        core: the service's parts.
        data: for the secrets that sign cookies and tickets.
        metrics: counts requests.
        health: looks at database and engine.
    """
    auth = KaosHubAuth.instance(config=config.config)
    prefix, service = auth.base_url, auth.base_url.strip("/").rpartition("/")[2]
    logins, streams = Logins(), set[StreamingHandler]()
    metrics.watch_streams(streams)
    table = by_path(all_routes(logins, prefix + API))
    pages = Pages(config.config.JupyterHub, auth.hub_prefix, auth.hub_host, prefix, service)
    return Application(
        [
            (f"{prefix}health", HealthHandler, {"health": health}),
            (f"{prefix}oauth_callback", OAuthCallback),
            *fetch_rules(prefix, Listings(core.versions.read), Tickets(data.secret("tickets"))),
            *api_rules(table, prefix + API),
            *page_rules(prefix),
        ],
        core=core,
        service_name=service,
        pages=pages,
        logins=logins,
        metrics=metrics,
        loose_ends=set(),
        streams=streams,
        cookie_secret=data.secret("service-cookie"),
        static_hash_cache=True,
        log_function=log_request,
        # Not `xsrf_cookies`: tornado would check before anybody knows who asks. See auth.caller.
        login_url=urlsplit(auth.login_url).path,
    )
