"""Printing: for people on a terminal, for programs elsewhere; nothing foreign goes out raw."""

import codecs
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

import click

from kaos_hub.util.quantities import about

if TYPE_CHECKING:
    from kaos_hub.schemas import Resources

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
# C0 but tab and newline, DEL, C1, marks that turn the direction of text around, and surrogates,
# which stand for bytes of names that are not UTF-8.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_ANSWERED = f"{__name__}.answered"
_NARROW = 140
"""Columns below which a table is not squeezed."""


_PLAIN = {
    "✔": "+", "✗": "x", "→": "->", "…": "...", "·": "-", "×": "x", "–": "-", "—": "-", "━": "-",
    "“": '"', "”": '"', "‘": "'", "’": "'", "█": "#", "░": ".", "│": "|", "─": "-",
}  # fmt: skip
"""Replacements for our signs where the encoding of a stream lacks them."""


def adapt_streams() -> None:
    """Have what an encoding lacks (that of a console, a pipe, ``LC_ALL=C``) written in signs that
    it has, instead of failing: an arrow as ``->``, other letters escaped."""
    codecs.register_error("kaos-plain", _in_plain_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="kaos-plain")


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    part = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or _escaped(c) for c in part), error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()


def _write(text: str, err: bool = False, nl: bool = True, color: bool | None = None) -> None:
    # The stream is named, for click would write UTF-8 to one that says it is ASCII.
    click.echo(text, file=sys.stderr if err else sys.stdout, nl=nl, color=color)


def clean(text: str) -> str:
    """Text that cannot do anything to a terminal: colours removed, control characters escaped."""
    return _CONTROL.sub(
        lambda m: m[0].encode("unicode_escape").decode(), _ESCAPE_SEQUENCE.sub("", text)
    )


def clean_line(line: str) -> str:
    """A line of a log for a terminal; of a progress bar that redraws itself, the last state."""
    *before, last = line.rstrip("\r").split("\r")
    stamp = before[0].partition(" ")[0] + " " if before and before[0][:4].isdigit() else ""
    return clean(stamp + last)


def on_terminal(stream: IO[str] | None = None) -> bool:
    """Return whether a person looks at the stream (standard error, unless told otherwise)."""
    return (stream or sys.stderr).isatty()


def colours(stream: IO[str] | None = None) -> bool:
    """Return whether the stream takes colours: a terminal that can, and NO_COLOR is not set."""
    return (
        on_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def styled(text: str, colour: str | None = None, bold: bool = False) -> str:
    """Text for standard error, coloured where that is welcome."""
    return click.style(text, fg=colour, bold=bold) if colours() else text


def say(text: str, raw: bool = False) -> None:
    """Print to standard error. ``raw`` text is our own and may hold colours."""
    _write(text if raw else clean(text), err=True, color=True)


def show(text: str) -> None:
    """Print a result to standard output."""
    _write(clean(text))


def show_log(line: str) -> None:
    """Print a line of a log to standard output: cleaned for a terminal, as it is elsewhere."""
    _write(clean_line(line) if on_terminal(sys.stdout) else line, color=True)


def show_log_lines(lines: Iterable[str], as_json: bool) -> None:
    """Print a log to standard output as it comes: lines, or one JSON list of time and text."""
    if not as_json:
        for line in lines:
            show_log(line)
        return
    # Not begun before there is something: an error instead of a log is a document by itself.
    rest = iter(lines)
    first = next(rest, None)
    _mark_answered()
    _write("[", nl=False)
    separator = ""
    try:
        for line in () if first is None else chain([first], rest):
            stamp, _, text = line.partition(" ")
            entry = json.dumps({"at": stamp, "text": text})
            _write(f"{separator}\n  {entry}", nl=False)
            separator = ","
    finally:
        # Whatever breaks it off, what is printed is one whole document.
        _write("\n]")


def show_json(document: Any) -> None:
    """Print one JSON document to standard output. Models are printed as the API sends them."""
    _mark_answered()
    _write(json.dumps(document, default=_plain, indent=2))


def _mark_answered() -> None:
    ctx = click.get_current_context(silent=True)
    if ctx is not None:
        ctx.find_root().meta[_ANSWERED] = True


def answered() -> bool:
    """Return whether this run has printed its one JSON document."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and _ANSWERED in ctx.find_root().meta


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")


def show_table(header: Sequence[str], rows: Iterable[Sequence[object]], err: bool = False) -> None:
    """Print columns: folded to the width of a terminal, in full lines elsewhere.

    On a narrow terminal the terminal itself breaks the lines: a folded address cannot be clicked.

    Args:
        header: the columns' names.
        rows: their cells.
        err: to standard error: it is a remark, not the result.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = sys.stderr if err else sys.stdout
    terminal = on_terminal(stream)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold" if terminal else "ignore", no_wrap=not terminal)
    for row in rows:
        table.add_row(*(Text(clean(str(cell))) for cell in row))
    width = max(Console().width, _NARROW) if terminal else 100_000
    console = Console(width=width, highlight=False, no_color=not colours(stream))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        _write(line.rstrip(), err=err, color=terminal)


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values under each other; empty values are left out."""
    kept = [(name, clean(str(value))) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *more = value.split("\n")
        _write(f"{name:<{width}}  {first}")
        for line in more:
            _write(" " * (width + 2) + line)


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago a moment was: ``12 s``, ``5 min``, ``3 h``, ``8 d``."""
    if moment is None:
        return ""
    return about(((now or datetime.now(UTC)) - _aware(moment)).total_seconds())


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def moment(value: datetime | None) -> str:
    """A time for people, in their own zone, with how long ago it was."""
    if value is None:
        return ""
    return f"{_aware(value).astimezone():%Y-%m-%d %H:%M:%S} ({age(value)} ago)"


def resources(value: "Resources") -> str:
    """Resources in a few words: ``2 cpu, 4Gi``."""
    from kaos_hub.util.quantities import show_memory

    parts = [
        f"{value.cpu:g} cpu" if value.cpu else "",
        show_memory(value.memory) if value.memory else "",
    ]
    parts.append(f"{value.gpu} gpu" if value.gpu else "")
    return ", ".join(part for part in parts if part) or "default"
