"""A domain for each user: a page of one user's notebook is nothing to another's (cause 6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.attacks.test_rights_origin import browser, serve_evil, tokens
from tests.hub import RunningHub, request, running_hub
from tests.lab import Person

pytestmark = pytest.mark.browser

__all__ = ["browser"]

CONFIG = """
import os
c.JupyterHub.subdomain_host = f"http://hub.localhost:{os.environ['KAOS_PORT']}"
c.JupyterHub.load_roles.append({"name": "support", "users": ["sue"], "scopes": ["access:servers"]})
"""


@dataclass
class Site:
    """A Hub at its own name, as a browser reaches it."""

    url: str
    password: str

    @property
    def kaos(self) -> str:
        """The service at that name."""
        return f"{self.url}/services/kaos"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def site(hub: RunningHub) -> Site:
    return Site(hub.url.replace("127.0.0.1", "hub.localhost"), hub.password)


@pytest.fixture(scope="module")
def evil(hub: RunningHub, site: Site) -> str:
    return serve_evil(hub, "bob", site.url)


def visitor(browser: Any, site: Site, user: str) -> Person:
    """Somebody who is logged in."""
    person = Person(browser, site)  # type: ignore[arg-type]
    person.log_in(user)
    return person


def test_addresses_have_the_users_domain(hub: RunningHub, site: Site, evil: str) -> None:
    """SDK, command line and pages lead to the user's own domain."""
    port = hub.port
    assert evil == f"http://bob.hub.localhost:{port}/user/bob/nb/evil"
    odd = Client(hub.url, hub.token("größe.x"))
    url = odd.notebooks.deploy(name="nb").url
    assert url.startswith("http://xn--") or ".hub.localhost" in url
    assert url.endswith(f".hub.localhost:{port}/user/gr%C3%B6%C3%9Fe.x/nb")
    # What asks this machine by number is answered as before.
    assert request("GET", f"{hub.kaos}/health").status == 200


def test_a_notebook_opens_at_the_users_domain(
    browser: Any, hub: RunningHub, site: Site, evil: str
) -> None:
    """Log in, start from a page, work in Lab, all without a question."""
    bob = visitor(browser, site, "bob")
    bob.page.goto(evil.replace("/evil", "/lab"))
    bob.page.wait_for_selector(".jp-DirListing", timeout=90_000)
    assert bob.page.url.startswith(f"http://bob.hub.localhost:{hub.port}/user/bob/nb/lab")
    bob.context.close()


@pytest.mark.parametrize("who", ["root", "sue"])
def test_the_script_reads_and_takes_nothing(
    browser: Any, hub: RunningHub, site: Site, evil: str, who: str
) -> None:
    """The attack of cause 6 step by step, also by somebody who may enter the server: the page
    runs, and can read neither the Hub's XSRF token nor anything else of the visitor's."""
    person = visitor(browser, site, who)
    person.page.goto(evil)
    person.page.wait_for_function("document.title != 'ran'")
    assert person.page.title().startswith("none"), person.page.title()
    assert tokens(hub, who) == 0
    read = person.page.evaluate(
        """async (hub) => {
            const seen = [document.cookie];
            for (const url of [hub + "/hub/home", "/hub/home", "/hub/api/user"]) {
                try { seen.push(await (await fetch(url, {credentials: "include"})).text()); }
                catch (e) { seen.push(""); }
            }
            return seen.join(" ");
        }""",
        site.url,
    )
    assert f'user: "{who}"' not in read and "login" not in person.page.evaluate("document.cookie")
    person.context.close()
