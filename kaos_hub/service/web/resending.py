"""Forms that came with an old login: nothing of them is lost, and they can be sent again.

A login may end, or change in another tab, while a form is filled in. The fields are shown, with the
token of the present login, so that the user can send them again. This is only for forms of our own
pages: what other sites have a browser send is refused as ever.
"""

from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from kaos_hub.errors import KaosError, NotAuthenticated

_MOST = 64 << 10
"""Bytes of a form that is shown again."""
_SECRET = ("password",)
"""Fields that are not shown again: the user has to enter them once more."""


def possible(request: HTTPServerRequest, error: KaosError) -> bool:
    """Return whether the refused request is a form of our own pages with an old login.

    Args:
        request: the request as it came.
        error: the reason of the refusal.
    """
    stale = request.method == "POST" and bool(error.details.get("stale"))
    return stale and len(request.body) <= _MOST and not request.files and _is_ours(request)


def _is_ours(request: HTTPServerRequest) -> bool:
    """Return whether the browser says that the request came from a page of this origin."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin") or request.headers.get("Referer") or ""
    return urlsplit(origin).netloc == request.host


def page_of(request: HTTPServerRequest, error: KaosError, login_url: str) -> dict[str, Any]:
    """Return the values for the page that sends the form again.

    Args:
        request: the request as it came.
        error: the reason of the refusal.
        login_url: the address of the Hub's login.
    """
    fields = [
        (name, value.decode("utf-8", "replace"))
        for name, values in request.body_arguments.items()
        for value in values
        if name != "_xsrf" and name not in _SECRET
    ]
    return {
        "to": request.uri,
        "fields": fields,
        "secrets": [name for name in _SECRET if name in request.body_arguments],
        "log_in": login_url if isinstance(error, NotAuthenticated) else "",
    }
