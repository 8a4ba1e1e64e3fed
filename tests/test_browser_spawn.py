"""The Hub's own pages for a start, in a browser: the form, and the page of what is starting."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests import soundness
from tests.hub import RunningHub, request, running_hub, wait_until
from tests.lab import FIRST_BUILD, Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

CONFIG = """
c.KaosService.limits = {"default": {"notebooks": 3, "cpu": 4, "memory": "8Gi"}}
c.KaosService.sizes = [
    {"name": "small", "description": "for most", "cpu": 1, "memory": "2Gi"},
    {"name": "large", "cpu": 3, "memory": "4Gi"},
    {"name": "huge", "cpu": 16, "memory": "64Gi"},
]
"""
LOOKS = [("light", 1200), ("dark", 390)]

DROP = """() => {
  const file = (name, text) => (
    { isDirectory: false, name, file: (done) => done(new File([text], name)) }
  );
  const entries = [file("a.txt", "1"), file("b.txt", "2")];
  const folder = { isDirectory: true, name: "dropped", createReader: () => (
    { readEntries: (done) => done(entries.splice(0, 1)) }
  ) };
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = { items: [{ webkitGetAsEntry: () => folder }] };
  document.querySelector("[data-upload][data-kind=data]").dispatchEvent(event);
}"""
"""Chromium lets no script drop a real folder, so its entries are made by the page."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def client(hub: RunningHub, user: str) -> Client:
    return Client(hub.url, hub.token(user))


def slow_starter(path: Path) -> Path:
    """A source whose start takes longer than any test looks at it."""
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (path / "startup-hook.sh").write_text("sleep 300\n")
    return path


def visit_start(person: Person, address: str) -> None:
    """Open the Hub's page of a start, as soon as the Hub has been asked for it."""

    def visited() -> bool:
        person.page.goto(address)
        return bool(person.page.get_by_role("button", name="Stop notebook").count())

    wait_until(visited, 120, "the page of the start")


def new(person: Person, name: str) -> Any:
    """The form of a new notebook."""
    person.visit(f"new?name={name}")
    expect(person.page.locator("h1")).to_have_text(f"Start notebook {name}")
    return person.page


def running(kaos: Client, name: str) -> None:
    states = lambda: {n.name: n.state for n in kaos.notebooks.list()}  # noqa: E731
    wait_until(lambda: states().get(name) == "RUNNING", 180, f"{name} to run")


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_three_choices_first(hub: RunningHub, browser: Any, scheme: str, width: int) -> None:
    """And the name; the rest is one click away; what does not fit says why."""
    view = {"width": width, "height": 800}
    # axe itself changes styles
    options = {"color_scheme": scheme, "viewport": view, "bypass_csp": True}
    with at_browser(browser, hub, "mae", **options) as person:
        page = new(person, "glance")
        shown = [each for each in page.locator("#spawn_form [name]").all() if each.is_visible()]
        assert {each.get_attribute("name") for each in shown} == {"name", "source", "data", "size"}
        huge = page.get_by_label("huge")
        expect(huge).to_be_disabled()
        expect(huge).to_have_accessible_description("More than you may have: 4 cores.")
        expect(page.get_by_label("small")).to_be_checked()
        person.shoot(f"spawn-three-{scheme}-{width}", True)
        page.click("text=More options")
        person.shoot(f"spawn-all-{scheme}-{width}", True)
        assert soundness.faults(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_all_of_it_by_keyboard(hub: RunningHub, browser: Any) -> None:
    """From the first field to a notebook as it was said; secrets stay with the service."""
    kaos = client(hub, "katherine")
    with at_browser(browser, hub, "katherine") as person:
        page = new(person, "typed")
        page.locator("#kaos-source").focus()
        keys = page.keyboard
        seen = []
        for _ in range(40):
            keys.press("Tab")
            focused = page.evaluate("document.activeElement.id || document.activeElement.tagName")
            seen.append(focused)
            if focused == "kaos-size-1":
                keys.press("ArrowDown")  # to large
            elif focused == "SUMMARY":
                keys.press("Enter")
            elif focused == "kaos-display_name":
                keys.type("typed by hand")
            elif focused == "kaos-environment":
                keys.type("GREETING=hello")
            elif focused == "kaos-idle_timeout":
                keys.type("45m")
            elif focused == "BUTTON":
                keys.press("Enter")
                break
        assert {"kaos-data", "kaos-cpu", "kaos-environment", "BUTTON"} <= set(seen), seen
        running(kaos, "typed")
    found = kaos.notebooks.get("typed")
    assert (found.resources.cpu, found.idle.timeout) == (3, 2700)
    assert (found.display_name, found.environment) == ("typed by hand", ["GREETING"])
    servers = hub.hub_api("GET", "/users/katherine").text
    assert "/user/katherine/typed" in servers and "hello" not in servers
    with at_browser(browser, hub, "katherine") as person:
        # what was chosen is offered again, and what is left of the limits is counted
        page = new(person, "again")
        expect(page.get_by_label("large")).to_be_disabled()
        expect(page.get_by_label("large")).to_have_accessible_description(
            "1 of your 4 cores are free now; stop something first."
        )
        page.click("text=More options")
        expect(page.get_by_label("Stop when idle for")).to_have_value("45m")
        kaos.notebooks.kill("typed")
        wait_until(lambda: kaos.notebooks.get("typed").state == "STOPPED")
        page = new(person, "again")
        expect(page.get_by_label("large")).to_be_checked()


def test_a_link_starts_nothing(hub: RunningHub, browser: Any) -> None:
    """Whatever it asks for: the form is shown, and somebody has to press Start."""
    kaos = client(hub, "dorothy")
    with at_browser(browser, hub, "dorothy") as person:
        page = person.page
        page.goto(f"{hub.url}/hub/spawn/dorothy/tricked?size=small&opt-size=small")
        expect(page.locator("#spawn_form")).to_be_visible()
        page.wait_for_timeout(500)
        assert kaos.notebooks.list() == []


def test_the_page_of_a_start_stops_it(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    """That server, and no other: the default one goes on."""
    kaos = client(hub, "evelyn")
    kaos.notebooks.deploy(name="default").wait(180)
    with at_browser(browser, hub, "evelyn") as person:
        page = person.page
        kaos.notebooks.deploy(source=slow_starter(tmp_path / "slow"), name="slow")
        wait_until(lambda: kaos.notebooks.get("slow").state == "STARTING", 180)
        visit_start(person, f"{hub.url}/hub/spawn-pending/evelyn/slow")
        expect(page.locator("body")).to_contain_text("Your notebook slow is starting.")
        expect(page.locator("#stop-server-btn")).to_have_count(0)
        person.shoot("spawn-pending")
        for width in (1200, 375):
            page.set_viewport_size({"width": width, "height": 800})
            assert soundness.faults(page) == []
            assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            if width == 1200:
                page.click("#dark-theme-toggle")
        page.get_by_role("button", name="Stop notebook").click()
        page.wait_for_url("**/services/kaos/notebooks/slow")
        expect(person.badge()).to_have_text("STOPPED", timeout=30_000)
    assert kaos.notebooks.get("default").state == "RUNNING"


def test_the_default_server_is_stopped_there_too(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    kaos = client(hub, "annie")
    with at_browser(browser, hub, "annie") as person:
        kaos.notebooks.deploy(source=slow_starter(tmp_path / "slow"), name="default")
        wait_until(lambda: kaos.notebooks.get("default").state == "STARTING", 180)
        visit_start(person, f"{hub.url}/hub/spawn-pending/annie")
        person.page.get_by_role("button", name="Stop notebook").click()
        person.page.wait_for_url("**/services/kaos/notebooks/default")
        expect(person.badge()).to_have_text("STOPPED", timeout=30_000)


def folder(path: Path) -> Path:
    """Code with what should be sent, and what should not."""
    for name, text in {
        "Dockerfile": "FROM python:3.13-slim\n",
        "model/hello.py": "print('hello')\n",
        "model/__pycache__/hello.pyc": "rubbish",
        "secret.txt": "not to be sent",
        ".kaosignore": "secret.txt\n",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_folder_is_sent_from_the_form(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    """Straight to the service, told what was left out, chosen, and started: the same version that
    the command line makes of it."""
    kaos = client(hub, "joan")
    made = folder(tmp_path / "uploaded")
    with at_browser(browser, hub, "joan") as person:
        page = new(person, "fresh")
        box = page.locator("[data-upload][data-kind=source]")
        box.locator("input[type=file]").set_input_files(str(made))
        expect(box.locator("[data-said]")).to_have_text("uploaded v1 is there, and chosen.")
        box.locator("summary").click()
        expect(box.locator("li")).to_contain_text(["secret.txt", "__pycache__"])
        expect(page.locator("#kaos-source")).to_have_value("uploaded@v1")
        person.shoot("spawn-uploaded", True)
        page.click("#spawn_form [type=submit]")
        running(kaos, "fresh")
    assert kaos.bundles.submit(made).version == 1
    found = kaos.notebooks.get("fresh").source
    assert found and (found.name, found.version) == ("uploaded", 1)


def test_what_is_chosen_before_the_script_is_there_stays(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    """A slow network: neither a choice nor a folder is lost when the page's script arrives late."""

    chosen = folder(tmp_path / "early")
    with at_browser(browser, hub, "hasty") as person:
        page = new(person, "impatient")
        page.click("text=More options")
        idle = page.get_by_label("Stop when idle for")
        idle.fill("soon")
        held: list[Any] = []
        page.route("**/spawn.js*", lambda route: held.append(route))
        page.click("#spawn_form [type=submit]", no_wait_after=True)
        expect(page.locator(".alert:visible")).to_contain_text("'soon' is no duration")
        page.click("text=More options")
        idle.fill("3h")
        page.locator("#kaos-source-folder").set_input_files(str(chosen))
        wait_until(lambda: page.wait_for_timeout(50) or held, what="the script's request")
        held[0].continue_()
        expect(page.locator("#kaos-source")).to_have_value("early@v1", timeout=60_000)
        expect(idle).to_have_value("3h")


def test_another_folder_of_that_name_is_asked_about_in_the_form(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    """It replaces no other project's code unasked."""
    kaos = client(hub, "june")
    first, second = folder(tmp_path / "a" / "proj"), tmp_path / "b" / "proj"
    (second / "model").mkdir(parents=True)
    (second / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (second / "model" / "other.py").write_text("print('other')\n")
    with at_browser(browser, hub, "june") as person:
        page = new(person, "fresh")
        box = page.locator("[data-upload][data-kind=source]")
        box.locator("input[type=file]").set_input_files(str(first))
        expect(box.locator("[data-said]")).to_have_text("proj v1 is there, and chosen.")
        box.locator("input[type=file]").set_input_files(str(second))
        expect(box.locator("[data-said]")).to_contain_text("no file in common with proj@v1")
        person.shoot("spawn-alike", True)
        box.get_by_role("button", name="Something else: proj-2").click()
        expect(box.locator("[data-said]")).to_have_text("proj-2 v1 is there, and chosen.")
        expect(page.locator("#kaos-source")).to_have_value("proj-2@v1")
    assert kaos.bundles.get("source", "proj").version == 1


def test_a_dropped_folder_is_taken(hub: RunningHub, browser: Any) -> None:
    """Where data belong."""
    kaos = client(hub, "irene")
    with at_browser(browser, hub, "irene") as person:
        page = new(person, "any")
        page.evaluate(DROP)
        said = page.locator("[data-upload][data-kind=data] [data-said]")
        expect(said).to_have_text("dropped v1 is there, and chosen.")
        expect(page.locator("#kaos-data")).to_have_value("dropped@v1")
    version = kaos.bundles.get("data", "dropped")
    assert (version.files, version.owner) == (2, "user:irene")


def test_what_breaks_off_goes_on(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    """The service dies while a folder is sent; what is no bundle is refused in words."""
    large = folder(tmp_path / "large")
    for number in range(40):
        (large / "model" / f"{number}.bin").write_bytes(number.to_bytes(4, "big") * (1 << 18))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "readme.txt").write_text("no Dockerfile")
    with at_browser(browser, hub, "mary") as person:
        page = new(person, "broken")
        box = page.locator("[data-upload][data-kind=source]")
        box.locator("input[type=file]").set_input_files(str(wrong))
        expect(box.locator("[data-said]")).to_contain_text("Dockerfile")

        def dies(route: Any) -> None:
            hub.end_service()
            route.continue_()

        page.route("**/api/v1/objects", dies, times=1)
        box.locator("input[type=file]").set_input_files(str(large))
        expect(box.locator("[data-said]")).to_contain_text("trying again")
        expect(page.locator("#spawn_form [type=submit]")).to_be_disabled()
        expect(box.locator("[data-said]")).to_have_text(
            "large v1 is there, and chosen.", timeout=60_000
        )
        expect(page.locator("#spawn_form [type=submit]")).to_be_enabled()


def test_the_ticket_of_a_form_only_sends(hub: RunningHub, browser: Any) -> None:
    """It neither reads nor starts, for nobody else, and no other kind of ticket does its work."""
    with at_browser(browser, hub, "mabel") as person:
        page = new(person, "any")
        ticket = page.locator("[data-upload]").first.get_attribute("data-ticket")
    head = {"Authorization": f"Bearer {ticket}"}
    asked = {"objects": {"blake3:" + "0" * 64: 5}}
    assert request("POST", f"{hub.api}/bundles/missing", None, asked, head).status == 200
    for method, path, body in [
        ("GET", "/bundles", None),
        ("GET", "/whoami", None),
        ("GET", "/notebooks", None),
        ("POST", "/notebooks", {"name": "sly"}),
        ("DELETE", "/bundles/source/uploaded/1", None),
    ]:
        assert request(method, hub.api + path, None, body, head).status in (401, 403), path
    other = {**head, "X-Kaos-Owner": "user:joan"}
    answer = request("POST", f"{hub.api}/bundles/missing", None, asked, other)
    assert answer.status == 200 and answer.json["missing"]  # its own, whatever else is said
    forged = {"Authorization": f"Bearer {ticket}x"}
    assert request("POST", f"{hub.api}/bundles/missing", None, asked, forged).status == 401


def test_all_of_it_without_scripts(hub: RunningHub, browser: Any, tmp_path: Path) -> None:
    """From the first login, over archives of code and data, to a notebook that runs with them."""
    code, data = folder(tmp_path / "mine"), tmp_path / "numbers"
    data.mkdir()
    (data / "a.csv").write_text("1,2\n")
    archives = [shutil.make_archive(str(each), "gztar", each) for each in (code, data)]
    with at_browser(browser, hub, "grete", java_script_enabled=False) as person:
        page = person.page
        page.fill("[aria-label='Name of a new notebook']", "plain")
        page.get_by_role("button", name="New notebook").click()
        expect(page.locator("h1")).to_have_text("Start notebook plain")
        expect(page.locator("#noscript")).to_be_hidden()
        expect(page.locator("[data-upload]").first).to_be_hidden()
        page.get_by_role("link", name="Send an archive with code").click()
        expect(page.locator("h1")).to_have_text("Upload for plain")
        page.set_input_files("#archive", archives[0])
        page.get_by_role("button", name="Upload the archive").click()
        # some of it was left out, which is said before one goes back
        expect(page.locator("main")).to_contain_text("secret.txt")
        page.get_by_role("link", name="Back to the form").click()
        expect(page.locator("#kaos-source")).to_have_value("mine@v1")
        page.get_by_role("link", name="Send an archive with data").click()
        page.set_input_files("#archive", archives[1])
        page.get_by_role("button", name="Upload the archive").click()
        expect(page.locator("h1")).to_have_text("Start notebook plain")
        expect(page.locator("#kaos-source")).to_have_value("mine@v1")
        expect(page.locator("#kaos-data")).to_have_value("numbers@v1")
        page.get_by_role("button", name="Start").click()
        # Over the page of the notebook, or the Hub's where that is slow: both load themselves again
        # while something moves, and lead on when it is ready.
        expect(page).to_have_title(re.compile("JupyterLab"), timeout=FIRST_BUILD)
        found = client(hub, "grete").notebooks.get("plain")
        assert (found.source and found.source.name, found.data and found.data.name) == (
            "mine",
            "numbers",
        )
        # what was sent for it is in use, and chosen no more
        page.goto(f"{hub.kaos}/notebooks/plain")
        page.get_by_role("button", name="Stop plain").click()
        expect(person.badge()).to_have_text("STOPPED", timeout=30_000)
        page.goto(f"{hub.url}/hub/spawn/grete/plain")
        expect(page.locator("#kaos-source")).to_have_value("")
        expect(page.locator("#kaos-source option").first).to_have_text("mine v1 (as it is)")


def test_an_archive_that_cannot_be_taken_leads_back(
    hub: RunningHub, browser: Any, tmp_path: Path
) -> None:
    """To the same page for the same notebook; and what is for one notebook is not for another."""
    (tmp_path / "no.zip").write_bytes(b"no archive")
    with at_browser(browser, hub, "gerda", java_script_enabled=False) as person:
        page = new(person, "one")
        page.get_by_role("link", name="Send an archive with code").click()
        page.set_input_files("#archive", tmp_path / "no.zip")
        page.get_by_role("button", name="Upload the archive").click()
        page.get_by_role("link", name="Try again").click()
        expect(page.locator("h1")).to_have_text("Upload for one")
        assert page.locator("#kind-source").is_checked()
        archive = shutil.make_archive(str(tmp_path / "own"), "zip", folder(tmp_path / "own"))
        page.set_input_files("#archive", archive)
        page.get_by_role("button", name="Upload the archive").click()
        expect(page.get_by_role("link", name="Back to the form")).to_be_visible()
        for name, chosen in (("two", ""), ("one", "own@v1")):
            page.goto(f"{hub.url}/hub/spawn/gerda/{name}")
            expect(page.locator("#kaos-source")).to_have_value(chosen)
        # A notebook that is begun anew has nothing of that.
        new(person, "one")
        expect(page.locator("#kaos-source")).to_have_value("")
        person.visit("bundles/upload?notebook=--&kind=source")
        expect(page.locator("main")).to_contain_text("cannot name a notebook")
