"""Logging in without a password on the command line: a person confirms in a browser."""

import hashlib
import secrets
import socket
import time
import webbrowser
from collections.abc import Callable

from kaos_hub.errors import NotAuthenticated
from kaos_hub.schemas import LoginAnswer, LoginRequest, LoginStarted, Whoami
from kaos_hub.transport.credentials import (
    SERVICE_PATH,
    TRAIN_PATH,
    Credentials,
    hub_base,
    save_credentials,
)
from kaos_hub.transport.http import Transport, parse

_POLL = 1.0


def login(
    url: str,
    open_browser: Callable[[str], object] | None = webbrowser.open,
    notify: Callable[[LoginStarted], object] | None = None,
) -> Credentials:
    """Ask a person to let this machine in, wait for them, and remember the token.

    Args:
        url: the Hub, any of its URLs.
        open_browser: called with the page to confirm on; None opens nothing.
        notify: called with the page and the code to compare, before the browser opens.

    Raises:
        NotAuthenticated: the login was not confirmed in time.
        Unavailable: the Hub does not answer.
    """
    base = hub_base(url)
    verifier = secrets.token_urlsafe(32)
    transport = Transport(base + SERVICE_PATH, None)
    request = LoginRequest(
        challenge=hashlib.sha256(verifier.encode()).hexdigest(), client=socket.gethostname()[:100]
    )
    started = parse(
        LoginStarted, transport.json("POST", "/api/v1/login", request.model_dump(mode="json"))
    )
    if notify:
        notify(started)
    if open_browser:
        open_browser(started.url)
    token = _wait_for_token(transport, verifier, time.monotonic() + started.expires_in)
    return login_with_token(base, token)


def _wait_for_token(transport: Transport, verifier: str, deadline: float) -> str:
    while time.monotonic() < deadline:
        answer = transport.json("POST", "/api/v1/login/token", {"verifier": verifier})
        token = parse(LoginAnswer, answer).token
        if token:
            return token
        time.sleep(_POLL)
    raise NotAuthenticated("nobody confirmed the login in time; run again: kaos login")


def login_with_token(url: str, token: str) -> Credentials:
    """Check a token against its Hub and remember it.

    Raises:
        NotAuthenticated: the Hub does not know the token.
        Forbidden: it may use neither kaos nor kaos-train.
        Unavailable: the Hub does not answer.
    """
    base = hub_base(url)
    service = Transport(base + SERVICE_PATH, token, instead=base + TRAIN_PATH)
    answer = service.json("GET", "/api/v1/whoami")
    user = parse(Whoami, answer).user
    save_credentials(base, token, user)
    return Credentials(base, token, user)
