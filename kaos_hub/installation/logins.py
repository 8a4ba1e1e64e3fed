"""Logins that the Hub's configuration allows, and the builder of images that follows from them.

The Docker Engine's own builder keeps nothing of one user from another. So it is in force only where
the configuration shows that one person alone can log in; whatever cannot be told counts as several.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from kaos_hub.errors import Forbidden, InvalidRequest
from kaos_hub.installation.datadir import DataDir

if TYPE_CHECKING:
    from traitlets.config import Config

ISOLATED, ENGINE = "isolated", "engine"
"""The builders on a Docker Engine: a container for each build, or the Engine itself."""
_SECTIONS = ("DockerEngine", "DockerSettings")
ONLY_USER = "KAOS_ONLY_USER"
"""Variable in which the Hub tells the service who alone may be served; empty: all."""
_GROUP = "jupyterhub.authenticators"
_JUDGED = {"allow_all", "allow_existing_users", "allowed_users", "admin_users", "admin_password"}
"""Settings named like rules about logins that are looked at by themselves, or are no rules."""
_KNOWN = ("jupyterhub.", "oauthenticator.")
"""Modules of authenticators whose rules are known to be in settings of such names."""


@dataclass(frozen=True)
class Logins:
    """The users who can log in."""

    only: str
    """The one user who can; empty if there may be several."""
    why: str
    """In words, after "since"."""


@dataclass(frozen=True)
class Served:
    """The one user of an installation that may serve no other.

    Args:
        user: the name.
        why: for people, with what to do to serve others.
    """

    user: str
    why: str

    def check(self, user: str) -> None:
        """Let this user pass, and no other.

        Raises:
            Forbidden: it is another.
        """
        if user != self.user:
            raise Forbidden(f"Only {self.user!r} is served here. {self.why}")


def who(config: "Config", command_line: Mapping[str, Any]) -> Logins:
    """Judge who can log in.

    Args:
        config: the Hub's configuration, as its files left it.
        command_line: the sections that ``jupyterhub``'s own options set, which come before files.
    """
    from traitlets.config import Config

    given = deepcopy(config)
    given.merge(Config(command_line))
    for section, settings in list(given.JupyterHub.items()):
        if isinstance(settings, Config):  # traitlets knows settings of a parent's, too
            given[section].merge(settings)
    try:
        kind = _authenticator(given.JupyterHub.get("authenticator_class", "pam"))
        authenticator: Any = kind(config=given)
    except Exception as e:  # whatever one of another package makes of its settings
        return Logins("", f"its authenticator does not tell who can log in ({e})")
    return _judge(authenticator, given.JupyterHub.get("admin_users") or ())


def _authenticator(said: Any) -> Any:
    if not isinstance(said, str):
        return said
    for found in entry_points(group=_GROUP):
        if found.name.casefold() == said.casefold():
            return found.load()
    module, _, name = said.rpartition(".")
    return getattr(import_module(module), name)


def _judge(authenticator: Any, more: Any) -> Logins:
    kind = type(authenticator).__name__
    admins = {authenticator.normalize_username(n) for n in {*authenticator.admin_users, *more}}
    if kind == "SharedPasswordAuthenticator" and not (
        authenticator.user_password or authenticator.password_groups
    ):
        # It knows the password of no other.
        return _one_of(admins)
    if authenticator.allow_all:
        return Logins("", f"everybody whom {kind} knows can log in (allow_all)")
    for method in ("check_allowed", "get_authenticated_user"):
        home = getattr(type(authenticator), method).__module__
        if not home.startswith(_KNOWN):
            return Logins("", f"{kind} has rules of its own about who can log in")
    for name in sorted(authenticator.traits(config=True)):
        rule = name.startswith(("allow", "admin_")) and name not in _JUDGED
        if rule and getattr(authenticator, name):
            return Logins("", f"c.{kind}.{name} may let several people log in")
    names = {authenticator.normalize_username(n) for n in authenticator.allowed_users} | admins
    if len(names) == 1 and authenticator.allow_existing_users:
        return Logins(
            "",
            "users that are added can log in (c.Authenticator.allow_existing_users is not False)",
        )
    return _one_of(names)


def _one_of(names: set[str]) -> Logins:
    if len(names) == 1:
        (name,) = names
        return Logins(name, f"only {name} can log in")
    return Logins(
        "", f"{len(names)} users can log in" if names else "it is not said who can log in"
    )


def settle_builder(config: "Config", logins: Logins, data: DataDir, note: bool) -> str:
    """Judge what builds images on a Docker Engine.

    Args:
        config: the Hub's configuration.
        logins: who can log in.
        data: the data directory.
        note: keep what came out in the data directory, for ``kaos up`` and ``kaos doctor``.

    Returns:
        The one user who may be served with it; empty: all.

    Raises:
        InvalidRequest: the Engine's own builder is asked for, and several people can log in.
    """
    said = [config[name]["builder"] for name in _SECTIONS if "builder" in config.get(name, {})]
    builder = str(said[0]) if said else ISOLATED
    if builder == ENGINE and not logins.only:
        raise InvalidRequest(
            f"c.DockerEngine.builder = 'engine' is only for a hub that one person alone can log in"
            f" to, since each build could take what all others built; here, {logins.why}. Leave it"
            " out: then each build runs in a container of its own. Or let only one log in: with"
            " the shared password by c.SharedPasswordAuthenticator.user_password = '', else by"
            " c.Authenticator.allowed_users with one name, allow_all = False and"
            " allow_existing_users = False."
        )
    if note:
        document = {"builder": builder, "only": logins.only, "why": logins.why}
        data.builder.write_text(json.dumps(document))
    return logins.only if builder == ENGINE else ""


def noted(data: DataDir) -> dict[str, str]:
    """Return what was settled when the Hub last started; the default if it never did."""
    try:
        found = json.loads(data.builder.read_text())
        return {key: str(found[key]) for key in ("builder", "only", "why")}
    except (OSError, ValueError, LookupError, TypeError):
        return {"builder": ISOLATED, "only": "", "why": ""}


def in_words(found: Mapping[str, str]) -> str:
    """Tell which builder is in force, and why, on one line.

    Args:
        found: what :func:`noted` gave.
    """
    if found["builder"] == ENGINE:
        return f"the Docker Engine's own builder, as c.DockerEngine.builder asks: {found['why']}"
    if found["only"]:
        return f"each in a container of its own ({found['why']}: c.DockerEngine.builder may differ)"
    why = f", since {found['why']}" if found["why"] else ""
    return f"each in a container of its own{why}"
