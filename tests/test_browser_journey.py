"""A newcomer's first hour in a real browser, on each engine: form, build, Lab, redeploy, stop."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.engines import ENGINES
from tests.hub import ROOT, RunningHub, running_hub
from tests.lab import FIRST_BUILD, Lab, Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

USER = "ada"
FILES = 3
"""In the example's data."""


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"hub-{request.param}")
    with running_hub(directory, engine=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def kaos(hub: RunningHub) -> Client:
    return Client(hub.url, hub.token(USER))


@pytest.fixture(scope="module")
def folder(hub: RunningHub) -> Path:
    """The person's own copy of the example."""
    copy = hub.directory / "example"
    return Path(shutil.copytree(ROOT / "examples/notebook/example", copy))


@pytest.fixture(scope="module")
def person(hub: RunningHub, kaos: Client, folder: Path) -> Iterator[Person]:
    """They sent a folder and data before; now they come by browser."""
    kaos.bundles.submit(folder, "source")
    kaos.bundles.submit(ROOT / "examples/mnist/data", "data")
    with chromium() as browser, at_browser(browser, hub, USER) as someone:
        yield someone


def test_from_the_form_to_outputs_in_lab(hub: RunningHub, person: Person) -> None:
    page = person.page
    page.click("nav >> text=Notebooks")
    expect(page.locator("main h2")).to_have_text("No notebooks yet")
    page.fill(".kaos-new input", "first")
    page.click("text=New notebook >> visible=true")
    choose_in_form(page)
    # nothing is built yet: the Hub refuses, and leads to the page where it goes on
    page.wait_for_url(re.compile(r"/services/kaos/notebooks/first\?open=1$"))
    page.click("text=Stay here instead")
    page.wait_for_url("**/services/kaos/notebooks/first")
    page.evaluate("document.body.dataset.loaded = 'once'")
    expect(person.badge()).to_have_text("RUNNING", timeout=FIRST_BUILD)
    assert page.evaluate("document.body.dataset.loaded") == "once", "it was loaded again"
    expect(person.log("build")).to_contain_text("Step 2/", ignore_case=True)
    facts = page.locator(".kaos-facts dd")
    for number, fact in enumerate(
        ("example v1", "data v1", "2 cores · 4Gi", "stops after 2 h without activity")
    ):
        expect(facts.nth(number)).to_contain_text(fact)

    page.click("text=Open")
    page.wait_for_url("**/user/ada/first/lab/tree/work")
    lab = Lab(page)
    lab.open("first-steps.ipynb")
    lab.run_all()
    expect(page.locator(".Toastify__toast")).to_have_count(0)
    expect(lab.output(1)).to_contain_text("training_mini.csv: ")
    expect(lab.output(1)).to_contain_text("The first is a ")
    expect(lab.output(2)).to_contain_text(f": {FILES} files, 86.2 KiB")
    expect(lab.output(3)).to_contain_text(re.compile(r"first\s+RUNNING"))
    person.shoot(f"lab-outputs-{hub.engine}", whole=False)


def choose_in_form(page: Any) -> None:
    """Choose a source, data, a size and an idle policy; start."""
    expect(page.locator("h1")).to_have_text("Start notebook first")
    page.get_by_label("Code", exact=True).select_option("example@v1")
    page.get_by_label("Data", exact=True).select_option("data@v1")
    page.get_by_label("medium").check()
    page.click("text=More options")
    page.get_by_label("Stop when idle for").fill("2h")
    page.get_by_label("Idle is when").select_option("activity")
    page.click("#spawn_form [type=submit]")


def test_an_edit_survives_new_code_and_so_does_the_kernel(
    hub: RunningHub, kaos: Client, person: Person, folder: Path
) -> None:
    lab = Lab(person.page)
    lab.write_below(3, "mine = 'still ' + 'here'; print(mine)")
    expect(lab.output(4)).to_have_text("still here")
    lab.save()

    (folder / "model" / "extra.py").write_text("ANSWER = 42\n")
    change_first_cell(folder / "first-steps.ipynb")
    deployed = kaos.notebooks.deploy(source=folder, name="first")
    assert "update the working copy in place; kernels live on" in deployed.actions
    # theirs is kept as it is, the new version of it lies beside
    expect(lab.file("first-steps")).to_have_count(2, timeout=20_000)
    lab.write_below(4, "print(mine); import sys; sys.path.insert(0, 'model'); import extra")
    expect(lab.output(5)).to_have_text("still here\n")
    lab.write_below(5, "print(extra.ANSWER)")
    expect(lab.output(6)).to_have_text("42\n")
    expect(lab.cell(0)).to_contain_text("First steps")
    person.shoot(f"lab-redeployed-{hub.engine}", whole=False)


def change_first_cell(path: Path) -> None:
    """What a colleague changes in the notebook's source meanwhile."""
    content = json.loads(path.read_text())
    content["cells"][0]["source"] = ["# Changed by a colleague"]
    path.write_text(json.dumps(content))


def test_stop_and_start_by_buttons(person: Person) -> None:
    person.visit("notebooks/first")
    person.page.click("#stop-first")
    expect(person.badge()).to_have_text("STOPPED", timeout=20_000)
    expect(person.page.locator("[data-main-reason]")).to_have_text("stopped by ada")
    person.page.click("#start-first")
    expect(person.badge()).to_have_text("RUNNING", timeout=30_000)
    person.page.click("text=Open")
    lab = Lab(person.page)
    lab.open("first-steps.ipynb")
    expect(lab.output(4)).to_contain_text("still here")
