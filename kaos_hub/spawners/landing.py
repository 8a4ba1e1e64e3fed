"""Where people land who come in: the first of our pages that they may see."""

from typing import Any

from kaos_hub.addresses import SERVICES


def first_page(handler: Any) -> str:
    """For ``c.JupyterHub.default_url``: Notebooks; Trainings for who may only train; else home.

    Args:
        handler: the Hub's handler that wants to know.
    """
    usable = {service.name for service in handler.get_accessible_services(handler.current_user)}
    for name in SERVICES:
        if name in usable:
            return f"/services/{name}/"
    if handler.expanded_scopes:
        return f"{handler.hub.base_url}home"
    return _of_unknown(handler)


def _of_unknown(handler: Any) -> str:
    from jupyterhub.handlers.pages import RootHandler

    if isinstance(handler, RootHandler):
        return f"/services/{SERVICES[0]}/"  # which sends people to the login
    # Just logged in: what they may is known from the next request on.
    return str(handler.hub.base_url)
