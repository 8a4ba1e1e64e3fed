"""The page on which a running notebook is saved and gets data: with scripts, and without."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests import soundness
from tests.hub import RunningHub, wait_until
from tests.kernels import Kernel
from tests.lab import at_browser, chromium, expect

pytestmark = pytest.mark.browser
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    return hub.token("vera-of-the-pages")


@pytest.fixture(scope="module")
def kaos(hub: RunningHub, token: str) -> Iterator[Client]:
    """Somebody with a notebook without a source, in which there is something."""
    kaos = Client(hub.url, token)
    url = kaos.notebooks.deploy(name="idea").wait(180).url
    kernel = Kernel(url, token)
    # In a thread: the browser has an event loop in this one.
    run = ThreadPoolExecutor().submit(
        kernel.run,
        "import os, pathlib\nwork = pathlib.Path(os.environ['KAOS_HOME'], 'work')\n"
        f"(work / 'idea.txt').write_text('an idea')\n(work / '__pycache__').mkdir()\n"
        f"(work / '.venv').mkdir()\n(work / {NASTY!r}).write_text('x')",
    )
    run.result()
    kernel.end()
    yield kaos
    for each in kaos.notebooks.list():
        kaos.notebooks.delete(each.name)


@pytest.mark.parametrize("scripts", [True, False])
def test_save(hub: RunningHub, browser: Any, kaos: Client, scripts: bool) -> None:
    """What was made and left out is told; saving again says that nothing has changed."""
    with at_browser(browser, hub, "vera-of-the-pages", java_script_enabled=scripts) as person:
        page = person.page
        person.visit("notebooks/idea")
        page.click("#files-idea")
        expect(page.locator("h1")).to_have_text("Files of idea")
        if scripts:
            person.shoot("files")
        page.get_by_label("Name of the bundle").fill(f"idea-{scripts}")
        page.click("form[action$='/files/save'] button")
        expect(page.locator("[data-done]")).to_contain_text(f"idea is saved as idea-{scripts} v1")
        page.click("text=Left out")
        expect(page.locator("details li")).to_have_count(2)
        if scripts:
            person.shoot("files-saved")
        person.visit("notebooks/idea/files")
        page.click("form[action$='/files/save'] button")
        expect(page.locator("[data-done]")).to_contain_text("Nothing has changed")
        page.click("text=Look inside")
        expect(page.locator("main")).to_contain_text(NASTY)
        assert page.locator("main img").count() == 0
    source = kaos.notebooks.get("idea").source
    assert source and source.name == f"idea-{scripts}"


def test_attach(hub: RunningHub, browser: Any, kaos: Client, tmp_path: Path) -> None:
    """Without data it says where to get some; with some, they are chosen and come in."""
    with at_browser(browser, hub, "vera-of-the-pages") as person:
        page = person.page
        person.visit("notebooks/idea/files")
        expect(page.locator("main")).to_contain_text("You have no data here yet.")
        (tmp_path / "digits").mkdir()
        (tmp_path / "digits" / "one.csv").write_text("1\n")
        kaos.bundles.submit(tmp_path / "digits", "data")
        person.visit("notebooks/idea/files")
        page.get_by_label("Data", exact=True).select_option("digits@v1")
        page.click("form[action$='/files/attach'] button")
        expect(page.locator("[data-done]")).to_contain_text("attached/digits")
    data = kaos.notebooks.get("idea").data
    assert data and data.name == "digits"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    hub: RunningHub, browser: Any, kaos: Client, scheme: str
) -> None:
    view = {"width": 390, "height": 800}
    options = {"color_scheme": scheme, "bypass_csp": True, "viewport": view}
    with at_browser(browser, hub, "vera-of-the-pages", **options) as person:
        page = person.page
        person.visit("notebooks/idea/files")
        assert soundness.faults(page) == []
        page.click("form[action$='/files/save'] button")
        expect(page.locator("[data-done]")).to_be_visible()
        assert soundness.faults(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_refusals_are_told(hub: RunningHub, browser: Any, kaos: Client) -> None:
    """A name that cannot be, a notebook that does not run, somebody else's."""
    with at_browser(browser, hub, "vera-of-the-pages") as person:
        page = person.page
        person.visit("notebooks/idea/files")
        page.get_by_label("Name of the bundle").fill("/etc")
        page.click("form[action$='/files/save'] button")
        expect(page.locator("main")).to_contain_text("cannot name a bundle")
        kaos.notebooks.stop("idea")
        wait_until(lambda: kaos.notebooks.get("idea").state == "STOPPED")
        person.visit("notebooks/idea/files")
        expect(page.locator("main")).to_contain_text("start it first")
    with at_browser(browser, hub, "otto-of-the-pages") as person:
        assert person.visit("notebooks/idea/files").status == 404
