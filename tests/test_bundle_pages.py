"""The pages of bundles as they are without JavaScript, and that nothing in a bundle can run."""

import io
import re
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from kaos_hub.client import Client
from kaos_hub.service.pages import previews
from tests.bundle_world import FILES, PNG, submit_two
from tests.history import notebook, version, write
from tests.hub import Answer, Browser, RunningHub
from tests.test_service_pages import words
from tests.test_train_pages import link


@pytest.fixture(scope="module")
def bea(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """A browser of a user with a bundle of two versions."""
    submit_two(hub, "bea", tmp_path_factory.mktemp("bundle"))
    return Browser(hub, "bea")


HERE = "bundles/data/my%20data"


def see(hub: RunningHub, browser: Browser, path: str, status: int = 200) -> Answer:
    page = browser.get(f"{hub.kaos}/{path}")
    assert page.status == status, page.text
    return page


def test_strangers_are_sent_to_the_hub(hub: RunningHub, bea: Browser) -> None:
    for path in ("bundles", f"{HERE}/1", f"{HERE}/1/file/table.csv", f"{HERE}/1/archive"):
        assert "username" in Browser(hub).get(f"{hub.kaos}/{path}").text


def test_the_list_and_its_search(hub: RunningHub, bea: Browser) -> None:
    page = see(hub, bea, "bundles")
    text = words(page.text)
    assert re.search(r"my data data v2 2 \d+ [\d.]+ ?\w+ bea just now", text), text
    menu = page.text.split("</nav>")[0]
    assert 'aria-current="page" href="/services/kaos/bundles">Bundles</a>' in menu
    assert "my data" in words(see(hub, bea, "bundles?search=Y%20D").text)
    for query in ("search=nothing", "kind=source", "search=%25", "after=7"):
        assert "None of these" in see(hub, bea, f"bundles?{query}").text
    see(hub, bea, "bundles?kind=nonsense", 400)
    empty = Browser(hub, "bare").get(f"{hub.kaos}/bundles").text
    assert "No bundles yet" in empty and f"kaos login {hub.url}" in empty


def test_who_may_only_train_has_the_same_pages(hub: RunningHub, bea: Browser) -> None:
    page = bea.get(f"{hub.train}/bundles")
    assert link(page, "my data").startswith("/services/kaos-train/bundles/")
    assert "read me.md" in words(bea.get(f"{hub.train}/{HERE}/2").text)


def test_a_version_is_walked_through_by_links(hub: RunningHub, bea: Browser) -> None:
    page = see(hub, bea, "bundles")
    page = bea.get(hub.url + link(page, "my data"))
    assert re.search(r"v2 in use \d+ .* v1 \d+ ", words(page.text))
    page = bea.get(hub.url + link(page, "v1"))
    text = words(page.text)
    assert "12 files" in text and "by bea" in text
    assert text.index("sub/") < text.index("bidi.txt"), "folders stand first"
    for name, said in (("sub/", "deep/"), ("deep/", "note.txt"), ("note.txt", "4 B")):
        page = bea.get(hub.url + link(page, name))
        assert said in words(page.text)
    assert '<pre class="kaos-lines kaos-text"' in page.text
    page = bea.get(hub.url + link(page, "sub"))
    assert "deep/" in words(page.text)
    assert "It points to sub/deep/note.txt" in words(see(hub, bea, f"{HERE}/2/tree/to-deep").text)


def test_what_is_in_files_is_shown_and_nothing_of_it_is_markup(
    hub: RunningHub, bea: Browser
) -> None:
    for name, said in (
        ("read me.md", "Héllo <b>bold</b>"), ("page.html", "<script>document.title = 'hacked'"),
        ("image.svg", "<svg xmlns="), ("bidi.txt", r"a\u{202e}b\u{1b}[31mc"),
        ("latin.txt", "Windows-1252 (guessed) café"), ("blob.bin", "no text and no image"),
        ("empty", "The file is empty"), ("liar.png", "<script>alert(1)</script>"),
        ("table.csv", "name value <i>a</i>, b 1 c 2"),
    ):  # fmt: skip
        page = see(hub, bea, f"{HERE}/1/tree/{quote(name)}")
        assert said in words(page.text), (name, words(page.text))
        assert not re.search(r"<(script|svg|b|i)>", page.text.split("<main")[1].split("</main")[0])
    assert "<td>&lt;i&gt;a&lt;/i&gt;, b</td>" in see(hub, bea, f"{HERE}/1/tree/table.csv").text


def test_files_with_nasty_names_are_reached_by_their_links(hub: RunningHub, bea: Browser) -> None:
    folder = see(hub, bea, f"{HERE}/1")
    assert "<script>alert" not in folder.text
    (to,) = re.findall(r'href="([^"]*%3Cscript[^"]*)"', folder.text)
    page = bea.get(hub.url + to)
    assert "<script>alert" not in page.text and "nasty" in words(page.text)
    file = bea.get(hub.url + link(page, "Download"))
    assert file.body == b"nasty"
    kept = file.headers["Content-Disposition"]
    assert kept.startswith('attachment; filename="<script>alert(') and "\n" not in kept
    assert kept.count('"') == 2 and "filename*=UTF-8''%3Cscript%3E" in kept


def test_downloads_cannot_run_anywhere(hub: RunningHub, bea: Browser) -> None:
    for path, media_type, body in (
        (f"{HERE}/1/file/page.html", "application/octet-stream", FILES["page.html"].encode()),
        (f"{HERE}/1/image/pixel.png", "image/png", PNG),
        (f"{HERE}/1/file/empty", "application/octet-stream", b""),
    ):
        answer = see(hub, bea, path)
        assert answer.headers["Content-Type"] == media_type and answer.body == body
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "/image/" in path or answer.headers["Content-Disposition"].startswith("attachment")
    for name in ("liar.png", "image.svg", "page.html", "nothing", "sub"):
        see(hub, bea, f"{HERE}/1/image/{name}", 404)
    see(hub, bea, f"{HERE}/1/file/sub", 404)


def test_all_of_it_as_an_archive(hub: RunningHub, bea: Browser) -> None:
    answer = see(hub, bea, f"{HERE}/2/archive")
    assert "my data-v2.tar" in answer.headers["Content-Disposition"]
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        assert "sub/deep/note.txt" in archive.getnames()


def test_two_versions_beside_each_other(hub: RunningHub, bea: Browser) -> None:
    page = bea.get(hub.url + link(see(hub, bea, f"{HERE}/2"), "Changes"))
    text = words(page.text)
    assert "2 added, 1 removed, 1 changed" in text and "v1 → v2" in text
    page = bea.get(hub.url + link(page, "read me.md"))
    text = words(page.text)
    assert "- # Héllo" in text and "+ # Hello" in text and "+ more" in text
    assert "2 2 <b>bold</b>" in text
    back = see(hub, bea, f"{HERE}/1/changes?since=2")
    assert "1 added, 2 removed, 1 changed" in words(back.text)
    assert "+ #!/bin/sh" in words(see(hub, bea, f"{HERE}/2/changes/run.sh?since=1").text)
    binary = see(hub, bea, f"{HERE}/2/changes/blob.bin?since=1")
    assert "It is no text" in binary.text
    assert "no version before" in see(hub, bea, f"{HERE}/1/changes").text
    see(hub, bea, f"{HERE}/2/changes?since=99", 404)
    see(hub, bea, f"{HERE}/2/changes/nothing", 404)


def test_what_is_not_there_leads_back(hub: RunningHub, bea: Browser) -> None:
    for path in (
        "bundles/data/nothing", "bundles/nonsense/x", f"{HERE}/99", f"{HERE}/1/tree/nothing",
        f"{HERE}/1/tree/table.csv/x", f"{HERE}/1/tree/..", "bundles/data/x/confirm/delete",
    ):  # fmt: skip
        page = see(hub, bea, path, 404)
        assert "Your bundles" in words(page.text) or "Your notebooks" in words(page.text), path


def test_deleting_asks_says_what_is_kept_and_is_refused_while_used(
    hub: RunningHub, tmp_path: Path
) -> None:
    kaos = Client(hub.url, hub.token("dora"))
    for number in ("1", "2", "3"):
        (tmp_path / "x").write_text(number)
        kaos.bundles.submit(tmp_path, "data", "doomed")
    write(hub.data, [version(73100, "source", "used", 1, "user:dora")])
    write(hub.data, [notebook("lab", owner="user:dora", source_id=73100)])
    dora = Browser(hub, "dora")
    form = {"_xsrf": dora.xsrf()}
    page = see(hub, dora, "bundles/data/doomed/2/confirm/delete")
    assert "Its other versions stay" in words(page.text)
    assert dora.post(f"{hub.kaos}/bundles/data/doomed/2/delete", {}).status == 403
    page = dora.post(f"{hub.kaos}/bundles/data/doomed/2/delete", form)
    assert re.search(r"v3 in use .* v1 ", words(page.text)) and " v2 " not in words(page.text)
    page = see(hub, dora, "bundles/source/used/confirm/delete", 409)
    assert "notebook lab would lack it" in words(page.text)
    page = dora.post(f"{hub.kaos}/bundles/source/used/delete", form)
    assert page.status == 409 and "in use by notebook lab" in words(page.text)
    page = dora.post(f"{hub.kaos}/bundles/data/doomed/delete", form)
    assert "doomed" not in page.text and "used" in words(page.text)
    token = hub.ask("GET", "/openapi.json", None).json
    assert "delete" in token["paths"]["/bundles/{kind}/{name}"]


def test_others_learn_nothing(hub: RunningHub, bea: Browser) -> None:
    nosy = Browser(hub, "nosy")
    for path in (HERE, f"{HERE}/1", f"{HERE}/1/file/empty", f"{HERE}/1/image/pixel.png",
                 f"{HERE}/1/archive", f"{HERE}/1/changes", f"{HERE}/confirm/delete"):  # fmt: skip
        assert "bea" not in see(hub, nosy, path, 404).text
    assert nosy.post(f"{hub.kaos}/{HERE}/delete", {"_xsrf": nosy.xsrf()}).status == 404
    assert nosy.get(f"{hub.kaos}/bundles?owner=user:bea").status == 404
    assert nosy.get(f"{hub.kaos}/bundles?owner=group:vision").status == 404


def test_a_thousand_bundles_come_in_pages(hub: RunningHub) -> None:
    rows = [version(74000 + i, "data", f"set-{i:04}", 1, "user:max") for i in range(1000)]
    write(hub.data, rows)
    browser, seen, url = Browser(hub, "max"), list[str](), "/services/kaos/bundles"
    for _ in range(3):
        page = browser.get(hub.url + url)
        seen += re.findall(r'data-bundle="([^"]+)"', page.text)
        url = link(page, "Older")
    assert seen == [f"set-{i:04}" for i in range(999, 849, -1)]
    assert "set-0007" in browser.get(f"{hub.kaos}/bundles?search=0007").text
    assert len(hub.ask("GET", "/bundle-names?limit=1000", hub.token("max")).json) == 1000


# --- what is shown of a file ---


def test_only_the_beginning_of_a_long_text_is_shown() -> None:
    data = ("é" * 1000 + "\n").encode() * 200
    seen = previews.preview("x", data[: previews.MOST - 1], len(data))
    assert (seen.kind, seen.cut, seen.encoding) == ("text", True, "UTF-8")
    assert "\ufffd" not in seen.text


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.csv", b"a,b\n1,2\n", "table"),
        ("a.tsv", b"a\tb\n", "table"),
        ("a.csv", b'"' + b"x" * 200_000, "text"),
        ("a.csv", b"\0\1", "binary"),
        ("a.png", b"GIF89a", "image"),
        ("a.svg", b"<svg/>", "text"),
        ("a", b"\xff\xfea\0b\0", "text"),
        ("a", b"RIFF\0\0\0\0WEBP", "image"),
        ("a", b"\xff" + bytes(range(1, 32)) * 9, "binary"),
    ],
)
def test_kinds_of_previews(name: str, data: bytes, kind: str) -> None:
    assert previews.preview(name, data, len(data)).kind == kind


def test_wide_and_long_tables_are_cut() -> None:
    wide = "\n".join([",".join("x" * 9 for _ in range(100))] * 500).encode()
    seen = previews.preview("a.csv", wide, len(wide))
    assert seen.cut and len(seen.rows) == previews.ROWS + 1
    assert {len(row) for row in seen.rows} == {previews.COLUMNS}
    ragged = previews.preview("a.csv", b"a,b\n1\n1,2\n", 10)
    assert ragged.rows == (("a", "b"), ("1", ""), ("1", "2")) and not ragged.cut


def test_differences_leave_out_what_is_the_same() -> None:
    before = "".join(f"line {i}\n" for i in range(1000)).encode()
    lines = previews.differences(before, before.replace(b"line 500\n", b"LINE\n"))
    assert lines is not None and [line.sign for line in lines] == [*"@   -+   "]
    assert lines[4].before == 501 and lines[5].after == 501
    assert previews.differences(b"\0", b"x") is None
    assert previews.differences(b"x\n" * 30_000, b"") is None
    assert previews.differences(b"x", b"x") == []
