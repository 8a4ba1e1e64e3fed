"""The site that `make docs` makes of the documentation: whole, and complete in itself."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.documentation import ROOT

pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
pytest.importorskip("myst_parser", reason="the extra `docs` is not installed")
pytest.importorskip("furo", reason="the extra `docs` is not installed")

PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PARTS = (*PAGES, "LICENSE")


def build(source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    """The command of the Makefile, for other folders."""
    recipe = re.search(r"\n\t\$\(BIN\)/python (-m sphinx .*)\n", (ROOT / "Makefile").read_text())
    assert recipe is not None
    words = (
        recipe[1].replace("build/doctrees", f"{target}-trees").replace("build/docs", str(target))
    )
    return subprocess.run(
        [sys.executable, *words.split()], cwd=source, capture_output=True, text=True, timeout=240
    )


class Loaded(HTMLParser):
    """What a browser loads for a page, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.assets.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.assets.append(given["href"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site."""
    target = tmp_path_factory.mktemp("site") / "docs"
    done = build(ROOT, target)
    assert (done.returncode, done.stderr) == (0, "")
    return target


def test_every_page_is_there_and_in_the_contents(site: Path) -> None:
    first = Loaded()
    first.feed((site / "docs" / "README.html").read_text("utf-8"))
    listed = {link.partition("#")[0] for link in first.links}
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / "docs" / place).is_file(), place
        assert str(place) in listed or place.stem == "README", place
    assert "docs/README.html" in (site / "index.html").read_text()


def test_nothing_is_loaded_from_elsewhere_and_no_link_is_broken(site: Path) -> None:
    """It can be read without a network, from a disk."""
    for page in site.rglob("*.html"):
        found = Loaded()
        found.feed(page.read_text("utf-8"))
        for asset in found.assets:
            assert not re.match(r"(?:[a-z]+:)?//", asset), f"{page}: {asset}"
        for link in (*found.assets, *found.links):
            path = re.split(r"[?#]", link)[0]
            if path and not re.match(r"[a-z]+:", link):
                assert (page.parent / path).exists(), f"{page}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text("utf-8")), style


def test_a_link_that_leads_nowhere_fails(tmp_path: Path) -> None:
    """To a page, or to a heading of one."""
    for name in ("docs", "examples", "helm", "images"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in PARTS:
        shutil.copy(ROOT / name, tmp_path)
    page = tmp_path / "docs" / "tutorial.md"
    page.write_text(page.read_text("utf-8") + "\n[no page](howto/nowhere.md)\n", "utf-8")
    page = tmp_path / "docs" / "howto" / "train.md"
    page.write_text(page.read_text("utf-8") + "\n[no heading](limits.md#nowhere)\n", "utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "tutorial.md" in done.stderr and "howto/nowhere" in done.stderr
    assert "train.md" in done.stderr and "local id not found" in done.stderr
