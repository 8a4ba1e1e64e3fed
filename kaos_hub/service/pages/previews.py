"""Previews of files on pages: text, a table or an image, never more than a page can bear.

All text is made safe: characters that control a terminal, or turn the direction of writing, are
shown by their numbers.
"""

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kaos_hub.service.pages import rendering
from kaos_hub.service.pages.rendering import safe as safe

MOST = 256 << 10
"""Bytes of a file that are shown as text."""
MOST_NOTEBOOK = 8 << 20
"""Bytes of the largest notebook that is shown as one: there are images in it."""
MOST_IMAGE = 16 << 20
"""Bytes of the largest image that is shown."""
ROWS, COLUMNS, CELL = 200, 40, 200
_LINE = 5000
"""Characters of a line that are shown."""
_LINES = 20_000
"""Lines of the largest text that is compared."""
_CONTEXT = 3

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Preview:
    """The preview of a file."""

    kind: str
    """``text``, ``table``, ``page``, ``image``, ``binary`` or ``empty``."""
    text: str = ""
    parts: tuple[rendering.Part, ...] = ()
    """The parts of a page made from Markdown, or from a notebook."""
    rows: tuple[tuple[str, ...], ...] = ()
    encoding: str = ""
    cut: bool = False
    """True if the file has more than is shown."""


@dataclass(frozen=True)
class Line:
    """A line of a comparison."""

    sign: str
    """``+``, ``-``, a space, or ``@`` where something was left out."""
    text: str
    before: int | None = None
    after: int | None = None


def image_type(data: bytes) -> str | None:
    """Return the media type of an image by its first bytes; None if it is not one that is shown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES if data.startswith(magic)), None)


def most(name: str) -> int:
    """Return the bytes of a file of that name that are read at most.

    A notebook is read whole or not at all.
    """
    return MOST_NOTEBOOK if name.lower().endswith(".ipynb") else MOST


def preview(name: str, data: bytes, size: int, plain: bool = False) -> Preview:
    """Return the preview of a file.

    Args:
        name: its name.
        data: its first bytes, at most as many as :func:`most` says.
        size: the bytes that it has.
        plain: whether Markdown and notebooks are shown as plain text.
    """
    if not data:
        return Preview("empty")
    if image_type(data):
        return Preview("image" if size <= MOST_IMAGE else "binary")
    decoded = decode(data, whole=len(data) == size)
    if decoded is None:
        return Preview("binary")
    text, encoding = decoded
    cut = len(data) < size
    parts = None if plain else _page(name, text, cut)
    if parts is not None:
        return Preview("page", parts=tuple(parts), encoding=encoding, cut=cut)
    if len(text) > MOST:
        text, cut = text[:MOST], True
    table = _table(name, text)
    if table is not None:
        rows, more = table
        return Preview("table", rows=rows, encoding=encoding, cut=cut or more)
    return Preview("text", _shown(text), encoding=encoding, cut=cut)


def _page(name: str, text: str, cut: bool) -> list[rendering.Part] | None:
    """Return the parts of a file shown as a page; None if it is not shown as one."""
    lower = name.lower()
    if lower.endswith((".md", ".markdown")):
        return [rendering.Part("markdown", html=rendering.markdown(_shown(text)))]
    if lower.endswith(".ipynb") and not cut:
        found = rendering.notebook(text)
        if found is not None:
            return [
                part if part.kind == "image" else replace(part, text=_shown(part.text))
                for part in found
            ]
    return None


def decode(data: bytes, whole: bool = True) -> tuple[str, str] | None:
    """Return a file's text and its encoding; None if it is not text.

    Args:
        data: the file, or its beginning.
        whole: whether it is all of the file; else the last character may be cut.
    """
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data[: len(data) // 2 * 2].decode(encoding, "replace"), "UTF-16"
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as e:
        if not whole and e.start > len(data) - 4:
            return data[: e.start].decode("utf-8-sig"), "UTF-8"
    odd = sum(byte < 9 or 13 < byte < 32 for byte in data)
    if odd * 50 > len(data):
        return None
    return data.decode("cp1252", "replace"), "Windows-1252 (guessed)"


def _shown(text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(safe(line if len(line) <= _LINE else line[:_LINE] + " …") for line in lines)


def _table(name: str, text: str) -> tuple[tuple[tuple[str, ...], ...], bool] | None:
    """Return the rows of a table, and whether there are more; None if it is not a table."""
    ending = next((end for end in _TABLES if name.lower().endswith(end)), None)
    if ending is None:
        return None
    rows: list[tuple[str, ...]] = []
    more = False
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=_TABLES[ending]):
            if len(rows) == ROWS + 1:
                more = True
                break
            more = more or len(row) > COLUMNS
            rows.append(tuple(_cell(cell) for cell in row[:COLUMNS]))
    except csv.Error:
        return None
    width = max((len(row) for row in rows), default=0)
    return tuple(row + ("",) * (width - len(row)) for row in rows), more


def _cell(text: str) -> str:
    return safe(text if len(text) <= CELL else text[:CELL] + "…")


def differences(before: bytes, after: bytes) -> list[Line] | None:
    """Compare two texts line by line, with a few lines around each change.

    Return None if one is not text, or too long to compare. This takes a moment: it is not for the
    event loop.
    """
    old, new = decode(before), decode(after)
    if old is None or new is None:
        return None
    lines = [_shown(text[0]).removesuffix("\n").split("\n") for text in (old, new)]
    if max(map(len, lines)) > _LINES:
        return None
    return list(_differences(*lines))


def _differences(old: list[str], new: list[str]) -> Iterator[Line]:
    matcher = difflib.SequenceMatcher(None, old, new)
    for number, group in enumerate(matcher.get_grouped_opcodes(_CONTEXT)):
        if number or group[0][1] or group[0][3]:
            yield Line("@", "…")
        for tag, i, i_end, j, j_end in group:
            if tag == "equal":
                for offset, line in enumerate(old[i:i_end]):
                    yield Line(" ", line, i + offset + 1, j + offset + 1)
                continue
            for offset, line in enumerate(old[i:i_end]):
                yield Line("-", line, before=i + offset + 1)
            for offset, line in enumerate(new[j:j_end]):
                yield Line("+", line, after=j + offset + 1)
