"""One user's server must not act in another user's name (cause 6)."""

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from kaos_hub.client import Client
from kaos_hub.hub.spawners.visits import cookie_of
from tests.hub import RunningHub, request, running_hub, wait_until
from tests.lab import at_browser, chromium

pytestmark = pytest.mark.browser

# `sue` may enter servers, by a role of its own; admins may not by being admins.
CONFIG = """
c.JupyterHub.load_roles.append({"name": "support", "users": ["sue"], "scopes": ["access:servers"]})
"""
SERVED = '''
from jupyter_server import serverapp
from tornado import web

class Evil(web.RequestHandler):
    def get(self):
        self.finish(PAGE)
    post = get
    def check_xsrf_cookie(self):
        pass

before = serverapp.ServerWebApplication.init_handlers
def init_handlers(self, *args, **kwargs):
    base = (args[1] if len(args) > 1 else kwargs["settings"])["base_url"]
    return [(base + "evil", Evil), *before(self, *args, **kwargs)]
serverapp.ServerWebApplication.init_handlers = init_handlers
PAGE = """<!doctype html><title>ran</title><script>
fetch("HUB/hub/home").then((r) => r.text()).then((text) => {
  const xsrf = /xsrf_token: "([^"]+)"/.exec(text)[1];
  const user = /user: "([^"]+)"/.exec(text)[1];
  const tokens = `HUB/hub/api/users/${user}/tokens?_xsrf=`;
  return fetch(tokens + encodeURIComponent(xsrf), {method: "POST"});
}).then((r) => { document.title = `LOOT ${r.status}`; }, (e) => { document.title = `none ${e}`; });
</script>"""
'''


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=CONFIG) as running:
        yield running


def serve_evil(hub: RunningHub, user: str, root: str = "") -> str:
    """Have a user's server show a page that takes its visitor's token; its address."""
    client = Client(hub.url, hub.token(user))
    client.notebooks.deploy(name="nb").wait()
    client.notebooks.stop("nb")
    wait_until(lambda: client.notebooks.get("nb").state == "STOPPED", what="the stop")
    (home,) = (hub.data / "homes").iterdir()
    (home / ".jupyter").mkdir(exist_ok=True)
    (home / ".jupyter" / "jupyter_server_config.py").write_text(SERVED.replace("HUB", root))
    client.notebooks.start("nb")
    url = client.notebooks.wait("nb").url
    answer = request("GET", f"{hub.url}/user/{user}/nb/evil", headers={"Host": url.split("/")[2]})
    assert "<title>ran</title>" in answer.text
    return f"{url}/evil"


@pytest.fixture(scope="module")
def evil(hub: RunningHub) -> str:
    return serve_evil(hub, "bob")


def test_his_own_browser_shows_it(browser: Any, hub: RunningHub, evil: str) -> None:
    """What somebody has put there themselves harms nobody else, and asks nothing."""
    with at_browser(browser, hub, "bob") as bob:
        bob.page.goto(evil)
        bob.page.wait_for_function("document.title.startsWith('LOOT')")


@pytest.mark.parametrize("who", ["root", "carol"])
def test_no_token_is_taken(browser: Any, hub: RunningHub, evil: str, who: str) -> None:
    """An admin, or any user, opens a page of another's server (cause 6, step by step)."""
    with at_browser(browser, hub, who) as visitor:
        answer = visitor.page.goto(evil)
        assert answer.status == 403, answer.text()
        assert "You have no access to servers of bob" in answer.text()
        framed = (
            f'<iframe src="{evil}"></iframe><embed src="{evil}"><object data="{evil}"></object>'
        )
        visitor.page.set_content(framed)
        visitor.page.wait_for_load_state("networkidle")
        assert [frame.title() for frame in visitor.page.frames if frame.title() == "ran"] == []
        assert tokens(hub, who) == 0


def test_who_may_enter_is_asked_first(browser: Any, hub: RunningHub, evil: str) -> None:
    """A role gives access to all servers: their code runs after a question, not before."""
    with at_browser(browser, hub, "sue") as sue:
        sue.page.goto(evil)
        assert sue.page.locator("h1").inner_text() == "Open a notebook of bob?"
        assert tokens(hub, "sue") == 0
        sue.page.click("button[type=submit]")
        sue.page.wait_for_url("**/user/bob/nb/evil")
        sue.page.wait_for_function("document.title.startsWith('LOOT')")


@pytest.mark.parametrize("way", ["link", "form", "fetch", "window"])
def test_a_page_elsewhere_never_passes_the_question(
    browser: Any, hub: RunningHub, evil: str, way: str
) -> None:
    """A page elsewhere links to, posts to or scripts the question (cause 6)."""
    with at_browser(browser, hub, "sue") as sue:
        sue.context.clear_cookies(name="kaos-visit-" + visit_name("bob"))
        visit = f"{hub.url}/hub/kaos/visit?next=/user/bob/nb/evil"
        pages = {
            "link": f'<a id=go href="{evil}">go</a>',
            "form": f'<form method=post action="{visit}"><button id=go>go</button></form>',
            "fetch": f"<button id=go onclick=\"fetch('{visit}', {{method: 'POST', mode: 'no-cors',"
            " credentials: 'include'}).catch(() => 0).then(() => location = '"
            + evil
            + "')\">go</button>",
            "window": f"<button id=go onclick=\"open('{visit}')\">go</button>",
        }
        other = hub.url.replace("127.0.0.1", "localhost")
        sue.page.route(f"{other}/elsewhere", lambda route: route.fulfill(
            body=pages[way], content_type="text/html"))  # fmt: skip
        sue.page.goto(f"{other}/elsewhere")
        before = tokens(hub, "sue")
        sue.page.click("#go")
        sue.page.wait_for_load_state("networkidle")
        assert tokens(hub, "sue") == before
        titles = [page.title() for page in sue.context.pages]
        assert not [title for title in titles if title.startswith(("ran", "LOOT"))]


def tokens(hub: RunningHub, user: str) -> int:
    """How many tokens a user made, besides those of logins."""
    found = hub.hub_api("GET", f"/users/{user}/tokens").json["api_tokens"]
    return sum(each["note"].startswith("Requested via api") for each in found)


def visit_name(user: str) -> str:
    """The end of the name of the cookie for visits to a user's servers."""
    return cookie_of("", user, "", 0)[0].removeprefix("kaos-visit-")


def test_ways_around_the_gate(hub: RunningHub, evil: str) -> None:
    """Ask as a browser would, with other spellings of the address and other headers (cause 6)."""
    page = {"Accept": "text/html,*/*"}
    for spelling in ("/user/bob/nb/evil", "/user/bo%62/nb/evil", "/%75ser/bob/nb/evil",
                     "/user/bob/nb/%65vil", "/user/bob/nb/evil?x=/hub/", "/user/bob/nb/./evil",
                     "/hub/../user/bob/nb/evil"):  # fmt: skip
        for headers in (
            page,
            page | {"Sec-Fetch-Dest": "document"},
            {"Sec-Fetch-Dest": "iframe"},
            {"Sec-Fetch-Dest": "serviceworker"},
            page | {"Authorization": "Basic eDp5"},
            page | {"Cookie": f"kaos-visit-{visit_name('bob')}=99999999999.{'0' * 64}"},
        ):
            for method in ("GET", "POST"):
                answer = no_redirect(hub, method, spelling, headers)
                assert "<title>ran</title>" not in answer, (spelling, headers, method)


def no_redirect(hub: RunningHub, method: str, path: str, headers: dict[str, str]) -> str:
    """The body of an answer, and nothing that it leads to."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()
