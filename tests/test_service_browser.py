"""The pages in a real browser: looks (screenshots in test-output/), live updates, keyboard."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.history import build, notebook, version, write
from tests.hub import ROOT, RunningHub

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

OUTPUT = ROOT / "test-output"
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(p).exists()), None
)
LOOKS = [("light", 1280), ("dark", 1280), ("light", 390)]
LINES = 100_000
NASTY = "<img src=x onerror=\"document.title='hacked'\"> & 'quotes'"


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as e:
            pytest.skip(f"no Chromium: {str(e).splitlines()[0]}")
        yield browser
        browser.close()


def is_trouble(message) -> bool:
    """Whether the console complains of more than an absent log, of which the page tells."""
    absent = message.location["url"].partition("?")[0].endswith("-log") and "404" in message.text
    return message.type == "error" and not absent


@contextmanager
def page_of(chromium, hub: RunningHub, user: str, scheme: str = "light", width: int = 1280):
    """A page of a logged-in user; any error on its console fails the test."""
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if is_trouble(m) else None)
    page.goto(f"{hub.kaos}/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", "x")
    page.click("#login_submit")
    page.wait_for_url("**/services/kaos/**")
    yield page
    context.close()
    assert errors == []


def shoot(page, name: str, scheme: str, width: int) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}-{scheme}-{width}.png", full_page=True)


def no_sideways_scrolling(page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture(scope="module")
def few(hub: RunningHub) -> str:
    """A user with some notebooks."""
    owner = "user:grace"
    stamp = "2026-01-31T12:00:00.123456Z"
    log = "".join(f"{stamp} \x1b[32mStep {i}\x1b[0m installing <b>{i}</b>\n" for i in range(200))
    failed = build(hub.data, "FAILED", log + f"{stamp} ERROR: no version 999.9\n", owner)
    failed.reason = "model/requirements.txt:2: no version humanize==999.9"
    chatty = build(
        hub.data,
        "SUCCEEDED",
        "".join(f"{stamp} line {i} of a chatty build\n" for i in range(LINES)),
        owner,
    )
    bundles = [version(801, "source", "example", 3, owner), version(802, "data", "mnist", 1, owner)]
    write(hub.data, [failed, chatty, *bundles])
    rows = [
        notebook("mnist", owner=owner, reason="stopped by grace", source_id=801, data_id=802),
        notebook(
            "broken", "FAILED", owner, source_id=801, build_job=failed.id, build_state="FAILED",
            reason=failed.reason,
        ),
        notebook(
            "chatty", owner=owner, source_id=801, build_job=chatty.id, build_state="SUCCEEDED",
            reason="stopped 02:14, idle 1 h: no kernel has run since 01:14", idle_timeout=3600,
        ),
        notebook("nasty", owner=owner, display_name=NASTY, reason=NASTY, gpu=2),
    ]  # fmt: skip
    write(hub.data, rows)
    return "grace"


@pytest.fixture(scope="module")
def many(hub: RunningHub) -> str:
    """A user with a hundred notebooks."""
    rows = [notebook(f"experiment-{i}", owner="user:heidi") for i in range(100)]
    write(hub.data, rows)
    return "heidi"


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_how_the_pages_look(chromium, hub: RunningHub, few: str, scheme: str, width: int) -> None:
    with page_of(chromium, hub, "nobody", scheme, width) as page:
        shoot(page, "notebooks-empty", scheme, width)
        no_sideways_scrolling(page)
    with page_of(chromium, hub, few, scheme, width) as page:
        page.wait_for_selector("text=3 hours ago")
        shoot(page, "notebooks", scheme, width)
        no_sideways_scrolling(page)
        page.goto(f"{hub.kaos}/notebooks/broken")
        page.wait_for_selector("text=201 lines")
        shoot(page, "notebook-failed", scheme, width)
        no_sideways_scrolling(page)
        page.goto(f"{hub.kaos}/notebooks/mnist/confirm/delete")
        shoot(page, "notebook-delete", scheme, width)
        no_sideways_scrolling(page)
        page.goto(f"{hub.url}/hub/home")
        page.wait_for_selector("text=Notebooks", state="attached")
        shoot(page, "hub-home", scheme, width)


def test_a_hundred_notebooks(chromium, hub: RunningHub, many: str) -> None:
    with page_of(chromium, hub, many) as page:
        assert page.locator("tr[data-notebook]").count() == 100
        shoot(page, "notebooks-many", "light", 1280)


def test_a_huge_log_freezes_nothing(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        page.goto(f"{hub.kaos}/notebooks/chatty")
        log = page.locator("details[data-stage=build]")
        began = time.monotonic()
        log.locator("summary").click()
        playwright.expect(log.locator("[data-count]")).to_have_text(
            re.compile(r"the last 5,\d{3} lines"), timeout=15_000
        )
        assert time.monotonic() - began < 10
        # not what is rendered: of that there is little
        shown = log.locator("pre").text_content().splitlines()
        assert 5000 <= len(shown) <= 5500
        assert shown[-1].endswith(f"line {LINES - 1} of a chatty build")
        shoot(page, "notebook-huge-log", "light", 1280)


def test_earlier_lines_come_when_they_are_asked_for(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        page.goto(f"{hub.kaos}/notebooks/chatty")
        log = page.locator("details[data-stage=build]")
        log.locator("summary").click()
        count, earlier = log.locator("[data-count]"), log.locator("[data-earlier]")
        playwright.expect(earlier).to_be_visible()
        playwright.expect(count).to_have_text(re.compile(r"the last 5,\d{3} lines"))
        for _ in range(4):
            before = count.inner_text()
            earlier.focus()
            page.keyboard.press("Enter")
            playwright.expect(count).not_to_have_text(before)
        shown = [int(line.split()[2]) for line in log.locator("pre").text_content().splitlines()]
        assert len(shown) > 20_000 and shown == list(range(shown[0], LINES)), "none twice, no gap"
        assert not log.locator(".kaos-follow input").is_checked()
        began = time.monotonic()
        page.evaluate("document.querySelector('pre').scrollTop = 0")
        page.screenshot()
        assert time.monotonic() - began < 5
        page.goto(f"{hub.kaos}/notebooks/broken")
        playwright.expect(page.locator("[data-count]").first).to_have_text("201 lines")
        assert page.locator("[data-earlier]").first.is_hidden()


def test_nothing_from_the_wire_becomes_markup(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        playwright.expect(page.locator("text=onerror").first).to_be_visible()
        page.goto(f"{hub.kaos}/notebooks/broken")
        lines = page.locator("details[data-stage=build] pre")
        playwright.expect(lines).to_contain_text("Step 199 installing <b>199</b>")
        page.goto(f"{hub.kaos}/notebooks/nasty")
        playwright.expect(page.locator("text=onerror").first).to_be_visible()
        assert "hacked" not in page.title()


def test_everything_can_be_reached_by_keyboard(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        page.locator("#name-mnist").focus()
        reached = []
        for _ in range(2):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert reached == ["start-mnist", "delete-mnist"]
        page.keyboard.press("Enter")
        page.wait_for_url("**/confirm/delete")
        page.goto(f"{hub.kaos}/notebooks/broken")
        page.locator("details[data-stage=host] summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("details[data-stage=host]").get_attribute("open") is not None


def test_the_hubs_own_switch_turns_the_lights_off(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        page.click("#dark-theme-toggle")
        assert page.locator("html").get_attribute("data-bs-theme") == "dark"


def test_the_page_follows_a_notebook_from_build_to_lab(chromium, hub: RunningHub) -> None:
    with page_of(chromium, hub, "judy") as page:
        token = hub.token("judy")
        expect, said = playwright.expect, page.locator("#kaos-announce")
        # made elsewhere: appears by itself
        assert hub.ask("POST", "/notebooks", token, {"name": "live"}).status == 202
        row = page.locator("tr[data-notebook=live]")
        expect(row).to_be_visible(timeout=10_000)
        page.goto(f"{hub.kaos}/notebooks/live")
        expect(page.locator("h1 .badge")).to_have_text("RUNNING", timeout=120_000)
        shoot(page, "notebook-running", "light", 1280)
        page.locator("details[data-stage=host] summary").click()
        expect(page.locator("details[data-stage=host] pre")).to_contain_text("ServerApp")
        # stopped elsewhere: the button changes by itself, and it is said aloud
        assert hub.ask("POST", "/notebooks/live/stop", token).status == 200
        expect(page.locator("#start-live")).to_be_visible(timeout=20_000)
        expect(said).to_have_text("live: STOPPED")
        page.click("#delete-live")
        page.click("main button")
        page.wait_for_url("**/services/kaos/")
        expect(page.locator("text=No notebooks yet")).to_be_visible()


LATE_EVENTS = """
const fetched = window.fetch;
window.fetch = (url, options) => {
  if (!String(url).endsWith("/events")) return fetched(url, options);
  const stream = new ReadableStream({ start: (it) => { window.events = it; } });
  return Promise.resolve(new Response(stream));
};
window.tell = (id, state) => window.events.enqueue(new TextEncoder().encode(
  `id: ${id}\\nevent: notebook\\ndata: ${JSON.stringify(
    { id, notebook: "mnist", state, reason: "", progress: 0 })}\\n\\n`));
"""
"""Events that come when the test says so: later than the page that they are about."""


def test_what_the_page_knew_before_its_event_is_told_all_the_same(
    chromium, hub: RunningHub, few: str
) -> None:
    with page_of(chromium, hub, few) as page:
        page.add_init_script(LATE_EVENTS)
        page.goto(f"{hub.kaos}/notebooks/mnist")
        live, said = page.locator("#kaos-live"), page.locator("#kaos-announce")
        page.wait_for_function("window.events")
        page.evaluate("tell(1, 'STOPPED')")
        playwright.expect(said).to_be_empty()
        page.evaluate("tell(2, 'STOPPING')")
        playwright.expect(said).to_have_text("mnist: STOPPING")
        # it is asked for again, and has stopped by then
        playwright.expect(live).to_have_attribute("data-shown", "STOPPED")
        page.evaluate("tell(3, 'STOPPED')")
        playwright.expect(said).to_have_text("mnist: STOPPED")


def test_a_page_without_the_service_says_so(chromium, hub: RunningHub, few: str) -> None:
    with page_of(chromium, hub, few) as page:
        page.wait_for_selector("#name-mnist")
        # the proxy keeps the page's connection although nobody answers on it any more
        page.locator("#kaos").evaluate("e => { e.dataset.patience = 2000; }")
        offline = page.locator("#kaos-offline")
        hub.end_service(signal.SIGSTOP)
        try:
            playwright.expect(offline).to_be_visible(timeout=15_000)
        finally:
            hub.end_service(signal.SIGCONT)
        page.locator("#kaos").evaluate("e => { e.dataset.patience = 40000; }")
        playwright.expect(offline).to_be_hidden(timeout=15_000)
