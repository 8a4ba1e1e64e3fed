"""The spawners' side of the private admission listener of the service.

Only a spawner can make sure that nothing starts unadmitted, since users may ask the Hub's own API
for a server. It asks here, with a secret that no user can hold, and fails closed.
"""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from pydantic import Field, ValidationError
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse

from kaos_hub.errors import KaosError, Unavailable, from_body
from kaos_hub.schemas import (
    AdmissionRequest,
    AnyModel,
    BundleVersion,
    Capacity,
    Choices,
    Info,
    Limits,
    Model,
    Notebook,
    NotebookSpec,
    ReleaseRequest,
    Usage,
    Volume,
)


class FormOptions(Model):
    """The choices that the spawn form offers a user."""

    sources: list[BundleVersion] = []
    data: list[BundleVersion] = []
    contexts: list[BundleVersion] = []
    offered: int = 200
    """Versions of each kind that are listed at most; there may be older ones."""
    volumes: list[Volume] = []
    mounts: list[str] = []
    """Folders of the machine that may be mounted, for people."""
    info: Info
    limits: Limits
    usage: Usage
    capacity: Capacity = Capacity()
    ticket: str = Field("", repr=False)
    """Lets the page send folders, and do nothing else."""
    notebook: Notebook | None = None
    """As it is, if it is there."""
    handed: dict[str, str] = {}
    """By kind, the bundle that was just sent for it from the page for that."""
    last: Choices | None = None
    """The user's last choices, for any notebook; the form offers them again."""


@dataclass(frozen=True)
class Admission:
    """Asks the service.

    Args:
        url: the root of the admission listener.
        secret: what proves that a spawner asks.
        patience: seconds to wait for a service that is just restarting.
        context: for TLS with the service, if it speaks that.
    """

    url: str
    secret: str
    patience: float = 15
    context: ssl.SSLContext | None = None

    async def start(self, request: AdmissionRequest) -> NotebookSpec:
        """Ask whether a server may start, and as what.

        Raises:
            KaosError: the refusal, as the service words it.
            Unavailable: the service does not answer.
        """
        answer = await self._call("POST", "/admission/start", request.model_dump(mode="json"))
        return _understood(NotebookSpec, answer)

    async def release(self, request: ReleaseRequest) -> None:
        """Tell that a server is gone.

        Raises:
            KaosError: the service did not take it.
        """
        await self._call("POST", "/admission/release", request.model_dump(mode="json"))

    async def removed(self, user: str, identity: str, server: str) -> None:
        """Tell that the Hub is about to forget a server, or all of a user.

        Raises:
            KaosError: the service did not take it.
        """
        await self._call(
            "POST", "/admission/removed", {"user": user, "identity": identity, "server": server}
        )

    async def options(self, user: str, identity: str, server: str, since: datetime) -> FormOptions:
        """Return the choices that are offered to a user who was created at ``since``.

        Raises:
            KaosError: the service does not say.
        """
        query = urlencode(
            {"user": user, "identity": identity, "server": server, "since": since.isoformat()}
        )
        return _understood(FormOptions, await self._call("GET", f"/admission/options?{query}"))

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers={
                "Authorization": f"Bearer {self.secret}",
                "Content-Type": "application/json",
            },
            body=None if body is None else json.dumps(body),
            connect_timeout=5,
            request_timeout=120,
            ssl_options=self.context,
        )
        response = await self._fetch(request)
        answer = _read(response)
        if response.code >= 400:
            raise from_body(response.code, answer)
        return answer

    async def _fetch(self, request: HTTPRequest) -> HTTPResponse:
        """Send a request; retry while the service is down. The Hub restarts it when it dies."""
        # A client of our own: the shared one lets ten requests through, for all callers together.
        client = AsyncHTTPClient(force_instance=True)
        until = time.monotonic() + self.patience
        delay = 0.1
        try:
            while True:
                try:
                    response = await client.fetch(request, raise_error=False)
                    if response.code < 400 or _is_ours(response):
                        return response
                    # A name may still resolve to an old address, where another program answers.
                    raise OSError(f"HTTP {response.code} of somebody else at {self.url}")
                except (OSError, HTTPClientError) as e:
                    if time.monotonic() + delay > until:
                        raise Unavailable(
                            "The kaos service does not answer, so nothing can be started."
                            " Try again in a minute; if that does not help, tell the administrator"
                            f" to look at `kaos doctor` ({e})."
                        ) from None
                await asyncio.sleep(delay)
                delay = min(2 * delay, 2)
        finally:
            client.close()


def _read(response: HTTPResponse) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        return {}


def _is_ours(response: HTTPResponse) -> bool:
    """Return whether an error is the service's: those are JSON, with a code."""
    answer = _read(response)
    return isinstance(answer, dict) and "code" in answer


def _understood(model: type[AnyModel], answer: Any) -> AnyModel:
    try:
        return model.model_validate(answer)
    except ValidationError as e:
        raise KaosError(f"The kaos service gave an answer that makes no sense: {e}") from None
