"""Domains of users: with one for each, a page of one user's notebook is nothing to another's."""

from urllib.parse import urlsplit

USER = "{user}"
"""Stands in an address for the first part of a user's domain."""


def domain_of(name: str, hub: str, kind: str) -> str:
    """The domain of a user or service, for ``c.JupyterHub.subdomain_hook``.

    Services are trusted as the Hub is, and stay at its own domain: addresses of pages and of
    the API are the same with and without domains of users.

    Args:
        name: of the user or service.
        hub: the Hub's own domain.
        kind: ``user`` or ``service``.
    """
    from jupyterhub.utils import subdomain_hook_idna

    return str(subdomain_hook_idna(name, hub, kind)) if kind == "user" else hub


def servers_url(subdomain_host: str) -> str:
    """The address below which users' servers are, with :data:`USER` in it.

    Args:
        subdomain_host: the Hub's own, like ``https://hub.example.org``.
    """
    parts = urlsplit(subdomain_host)
    return f"{parts.scheme}://{USER}.{parts.netloc}"


def server_root(url: str, user: str) -> str:
    """The address below which a user's servers are, with the user's domain where it has one."""
    if USER not in url:
        return url
    host = urlsplit(url).hostname or ""
    label = domain_of(user, host.removeprefix(f"{USER}."), "user").partition(".")[0]
    return url.replace(USER, label)
