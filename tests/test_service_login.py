"""Letting a command line in, for people who may use all of kaos, and for those who may not."""

import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from kaos_hub.client import login as log_in
from tests.hub import Browser, RunningHub, running_hub
from tests.shell import Shell
from tests.test_service_train import BY_GROUPS


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """Ada may do both, bob has notebooks, eve trains, mallory may neither."""
    with running_hub(tmp_path_factory.mktemp("hub"), config=BY_GROUPS) as running:
        yield running


def let_in(hub: RunningHub, user: str, url: str) -> str:
    """Open what the command line prints, in a browser that nobody has used, and press Allow."""
    browser = Browser(hub)
    page = browser.get(url)
    assert "Sign in" in page.text
    form = {"username": user, "password": "x", "_xsrf": browser.xsrf("/hub/")}
    again = f"?{urlencode({'next': urlsplit(url)._replace(scheme='', netloc='').geturl()})}"
    page = browser.post(f"{hub.url}/hub/login{again}", form)
    code = re.search(r'name="code" value="([A-Z-]+)"', page.text)
    assert code is not None and code[1] in url, page.text
    action = re.search(r'method="post" action="(/services/[a-z-]+/login)"', page.text)
    assert action is not None
    form = {"_xsrf": browser.xsrf(action[1].removesuffix("login")), "code": code[1]}
    assert "is logged in" in browser.post(hub.url + action[1], form | {"answer": "allow"}).text
    return page.text


@pytest.mark.parametrize(
    ("user", "works"), [("ada", (200, 200)), ("bob", (200, 403)), ("eve", (403, 200))]
)
def test_one_login_is_enough_for_all_that_one_may(
    strict: RunningHub, user: str, works: tuple[int, int]
) -> None:
    """Whichever service was asked, the page is one that this person may see."""
    for begin in (strict.ask, strict.ask_train):
        verifier = secrets.token_urlsafe(32)
        body = {"challenge": hashlib.sha256(verifier.encode()).hexdigest(), "client": "laptop"}
        started = begin("POST", "/login", None, body).json
        assert started["other_url"] is None
        page = let_in(strict, user, started["url"])
        assert ("delete your notebooks" in page) is (works[0] == 200)
        token = begin("POST", "/login/token", None, {"verifier": verifier}).json["token"]
        asked = (strict.ask, strict.ask_train)
        assert tuple(ask("GET", "/whoami", token).status for ask in asked) == works


def test_who_may_nothing_is_told_by_the_hub(strict: RunningHub) -> None:
    started = strict.ask("POST", "/login", None, {"challenge": "0" * 64, "client": "x"}).json
    browser = Browser(strict)
    browser.get(f"{strict.url}/hub/login")
    form = {"username": "mallory", "password": "x", "_xsrf": browser.xsrf("/hub/")}
    browser.post(f"{strict.url}/hub/login", form)
    page = browser.get(started["url"])
    assert page.status == 403 and "do not have permission" in page.text


@pytest.mark.parametrize("way", ["browser", "token"])
def test_the_command_line_of_somebody_who_may_only_train(
    strict: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Login, whoami and bundles need no right to notebooks; notebooks say which is missing."""
    shell = Shell(tmp_path, strict, "eve")
    if way == "token":
        shell.log_in()
    else:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert log_in(strict.url, lambda url: let_in(strict, "eve", url)).user == "eve"
    known = shell.json("whoami")
    assert (known["user"], known["services"]) == ("eve", ["kaos-train"])
    assert "may have   trainings\n" in shell.run("whoami").stdout
    assert "✔ login: eve" in shell.run("doctor").stdout
    for words in (["train", "list"], ["bundle", "list"], ["model", "list"]):
        assert shell.json(*words) == []
    refused = shell.run("notebook", "list")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "access:services!service=kaos" in refused.stderr


def test_a_token_that_may_nothing_is_not_kept(strict: RunningHub, tmp_path: Path) -> None:
    shell = Shell(tmp_path, strict, "mallory")
    token = strict.token("mallory")
    done = shell.run("login", "--token-stdin", strict.url, input=token)
    assert (done.returncode, done.stdout) == (4, "")
    assert "it lacks the scope access:services!service=kaos." in done.stderr
    assert shell.run("token").returncode == 4


def test_where_the_first_page_is_another_both_pages_are_told(tmp_path: Path) -> None:
    config = 'c.JupyterHub.default_url = "/hub/home"\n'
    with running_hub(tmp_path / "hub", config=BY_GROUPS + config) as hub:
        body = {"challenge": "0" * 64, "client": "laptop"}
        for begin, first, second in (
            (hub.ask, hub.kaos, hub.train),
            (hub.ask_train, hub.train, hub.kaos),
        ):
            started = begin("POST", "/login", None, body).json
            assert started["url"].startswith(f"{first}/login?code=")
            assert started["other_url"].startswith(f"{second}/login?code=")
        assert "delete your notebooks" not in let_in(hub, "eve", started["url"])


def test_a_refusal_is_not_the_next_requests_trouble(strict: RunningHub) -> None:
    """The service hangs up after some; the proxy must know, or it loses what comes next."""
    for _ in range(30):
        assert strict.ask("GET", "/whoami", None).status == 401
        assert strict.ask("GET", "/info", None).status == 200
