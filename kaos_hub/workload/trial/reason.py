"""The reason why a trial failed, from the last that it printed: the line that died."""

import re
from collections.abc import Sequence
from pathlib import Path

LONGEST = 500
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_HEADER = "Traceback (most recent call last):"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_GROUP = re.compile(r" +[|+] ?(.*)")
"""Before each line of the traceback of an exception group."""
_ERROR = re.compile(
    r"\W*(?:[\w.$]*(?:error|exception|fatal|panic)\w*\b|thread '.*' panicked)", re.IGNORECASE
)
_NEAR_THE_END = 20
"""Lines that may follow the traceback of what ended a trial: of threads, of clean-up."""


def reason(tail: str, code: Path, exit_code: int) -> str:
    """Return in one sentence why a trial ended with this exit code.

    Args:
        tail: the end of what it printed.
        code: the folder of the user's own code.
        exit_code: of its main process; not 0.
    """
    lines = _lines(tail)
    # Python ends with 1 for whatever it did not catch.
    near = _NEAR_THE_END if exit_code == 1 else 0
    found = _traceback(lines, str(code), near)
    if found:
        return found[:LONGEST]
    if not lines:
        return f"exit code {exit_code}; it printed nothing"
    return f"exit code {exit_code}: {_telling(lines)}"[:LONGEST]


def _telling(lines: Sequence[str]) -> str:
    """The last line; but many languages say one more thing after the error, or where it was."""
    errors = [line for line in lines[-_NEAR_THE_END:] if _ERROR.match(line)]
    return (errors or lines)[-1].strip()


def last_line(tail: str) -> str:
    """The last line that says something."""
    return next((line.strip()[:LONGEST] for line in reversed(_lines(tail))), "")


def _lines(tail: str) -> list[str]:
    return [line for each in tail.split("\n") if (line := _plain(each)).strip()]


def _plain(line: str) -> str:
    line = _COLOUR.sub("", line.rsplit("\r", 1)[-1] if "\r" in line.rstrip("\r") else line)
    line = _CONTROL.sub(" ", line)
    group = _GROUP.fullmatch(line)
    return group[1].lstrip("-+") if group else line


def _traceback(lines: Sequence[str], code: str, near: int) -> str:
    """The last traceback, if it is near enough to the end to be what ended the trial."""
    last = next((n for n in range(len(lines) - 1, -1, -1) if _FRAME.search(lines[n])), None)
    if last is None:
        return ""
    error = next(
        (n for n in range(last + 1, len(lines)) if not lines[n].startswith((" ", "\t", "|"))), None
    )
    if error is None or len(lines) - 1 - error > near:
        return ""
    first = next((n for n in range(last, -1, -1) if _HEADER in lines[n]), last)
    frames = [m for line in lines[first : last + 1] if (m := _FRAME.search(line))]
    own = [m for m in frames if _is_own(m[1], code)]
    where = own[-1] if own else frames[-1]
    return f"{_shown(where[1], code)} line {where[2]}: {lines[error].strip()}"


def _is_own(path: str, code: str) -> bool:
    if path.startswith("<"):
        return False
    return not path.startswith("/") or (
        path.startswith(f"{code}/") and "/site-packages/" not in path
    )


def _shown(path: str, code: str) -> str:
    return path.removeprefix(f"{code}/").removeprefix("./")
