"""Who a token belongs to, what it may do, and that strangers cannot fill the memory."""

import pytest

from kaos_hub.errors import Forbidden
from kaos_hub.service.auth.auth import BoundedCache, Caller, Right, caller_of

USE = "access:services!service=kaos"


def known(*scopes: str, **more: object) -> Caller:
    model = {"name": "ada", "kind": "user", "scopes": list(scopes), **more}
    return caller_of(model, service="kaos", cookie=False)


@pytest.mark.parametrize(
    ("scopes", "notebook"),
    [
        ([USE], None),
        (["access:services"], None),
        ([USE, "access:servers!user=ada"], None),
        ([USE, "access:servers"], None),
        ([USE, "access:servers!server=ada/mnist"], "mnist"),
        ([USE, "access:servers!server=ada/"], "default"),
        # somebody shared a server with ada: no limit on what ada may do
        ([USE, "access:servers!server=bob/mnist"], None),
    ],
)
def test_a_servers_own_token_is_told_by_its_scopes(scopes: list[str], notebook: str | None) -> None:
    assert known(*scopes).notebook == notebook


@pytest.mark.parametrize("scopes", [[], ["access:services!service=other"], ["read:users"]])
def test_without_the_scope_nobody_is_let_in(scopes: list[str]) -> None:
    with pytest.raises(Forbidden, match=USE):
        known(*scopes)


def test_a_notebooks_token_is_told_to_start_again() -> None:
    model = {"name": "ada", "kind": "user", "scopes": [USE, "access:servers!server=ada/mnist"]}
    with pytest.raises(Forbidden, match=r"notebook 'mnist' may not train.*=kaos-train.*restarts"):
        caller_of(model, service="kaos-train", cookie=False)


def test_services_own_nothing() -> None:
    with pytest.raises(Forbidden, match="a service's"):
        known(USE, kind="service")


def test_what_each_kind_of_token_may_do() -> None:
    person, server = known(USE), known(USE, "access:servers!server=ada/mnist")
    for right in (Right.ANYONE, Right.USE, Right.MANAGE):
        person.require(right, "mnist")
    server.require(Right.USE, "mnist")
    server.require(Right.REPORT, "mnist")
    for caller, right, name in (
        (person, Right.REPORT, "mnist"),
        (server, Right.REPORT, "other"),
        (server, Right.MANAGE, "mnist"),
    ):
        with pytest.raises(Forbidden):
            caller.require(right, name)


def test_a_cache_forgets_the_oldest() -> None:
    cache = BoundedCache(max_age=60, size=3)
    for number in range(10):
        cache[str(number)] = number
    assert [key for key in map(str, range(10)) if key in cache] == ["7", "8", "9"]
    cache["8"] = 80
    assert cache["8"] == 80 and "7" in cache
