"""The private listener: spawners ask here what may start. The proxy never routes to it."""

import contextlib
import hmac
import json
from datetime import datetime
from typing import Any

from tornado.web import Application, HTTPError, RequestHandler

from kaos_hub.errors import Forbidden, InvalidRequest, KaosError, NotFound
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import (
    DEFAULT_SERVER,
    AdmissionRequest,
    BundleKind,
    Model,
    NotebookName,
    ReleaseRequest,
    parse_request,
)
from kaos_hub.service.api.routes import any_json
from kaos_hub.service.core import Core
from kaos_hub.service.health import Health, HealthHandler
from kaos_hub.service.metrics import CONTENT_TYPE, Metrics
from kaos_hub.service.web.base import as_kaos_error, log_request, status_of

_TICKET = 3600
"""Seconds for which a form can send folders."""
_OFFERED = 200
"""Versions of bundles that a form offers."""


class _Private(RequestHandler):
    """Base of the private handlers. It refuses requests without the secret, and unclear ones."""

    opened_by = "admission"

    @property
    def core(self) -> Core:
        """The service behind the handlers."""
        core: Core = self.settings["core"]
        return core

    def prepare(self) -> None:
        given = self.request.headers.get("Authorization", "").encode("utf-8", "replace")
        expected = f"Bearer {self.settings[f'{self.opened_by}_secret']}".encode()
        # In constant time, or the secret could be found byte by byte.
        if not hmac.compare_digest(given, expected):
            raise Forbidden("This address is for spawners only.")

    def json_body(self) -> Any:
        """Return the request's body, read as JSON.

        Raises:
            InvalidRequest: it is not JSON.
        """
        try:
            return json.loads(self.request.body)
        except ValueError:
            raise InvalidRequest("The body is not JSON.") from None

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Do nothing: an incident is logged where it gets its id."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with an error, as JSON."""
        exc_info = kwargs.get("exc_info")
        cause = exc_info[1] if exc_info else HTTPError(status_code)
        error: KaosError = as_kaos_error(cause)
        self.set_status(status_of(cause))
        self.finish(error.body())


class StartHandler(_Private):
    """``POST /admission/start``: the admission of a server, with its specification."""

    route_name = "/admission/start"

    async def post(self) -> None:
        """Answer an :class:`AdmissionRequest` with a :class:`NotebookSpec`, or with a reason."""
        request = parse_request(AdmissionRequest, self.json_body())
        spec = await self.core.gate.admit(request)
        self.set_header("Content-Type", "application/json")
        self.finish(spec.model_dump_json())


class ReleaseHandler(_Private):
    """``POST /admission/release``: the release of what a server held."""

    route_name = "/admission/release"

    async def post(self) -> None:
        """Take a :class:`ReleaseRequest`: the server holds nothing any more."""
        await self.core.gate.release(parse_request(ReleaseRequest, self.json_body()))
        self.finish({})


class _Removed(Model):
    """The server that the Hub forgets."""

    user: str
    identity: str = ""
    server: NotebookName


class RemovedHandler(_Private):
    """``POST /admission/removed``: the Hub is about to forget a server, or a whole user."""

    route_name = "/admission/removed"

    async def post(self) -> None:
        """Delete the notebook once the Hub has forgotten its server.

        Where the Hub forgets the whole user, what the user had stays.
        """
        gone = parse_request(_Removed, self.json_body())
        owner = await self.core.gate.owner(gone.user, gone.identity, current=False)
        await self.core.notebooks.removed_at_hub(owner, gone.server)
        self.finish({})


class OptionsHandler(_Private):
    """``GET /admission/options?user=&identity=&server=&since=``: the offer of that user's form.

    ``since`` is the time at which the user was created: nothing older belongs to the user.
    """

    route_name = "/admission/options"

    async def get(self) -> None:
        """Answer with the bundles, sizes, limits, usage, volumes and mounts that the form offers.

        The answer also has the notebook, if there is one, the choices made last, and a ticket for
        uploads.
        """
        core, user = self.core, self.get_query_argument("user")
        identity = self.get_query_argument("identity", "")
        owner = await core.gate.owner(user, identity)
        server = self.get_query_argument("server", "")
        kinds = {
            "sources": BundleKind.SOURCE, "data": BundleKind.DATA, "contexts": BundleKind.CONTEXT,
        }  # fmt: skip
        name, there = server or DEFAULT_SERVER, None
        with contextlib.suppress(NotFound):
            there = await core.notebooks.get(owner, name)
        begun = max(filter(None, (there.created, there.started))) if there else None
        answer = {
            **{
                name: await core.versions.list(owner, kind, None, _OFFERED)
                for name, kind in kinds.items()
            },
            "offered": _OFFERED,
            "info": core.info,
            "limits": core.ledger.limits(owner),
            "usage": await core.ledger.usage(owner),
            "capacity": core.ledger.capacity,
            "notebook": there,
            "handed": core.handed.of(owner, name, begun),
            "volumes": await core.volumes.list(owner),
            "mounts": core.gate.folders(user),
            "ticket": core.tickets.issue_upload(owner.removeprefix("user:"), _TICKET),
            "last": await core.notebooks.last_choices(owner, _moment(self, "since")),
        }
        self.set_header("Content-Type", "application/json")
        self.finish(any_json().dump_json(answer))


def _moment(handler: RequestHandler, name: str) -> datetime | None:
    text = handler.get_query_argument(name, "")
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidRequest(f"{name} is a moment: 2026-01-31T12:00:00+00:00") from None


class MetricsHandler(_Private):
    """``GET /metrics`` for Prometheus.

    It has a secret of its own, so that the collector of metrics cannot admit servers.
    """

    route_name = "/metrics"
    opened_by = "metrics"

    async def get(self) -> None:
        """Answer with all metrics."""
        metrics: Metrics = self.settings["metrics"]
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(await metrics.render(self.core.db))


def admission_app(core: Core, data: DataDir, metrics: Metrics, health: Health) -> Application:
    """Return the private application; its secrets are those of the data directory."""
    return Application(
        [
            ("/admission/start", StartHandler),
            ("/admission/release", ReleaseHandler),
            ("/admission/removed", RemovedHandler),
            ("/admission/options", OptionsHandler),
            ("/metrics", MetricsHandler),
            ("/health", HealthHandler, {"health": health}),
        ],
        core=core,
        admission_secret=data.secret("admission"),
        metrics_secret=data.secret("metrics"),
        metrics=metrics,
        log_function=log_request,
    )
