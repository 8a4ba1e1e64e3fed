"""What a page shows of a file: text, a table or an image, never more than a page can bear.

Everything is made text that cannot mislead: characters that control a terminal, or turn the
direction of writing, are shown by their numbers.
"""

import csv
import difflib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST = 256 << 10
"""Bytes of a file that are shown as text."""
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
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Preview:
    """What is shown of a file."""

    kind: str
    """``text``, ``table``, ``image``, ``binary`` or ``empty``."""
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    encoding: str = ""
    cut: bool = False
    """There is more of it."""


@dataclass(frozen=True)
class Line:
    """A line of a comparison."""

    sign: str
    """``+``, ``-``, a space, or ``@`` where something was left out."""
    text: str
    before: int | None = None
    after: int | None = None


def image_type(data: bytes) -> str | None:
    """The media type of an image by its first bytes, if it is one that is shown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES if data.startswith(magic)), None)


def preview(name: str, data: bytes, size: int) -> Preview:
    """What to show of a file.

    Args:
        name: its name.
        data: its first bytes, at most :data:`MOST`.
        size: bytes that it has.
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
    table = _table(name, text)
    if table is not None:
        rows, more = table
        return Preview("table", rows=rows, encoding=encoding, cut=cut or more)
    return Preview("text", _shown(text), encoding=encoding, cut=cut)


def decode(data: bytes, whole: bool = True) -> tuple[str, str] | None:
    """A file's text and its encoding; None if it is no text.

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


def safe(text: str) -> str:
    """A text whose every character is what it seems to be."""
    return _ODD.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", text)


def _shown(text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(safe(line if len(line) <= _LINE else line[:_LINE] + " …") for line in lines)


def _table(name: str, text: str) -> tuple[tuple[tuple[str, ...], ...], bool] | None:
    """The rows of a table, and whether there are more; None if it is none."""
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
    """Two texts line by line, with a little around each change; None if one is no text, or too
    much to compare. Takes a moment: not for the event loop."""
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
