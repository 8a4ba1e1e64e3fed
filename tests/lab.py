"""A person at a browser: the Hub's pages and JupyterLab in a real Chromium."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import ROOT, RunningHub

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
expect.set_options(timeout=15_000)

OUTPUT = ROOT / "test-output"
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(p).exists()), None
)
FIRST_BUILD = 180_000
"""Milliseconds. The first build for a Python version installs the packages of its kernels as well:
on a busy machine that takes more than a minute."""
CELL = ".jp-Notebook .jp-Cell"
_ACTIVE = re.compile(r"\bjp-mod-active\b")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium; the test is skipped where there is none."""
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
        except playwright.Error as e:
            pytest.skip(f"no Chromium: {str(e).splitlines()[0]}")
        yield browser
        browser.close()


class Person:
    """Somebody with a browser window of their own. Close it with :func:`at_browser`.

    Args:
        browser: of :func:`chromium`.
        hub: the Hub they visit.
        options: of the browser's context, such as ``java_script_enabled`` or ``color_scheme``.
    """

    def __init__(self, browser: Any, hub: RunningHub, **options: Any) -> None:
        view = {"viewport": {"width": 1200, "height": 800}, "reduced_motion": "reduce"}
        self.hub = hub
        self.context = browser.new_context(**{**view, **options})
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("dialog", self._answer)

    def _answer(self, dialog: Any) -> None:
        # Lab asks before it is left with something unsaved; nothing of ours ever asks like that.
        if dialog.type != "beforeunload":
            self.errors.append(f"dialog: {dialog.message}")
        dialog.accept()

    def log_in(self, user: str) -> None:
        """Through the Hub's own page, from its front door."""
        self.page.goto(self.hub.url)
        self.page.fill("input[name=username]", user)
        self.page.fill("input[name=password]", self.hub.password)
        self.page.click("#login_submit")
        expect(self.page.locator("h1")).to_have_text("Notebooks")

    def visit(self, path: str = "") -> Any:
        """Go to a page of the service; what the server answered."""
        return self.page.goto(f"{self.hub.kaos}/{path}")

    def badge(self) -> Any:
        """The state on a notebook's page."""
        return self.page.locator("h1 .badge")

    def row(self, name: str) -> Any:
        """A notebook's row in the list."""
        return self.page.locator(f"tr[data-notebook={name}]")

    def log(self, stage: str) -> Any:
        """The lines of a log on a notebook's page."""
        return self.page.locator(f"details[data-stage={stage}] pre")

    def shoot(self, name: str, whole: bool = True) -> None:
        """Keep a picture of the page."""
        OUTPUT.mkdir(exist_ok=True)
        self.page.screenshot(path=OUTPUT / f"{name}.png", full_page=whole)


@contextlib.contextmanager
def at_browser(browser: Any, hub: RunningHub, user: str, **options: Any) -> Iterator[Person]:
    """A person who is logged in. An error in a page's scripts, or a dialog, fails the test."""
    person = Person(browser, hub, **options)
    try:
        person.log_in(user)
        yield person
    finally:
        person.context.close()
    assert person.errors == []


class Lab:
    """JupyterLab in a page.

    Args:
        page: which is on its way there.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.file("first-steps.ipynb").wait_for(timeout=60_000)

    def file(self, name: str) -> Any:
        """An entry of the file browser."""
        return self.page.locator(f".jp-DirListing-item:has-text('{name}')")

    def open(self, name: str) -> None:
        """Open a notebook; wait until its kernel is there: Lab runs nothing before."""
        self.file(name).dblclick()
        self.cell(0).wait_for()
        expect(self.page.locator("#jp-bottom-panel")).to_contain_text("| Idle", timeout=40_000)

    def cell(self, number: int) -> Any:
        """A cell of the open notebook, from 0."""
        return self.page.locator(CELL).nth(number)

    def output(self, number: int) -> Any:
        """What a cell put out."""
        return self.cell(number).locator(".jp-OutputArea-output")

    def run_all(self) -> None:
        """Run one cell after the other, with Shift+Enter, and the last with Ctrl+Enter."""
        self.select(0)
        count = self.page.locator(CELL).count()
        for number in range(1, count):
            self.page.keyboard.press("Shift+Enter")
            self._wait_until_active(number)
        self.page.keyboard.press("Control+Enter")

    def select(self, number: int) -> None:
        """Select a cell, in command mode."""
        self.cell(number).click()
        self.page.keyboard.press("Escape")
        self._wait_until_active(number)

    def write_below(self, number: int, code: str) -> None:
        """Write a new cell below one, and run it."""
        self.select(number)
        self.page.keyboard.press("b")
        self._wait_until_active(number + 1)
        self.page.keyboard.press("Enter")
        self.page.keyboard.type(code)
        self.page.keyboard.press("Control+Enter")

    def _wait_until_active(self, number: int) -> None:
        # Lab marks a cell as the active one first and moves the focus later: keys between are lost.
        expect(self.cell(number)).to_have_class(_ACTIVE)
        expect(self.cell(number)).to_be_focused()

    def save(self) -> None:
        """Ctrl+S until nothing is left to be saved: outputs may arrive after the first time."""
        dirty = self.page.locator(".lm-TabBar-tab.jp-mod-dirty")
        for _ in range(4):
            self.page.keyboard.press("Control+s")
            self.page.wait_for_timeout(1500)
            if dirty.count() == 0:
                break
        expect(dirty).to_have_count(0)
