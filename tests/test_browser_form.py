"""The Hub's form in a browser: the name, what cannot be taken, ended logins, what it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.hub import RunningHub, running_hub, wait_until
from tests.lab import Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

START = "#spawn_form [type=submit]"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    config = 'c.KaosService.limits = {"default": {"notebooks": 3, "cpu": 8}}'
    with running_hub(tmp_path_factory.mktemp("hub"), config=config) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def client(hub: RunningHub, user: str) -> Client:
    return Client(hub.url, hub.token(user))


def form(person: Person, name: str = "") -> Any:
    """The form of a new notebook."""
    person.visit(f"new?name={name}" if name else "new")
    expect(person.page.locator("#spawn_form")).to_be_visible()
    return person.page


def servers(hub: RunningHub, user: str) -> set[str]:
    """Named servers that the Hub knows of, running or not."""
    answer = hub.hub_api("GET", f"/users/{user}?include_stopped_servers")
    return set(answer.json["servers"]) - {""}


def code(path: Path) -> Path:
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (path / "model" / "hello.py").write_text("print(1)\n")
    return path


def test_a_folder_that_cannot_be_taken_starts_nothing_else(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    """It says why, readably; what was chosen before is chosen no more, until somebody says so."""
    kaos, wrong = client(hub, "maria"), tmp_path / "no-dockerfile"
    wrong.mkdir()
    (wrong / "readme.txt").write_text("no Dockerfile")
    with at_browser(browser, hub, "maria") as person:
        page = form(person, "mine")
        box = page.locator("[data-upload][data-kind=source]")
        box.locator("input[type=file]").set_input_files(str(code(tmp_path / "good")))
        expect(page.locator("#kaos-source")).to_have_value("good@v1")
        assert box.locator("input[type=file]").evaluate("(e) => getComputedStyle(e).color") in (
            "rgba(0, 0, 0, 0)",
        ), "the browser says that no file is chosen"
        box.locator("input[type=file]").set_input_files(str(wrong))
        said = box.locator("[data-said]")
        expect(said.locator("p")).to_have_text("The source bundle has no Dockerfile")
        expect(said.locator("pre")).to_contain_text("├── Dockerfile")
        expect(page.locator("#kaos-source")).to_have_value("")
        page.click(START)
        assert page.evaluate("document.activeElement.id") == "kaos-source", "Start waits"
        assert kaos.notebooks.list() == []
        page.get_by_role("button", name="Go on without code").click()
        expect(said).to_be_empty()
        page.click(START)
        wait_until(lambda: [n.state for n in kaos.notebooks.list()] == ["RUNNING"], 120)
    assert kaos.notebooks.get("mine").source is None
    kaos.notebooks.kill("mine")


def test_the_name_is_chosen_in_the_form(hub: RunningHub, browser: Any) -> None:
    """One that is taken is refused, and what else was filled in stays."""
    kaos = client(hub, "nora")
    kaos.notebooks.deploy(name="taken", display_name="as it was").wait(200)
    kaos.notebooks.stop("taken")
    active = lambda: hub.hub_api("GET", "/users/nora").json["servers"]  # noqa: E731
    wait_until(lambda: not active(), 60, "it to end")
    with at_browser(browser, hub, "nora") as person:
        page = form(person)
        expect(page.get_by_label("Name", exact=True)).to_have_accessible_description(
            "1 to 30 lower-case letters, digits and single hyphens, beginning with a letter. It is"
            " part of the notebook's address, and stays."
        )
        page.get_by_label("Name", exact=True).fill("No Name")
        page.click(START)
        assert page.evaluate("document.activeElement.id") == "kaos-name"
        page.get_by_label("Name", exact=True).fill("taken")
        page.click("text=More options")
        page.get_by_label("Description").fill("another")
        page.click(START)
        expect(page.locator("[data-refused]")).to_contain_text("You have a notebook 'taken'")
        expect(page.get_by_label("Description")).to_have_value("another")
        page.get_by_label("Name", exact=True).fill("chosen")
        expect(page.locator("h1")).to_have_text("Start notebook chosen")
        page.click(START)
        wait_until(lambda: {n.name for n in kaos.notebooks.list()} == {"taken", "chosen"}, 60)
    assert kaos.notebooks.get("taken").display_name == "as it was"
    assert kaos.notebooks.get("chosen").display_name == "another"
    kaos.notebooks.kill("chosen")


def test_a_login_that_ended_loses_nothing(hub: RunningHub, browser: Any) -> None:
    """Not even what is secret. The same where another tab has logged in again."""
    kaos = client(hub, "olga")
    with at_browser(browser, hub, "olga") as person:
        page = form(person, "kept")
        page.click("text=More options")
        page.get_by_label("Variables").fill("KEY=s3cret")
        person.context.clear_cookies()
        page.click(START)
        expect(page.locator("[data-not-sent]")).to_contain_text("your login has ended")
        with person.context.expect_page() as opened:
            page.click("text=Log in again")
        again = opened.value
        again.fill("input[name=username]", "olga")
        again.fill("input[name=password]", hub.password)
        again.click("#login_submit")
        again.wait_for_url("**/hub/token")
        page.click(START)
        wait_until(lambda: [n.environment for n in kaos.notebooks.list()] == [["KEY"]], 60)
        kaos.notebooks.kill("kept")


def test_a_refused_form_is_filled_in_again(hub: RunningHub, browser: Any) -> None:
    """Where the check beforehand could not be made, too: the Hub's refusal leads back."""
    with at_browser(browser, hub, "petra") as person:
        page = form(person, "back")
        page.click("text=More options")
        page.get_by_label("Description").fill("long to type")
        page.route("**/hub/token", lambda route: route.abort())
        page.evaluate("document.querySelector('#spawn_form').action += 'x'")
        page.click(START)
        expect(page.locator("body")).to_contain_text("Nothing was started")
        page.click("text=Back to the form")
        expect(page.get_by_label("Description")).to_have_value("long to type")
    assert client(hub, "petra").notebooks.list() == []


def test_a_form_leaves_no_server(hub: RunningHub, browser: Any) -> None:
    with at_browser(browser, hub, "rosa") as person:
        form(person, "only-looked-at")
        assert servers(hub, "rosa") == set()
        # nor does what was refused
        kaos = client(hub, "rosa")
        page = form(person, "too-much")
        page.click("text=More options")
        page.get_by_label("Cores", exact=True).fill("100")
        page.click(START)
        expect(page.locator("[data-refused]")).to_be_visible()
        wait_until(lambda: servers(hub, "rosa") == set(), 30, "the Hub to forget it")
        assert kaos.notebooks.list() == []


def test_a_server_that_the_hub_forgets_is_off_the_list(hub: RunningHub) -> None:
    """As the button of the Hub's own Home has it."""
    kaos = client(hub, "sara")
    kaos.notebooks.deploy(name="gone").wait(200)
    kaos.notebooks.stop("gone")
    wait_until(lambda: kaos.notebooks.get("gone").state == "STOPPED")
    forget = {"remove": True}
    assert hub.hub_api("DELETE", "/users/sara/servers/gone", forget).status == 204
    wait_until(lambda: kaos.notebooks.list() == [], 60, "it to be off the list")
