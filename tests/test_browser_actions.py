"""What the pages do, on each engine: with scripts and without, refused, failed, hostile."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.engines import ENGINES
from tests.hub import RunningHub, running_hub, wait_until
from tests.lab import FIRST_BUILD, Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

LIMITS = """
c.KaosService.limits = {"default": {"notebooks": 2}, "user:grace": {"notebooks": 1, "cpu": 4}}
"""
IMPOSSIBLE = "packaging\nhumanize==999.9\n"
NASTY = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>alert(2)</script>"
ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J"


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"hub-{request.param}")
    with running_hub(directory, engine=request.param, config=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def client(hub: RunningHub, user: str) -> Client:
    return Client(hub.url, hub.token(user))


def source(path: Path, requirements: str, *, dockerfile: str = "") -> Path:
    """A folder to deploy."""
    (path / "model").mkdir(parents=True, exist_ok=True)
    (path / "Dockerfile").write_text(
        "FROM python:3.13-slim\nCOPY requirements.txt .\n"
        f"RUN pip install --no-cache-dir -r requirements.txt\n{dockerfile}"
    )
    (path / "model" / "requirements.txt").write_text(requirements)
    return path


def test_kill_and_delete_ask_first(hub: RunningHub, browser: Any) -> None:
    client(hub, "ada").notebooks.deploy(name="mine").wait(180)
    with at_browser(browser, hub, "ada") as person:
        page, row = person.page, person.row("mine")
        expect(row).to_contain_text("RUNNING")
        page.click("#kill-mine")
        expect(page.locator("h1")).to_have_text("Kill mine?")
        expect(page.locator("main")).to_contain_text("unsaved changes are lost")
        page.click("text=No, go back")
        expect(person.badge()).to_have_text("RUNNING")
        page.click("#kill-mine")
        page.click("main button >> text=Kill")
        expect(person.badge()).to_have_text("STOPPED")
        expect(page.locator("[data-main-reason]")).to_have_text("killed by ada")
        page.click("#delete-mine")
        expect(page.locator("main")).to_contain_text("deleted for good")
        page.click("main button >> text=Delete")
        expect(page.locator("main h2")).to_have_text("No notebooks yet")


def test_all_of_it_without_scripts(hub: RunningHub, browser: Any) -> None:
    client(hub, "brendan").notebooks.deploy(name="plain").wait(180)
    with at_browser(browser, hub, "brendan", java_script_enabled=False) as person:
        person.page.click("#stop-plain")
        shown(person, "STOPPED")
        person.page.click("#start-plain")
        shown(person, "RUNNING")
        person.page.click("#delete-plain")
        person.page.click("main button >> text=Delete")
        expect(person.page.locator("main h2")).to_have_text("No notebooks yet")
        # a new one, too: the form leads to the page, the page to the notebook
        person.page.fill(".kaos-new input", "fresh")
        person.page.click("main >> text=New notebook")
        with person.page.expect_navigation():
            person.page.click("#spawn_form [type=submit]")
        person.visit()
        shown(person, "RUNNING")


def shown(person: Person, state: str) -> None:
    """What a person without scripts does: load the list again, until it says so."""
    badge = person.page.locator("tr[data-notebook] .badge")
    for _ in range(60):
        if badge.inner_text().strip() == state:
            return
        person.page.wait_for_timeout(500)
        person.visit()
    expect(badge).to_have_text(state)


def test_a_limit_is_said_in_words_on_page_and_form(hub: RunningHub, browser: Any) -> None:
    kaos = client(hub, "grace")
    for left in kaos.notebooks.list():  # by a first try
        kaos.notebooks.delete(left.name)
    kaos.notebooks.deploy(name="one").wait(180)
    kaos.notebooks.stop("one")
    wait_until(lambda: kaos.notebooks.get("one").state == "STOPPED")
    kaos.notebooks.deploy(name="two").wait(180)
    with at_browser(browser, hub, "grace") as person:
        page = person.page
        page.click("#start-one")
        warning = page.locator("main [role=alert]")
        expect(warning).to_contain_text("Your limit is 1 running notebooks: 1 held")
        person.visit("new?name=three")
        page.click("#spawn_form [type=submit]")
        refused = page.locator(".alert:visible")
        expect(refused).to_contain_text("Your limit is 1 running notebooks: 1 held")
        expect(page.locator("h1")).to_have_text("Start notebook three")
        # what was chosen need not be chosen again
        page.get_by_label("medium").check()
        page.click("text=More options")
        page.get_by_label("Stop when idle for").fill("soon")
        page.click("#spawn_form [type=submit]")
        expect(refused).to_contain_text("'soon' is no duration")
        expect(page.get_by_label("medium")).to_be_checked()
        expect(page.get_by_label("Stop when idle for")).to_have_value("soon")
        kaos.notebooks.delete("two")


def test_a_failed_build_is_told_and_tried_again(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    kaos = client(hub, "hedy")
    folder = source(tmp_path / "frail", IMPOSSIBLE)
    kaos.notebooks.deploy(source=folder)
    with at_browser(browser, hub, "hedy") as person:
        page = person.page
        person.visit("notebooks/frail")
        expect(person.badge()).to_have_text("FAILED", timeout=60_000)
        reason = page.locator("[data-main-reason]")
        expect(reason).to_contain_text("model/requirements.txt:2")
        expect(reason).to_contain_text("humanize==999.9")
        expect(person.log("build")).to_contain_text("999.9")
        # the fix, deployed from elsewhere, is seen here at once
        source(folder, "packaging\n")
        kaos.notebooks.deploy(source=folder)
        expect(person.badge()).to_have_text("RUNNING", timeout=FIRST_BUILD)
        expect(reason).to_have_count(0)


def test_retry_builds_again(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    kaos = client(hub, "ida")
    folder = source(tmp_path / "stubborn", IMPOSSIBLE)
    kaos.notebooks.deploy(source=folder)
    with at_browser(browser, hub, "ida") as person:
        person.visit("notebooks/stubborn")
        expect(person.badge()).to_have_text("FAILED", timeout=60_000)
        before = kaos.notebooks.get("stubborn").build.job
        person.page.click("#retry-stubborn")
        person.page.wait_for_load_state()
        expect(person.badge()).to_have_text("FAILED", timeout=60_000)
        expect(person.page.locator("[data-main-reason]")).to_contain_text("requirements.txt:2")
        assert kaos.notebooks.get("stubborn").build.job != before
        # who has no terminal sends what is corrected from here
        source(folder, "packaging\n")
        person.page.click("#change-stubborn")
        person.page.locator("#kaos-source-folder").set_input_files(str(folder))
        expect(person.page.locator("#kaos-source")).to_have_value("stubborn@v2", timeout=30_000)
        person.page.click("#spawn_form [type=submit]")
        person.page.wait_for_url(re.compile(r"/notebooks/stubborn\?open=1$"))
        expect(person.page.locator("main")).to_contain_text("You are taken to it")
        person.page.wait_for_url("**/user/ida/stubborn/lab**", timeout=FIRST_BUILD)


def test_names_and_logs_are_only_text(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    """Whatever a user puts into a name, a requirement or a log, nobody's browser runs it."""
    kaos = client(hub, "joan")
    lines = f"packaging\nhumanize==999.9 # {SCRIPT}{NASTY}{ESCAPES}\n"
    folder = source(tmp_path / "evil", lines)
    kaos.notebooks.deploy(source=folder, display_name=NASTY + SCRIPT)
    with at_browser(browser, hub, "joan") as person:
        page = person.page
        person.visit("notebooks/evil")
        expect(page.locator(".lead")).to_have_text(NASTY + SCRIPT)
        expect(person.badge()).to_have_text("FAILED", timeout=60_000)
        log = person.log("build")
        expect(log).to_contain_text("999.9")
        assert "\x1b" not in log.inner_text()
        person.visit()
        expect(person.row("evil")).to_contain_text(NASTY)
        for path in ("", "notebooks/evil", "notebooks/evil/confirm/delete"):
            person.visit(path)
            assert page.locator("main img, main script").count() == 0
        assert person.errors == []


def test_two_people_do_not_see_each_other(hub: RunningHub, browser: Any) -> None:
    client(hub, "kay").notebooks.deploy(name="secret").wait(180)
    with at_browser(browser, hub, "kay") as kay, at_browser(browser, hub, "lena") as lena:
        expect(kay.row("secret")).to_contain_text("RUNNING")
        expect(lena.page.locator("main h2")).to_have_text("No notebooks yet")
        for path in ("notebooks/secret", "notebooks/secret/confirm/delete"):
            answer = lena.visit(path)
            assert answer.status == 404
            expect(lena.page.locator("h1")).to_have_text("Not found")
            expect(lena.page.locator("main")).not_to_contain_text("kay")
        for path in ("/user/kay/secret/lab", "/hub/spawn/kay/secret"):
            answer = lena.page.goto(hub.url + path)
            assert answer.status in (403, 404)
            assert not re.search(r"jupyter-config-data|spawn_form", lena.page.content())
        expect(kay.row("secret")).to_contain_text("RUNNING")
