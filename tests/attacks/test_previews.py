"""Files that want to be more than what is shown of them: Markdown and notebooks."""

import base64
import json
from html.parser import HTMLParser

import pytest

from kaos_hub.service.pages.previews import MOST, Preview, preview
from tests.bundle_world import PNG

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))", "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)", "![x](http://evil.example/pixel.png)", "![x](javascript:alert(1))",
    '[x](https://e.example/"onmouseover="alert(1))', "<https://e.example/\"onclick=x>",
    "[x]: javascript:alert(1)\n[x]", "`<script>`", "| <b> | ](x) |\n|-:|-|\n| <i> | 1 |",
    "&lt;script&gt;alert(1)&lt;/script&gt;", "<!-- --><svg/onload=alert(1)>", "\u202egnp.exe",
]  # fmt: skip
ALLOWED = {
    "h1", "h2", "p", "a", "code", "pre", "em", "strong", "table", "thead", "tbody", "tr", "th",
    "td", "ul", "ol", "li", "blockquote", "br", "hr", "s",
}  # fmt: skip


class Elements(HTMLParser):
    """The elements of a page: fails for any that is not one of a text."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        for name, value in attrs:
            assert name in ("href", "class", "start"), (tag, name)
            assert name != "href" or str(value).startswith(("http:", "https:", "#", "/")), value


def shown(name: str, text: str) -> Preview:
    data = text.encode()
    return preview(name, data, len(data))


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_has_no_markup_of_its_own(text: str) -> None:
    """Cause 6: a script in a file that a colleague looks at."""
    cells = [{"cell_type": "markdown", "source": [text]}]
    for seen in (shown("a.md", text), shown("a.ipynb", json.dumps({"cells": cells}))):
        assert seen.kind == "page"
        html = "".join(part.html for part in seen.parts)
        Elements().feed(html)
        assert "\u202e" not in html


def test_outputs_are_text_and_images() -> None:
    """Cause 6: HTML, scripts and widgets that a notebook put out are named, and never run."""
    image = base64.b64encode(PNG).decode()
    outputs = [
        {"output_type": "stream", "text": ["\x1b[31mred\x1b[0m\n", "<script>"]},
        {"output_type": "display_data", "data": {"text/html": "<script>", "application/x": {}}},
        {"output_type": "display_data", "data": {"image/png": image, "text/plain": "figure"}},
        {"output_type": "display_data", "data": {"image/png": "PHN2Zz4=", "text/plain": "liar"}},
        {"output_type": "display_data", "data": {"image/svg+xml": "<svg onload=x>"}},
        {"output_type": "error", "traceback": ["\x1b[0;31mTypeError\x1b[0m"]},
        {"output_type": "execute_result", "data": "none"}, "nonsense",
    ]  # fmt: skip
    cell = {"cell_type": "code", "execution_count": 3, "source": "print(1)", "outputs": outputs}
    parts = shown("a.ipynb", json.dumps({"cells": [cell, "nonsense", {}]})).parts
    assert [(part.kind, part.text) for part in parts if part.text] == [
        ("code", "print(1)"), ("output", "red\n<script>"),
        ("note", "not shown here: application/x, text/html"),
        ("image", f"data:image/png;base64,{image}"), ("output", "liar"),
        ("note", "not shown here: image/svg+xml"), ("error", "TypeError"),
    ]  # fmt: skip
    assert all(not part.html for part in parts)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cells": 3}', "[" * 100_000, '{"cells": [' + "[" * 9000, "NaN"]
)
def test_what_is_no_notebook_is_text(text: str) -> None:
    """Cause 15: files that are called like a notebook, and are none."""
    assert shown("a.ipynb", text).kind in ("text", "empty")


def test_much_is_cut() -> None:
    """Cause 3: a page bears only so much, however large the file is."""
    cells = [{"cell_type": "code", "source": "x" * 50_000, "outputs": []}] * 600
    seen = shown("a.ipynb", json.dumps({"cells": cells}))
    assert len(seen.parts) == 501 and "100 more cells" in seen.parts[-1].text
    assert sum(len(part.text) for part in seen.parts) < 500 * 21_000
    assert len(shown("a.ipynb", "x" * (3 * MOST)).text) <= MOST
