"""Pages that change while people use them: nothing is lost, and what is told is so."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from kaos_hub.client import Client
from kaos_hub.service.db.tables import now
from tests.history import build, notebook, version, write
from tests.hub import RunningHub, running_hub, wait_until
from tests.lab import at_browser, chromium, expect
from tests.training_history import inputs, training, trials_of

pytestmark = pytest.mark.browser

CLICKS = 60
REFRESH = "document.dispatchEvent(new Event('visibilitychange'))"
"""What has a page ask for itself again, as when one comes back to it."""
SELECT = """() => {
  const name = document.querySelector("#name-still");
  getSelection().selectAllChildren(name);
  name.addEventListener("click", (event) => event.preventDefault());
  window.clicks = 0;
  document.querySelector("#stop-still, #start-still").closest("td").addEventListener("click", (event) => {
    event.preventDefault();
    window.clicks += event.target.matches("button");
  });
}"""  # noqa: E501
STAMP = "2026-01-31T12:00:00.123456Z"
LOG = "".join(f"{STAMP} line {i}: \x1b[31mred\x1b[0m \x1b[1;32mgreen\x1b[0m\n" for i in range(300))
SWEEP = 0xB1


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def client(hub: RunningHub, user: str) -> Client:
    return Client(hub.url, hub.token(user))


def test_what_is_selected_stays_and_no_click_is_lost(hub: RunningHub, browser: Any) -> None:
    """Between pressing a button and letting it go the page is taken over again, each time."""
    write(hub.data, [notebook("still", owner="user:lea")])
    kaos = client(hub, "lea")
    with at_browser(browser, hub, "lea") as person:
        page = person.page
        page.evaluate(SELECT)
        asked = []
        page.on("response", lambda answer: asked.append(answer.url))
        kaos.notebooks.deploy(name="other", display_name="comes meanwhile")
        expect(person.row("other")).to_contain_text("comes meanwhile")
        assert page.evaluate("String(getSelection())") == "still"
        button = page.locator("#start-still").bounding_box()
        page.mouse.move(button["x"] + 5, button["y"] + 5)
        for _ in range(CLICKS):
            page.mouse.down()
            with page.expect_response(lambda answer: answer.url.endswith("/services/kaos/")):
                page.evaluate(REFRESH)
            page.mouse.up()
        assert page.evaluate("window.clicks") == CLICKS
        expect(person.row("other")).to_contain_text("RUNNING", timeout=200_000)
    kaos.notebooks.kill("other")


def test_the_time_that_is_left_is_counted_down(hub: RunningHub, browser: Any) -> None:
    """On the clock of whoever looks, with the zone for those who want to know."""
    kaos = client(hub, "mia")
    kaos.notebooks.deploy(name="idle", idle_timeout="20m", idle_type="activity").wait(200)
    seen = lambda: kaos.notebooks.get("idle").verdict  # noqa: E731
    wait_until(lambda: seen() and seen().stops_at, 60, "it to be idle")
    with at_browser(browser, hub, "mia", timezone_id="Asia/Kolkata", locale="en-GB") as person:
        person.visit("notebooks/idle")
        warning = person.page.locator(".alert-warning [data-kind=until]")
        before = warning.inner_text()
        assert before.startswith("in ")
        clock = person.page.locator(".alert-warning [data-kind=clock]").last
        stops = seen().stops_at
        there = stops + timedelta(hours=5, minutes=30)
        expect(clock).to_have_text(f"{there:%H:%M}")
        assert "GMT+5:30" in str(clock.get_attribute("title"))
        person.page.clock.install()
        person.page.clock.fast_forward(16 * 60_000)
        person.page.clock.run_for(2000)
        expect(warning).to_have_text(re.compile(r"^in \d min \d+ s$"))
    kaos.notebooks.kill("idle")


def test_whoever_waits_is_taken_there(hub: RunningHub, browser: Any) -> None:
    """The title tells on the way."""
    kaos = client(hub, "nina")
    kaos.notebooks.deploy(name="ready")
    with at_browser(browser, hub, "nina") as person:
        person.visit("notebooks/ready?open=1")
        person.page.wait_for_url("**/user/nina/ready/lab**", timeout=200_000)
        person.visit("notebooks/ready")
        expect(person.page).to_have_title("ready: RUNNING · JupyterHub")
        kaos.notebooks.stop("ready")
        expect(person.page).to_have_title("ready: STOPPED · JupyterHub", timeout=200_000)
        host = person.page.locator("section[aria-labelledby=stage-host]")
        expect(host.locator("[data-state]")).to_have_text("STOPPED")


def test_people_who_look_elsewhere_are_told(hub: RunningHub, browser: Any) -> None:
    """If they asked for it: a page in the background follows, and says when it is ready."""
    kaos = client(hub, "pia")
    with at_browser(browser, hub, "pia") as person:
        person.context.grant_permissions(["notifications"], origin=hub.url)
        page = person.page
        page.add_init_script(
            "window.told = []; const Real = window.Notification;"
            "window.Notification = class extends EventTarget {"
            "  static get permission() { return Real.permission; }"
            "  constructor(text) { super(); window.told.push(text); } };"
        )
        kaos.notebooks.deploy(name="slow")
        person.visit("notebooks/slow")
        page.get_by_role("button", name="Tell me when it is ready").click(timeout=10_000)
        page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
        page.evaluate(REFRESH)
        wait_until(lambda: page.evaluate("window.told.length"), 200, "the notification")
        assert page.evaluate("window.told[0]") == "slow: RUNNING"
    kaos.notebooks.kill("slow")


def test_logs_have_colours_and_are_searched(hub: RunningHub, browser: Any) -> None:
    failed = build(hub.data, "FAILED", LOG, "user:rita")
    reason = "model/requirements.txt:2: there is no such thing"
    rows = [
        notebook(
            "logged", "FAILED", "user:rita", source_id=97000, build_job=failed.id,
            build_state="FAILED", reason=reason,
        ),
        notebook("away", "FAILED", "user:rita", reason="the notebook does not answer"),
    ]  # fmt: skip
    write(hub.data, [failed, version(97000, "source", "code", 1, "user:rita")])
    write(hub.data, rows)
    with at_browser(browser, hub, "rita") as person:
        # what a file is to blame for has to be changed; all else is tried again
        for name, first in (("logged", "Change…"), ("away", "Retry")):
            expect(person.row(name).locator(".kaos-actions .btn-primary")).to_have_text(first)
        person.visit("notebooks/logged")
        lines = person.log("build")
        expect(lines).to_contain_text("line 299: red green")
        assert lines.locator(".kaos-ansi-red").count() == 300
        expect(lines.locator(".kaos-bold.kaos-ansi-green").last).to_have_text("green")
        person.page.get_by_label("Only lines of build log with").fill("LINE 29")
        expect(person.page.locator("[data-count]").first).to_have_text("11 of 300 lines")
        assert lines.locator("mark").count() == 11
        person.page.get_by_label("Only lines of build log with").fill("")
        expect(person.page.locator("[data-count]").first).to_have_text("300 lines")


def test_several_at_once(hub: RunningHub, browser: Any) -> None:
    """Sorted, narrowed, ticked, asked for, done, and told; the others stay."""
    rows = [notebook(f"n-{number}", owner="user:tess") for number in range(5)]
    write(hub.data, [*rows, notebook("broken", "FAILED", "user:tess", created=now())])
    with at_browser(browser, hub, "tess") as person:
        page = person.page
        names = page.locator("tr[data-notebook] a[id^=name-]")
        assert names.first.inner_text() == "broken"
        page.get_by_role("link", name="Stopped").click()
        expect(names).to_have_count(5)
        page.get_by_title("Sort by name").click()
        expect(names).to_have_text([f"n-{number}" for number in range(5)])
        for number in (1, 3):
            page.get_by_label(f"Choose n-{number}").check()
        page.evaluate(REFRESH)
        page.get_by_role("button", name="Delete…", exact=True).click()
        expect(page.locator("h1")).to_have_text("Delete 2 notebooks?")
        expect(page.locator("main")).to_contain_text("n-1, n-3.")
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("[data-notice]")).to_have_text("2 notebooks were deleted.")
        expect(names).to_have_count(4)
        assert set(names.all_inner_texts()) == {"broken", "n-0", "n-2", "n-4"}
        page.reload()
        expect(page.locator("[data-notice]")).to_have_count(0)
        page.get_by_role("button", name="Stop…", exact=True).click()
        expect(page.locator("main [role=alert]")).to_contain_text("Tick the notebooks")


def test_trials_in_a_box_of_their_own(hub: RunningHub, browser: Any) -> None:
    """What of them is shown is said, and chosen; a parameter and a metric of one name are two."""
    run = training(
        SWEEP, "user:uma", 54, name="sweep", author="uma", succeeded=36, failed=18,
        goal_metric="accuracy", goal_direction="max", best_trial=2, best_score=2.0,
        metrics=["accuracy", "loss", "rate", *(f"m{i}" for i in range(9))], **inputs(97100),
    )  # fmt: skip
    rows = [version(97100 + i, k, k, 1, "user:uma") for i, k in enumerate(("source", "data"))]
    write(hub.data, [*rows, version(97102, "params", "params", 1, "user:uma")])
    write(hub.data, [run])
    trials = trials_of(run)
    for trial in trials:
        trial.params = {f"p{i}": i for i in range(10)} | {"rate": trial.number / 10}
        trial.metrics = {**trial.metrics, "rate": 7.0}
        trial.state = "SUCCEEDED" if trial.number % 3 else "FAILED"
    write(hub.data, trials)
    with at_browser(browser, hub, "uma", viewport={"width": 390, "height": 800}) as person:
        page = person.page
        page.goto(f"{hub.train}/trainings/{SWEEP:016x}")
        expect(page.locator("h1 .badge")).to_have_text("SUCCEEDED, 18 of 54 failed")
        expect(page.locator("h1 .badge")).to_have_class("badge kaos-badge kaos-is-partly")
        expect(page.locator("#columns summary")).to_have_text(
            "Columns: 6 of 11 parameters and 5 of 12 metrics shown"
        )
        assert page.evaluate("document.documentElement.scrollHeight") < 5000, "50 trials"
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        page.set_viewport_size({"width": 1200, "height": 800})
        heads = page.locator(".kaos-trials thead tr").last.locator("th")
        assert heads.all_inner_texts().count("rate") == 2
        kinds = page.locator(".kaos-kinds th")
        assert kinds.all_inner_texts() == ["Parameters", "Metrics"]
        page.click("#columns summary")
        page.evaluate(
            "for (const box of document.querySelectorAll('#columns input')) box.checked = false"
        )
        page.get_by_label("p9 parameter").check()
        page.get_by_label("rate metric").check()
        page.get_by_role("button", name="Show these").click()
        expect(heads).to_have_text(["#", "State", "p9", "rate", "Took", "Output"])
        page.get_by_role("link", name="rate").click()
        expect(heads).to_have_text(["#", "State", "p9", "rate", "Took", "Output"])
