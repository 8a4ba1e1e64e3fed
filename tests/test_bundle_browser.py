"""The pages of bundles in a real browser: looks (pictures in test-output/), upload, keyboard."""

import json
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.bundles.ignore import rules_for
from kaos_hub.bundles.scan import scan
from kaos_hub.client import Client
from kaos_hub.schemas import BundleKind
from tests.bundle_world import FILES, NASTY, submit_two
from tests.history import version, write
from tests.hub import RunningHub, wait_until
from tests.lab import Person, at_browser, chromium, expect

pytestmark = pytest.mark.browser

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
HERE = "bundles/data/my%20data"
DROP = """() => {
  const file = (name, text) => (
    { isDirectory: false, name, file: (done) => done(new File([text], name)) }
  );
  const folder = (name, inside) => ({ isDirectory: true, name, createReader: () => {
    const rest = inside.slice();
    return { readEntries: (done) => done(rest.splice(0, 1)) };
  } });
  const below = [file("a.txt", "1"), folder("sub", [file("b.txt", "2")])];
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = { items: [{ webkitGetAsEntry: () => folder("dropped", below) }] };
  document.getElementById("kaos-folder").dispatchEvent(event);
}"""
LISTEN = """() => {
  window.said = [];
  const place = document.getElementById("folder-said");
  const note = () => window.said.push(place.textContent);
  new MutationObserver(note).observe(place, { childList: true });
}"""
WIDE = "document.documentElement.scrollWidth > window.innerWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def bert(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user with bundles of every kind."""
    submit_two(hub, "bert", tmp_path_factory.mktemp("bundle"))
    huge = tmp_path_factory.mktemp("huge")
    (huge / "many").mkdir()
    for number in range(2000):
        (huge / "many" / f"{number:05}-{'long-name-' * 8}").write_text(str(number))
    (huge / "long.txt").write_text("".join(f"line {n} {NASTY}\n" for n in range(20_000)))
    (huge / "wide.csv").write_text("\n".join([",".join(f"value {n}" for n in range(60))] * 300))
    kaos = Client(hub.url, hub.token("bert"))
    kaos.bundles.submit(huge, "data", "x" * 64)
    rows = [version(87000 + i, "params", f"grid-{i:03}", 1, "user:bert") for i in range(120)]
    write(hub.data, rows)
    (huge / "long.txt").write_text("".join(f"LINE {n}\n" for n in range(20_000)))
    kaos.bundles.submit(huge, "data", "x" * 64)
    return "bert"


@pytest.fixture
def visit(browser: Any, hub: RunningHub) -> Iterator[Any]:
    """Lets a user look; whatever goes wrong in their browser fails the test."""
    people: list[Person] = []

    def begin(user: str, scheme: str = "light", width: int = 1280, **options: Any) -> Person:
        view = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
        people.append(Person(browser, hub, **view, **options))
        people[-1].log_in(user)
        return people[-1]

    yield begin
    for person in people:
        assert person.errors == []
        person.context.close()


def see(person: Person, path: str, name: str = "") -> None:
    """Go to a page; nothing there is wider than the window. Take a picture if it has a name."""
    person.visit(path)
    expect(person.page.locator("main h1").first).to_be_visible()
    if name:
        person.shoot(name)
    assert not person.page.evaluate(WIDE), f"{path} has to be scrolled sideways"


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_how_the_pages_look(visit: Any, bert: str, scheme: str, width: int) -> None:
    see(visit("nobody-yet", scheme, width), "bundles", f"bundles-empty-{scheme}-{width}")
    person = visit(bert, scheme, width)
    huge = f"bundles/data/{'x' * 64}"
    for name, path in (
        ("bundles", "bundles"),
        ("bundle", HERE),
        ("bundle-version", f"{HERE}/2"),
        ("bundle-text", f"{HERE}/1/tree/page.html"),
        ("bundle-table", f"{HERE}/1/tree/table.csv"),
        ("bundle-image", f"{HERE}/1/tree/pixel.png"),
        ("bundle-changes", f"{HERE}/2/changes"),
        ("bundle-difference", f"{HERE}/2/changes/read%20me.md?since=1"),
        ("bundle-delete", f"{HERE}/1/confirm/delete"),
        ("bundle-upload", "bundles/upload"),
        ("bundle-huge-folder", f"{huge}/1/tree/many"),
        ("bundle-huge-text", f"{huge}/1/tree/long.txt"),
        ("bundle-huge-table", f"{huge}/1/tree/wide.csv"),
        ("bundle-missing", f"{HERE}/99"),
    ):
        see(person, path, f"{name}-{scheme}-{width}")
    image = person.page.locator("main img")
    see(person, f"{HERE}/1/tree/pixel.png")
    assert image.evaluate("i => i.complete && i.naturalWidth") == 64


def test_nothing_in_a_bundle_becomes_markup(visit: Any, bert: str) -> None:
    person = visit(bert)
    page = person.page
    see(person, f"{HERE}/1")
    page.get_by_text("alert('1')").click()
    expect(page.locator("main pre")).to_have_text("nasty")
    expect(page.locator("h1")).to_contain_text("<script>alert('1')")
    for name in ("page.html", "image.svg", "liar.png"):
        see(person, f"{HERE}/1/tree/{name}")
        assert page.locator("main script, main svg, main img").count() == 0
        assert "hacked" not in page.title()
    # and what is downloaded does not open here
    with page.expect_download() as kept:
        page.evaluate(f"location.href = '/services/kaos/{HERE}/1/file/page.html'")
    assert Path(kept.value.path()).read_text() == FILES["page.html"]


def test_all_of_it_by_keyboard(visit: Any, bert: str) -> None:
    person = visit(bert)
    page = person.page
    person.visit("bundles")
    page.get_by_label("Part of the name").focus()
    page.keyboard.type("my d")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=my**")
    for label, heading in (("v2", "my data v2"), ("sub/", "sub"), ("deep/", "deep")):
        page.locator("main table").get_by_text(label, exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text(heading)
    page.get_by_label("Path").get_by_text("v2").focus()
    page.keyboard.press("Enter")
    page.locator("#changes").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("v1 → v2")


# --- a folder from the browser ---


def folder(path: Path) -> Path:
    """A folder as people have them, with rubbish in it."""
    content = {
        ".kaosignore": "*.log\n", "a.log": "no", "sub/ü 𐍈.txt": "1", "sub/ﬁ.txt": "2", "none": "",
        ".git/HEAD": "ref", "run": "#!/bin/sh\n", "same": "1",
    }  # fmt: skip
    for name, text in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    (path / "run").chmod(0o755)
    for size in (1, 1023, 1024, 1025, 65_537, 5 << 20):
        (path / f"noise-{size}").write_bytes(secrets.token_bytes(size))
    return path


def test_a_folder_becomes_what_the_command_line_makes_of_it(
    visit: Any, hub: RunningHub, tmp_path: Path
) -> None:
    person = visit("fay")
    page = person.page
    see(person, "bundles/upload")
    page.locator("#folder").set_input_files(folder(tmp_path / "My földer"))
    expect(page.locator("#made")).to_have_text("My folder v1")
    page.click("#folder-skipped summary")
    left_out = page.locator("#folder-skipped li").all_inner_texts()
    assert sorted(left_out) == [".git/ (tools leave it behind)", "a.log (.kaosignore lists it)"]
    person.shoot("bundle-uploaded-light-1280")
    found = Client(hub.url, hub.token("fay")).bundles.get("data", "My folder")
    assert found.digest == scan(tmp_path / "My földer", rules_for(BundleKind.DATA)).root
    # the same again sends nothing, and is no new version
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if r.url.endswith("/objects") else None)
    page.locator("#folder").set_input_files(tmp_path / "My földer")
    expect(page.locator("#folder-result")).to_be_focused()
    expect(page.locator("#made")).to_have_text("My folder v1")
    assert sent == []
    page.click("#made")
    expect(page.locator("h1")).to_contain_text("My folder v1")


def test_another_folder_of_that_name_is_asked_about(
    visit: Any, hub: RunningHub, tmp_path: Path
) -> None:
    person = visit("fritz")
    page = person.page
    see(person, "bundles/upload")
    for where in ("a", "b", "c"):
        (tmp_path / where / "proj").mkdir(parents=True)
        (tmp_path / where / "proj" / f"{where}.txt").write_text(where)
    page.locator("#folder").set_input_files(tmp_path / "a" / "proj")
    expect(page.locator("#made")).to_have_text("proj v1")
    page.locator("#folder").set_input_files(tmp_path / "b" / "proj")
    result = page.locator("#folder-result")
    expect(result).to_contain_text("no file in common with proj@v1")
    expect(result.get_by_role("button", name="Something else: proj-2")).to_be_focused()
    person.shoot("bundle-upload-alike-light-1280")
    page.click("#folder-cancel")
    expect(result).to_contain_text("Cancelled")
    page.locator("#folder").set_input_files(tmp_path / "b" / "proj")
    result.get_by_role("button", name="Something else: proj-2").click()
    expect(page.locator("#made")).to_have_text("proj-2 v1")
    page.locator("#folder").set_input_files(tmp_path / "c" / "proj")
    result.get_by_role("button", name="A new version of proj").click()
    expect(page.locator("#made")).to_have_text("proj v2")
    names = {v.name for v in Client(hub.url, hub.token("fritz")).bundles.list()}
    assert names == {"proj", "proj-2"}


def test_code_needs_its_structure(visit: Any, tmp_path: Path) -> None:
    person = visit("fred")
    page = person.page
    see(person, "bundles/upload")
    page.get_by_label("Code").check()
    page.locator("#folder").set_input_files(folder(tmp_path / "code"))
    expect(page.locator("#folder-result")).to_contain_text("has no Dockerfile")
    (tmp_path / "code" / "inner" / "model").mkdir(parents=True)
    (tmp_path / "code" / "inner" / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (tmp_path / "code" / "inner" / "model" / "train").write_text("#!/bin/sh\n")
    page.locator("#folder").set_input_files(tmp_path / "code")
    expect(page.locator("#made")).to_have_text("code v1")


def test_a_dropped_folder_is_taken(visit: Any, hub: RunningHub) -> None:
    """Chromium lets no script drop a real folder: its entries are made by the page."""
    person = visit("dan")
    page = person.page
    see(person, "bundles/upload")
    page.evaluate(DROP)
    expect(page.locator("#made")).to_have_text("dropped v1")
    entries = Client(hub.url, hub.token("dan")).bundles.entries("data", "dropped")
    assert [entry.name for entry in entries] == ["a.txt", "sub"]


def test_a_broken_line_goes_on_where_it_was(visit: Any, hub: RunningHub, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.bin").write_bytes(secrets.token_bytes(9 << 20))
    person = visit("rhea")
    page = person.page
    see(person, "bundles/upload")
    asked: list[int] = []

    def note(request: Any) -> None:
        if request.url.endswith("/objects"):
            asked.append(1)
            if len(asked) == 3:
                hub.end_service(signal.SIGKILL)

    page.on("request", note)
    page.locator("#name").fill("resumed")
    page.locator("#folder").set_input_files(tmp_path)
    expect(page.locator("#made")).to_have_text("resumed v1", timeout=60_000)
    assert 6 < len(asked) < 12, "what had arrived was not sent again"
    wait_until(hub.answers, 30, "the service")


def test_what_is_wrong_is_said(visit: Any, tmp_path: Path) -> None:
    person = visit("wrong-doer")
    page = person.page
    see(person, "bundles/upload")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("")
    page.locator("#name").fill("rubbish")
    page.locator("#folder").set_input_files(tmp_path)
    result = page.locator("#folder-result")
    expect(result).to_contain_text("nothing in the folder that could be sent")
    expect(result).to_be_focused()
    (tmp_path / "bad\x01name").write_text("")
    page.locator("#folder").set_input_files(tmp_path)
    expect(result).to_contain_text("control character")


def test_it_can_be_cancelled(visit: Any, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(secrets.token_bytes(48 << 20))
    person = visit("carl")
    page = person.page
    see(person, "bundles/upload")
    page.locator("#folder").set_input_files(tmp_path)
    page.click("#folder-cancel")
    expect(page.locator("#folder-result")).to_contain_text("Cancelled")


def test_digests_in_the_browser_are_ours(visit: Any, hub: RunningHub) -> None:
    from blake3 import blake3

    person = visit("dee")
    person.visit("bundles/upload")
    sizes = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3073, 4096, 100_000, 1_000_003]
    found = person.page.evaluate(
        """async (sizes) => {
          const { Hasher } = await import("/services/kaos/static/blake3.js");
          return sizes.map((size) => {
            const hasher = new Hasher();
            const bytes = new Uint8Array(size).map((_, i) => i % 251);
            for (let at = 0; at < size; at += 777) hasher.update(bytes.subarray(at, at + 777));
            return hasher.hex();
          });
        }""",
        sizes,
    )
    assert found == [blake3(bytes(i % 251 for i in range(size))).hexdigest() for size in sizes]


def test_without_scripts_an_archive_is_sent(browser: Any, hub: RunningHub, tmp_path: Path) -> None:
    from tests.test_unpack import FILE, zipped

    (tmp_path / "plain.zip").write_bytes(zipped(("a.txt", b"1", FILE)))
    with at_browser(browser, hub, "nora", java_script_enabled=False) as person:
        person.visit("bundles/upload")
        assert person.page.locator("#kaos-folder").is_hidden()
        person.page.set_input_files("#archive", tmp_path / "plain.zip")
        person.page.click("main button[type=submit]")
        expect(person.page.locator("h1")).to_contain_text("plain v1")


def test_the_upload_says_where_it_is(visit: Any, tmp_path: Path) -> None:
    """Each step is told, once at least, and the last is the whole."""
    (tmp_path / "big").write_bytes(secrets.token_bytes(24 << 20))
    person = visit("stella")
    page = person.page
    see(person, "bundles/upload")
    page.evaluate(LISTEN)
    page.locator("#folder").set_input_files(tmp_path)
    expect(page.locator("#made")).to_be_visible(timeout=30_000)
    said = json.dumps(page.evaluate("window.said"))
    assert re.search(r"Reading: \S+ of 24Mi", said) and re.search(r"Sending: \S+ of 24Mi", said)
