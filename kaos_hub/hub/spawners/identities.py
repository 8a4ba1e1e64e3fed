"""Identities of the Hub's users and groups: what stays when they are renamed, and never returns.

The Hub's API tells names only, which change and are given again; ids of its database may be given
again, too. This adds what the service needs to the running Hub: identities in its API, and an end
to a deleted user's named servers, without which the Hub refuses to delete the user.
"""

import hashlib
import json
import secrets
from typing import Any

from jupyterhub import handlers, orm, roles
from jupyterhub.apihandlers import default_handlers
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import SelfAPIHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import event, select
from tornado import web

from kaos_hub.hub.spawners import hub_users
from kaos_hub.hub.spawners.visits import VisitHandler

MARK = "kaos_hub.id"
"""Of a group's properties: its identity."""

_MOST = 5000
"""Names or identities that may be asked for at once."""


def user_identity(user: Any) -> str:
    """The identity of a user of the Hub's: its row, and a digest of what that row alone has."""
    digest = hashlib.sha256(f"kaos_hub {user.cookie_id}".encode()).hexdigest()
    return f"{user.id}-{digest[:32]}"


def group_identity(group: Any) -> str:
    """The identity of a group, which gets one if it was made without."""
    properties = group.properties or {}
    if MARK not in properties:
        group.properties = {**properties, MARK: secrets.token_hex(16)}
    return str(group.properties[MARK])


def install() -> None:
    """Add to the Hub of this process what the service asks for. Doing it again changes nothing."""
    if any(handler is OwnersHandler for _, handler, *_ in default_handlers):
        return
    default_handlers.extend(
        [(r"/api/kaos/user", CallerHandler), (r"/api/kaos/owners", OwnersHandler)]
    )
    event.listen(orm.Group, "before_insert", lambda mapper, db, group: group_identity(group))
    event.listen(orm.Group.properties, "set", _keep_mark, retval=True, active_history=True)
    handlers.default_handlers.append((r"/kaos/visit", VisitHandler))
    hub_users.install()
    roles.get_default_roles = _without_servers(roles.get_default_roles)


def _without_servers(original: Any) -> Any:
    """Have admins enter only their own servers, unless another role says more."""

    def get_default_roles() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = original()
        for role in found:
            if role["name"] == "admin":
                # A user who may share all servers may enter them, too.
                entering = {"access:servers", "shares"}
                kept = [scope for scope in role["scopes"] if scope not in entering]
                role["scopes"] = [*kept, "read:shares", "users:shares", "groups:shares"]
        return found

    return get_default_roles


def _keep_mark(group: Any, value: Any, old: Any, initiator: Any) -> Any:
    """Keep a group's identity when its properties are replaced."""
    mark = old.get(MARK) if isinstance(old, dict) else None
    return {**(value or {}), MARK: mark} if mark else value


class CallerHandler(SelfAPIHandler):
    """``GET /kaos/user``: as ``/user``, with what is needed to know whose a token is for good."""

    def write(self, chunk: Any) -> None:
        """Add the identity, and which server's own token it is, to the answer."""
        user, token = self.current_user, self.get_token()
        if isinstance(chunk, str) and user is not None and not isinstance(user, orm.Service):
            model = json.loads(chunk)
            model["identity"] = user_identity(user.orm_user)
            # Those it was made with: they name its server as it was called then.
            model["made_with"] = list(token.scopes) if token else []
            chunk = json.dumps(model)
        super().write(chunk)


class OwnersHandler(APIHandler):
    """``POST /kaos/owners``: users by name or identity, with their groups, and groups."""

    @needs_scope("list:users")
    async def post(self) -> None:
        """``{"names": […], "identities": […], "groups": […]}``; what is not there is left out."""
        asked = self.get_json_body() or {}
        lists = [asked.get(kind, []) for kind in ("names", "identities", "groups")]
        if not all(isinstance(each, list) and len(each) <= _MOST for each in lists):
            raise web.HTTPError(400, f"lists of at most {_MOST} texts")
        names, identities, groups = ([str(one) for one in each] for each in lists)
        answer = {"users": self._users(names, identities), "groups": self._groups(groups)}
        self.db.commit()  # groups may have got an identity
        self.write(json.dumps(answer))

    def _users(self, names: list[str], identities: list[str]) -> list[dict[str, Any]]:
        ids = [int(i) for i in (one.partition("-")[0] for one in identities) if i.isdecimal()]
        found: dict[int, Any] = {}
        for column, values in ((orm.User.name, names), (orm.User.id, ids)):
            for at in range(0, len(values), 500):
                query = select(orm.User).where(column.in_(values[at : at + 500]))
                found |= {user.id: user for user in self.db.scalars(query)}
        users = [(user_identity(user), user) for user in found.values()]
        return [
            {
                "identity": identity,
                "name": user.name,
                "groups": [{"identity": group_identity(g), "name": g.name} for g in user.groups],
            }
            for identity, user in users
            if user.name in names or identity in identities
        ]

    def _groups(self, identities: list[str]) -> list[dict[str, str]]:
        if not identities:
            return []
        known = {group_identity(group): group.name for group in self.db.scalars(select(orm.Group))}
        return [{"identity": one, "name": known[one]} for one in identities if one in known]
