"""The base of all handlers: caller, headers, errors as ``KaosError``, the access log."""

import logging
import secrets
from typing import Any, ClassVar

from jupyterhub.services.auth import HubOAuthenticated
from tornado.web import HTTPError, RequestHandler

from kaos_hub.errors import (
    InvalidRequest,
    KaosError,
    NotAuthenticated,
    NotFound,
    TooLarge,
    TooManyRequests,
)
from kaos_hub.service.auth.auth import Caller, KaosHubAuth, Right
from kaos_hub.service.core import Core
from kaos_hub.service.web.traffic import Traffic, of_address, of_user

log = logging.getLogger("kaos.service")

_BY_STATUS: dict[int, type[KaosError]] = {404: NotFound, 413: TooLarge}


def as_kaos_error(error: BaseException) -> KaosError:
    """Return the error that a client is told: our own as it is, an unexpected one by an id.

    The id stands in the service's log together with the traceback; the client gets no more.
    """
    if isinstance(error, KaosError):
        return error
    if isinstance(error, HTTPError):
        return _BY_STATUS.get(error.status_code, InvalidRequest)(error.log_message or error.reason)
    incident = secrets.token_hex(4)
    log.error("Incident %s", incident, exc_info=error)
    return KaosError(
        f"Something went wrong inside kaos_hub. Tell the admin this number: {incident}.",
        incident=incident,
    )


def status_of(error: BaseException) -> int:
    """Return the HTTP status that goes with an exception."""
    if isinstance(error, KaosError):
        return error.status
    return error.status_code if isinstance(error, HTTPError) else 500


class Handler(HubOAuthenticated, RequestHandler):
    """Base of all handlers that answer users."""

    csp: ClassVar[str] = "default-src 'none'; frame-ancestors 'none'; sandbox"
    caller: Caller | None = None

    @property
    def core(self) -> Core:
        """The parts of the service behind the handlers."""
        core: Core = self.settings["core"]
        return core

    @property
    def kaos_auth(self) -> KaosHubAuth:
        """The authentication of the Hub's service below whose path the request is."""
        auth: KaosHubAuth = self.settings["auth"]
        return auth

    @property
    def hub_auth(self) -> KaosHubAuth:
        """The same, under the name that JupyterHub's own handlers use."""
        return self.kaos_auth

    @property
    def traffic(self) -> Traffic:
        """The counter of the requests of all users and addresses."""
        traffic: Traffic = self.settings["traffic"]
        return traffic

    @property
    def traffic_key(self) -> str:
        """The key to count by: the user, or the address of a request without a login."""
        return of_user(self.caller.user) if self.caller else of_address(self.request.remote_ip)

    @property
    def who(self) -> str:
        """The name of the calling user, for the access log."""
        return self.caller.user if self.caller else "-"

    def set_default_headers(self) -> None:
        self.set_header("Server", "kaos")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", self.csp)

    async def identify(self) -> Caller | None:
        """Find the calling user, remember it for the access log, and count the request.

        Raises:
            TooManyRequests: there were too many.
        """
        self.caller = await self.kaos_auth.caller(self)
        self.traffic.spend(self.traffic_key)
        self.caller = await self.core.known(self.caller) if self.caller else None
        return self.caller

    async def admit(self, right: Right) -> Caller | None:
        """Identify the caller, and refuse users that this installation does not serve.

        Return None, without a look at the caller, if ``right`` is ``ANYONE``. Other rights are
        checked by :meth:`Caller.require`.

        Raises:
            TooManyRequests: there were too many.
            NotAuthenticated: the caller is not known.
            Forbidden: the caller is known, but may not use this service.
        """
        if right is Right.ANYONE:
            self.traffic.spend(self.traffic_key)
            return None
        caller = await self.identify()
        if caller is None:
            raise NotAuthenticated(f"Not logged in. Run: kaos login {self.core.public_url}")
        self.core.admit(caller)
        return caller

    def get_current_user(self) -> dict[str, Any] | None:
        """Return what is known already. Never ask the Hub: that would block the event loop."""
        user: dict[str, Any] | None = getattr(self, "_cached_hub_user", None)
        return user

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Do nothing: our errors are answers, and the others are logged where they get their id."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with an error, as JSON unless :meth:`write_error_body` says otherwise."""
        error, status = self.failure(status_code, kwargs.get("exc_info"))
        self.set_status(status)
        if isinstance(error, TooManyRequests):
            self.set_header("Retry-After", str(error.details.get("retry_after", 1)))
        self.write_error_body(error)

    def failure(self, status_code: int, exc_info: Any) -> tuple[KaosError, int]:
        """Return the error to show and its status."""
        cause = exc_info[1] if exc_info else HTTPError(status_code)
        if isinstance(cause, HTTPError) and cause.status_code == 405:
            methods = ", ".join(self.allowed_methods())
            cause = HTTPError(405, f"{self.request.method} is not for this address, but {methods}")
        return as_kaos_error(cause), status_of(cause)

    def allowed_methods(self) -> list[str]:
        """Return the methods that this address answers."""
        return [m for m in self.SUPPORTED_METHODS if m.lower() in type(self).__dict__]

    def write_error_body(self, error: KaosError) -> None:
        """Write the error for the client."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(error.body())


def log_request(handler: RequestHandler) -> None:
    """Log one line per request: no query string and no header, so never a token."""
    request = handler.request
    duration = request.request_time()
    status = handler.get_status()
    metrics = handler.settings.get("metrics")
    if metrics is not None:
        metrics.observe(request.method, getattr(handler, "route_name", "other"), status, duration)
    level = logging.INFO if status < 500 else logging.WARNING
    path = request.path.encode("ascii", "backslashreplace").decode()
    who = getattr(handler, "who", "-")
    log.log(level, "%d %s %s (%s) %.1fms", status, request.method, path, who, duration * 1000)
