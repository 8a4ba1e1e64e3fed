"""Who can log in, as JupyterHub's own authenticators judge it, and what may then build images."""

import json

import pytest
from jupyterhub.auth import Authenticator
from traitlets import List
from traitlets.config import Config

from kaos_hub.errors import Forbidden, InvalidRequest
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.logins import Served, in_words, noted, settle_builder, who

ADA = {"allowed_users": {"Ada"}, "allow_existing_users": False}
SHARED = {"admin_password": "a" * 32, "admin_users": {"ada"}, "allowed_users": {"ada"}}


class OwnRules(Authenticator):
    """One of an admin's, which lets in whom it likes."""

    def check_allowed(self, username, authentication=None):
        return True


class ByLists(Authenticator):
    """One with further lists of who may come in, as those for organizations have them."""

    allowed_organizations = List().tag(config=True)
    admin_teams = List().tag(config=True)


class Unusable(Authenticator):
    """One that lacks what it needs."""

    def __init__(self, **given):
        raise ValueError("no client id")


def config(kind, **sections):
    return Config({**sections, "JupyterHub": {"authenticator_class": kind}})


@pytest.mark.parametrize(
    "given",
    [
        config("shared-password", SharedPasswordAuthenticator=SHARED),
        config("shared-password", SharedPasswordAuthenticator=SHARED | {"user_password": ""}),
        config("pam", Authenticator=ADA),
        config("dummy", Authenticator=ADA | {"allow_all": False}),
        config("pam", PAMAuthenticator=ADA, Authenticator={"admin_users": {"ada"}}),
        config("jupyterhub.auth.PAMAuthenticator", Authenticator=ADA),
        config(ByLists, Authenticator=ADA),
    ],
)
def test_one_person_alone(given):
    assert who(given, {}).only == "ada"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        # As `kaos up --engine docker` has it.
        (
            config(
                "shared-password",
                SharedPasswordAuthenticator=SHARED | {"user_password": "b" * 32, "allow_all": True},
            ),
            "allow_all",
        ),
        # Whoever the admin adds on the Hub's page would have that password.
        (
            config(
                "shared-password", SharedPasswordAuthenticator=SHARED | {"user_password": "b" * 32}
            ),
            "allow_existing_users",
        ),
        (
            config(
                "shared-password",
                SharedPasswordAuthenticator=SHARED
                | {"manage_groups": True, "password_groups": {"c" * 32: ["lab"]}},
            ),
            "allow_existing_users",
        ),
        (
            config("shared-password", SharedPasswordAuthenticator={"admin_users": {"ada", "bob"}}),
            "2 users",
        ),
        (config("pam", Authenticator={"allowed_users": {"ada"}}), "allow_existing_users"),
        (config("pam", Authenticator=ADA | {"admin_users": {"bob"}}), "2 users"),
        (config("pam", Authenticator=ADA | {"allow_all": True}), "allow_all"),
        (config("pam", Authenticator=ADA, PAMAuthenticator={"allow_all": True}), "allow_all"),
        (
            config("pam", Authenticator=ADA, LocalAuthenticator={"allowed_groups": {"lab"}}),
            "groups",
        ),
        (config("pam", Authenticator=ADA, PAMAuthenticator={"admin_groups": {"lab"}}), "groups"),
        (config(ByLists, Authenticator=ADA, ByLists={"allowed_organizations": ["x"]}), "organiz"),
        (config(ByLists, Authenticator=ADA, ByLists={"admin_teams": ["x"]}), "admin_teams"),
        (config(OwnRules, Authenticator=ADA), "rules of its own"),
        (config(Unusable, Authenticator=ADA), "no client id"),
        (config("no-such-authenticator", Authenticator=ADA), "does not tell"),
        (config("null"), "not said"),
        (config("dummy"), "allow_all"),
        (Config(), "not said"),
    ],
)
def test_several_people_or_not_known(given, why):
    found = who(given, {})
    assert not found.only
    assert why in found.why


def test_places_where_a_setting_may_stand_as_well():
    given = config("pam", Authenticator=ADA)
    assert "allow_all" in who(given, {"Authenticator": {"allow_all": True}}).why
    given.JupyterHub.PAMAuthenticator = Config({"allow_all": True})
    assert "allow_all" in who(given, {}).why
    given = config("pam", Authenticator=ADA)
    given.JupyterHub.admin_users = {"bob"}
    assert "2 users" in who(given, {}).why
    assert given.Authenticator.allowed_users == {"Ada"}  # and nothing was changed by looking


@pytest.mark.parametrize("section", ["DockerEngine", "DockerSettings"])
def test_the_engines_own_builder_is_for_one_person(tmp_path, section):
    data = DataDir(tmp_path)
    assert in_words(noted(data)) == "each in a container of its own"
    several = config("dummy", **{section: {"builder": "engine"}})
    with pytest.raises(InvalidRequest, match="only for a hub that one person alone can log in to"):
        settle_builder(several, who(several, {}), data, True)
    assert not data.builder.exists()

    alone = config("pam", Authenticator=ADA, **{section: {"builder": "engine"}})
    assert settle_builder(alone, who(alone, {}), data, True) == "ada"
    assert "own builder" in in_words(noted(data)) and "only ada can log in" in in_words(noted(data))
    with pytest.raises(Forbidden, match="Only 'ada' is served"):
        Served("ada", "").check("bob")


def test_the_safe_one_is_the_default_of_all(tmp_path):
    data = DataDir(tmp_path)
    for given in (config("dummy"), config("pam", Authenticator=ADA)):
        assert settle_builder(given, who(given, {}), data, True) == ""
        assert json.loads(data.builder.read_text())["builder"] == "isolated"
        assert "a container of its own" in in_words(noted(data))
