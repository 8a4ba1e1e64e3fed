"""The choices for a server, on their way from the Hub to the service."""

import json
from typing import Any

from jupyterhub.spawner import Spawner
from sqlalchemy.orm import object_session

from kaos_hub.errors import InvalidRequest
from kaos_hub.hub.spawners.form import ONCE, SECRET
from kaos_hub.hub.spawners.identities import user_identity
from kaos_hub.schemas import AdmissionRequest


def request_of(spawner: Spawner) -> AdmissionRequest:
    """Return a spawner's request to the service. Make the Hub forget secret and one-time choices.

    Users can send the Hub any options, files and NaN included.

    Raises:
        InvalidRequest: they make no sense.
    """
    options: Any = spawner.user_options
    try:
        plain = json.loads(json.dumps(options, allow_nan=False))
    except (TypeError, ValueError):
        plain = None
    if not isinstance(plain, dict):
        raise InvalidRequest("The options of a server are names and numbers.")
    kept = {name: value for name, value in plain.items() if name not in (*SECRET, *ONCE)}
    if "@" in str(kept.get("git", "")).partition("://")[2].partition("/")[0]:
        # It will be refused, with the password in it.
        del kept["git"]
    _keep(spawner, kept)
    return AdmissionRequest(
        user=spawner.user.name,
        identity=user_identity(spawner.user.orm_user),
        server=spawner.name,
        options=plain,
    )


def _keep(spawner: Spawner, options: dict[str, Any]) -> None:
    """The Hub keeps the choices of each server and shows them: no more of them than need be."""
    if options == spawner.user_options:
        return
    spawner.user_options = options
    row = spawner.orm_spawner
    session = object_session(row) if row else None
    if session is not None:
        row.user_options = options
        session.commit()
