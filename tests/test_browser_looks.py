"""How all looks: pictures in test-output/, wide and narrow, light and dark; nothing clipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.hub import ROOT, RunningHub, running_hub, wait_until
from tests.lab import Lab, Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

LOOKS = [("light", 1200), ("dark", 1200), ("light", 390), ("dark", 390)]
SLOW_SETUP = """\
import time
from setuptools import setup
time.sleep(600)
setup(name="slow", version="1", py_modules=[])
"""
LIMITS = 'c.KaosService.limits = {"default": {"notebooks": 5, "cpu": 8, "memory": "16Gi"}}\n'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub on which iris has notebooks in every state."""
    directory = tmp_path_factory.mktemp("hub")
    with running_hub(directory, config=LIMITS) as hub:
        kaos = Client(hub.url, hub.token("iris"))
        deploy_one_of_each(kaos, directory)
        yield hub
        kaos.notebooks.kill("baking")


def deploy_one_of_each(kaos: Client, directory: Path) -> None:
    """RUNNING with code and data, STOPPED, FAILED and BUILDING."""
    example, data = ROOT / "examples/notebook/example", ROOT / "examples/mnist/data"
    kaos.notebooks.deploy(source=example, data=data, name="digits", idle_timeout="8h").wait(180)
    kaos.notebooks.deploy(name="scratch", size="medium", display_name="To try things out").wait(180)
    kaos.notebooks.stop("scratch")
    broken = folder(directory / "broken", "packaging\nhumanize==999.9\n")
    kaos.notebooks.deploy(source=broken)
    slow = folder(directory / "baking", "./slow\n")
    (slow / "model" / "slow").mkdir()
    (slow / "model" / "slow" / "setup.py").write_text(SLOW_SETUP)
    kaos.notebooks.deploy(source=slow)
    states = {"broken": "FAILED", "scratch": "STOPPED", "baking": "BUILDING", "digits": "RUNNING"}
    seen = lambda: {n.name: n.state for n in kaos.notebooks.list()} == states  # noqa: E731
    wait_until(seen, 180, f"{states}")


def folder(path: Path, requirements: str) -> Path:
    """A folder to deploy."""
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.11-slim\n")
    (path / "model" / "requirements.txt").write_text(requirements)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


class Look:
    """A person with eyes.

    Args:
        person: at the browser.
        scheme: ``light`` or ``dark``.
        width: of the window, in pixels.
    """

    def __init__(self, person: Person, scheme: str, width: int) -> None:
        self.person, self._suffix = person, f"{scheme}-{width}"

    def at(self, name: str, whole: bool = True) -> None:
        """Take a picture; what is too wide for the window fails the test."""
        self.person.shoot(f"{name}-{self._suffix}", whole)
        wide = "document.documentElement.scrollWidth > window.innerWidth"
        assert not self.person.page.evaluate(wide), f"{name} has to be scrolled sideways"


def options(scheme: str, width: int) -> dict[str, Any]:
    return {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_first_pages(hub: RunningHub, browser: Any, scheme: str, width: int) -> None:
    stranger = Person(browser, hub, **options(scheme, width))
    stranger.page.goto(hub.url)
    expect(stranger.page.locator("#login_submit")).to_be_visible()
    Look(stranger, scheme, width).at("login")
    stranger.context.close()
    with at_browser(browser, hub, "newcomer", **options(scheme, width)) as person:
        expect(person.page.locator("main h2")).to_have_text("No notebooks yet")
        Look(person, scheme, width).at("list-empty")


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_pages_of_a_busy_person(hub: RunningHub, browser: Any, scheme: str, width: int) -> None:
    with at_browser(browser, hub, "iris", **options(scheme, width)) as person:
        page, look = person.page, Look(person, scheme, width)
        expect(person.row("digits")).to_contain_text("RUNNING")
        look.at("list")
        person.visit("notebooks/baking")
        expect(person.log("build")).to_contain_text("Step 3/4", ignore_case=True)
        look.at("notebook-building")
        person.visit("notebooks/digits")
        page.click("text=Server log")
        expect(person.log("host")).to_contain_text("ServerApp")
        look.at("notebook-running")
        person.visit("notebooks/broken")
        expect(person.log("build")).to_contain_text("999.9")
        look.at("notebook-failed")
        person.visit("notebooks/scratch/confirm/delete")
        look.at("notebook-delete-question")
        person.visit("new?name=another")
        page.click("text=More options")
        look.at("spawn-form")
        page.get_by_label("Cores", exact=True).fill("-1")
        page.click("#spawn_form [type=submit]")
        expect(page.locator(".alert:visible")).to_contain_text("'-1'")
        look.at("spawn-form-refused")
        page.goto(f"{hub.url}/hub/home")
        expect(page.locator("#home-page, .container h1, .container h2").first).to_be_visible()
        person.shoot(f"home-{scheme}-{width}")


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_lab(hub: RunningHub, browser: Any, scheme: str, width: int) -> None:
    with at_browser(browser, hub, "iris", **options(scheme, width)) as person:
        person.page.goto(f"{hub.url}/user/iris/digits/lab/tree/work?reset")
        lab = Lab(person.page)
        lab.open("first-steps.ipynb")
        if width > 1000:
            lab.run_all()
            expect(lab.output(3)).to_contain_text("digits")
            lab.save()
        expect(lab.output(1)).to_contain_text("The first is a")
        Look(person, scheme, width).at("lab", whole=False)
