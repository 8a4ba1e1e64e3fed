"""Every page, in light and dark: its policy refuses nothing of it, axe finds no serious fault."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kaos_hub.client import Client
from kaos_hub.service.db.tables import VolumeRow, now
from tests import soundness
from tests.bundle_world import submit_two
from tests.history import build, notebook, version, write
from tests.hub import RunningHub, running_hub
from tests.lab import Person, at_browser, chromium, expect
from tests.training_history import NASTY, bundles, inputs, training, trials_of

pytestmark = pytest.mark.browser

RUN = f"{0xE1:016x}"
STAMP = "2026-01-31T12:00:00.123456Z"
HERE = "bundles/data/my%20data"
OF_KAOS = (
    "", "home", "quota", "volumes", "notebooks/plain", "notebooks/plain/files",
    "notebooks/broken", "notebooks/plain/confirm/delete", "nothing",
    "bundles", HERE, f"{HERE}/2", f"{HERE}/1/tree/table.csv", f"{HERE}/1/tree/page.html",
    f"{HERE}/1/tree/pixel.png", f"{HERE}/2/changes", f"{HERE}/2/changes/read%20me.md",
    f"{HERE}/1/confirm/delete", "bundles/upload", "?search=nothing-like-it",
    "bundles/upload?kind=source&notebook=fresh", f"{HERE}/1/tree/read%20me.md",
    "several?action=delete&name=plain&name=broken", "?show=failed&sort=name&done=delete&to=gone",
)  # fmt: skip
OF_TRAIN = (
    "", "home", "quota", "models", f"trainings/{RUN}", f"trainings/{RUN}/trials/1",
    f"models/{RUN}.1", "bundles", f"trainings/{RUN}/confirm/delete", "nothing",
)  # fmt: skip
LIMITS = """
c.KaosService.limits = {
    "default": {"notebooks": 5, "cpu": 8, "memory": "16Gi", "gpu": 0, "storage": "12Ki"},
    "user:nobody-yet": {"storage": "50Gi", "idle_timeout": "8h"},
}
"""
EMPTY = ("", "home", "quota", "volumes", "bundles", "../kaos-train/", "../kaos-train/models")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=LIMITS) as hub:
        yield hub


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def sue(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user with something of everything."""
    owner = "user:sue"
    hub.put_into("vision", "sue")
    submit_two(hub, "sue", tmp_path_factory.mktemp("bundle"))
    failed = build(hub.data, "FAILED", f"{STAMP} <script>alert(1)</script>\n" * 50, owner)
    write(hub.data, [failed, version(91500, "source", "code", 3, owner)])
    write(hub.data, [VolumeRow(id="5e" * 16, owner=owner, name="results", created=now())])
    write(
        hub.data,
        [
            notebook("plain", owner=owner, source_id=91500, reason=NASTY, display_name=NASTY),
            notebook(
                "broken", "FAILED", owner, source_id=91500, build_job=failed.id,
                build_state="FAILED", reason=NASTY,
            ),
        ],
    )  # fmt: skip
    run = training(
        0xE1, owner, 3, name=NASTY[:60], author="sue", goal_metric="accuracy",
        goal_direction="max", best_trial=3, best_score=3.0, **inputs(91000),
    )  # fmt: skip
    write(hub.data, bundles(owner, 91000))
    write(hub.data, [run])
    write(hub.data, trials_of(run))
    return "sue"


def look(person: Person, url: str, refused: list[str]) -> None:
    """Go there, use theme switch and menu, and see that nothing was refused."""
    page = person.page
    page.goto(url)
    expect(page.locator("main, #spawn_form").first).to_be_visible()
    page.wait_for_load_state("load")
    before = page.locator("html").get_attribute("data-bs-theme")
    page.click("#dark-theme-toggle")
    assert page.locator("html").get_attribute("data-bs-theme") != before
    page.click("#dark-theme-toggle")
    assert refused == [], url
    assert person.errors == [], url


def everything(hub: RunningHub) -> list[str]:
    """The addresses of all kinds of pages, the Hub's form of a new notebook among them."""
    ours = [f"{hub.kaos}/{path}" for path in OF_KAOS] + [f"{hub.train}/{p}" for p in OF_TRAIN]
    return [*ours, f"{hub.kaos}/new?name=fresh"]


def show(person: Person, url: str) -> None:
    """Go to a page, and have all of it shown."""
    person.page.goto(url)
    expect(person.page.locator("main, #spawn_form").first).to_be_visible()
    person.page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")


def test_no_page_does_what_its_policy_refuses(browser: Any, hub: RunningHub, sue: str) -> None:
    with at_browser(browser, hub, sue) as person:
        refused = soundness.listen(person.context)
        person.page.on("console", lambda m: refused.append(m.text) if is_refusal(m) else None)
        for url in everything(hub):
            look(person, url, refused)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, hub: RunningHub, sue: str, scheme: str) -> None:
    empty = [f"{hub.kaos}/{path}" for path in EMPTY]
    wrong = []
    for user, pages in ((sue, everything(hub)), ("nobody-yet", empty)):
        # axe itself changes styles
        with at_browser(browser, hub, user, color_scheme=scheme, bypass_csp=True) as person:
            for url in pages:
                show(person, url)
                found = soundness.faults(person.page)
                # on a phone the menu is another, and tables are cards
                person.page.set_viewport_size({"width": 375, "height": 800})
                found += soundness.faults(person.page)
                found += ["has to be scrolled sideways"] * bool(person.page.evaluate(WIDE))
                person.page.set_viewport_size({"width": 1200, "height": 800})
                wrong += [f"{url.removeprefix(hub.url)}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)


WATCH_FOCUS = """() => {
  const scope = document.querySelector("main, #spawn_form");
  const some = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const reachable = [...scope.querySelectorAll(some)].filter(
    (e) => !e.disabled && e.getClientRects().length && !e.matches("[type=radio]:not(:checked)"));
  window.left = new Set(reachable);
  scope.addEventListener("focusin", (event) => window.left.delete(event.target));
  document.activeElement.blur();
  return document.querySelectorAll(some).length + 5;
}"""  # noqa: E501
"""Tells how often Tab has to be pressed at most; ``left`` is what it has not come to."""


def test_the_keyboard_comes_to_everything(browser: Any, hub: RunningHub, sue: str) -> None:
    missed = []
    with at_browser(browser, hub, sue) as person:
        for url in everything(hub):
            show(person, url)
            for _ in range(person.page.evaluate(WATCH_FOCUS)):
                person.page.keyboard.press("Tab")
            left = person.page.evaluate("[...left].map((e) => e.outerHTML.slice(0, 150))")
            missed += [f"{url.removeprefix(hub.url)}: {each}" for each in left]
    assert not missed, "\n".join(missed)


@pytest.fixture(scope="module")
def hugo(hub: RunningHub) -> str:
    """A user with a long name, of whom all is long, and much."""
    user = "hugo-with-a-rather-long-name@example.org"
    owner = f"user:{user}"
    for number in range(8):
        hub.put_into(f"group-number-{number}-of-very-many-groups", user)
    names = [f"bundle-{number}-{'w' * 64}"[:64] for number in range(60)]
    kinds = ("source", "data")
    write(
        hub.data,
        [version(95000 + i, kinds[i % 2], name, i, owner) for i, name in enumerate(names)],
    )
    volumes = [f"volume-{number}-{'v' * 30}"[:30] for number in range(20)]
    rows = [
        VolumeRow(id=f"{number:031x}f", owner=owner, name=name, created=now())
        for number, name in enumerate(volumes)
    ]
    options = {
        "volumes": [{"volume": name, "path": "/mnt" + "/deep" * 20 + name} for name in volumes],
        "environment": {f"A_VARIABLE_{'X' * number}": "1" for number in range(60)},
    }
    of = {"source_id": 95000, "data_id": 95001}
    notebooks = [
        notebook(
            f"n{number:02}-abcdefgh-abcdefgh-abcdefgh", ("STOPPED", "FAILED")[number % 2], owner,
            display_name="x" * 60 + " and more" * 6, reason="path/to/a/file/" * 40, gpu=8,
            cpu=128.5, memory=123456789012, options=options, **of,
        )
        for number in range(30)
    ]  # fmt: skip
    metrics = {f"metric_{number}_of_very_many": number / 7 for number in range(100)}
    runs = [
        training(
            0xF00 + number, owner, 0 if number else 3, state=("SUCCEEDED", "WAITING")[number % 2],
            author=user, name=f"training-{'t' * 64}"[:64], reason="trials failed " * 30,
            metrics=sorted(metrics), **of,
        )
        for number in range(30)
    ]  # fmt: skip
    write(hub.data, [*rows, *notebooks, *runs])
    params = {
        f"parameter_{number}": ["x" * 300, 0.1, {"a": [1]}][number % 3] for number in range(9)
    }
    write(hub.data, trials_of(runs[0], params=params, metrics=metrics, reason="r" * 300))
    return user


def test_however_much_there_is_it_fits(browser: Any, hub: RunningHub, hugo: str) -> None:
    first, run = "n00-abcdefgh-abcdefgh-abcdefgh", f"trainings/{0xF00:016x}"
    bundle = "bundles/source/" + f"bundle-0-{'w' * 64}"[:64]
    urls = [
        *(f"{hub.kaos}/{path}" for path in (*EMPTY, f"notebooks/{first}", bundle)),
        *(f"{hub.train}/{path}" for path in (run, f"{run}/trials/1", f"models/{0xF00:016x}.1")),
        f"{hub.kaos}/new?name=fresh",
    ]  # fmt: skip
    wrong = []
    with at_browser(browser, hub, hugo) as person:
        for url in urls:
            show(person, url)
            for width in (375, 800, 1000, 1280):
                person.page.set_viewport_size({"width": width, "height": 800})
                if person.page.evaluate(WIDE):
                    wrong.append(f"{url.removeprefix(hub.url)} at {width}")
            table = "[...document.querySelectorAll('table')].some((e) => e.scrollWidth > e.parentElement.clientWidth + 1 && !e.closest('.kaos-wide, .kaos-sheet, .kaos-tall'))"  # noqa: E501
            if person.page.evaluate(table):
                wrong.append(f"{url.removeprefix(hub.url)}: a table is wider than its place")
    assert not wrong, "\n".join(wrong)


def is_refusal(message: Any) -> bool:
    return message.type == "error" and "Content Security Policy" in message.text


def test_the_menu_of_a_phone_opens(browser: Any, hub: RunningHub, sue: str) -> None:
    view = {"width": 390, "height": 800}
    with at_browser(browser, hub, sue, viewport=view) as person:
        refused = soundness.listen(person.context)
        person.visit("bundles")
        person.page.click(".navbar-toggler")
        person.page.click("text=Models")
        expect(person.page.locator("h1")).to_have_text("Models")
        assert refused == []


def test_what_would_be_a_script_is_none(browser: Any, hub: RunningHub, sue: str) -> None:
    """Were something to slip through, the policy would stop it."""
    with at_browser(browser, hub, sue) as person:
        refused = soundness.listen(person.context)
        person.visit("bundles")
        person.page.evaluate(
            """() => {
              const frame = document.createElement("div");
              frame.innerHTML = '<img src="/nothing.png" onerror="window.ran = 1">';
              const script = document.createElement("script");
              script.textContent = "window.ran = 2";
              document.body.append(frame, script);
            }"""
        )
        person.page.wait_for_timeout(500)
        assert person.page.evaluate("window.ran") is None
        assert len(refused) == 2, refused


WIDE = "document.documentElement.scrollWidth > window.innerWidth"
LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_how_home_and_quota_look(
    browser: Any, hub: RunningHub, sue: str, scheme: str, width: int
) -> None:
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    for user in (sue, "nobody-yet"):
        with at_browser(browser, hub, user, **view) as person:
            for path in ("home", "quota", "volumes"):
                person.visit(path)
                expect(person.page.locator("main h1")).to_be_visible()
                person.shoot(f"{path}{'-empty' if user != sue else ''}-{scheme}-{width}")
                assert not person.page.evaluate(WIDE), f"{path} has to be scrolled sideways"


def test_home_follows_what_happens(browser: Any, hub: RunningHub) -> None:
    with at_browser(browser, hub, "holly") as person:
        page = person.page
        person.visit("home")
        expect(page.locator("main")).to_contain_text("Begin here")
        assert hub.ask("POST", "/notebooks", hub.token("holly"), {"name": "live"}).status == 202
        expect(page.locator("#notebook-live")).to_be_visible(timeout=15_000)
        expect(page.locator("tbody tr").first).to_contain_text("RUNNING", timeout=120_000)
        held = page.locator(".kaos-held > div").first
        expect(held).to_contain_text("1 of 5", timeout=15_000)
        assert hub.ask("POST", "/notebooks/live/stop", hub.token("holly")).status == 200
        expect(page.locator("#ended-live")).to_be_visible(timeout=30_000)
        expect(page.locator("#kaos-announce")).to_have_text("live: STOPPED")
        page.locator("#new").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/hub/spawn/holly/**")


@pytest.mark.parametrize("service", ["kaos", "kaos-train"])
def test_home_is_told_of_trainings(
    browser: Any, hub: RunningHub, tmp_path: Path, service: str
) -> None:
    """By events, whichever of the two services it is looked at with; it is not asked for else."""
    user = f"told-by-{service}"
    kaos = Client(hub.url, hub.token(user))
    with at_browser(browser, hub, user) as person:
        page, asked = person.page, set[str]()
        page.on("request", lambda request: asked.add(streams_of_home(request)))
        page.goto(f"{hub.url}/services/{service}/home")
        expect(page.locator("main")).to_contain_text("Begin here")
        assert page.locator("[data-running]").count() == 0
        (tmp_path / "a.txt").write_text("1")
        made = kaos.trainings.deploy(data=tmp_path, name="digits").model
        assert made is not None
        row = page.locator(f"tr[data-training='{made.id}']")
        expect(row).to_contain_text("WAITING", timeout=15_000)
        kaos.trainings.kill(made.id)
        expect(page.locator("[aria-labelledby=lately]")).to_contain_text(
            "CANCELLED", timeout=15_000
        )
        expect(page.locator("#kaos-announce")).to_have_text(f"{made.name}: CANCELLED")
        own = asked - {""}
        assert {path.split("/")[2] for path in own} == {service} and len(own) == 2


def streams_of_home(request: Any) -> str:
    """Which stream of events the first page asks for, if that is what it asks for."""
    path = urlsplit(request.url).path
    at_home = request.headers.get("referer", "").endswith("/home")
    return path if at_home and path.endswith("/events") else ""


@pytest.mark.parametrize("width", [600, 800, 1000, 1280])
def test_the_menu_fits_its_window(browser: Any, hub: RunningHub, sue: str, width: int) -> None:
    with at_browser(browser, hub, sue, viewport={"width": width, "height": 700}) as person:
        person.visit("quota")
        person.shoot(f"menu-{width}", whole=False)
        assert not person.page.evaluate(WIDE), f"the menu is wider than {width}"
