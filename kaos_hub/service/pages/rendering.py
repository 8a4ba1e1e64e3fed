"""Markdown and Jupyter notebooks as pages show them.

Nothing of a file becomes markup of its own: Markdown is rendered with HTML switched off, and no
link runs anything. Of a notebook's outputs, text and images are shown; HTML, scripts and widgets
are named and left out.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

_CELLS = 500
_TEXT = 20_000
"""Characters of a cell, or of one output, that are shown."""
_IMAGE = 2 << 20
"""Bytes of the largest image of an output."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_IMAGES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


@dataclass(frozen=True)
class Part:
    """A piece of a page."""

    kind: str
    """``markdown``, ``code``, ``output``, ``error``, ``image`` or ``note``."""
    text: str = ""
    html: Markup = field(default_factory=Markup)
    """The HTML of Markdown, which is safe as it is."""
    label: str = ""
    """The label of code: ``[3]``."""


def safe(text: str) -> str:
    """Replace characters that are not what they seem to be by their numbers."""
    return _ODD.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", text)


def markdown(text: str) -> Markup:
    """Render Markdown as HTML. No markup of the text's own gets into it."""
    # What the renderer escapes, and what it lets through, it decides itself: HTML is off.
    return Markup(_MARKDOWN.render(safe(text)))  # noqa: S704


def _alt_text(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: EnvType,
) -> str:
    """Render an image as its description, because it would be fetched from elsewhere."""
    alt = renderer.renderInlineAsText(tokens[index].children or [], options, env)
    return str(escape(f"[image: {alt}]" if alt else "[image]"))


def _cell_of_table(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: EnvType,
) -> str:
    """Render a cell without its style: pages have no styles within them."""
    tokens[index].attrs.pop("style", None)
    return renderer.renderToken(tokens, index, options, env)


def _engine() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    made.add_render_rule("image", _alt_text)
    for kind in ("th_open", "td_open"):
        made.add_render_rule(kind, _cell_of_table)
    return made


_MARKDOWN = _engine()


def notebook(text: str) -> list[Part] | None:
    """Return the cells of a Jupyter notebook and their outputs; None if it is not a notebook."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list):
        return None
    parts = [part for cell in cells[:_CELLS] if isinstance(cell, dict) for part in _cell(cell)]
    if len(cells) > _CELLS:
        parts.append(Part("note", f"and {len(cells) - _CELLS:,} more cells"))
    return parts


def _cell(cell: dict[str, Any]) -> Iterator[Part]:
    source = _joined(cell.get("source"))
    match cell.get("cell_type"):
        case "markdown":
            yield Part("markdown", html=markdown(source))
        case "code":
            number = cell.get("execution_count")
            yield Part("code", source, label=f"[{number if isinstance(number, int) else ' '}]")
            outputs = cell.get("outputs")
            for output in outputs if isinstance(outputs, list) else []:
                if isinstance(output, dict):
                    yield from _output(output)
        case _:
            yield Part("output", source)


def _output(output: dict[str, Any]) -> Iterator[Part]:
    match output.get("output_type"):
        case "stream":
            yield Part("output", _joined(output.get("text")))
        case "error":
            yield Part("error", _joined(output.get("traceback"), "\n"))
        case _:
            data = output.get("data")
            yield from _display(data if isinstance(data, dict) else {})


def _display(data: dict[str, Any]) -> Iterator[Part]:
    for kind, begins in _IMAGES.items():
        image = _image(data.get(kind), begins)
        if image:
            yield Part("image", f"data:{kind};base64,{image}")
            return
    if "text/plain" in data:
        yield Part("output", _joined(data["text/plain"]))
    elif data:
        kinds = ", ".join(sorted(str(kind)[:60] for kind in data)[:5])
        yield Part("note", f"not shown here: {kinds}")


def _image(encoded: object, begins: bytes) -> str:
    """Return the image, encoded anew; empty if it is not an image, or too large."""
    try:
        content = base64.b64decode(_whole(encoded).encode(), validate=False)
    except (binascii.Error, ValueError):
        return ""
    if not content.startswith(begins) or len(content) > _IMAGE:
        return ""
    return base64.b64encode(content).decode()


def _whole(text: object, between: str = "") -> str:
    return between.join(map(str, text)) if isinstance(text, list) else str(text or "")


def _joined(text: object, between: str = "") -> str:
    """Join a text or a list of its lines. Remove escape sequences, and cut it if it is too long."""
    whole = _ESCAPES.sub("", _whole(text, between))
    return whole if len(whole) <= _TEXT else f"{whole[:_TEXT]} …"
