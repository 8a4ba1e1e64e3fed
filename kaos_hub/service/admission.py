"""The private listener: spawners ask here what may start. The proxy never routes to it."""

import hmac
import json
from datetime import datetime
from typing import Any

from tornado.web import Application, HTTPError, RequestHandler

from kaos_hub.datadir import DataDir
from kaos_hub.errors import Forbidden, InvalidRequest, KaosError
from kaos_hub.models import (
    DEFAULT_SERVER,
    AdmissionRequest,
    BundleKind,
    ReleaseRequest,
    parse_request,
)
from kaos_hub.service.core import Core
from kaos_hub.service.health import Health, HealthHandler
from kaos_hub.service.metrics import CONTENT_TYPE, Metrics
from kaos_hub.service.routes import any_json
from kaos_hub.service.web import as_kaos_error, log_request, status_of

_TICKET = 3600
"""Seconds for which a form can send folders."""
_OFFERED = 200
"""Versions of bundles that a form offers."""


class _Private(RequestHandler):
    """Lets in only who knows the secret; anything unclear is a refusal."""

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
        """The request's body.

        Raises:
            InvalidRequest: it is not JSON.
        """
        try:
            return json.loads(self.request.body)
        except ValueError:
            raise InvalidRequest("The body is not JSON.") from None

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Logged, if at all, where an incident gets its id."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Any error, as JSON."""
        exc_info = kwargs.get("exc_info")
        cause = exc_info[1] if exc_info else HTTPError(status_code)
        error: KaosError = as_kaos_error(cause)
        self.set_status(status_of(cause))
        self.finish(error.body())


class StartHandler(_Private):
    """``POST /admission/start``: may this server start, and as what?"""

    route_name = "/admission/start"

    async def post(self) -> None:
        """An :class:`AdmissionRequest`; answers a :class:`NotebookSpec`, or why not."""
        request = parse_request(AdmissionRequest, self.json_body())
        spec = await self.core.gate.admit(request)
        self.set_header("Content-Type", "application/json")
        self.finish(spec.model_dump_json())


class ReleaseHandler(_Private):
    """``POST /admission/release``: a server is gone."""

    route_name = "/admission/release"

    async def post(self) -> None:
        """A :class:`ReleaseRequest`."""
        await self.core.gate.release(parse_request(ReleaseRequest, self.json_body()))
        self.finish({})


class OptionsHandler(_Private):
    """``GET /admission/options?user=&server=&since=``: what the spawn form of that user offers.

    ``since`` is when the user came to be: nothing older is theirs.
    """

    route_name = "/admission/options"

    async def get(self) -> None:
        """Bundles, sizes, limits, use, the notebook if there is one, what was chosen last."""
        core, user = self.core, self.get_query_argument("user")
        owner, server = f"user:{user}", self.get_query_argument("server", "")
        kinds = {
            "sources": BundleKind.SOURCE, "data": BundleKind.DATA, "contexts": BundleKind.CONTEXT,
        }  # fmt: skip
        notebooks, name = await core.notebooks.list(owner), server or DEFAULT_SERVER
        there = next((n for n in notebooks if n.name == name), None)
        begun = max(filter(None, (there.created, there.started))) if there else None
        answer = {
            **{
                name: await core.versions.list(owner, kind, None, _OFFERED)
                for name, kind in kinds.items()
            },
            "info": core.info,
            "limits": core.ledger.limits(owner),
            "usage": await core.ledger.usage(owner),
            "notebook": there,
            "handed": core.handed.of(owner, name, begun),
            "volumes": await core.volumes.list(owner),
            "mounts": core.gate.folders(user),
            "ticket": core.tickets.issue_upload(user, _TICKET),
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
    """``GET /metrics`` for Prometheus, with a secret of its own: who gathers must not admit."""

    route_name = "/metrics"
    opened_by = "metrics"

    async def get(self) -> None:
        """All metrics."""
        metrics: Metrics = self.settings["metrics"]
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(await metrics.render(self.core.db))


def admission_app(core: Core, data: DataDir, metrics: Metrics, health: Health) -> Application:
    """The private application; its secrets are those of the data directory."""
    return Application(
        [
            ("/admission/start", StartHandler),
            ("/admission/release", ReleaseHandler),
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
