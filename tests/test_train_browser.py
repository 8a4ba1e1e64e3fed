"""Trainings and models in a real browser: looks (pictures in test-output/), live, by keyboard."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from tests.history import build, write
from tests.hub import RunningHub
from tests.lab import FIRST_BUILD, Person, chromium, expect
from tests.training_history import NASTY, bundles, inputs, training, trials_of

pytestmark = pytest.mark.browser

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
STAMP = "2026-01-31T12:00:00.123456Z"
GRID, BROKEN, HUGE, REPEAT = (f"{number:016x}" for number in (0xA1, 0xA2, 0xA3, 0xA4))
WIDE = "document.documentElement.scrollWidth > window.innerWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def olga(hub: RunningHub) -> str:
    """A user with trainings of every kind."""
    hub.put_into("vision-lab", "olga")
    owner, of = "user:olga", inputs(11000)
    failed = build(hub.data, "FAILED", f"{STAMP} ERROR: no version 999.9\n", owner)
    failed.reason = "model/requirements.txt:2: no version humanize==999.9"
    goal = {"goal_metric": "accuracy", "goal_direction": "max"}
    grid = training(0xA1, owner, 12, author="olga", best_trial=12, best_score=12.0, **goal, **of)
    metrics = {f"metric_{i}_of_very_many": i / 7 for i in range(100)}
    huge = training(
        0xA3, owner, 1000, author="olga", slots=16, **of, metrics=sorted(metrics), progress=99,
        name=f"{NASTY} {'name' * 8}"[:64], reason=f"2 of 1,000 trials failed {NASTY}",
    )  # fmt: skip
    broken = training(
        0xA2, owner, state="FAILED", reason=failed.reason, build_job=failed.id, started=None,
        environment={}, manifest_id=11003, **of,
    )  # fmt: skip
    params = {f"parameter_{i}": ["x" * 300, 0.1, {"a": [1]}][i % 3] for i in range(40)}
    write(hub.data, [*bundles(owner, 11000), failed])
    repeat = training(0xA4, owner, 2, author="olga", reproduces=GRID, **goal, **of)
    waiting = training(
        0xA5, owner, state="WAITING", source_id=11000, started=None, finished=None,
        environment={}, reason="waits for data: kaos train deploy -d DIR",
    )  # fmt: skip
    write(hub.data, [grid, huge, broken, repeat, waiting])
    write(hub.data, [*trials_of(grid), *trials_of(repeat)])
    write(hub.data, trials_of(huge, params=params, metrics=metrics, reason=NASTY * 20))
    log = "".join(f"{STAMP} epoch {i} <b>loss</b> \x1b[31m{1 / (i + 1)}\n" for i in range(20_000))
    (hub.data / "logs").mkdir(exist_ok=True)
    (hub.data / "logs" / f"trial-{GRID}-3.log").write_text(log)
    (hub.data / "logs" / f"metrics-{GRID}.log").write_text("".join(map(point, range(500))))
    return "olga"


def point(n: int) -> str:
    """What trial 3 said of itself at one moment."""
    values = {f"layer_{i}": math.sin(n / (20 + i)) for i in range(4)}
    values |= {"accuracy": 1 - 1 / (n + 1), "loss": 3 / (n + 1), "rate": 0.1}
    at = f"2026-01-31T12:{n // 60:02}:{n % 60:02}Z"
    return json.dumps({"trial": 3, "at": at, "values": values}, separators=(",", ":")) + "\n"


class Visitor(Person):
    """A person who looks at trainings."""

    def see(self, path: str) -> None:
        """Go to one of the pages of trainings; nothing there is wider than the window."""
        self.page.goto(f"{self.hub.train}/{path}")
        expect(self.page.locator("main h1, main h2").first).to_be_visible()
        assert not self.page.evaluate(WIDE), f"{path} has to be scrolled sideways"


@pytest.fixture
def visit(browser: Any, hub: RunningHub) -> Iterator[Any]:
    """Lets a user look; whatever goes wrong in their browser fails the test."""
    people: list[Visitor] = []

    def begin(user: str, scheme: str = "light", width: int = 1280, **options: Any) -> Visitor:
        view = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
        people.append(Visitor(browser, hub, **view, **options))
        people[-1].log_in(user)
        return people[-1]

    yield begin
    for person in people:
        assert person.errors == []
        person.context.close()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_how_the_pages_look(visit: Any, olga: str, scheme: str, width: int) -> None:
    person = visit("nobody-yet", scheme, width)
    for name in ("trainings", "models"):
        person.see(name)
        person.shoot(f"{name}-empty-{scheme}-{width}")
    person = visit(olga, scheme, width)
    for name, path in (
        ("trainings", "trainings"),
        ("training", f"trainings/{GRID}?sort=metrics.accuracy&order=desc"),
        ("training-failed", f"trainings/{BROKEN}"),
        ("training-repeat", f"trainings/{REPEAT}"),
        ("training-huge", f"trainings/{HUGE}?sort=metrics.metric_77_of_very_many"),
        ("training-delete", f"trainings/{GRID}/confirm/delete"),
        ("trial-huge", f"trainings/{HUGE}/trials/7"),
        ("models", "models"),
        ("model", f"models/{GRID}.3"),
        ("training-missing", f"trainings/{'f' * 16}"),
    ):
        person.see(path)
        person.shoot(f"{name}-{scheme}-{width}")
    person.see(f"trainings/{GRID}/trials/3")
    tail = re.compile(r"the last \d+,\d{3} lines")
    expect(person.page.locator("[data-count]")).to_have_text(tail)
    person.shoot(f"trial-{scheme}-{width}")


def test_nothing_from_the_wire_becomes_markup(visit: Any, olga: str) -> None:
    person = visit(olga)
    for path in (
        "trainings",
        f"trainings/{HUGE}",
        f"trainings/{HUGE}/trials/1",
        f"models/{HUGE}.1",
    ):
        person.see(path)
        assert person.page.locator("main script, main img").count() == 0
    person.see(f"trainings/{GRID}/trials/3")
    expect(person.log("trial")).to_contain_text("epoch 19999 <b>loss</b> 5e-05")


def test_a_workspace_is_chosen_and_stays(visit: Any, hub: RunningHub, olga: str) -> None:
    row = training(0xA9, "group:vision-lab", 1, name="shared")
    write(hub.data, [row])
    write(hub.data, trials_of(row))
    page = (person := visit(olga)).page
    person.see("trainings")
    page.get_by_label("Workspace").select_option("vision-lab")
    page.click("text=Show")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.click("text=shared")
    page.click("#trial-1")
    expect(page.locator("h1")).to_contain_text("Trial 1")
    page.click("nav >> text=Trainings >> nth=-1")
    expect(page.get_by_label("Workspace")).to_have_value("group:vision-lab")
    page.click("#tab-models")
    expect(page.locator("tbody tr")).to_have_count(1)
    person.shoot("models-of-a-workspace-light-1280")


def test_all_of_it_by_keyboard(visit: Any, olga: str) -> None:
    page = visit(olga).page
    page.goto(f"{page.url.partition('/services')[0]}/services/kaos-train/trainings")
    page.locator(f"#name-{GRID}").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/trainings/{GRID}")
    page.locator("#sort").focus()
    page.keyboard.type("accuracy")
    page.keyboard.press("Tab")
    page.keyboard.type("highest")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**sort=metrics.accuracy&order=desc**")
    expect(page.locator("tbody th").first).to_have_text("12")
    page.locator("#trial-12").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/trials/12")
    assert page.evaluate("document.querySelector('h1').textContent").startswith("Trial 12")


TRAIN = """#!/bin/sh
echo begun
for n in 1 2 3 4 5 6 7 8; do
  sleep 1; echo "epoch x$n"; python -c "import kaos_hub; kaos_hub.log(pace=$n, step=$n)"
done
mkdir -p "$KAOS_OUT/metrics"; echo '{"loss": 0.5}' > "$KAOS_OUT/metrics/metrics.json"
"""


def test_a_page_follows_a_training_to_its_model(
    visit: Any, hub: RunningHub, tmp_path: Path
) -> None:
    person = visit("nina")
    person.see("trainings")
    expect(person.page.locator("main h2")).to_have_text("No trainings yet")
    kaos = Client(hub.url, hub.token("nina"))
    run = kaos.trainings.deploy(
        source=code(tmp_path / "tiny"), data=data(tmp_path / "data"), params={"a": [1, 2]},
        goal="loss:min",
    )  # fmt: skip
    # it appears by itself
    page, row = person.page, person.page.locator(f"tr[data-training='{run.id}']")
    expect(row).to_contain_text("0 of 2")
    page.click(f"#name-{run.id}")
    expect(page.locator("tbody tr").first).to_contain_text("RUNNING", timeout=FIRST_BUILD)
    page.click("#trial-1")
    expect(person.log("trial")).to_contain_text("epoch x")
    expect(page.locator(".kaos-curve")).to_contain_text("pace", timeout=30_000)
    expect(page.locator("h1 .badge")).to_have_text("SUCCEEDED", timeout=60_000)
    expect(page.locator("#model")).to_be_visible()
    page.go_back()
    expect(page.locator("h1 .badge")).to_have_text("SUCCEEDED", timeout=60_000)
    expect(page.locator("[data-ended]")).to_have_text("2 of 2")
    expect(page.locator("#kaos-announce")).to_have_text("tiny: SUCCEEDED")
    person.shoot("training-lived-light-1280")
    # what was made can be named, and done again
    page.get_by_label("Model of trial 1", exact=True).click()
    page.fill("#name", "mine")
    page.click("text=Name it")
    expect(page.locator("h1")).to_have_text("mine@v1")
    person.see(f"trainings/{run.id}")
    page.click("#reproduce")
    expect(page.locator("dt", has_text="Repeats")).to_be_visible()
    page.click("#kill")
    page.click("main button")
    expect(page.locator("h1 .badge")).to_have_text("CANCELLED", timeout=60_000)


def code(path: Path) -> Path:
    """A source bundle that trains for a few seconds."""
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (path / "model" / "train").write_text(TRAIN)
    (path / "model" / "train").chmod(0o755)
    return path


def data(path: Path) -> Path:
    """A data bundle."""
    path.mkdir()
    (path / "a.csv").write_text("1,2\n")
    return path
