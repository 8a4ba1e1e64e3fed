"""The public application: API, pages, health, trees for workloads, the Hub's OAuth callback.

It is two services of the Hub on one port, ``kaos`` and ``kaos-train``. Each has its own path, below
which all of its cookies are, its own OAuth client, and its own right of access.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import Application

from kaos_hub.deployment.default_url import first_page
from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.api.base import api_rules
from kaos_hub.service.api.login import Logins
from kaos_hub.service.api.routes import Route, by_path
from kaos_hub.service.api.table import all_routes, training_routes
from kaos_hub.service.auth.auth import TRAIN, KaosHubAuth
from kaos_hub.service.core import Core
from kaos_hub.service.health import Health, HealthHandler
from kaos_hub.service.metrics import Metrics
from kaos_hub.service.pages.base import PageHandler, common_rules, page_rules
from kaos_hub.service.pages.bundles import bundle_rules
from kaos_hub.service.pages.files import file_rules
from kaos_hub.service.pages.home import home_rules
from kaos_hub.service.pages.models import model_rules
from kaos_hub.service.pages.several import several_rules
from kaos_hub.service.pages.templating import Pages
from kaos_hub.service.pages.trainings import training_rules
from kaos_hub.service.pages.uploads import upload_rules
from kaos_hub.service.pages.volumes import volume_rules
from kaos_hub.service.web.base import log_request
from kaos_hub.service.web.compression import Compression
from kaos_hub.service.web.streaming import StreamingHandler
from kaos_hub.service.web.traffic import Traffic
from kaos_hub.service.workers.fetching import fetch_rules
from kaos_hub.service.workers.listings import Listings
from kaos_hub.service.workers.working import WorkParts, work_rules
from kaos_hub.transport.tickets import Tickets

if TYPE_CHECKING:
    from kaos_hub.service.config.service import ServiceConfig

API = "api/v1"


class OAuthCallback(PageHandler, HubOAuthCallbackHandler):
    """The address to which the Hub sends a browser after login. Its errors are shown as pages."""

    route_name = "/oauth_callback"

    async def prepare(self) -> None:
        # A user who is logged in and comes back here late is sent on, not refused.
        with contextlib.suppress(KaosError):
            await self.identify()


def public_app(
    config: "ServiceConfig", core: Core, data: DataDir, metrics: Metrics, health: Health
) -> Application:
    """Return the application behind the proxy.

    Args:
        config: the settings; also the Hub's, which are in the same file.
        core: the service's parts.
        data: for the secrets that sign cookies and tickets.
        metrics: counts requests.
        health: looks at database and engine.
    """
    # Not JupyterHub's one instance for all: there are two.
    auth = KaosHubAuth(config=config.config)
    train = auth.beside(TRAIN, data.secret("service-train"))
    hub = config.config.JupyterHub
    logins = Logins(hub_leads=hub.get("default_url") is first_page)
    streams = set[StreamingHandler]()
    metrics.watch_streams(streams)
    shared: dict[str, Any] = {
        "core": core,
        "logins": logins,
        "metrics": metrics,
        "loose_ends": set(),
        "streams": streams,
        "traffic": Traffic(config.allowed(), config.pace()),
        "cookie_secret": data.secret("service-cookie"),
        "static_hash_cache": True,
        "log_function": log_request,
    }
    tickets = Tickets(data.secret("tickets"))
    of_kaos = [
        *fetch_rules(auth.base_url, Listings(core.versions.read), tickets),
        *work_rules(auth.base_url, WorkParts(core.db, core.versions, core.trainings, tickets)),
        *_rules(auth, health, all_routes(logins, auth.base_url + API)),
        *home_rules(auth.base_url),
        *volume_rules(auth.base_url),
        *upload_rules(auth.base_url),
        *bundle_rules(auth.base_url),
        *file_rules(auth.base_url),
        *several_rules(auth.base_url),
        *page_rules(auth.base_url),
    ]
    of_train = [
        *_rules(train, health, training_routes(logins, train.base_url + API)),
        *home_rules(train.base_url),
        *upload_rules(train.base_url),
        *bundle_rules(train.base_url),
        *training_rules(train.base_url),
        *model_rules(train.base_url),
        *common_rules(train.base_url),
    ]
    shared["transforms"] = [Compression]
    trainings = Application(of_train, **shared, **_own(train, hub))
    return Application([(f"{train.base_url}.*", trainings), *of_kaos], **shared, **_own(auth, hub))


def _rules(auth: KaosHubAuth, health: Health, routes: list[Route]) -> list[Any]:
    """Return tornado's rules for the addresses that both services have."""
    prefix = auth.base_url
    return [
        (f"{prefix}health", HealthHandler, {"health": health}),
        (f"{prefix}oauth_callback", OAuthCallback),
        *api_rules(by_path(routes), prefix + API),
    ]


def _own(auth: KaosHubAuth, hub: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one of the services."""
    # Not `xsrf_cookies`: tornado would check before the caller is known. See auth.caller.
    return {
        "auth": auth,
        "pages": Pages(hub, auth.hub_prefix, auth.hub_host, auth.base_url),
        "login_url": urlsplit(auth.login_url).path,
    }
