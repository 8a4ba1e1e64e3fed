"""The page that people see first after login: the first of ours that they may see.

Also the one address where every user can let a command line in: only the Hub knows, before one of
our services has been asked, which of them a user may use.
"""

import re
from typing import Any
from urllib.parse import urlencode

from kaos_hub.installation.addresses import SERVICES

_LOGIN = "kaos-login"
"""The query parameter with a login's code."""


def login_path(code: str) -> str:
    """Return the address, below the Hub's own, that leads a user to the page for this login."""
    return f"?{urlencode({_LOGIN: code})}"


def first_page(handler: Any) -> str:
    """Return the first page of a user, for ``c.JupyterHub.default_url``.

    It is Notebooks; Trainings for users who may only train; the Hub's home for all others.

    Args:
        handler: the Hub's handler that wants to know.
    """
    # It goes into an address: nothing but what a code is made of.
    code = re.fullmatch(r"[A-Z-]{1,20}", handler.get_argument(_LOGIN, ""))
    page = f"login?{urlencode({'code': code[0]})}" if code else ""
    usable = {each.name: each for each in handler.get_accessible_services(handler.current_user)}
    for name in SERVICES:
        if name in usable:
            return f"{usable[name].prefix}{page}"
    hub = str(handler.hub.base_url)
    if not handler.expanded_scopes:
        return _of_unknown(handler, f"{hub}{login_path(code[0]) if code else ''}")
    # Who may use nothing of ours is told so by the Hub, at the door of what they asked for.
    return f"{hub.removesuffix('hub/')}services/{SERVICES[0]}/{page}" if code else f"{hub}home"


def _of_unknown(handler: Any, again: str) -> str:
    from jupyterhub.handlers.pages import RootHandler

    if isinstance(handler, RootHandler):
        return f"{handler.settings['login_url']}?{urlencode({'next': again})}"
    # Just logged in: what they may is known from the next request on.
    return again
