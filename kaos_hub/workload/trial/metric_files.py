"""The numbers in files that a trial leaves: `metrics/*metrics*.json` of its output directory.

What can be used is used; whatever cannot is told in words.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kaos_hub.workload.trial.metrics import LONGEST_NAME, MOST_NAMES, number

_LARGEST_FILE = 1 << 20
_MOST_FILES = 100
_MOST_NOTES = 20
_SHOWN = 60


class _Unreadable(Exception):
    """A file that holds no numbers; the text goes on from its name."""


def from_files(out: Path, note: Callable[[str], object]) -> dict[str, float]:
    """The numbers in the metrics files of an output directory.

    Args:
        out: the directory.
        note: is told in words what cannot be used, at most :data:`_MOST_NOTES` times.
    """
    files = _Files(note)
    folder = out / "metrics"
    if folder.is_symlink() or out.is_symlink():
        files.note("metrics is a link, which is not followed")
        return {}
    try:
        names = sorted(n for n in os.listdir(folder) if "metrics" in n and n.endswith(".json"))  # noqa: PTH208
    except OSError:
        return {}
    for name in names[:_MOST_FILES]:
        files.read(folder / name)
    if len(names) > _MOST_FILES:
        files.note(f"there are {len(names)} files of metrics; the first {_MOST_FILES} are read")
    return files.found


class _Files:
    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self._notes = 0
        self.found: dict[str, float] = {}

    def note(self, text: str) -> None:
        self._notes += 1
        if self._notes <= _MOST_NOTES:
            self._note(text)
        elif self._notes == _MOST_NOTES + 1:
            self._note("there is more in files of metrics that cannot be used")

    def read(self, path: Path) -> None:
        """Take the numbers of a file."""
        where = f"metrics/{path.name}"
        twice: list[str] = []
        try:
            for said in _objects(_content(path), twice):
                self._take(said, where)
        except _Unreadable as e:
            self.note(f"{where} {e}")
        for name in dict.fromkeys(twice):
            self.note(f"{where}: {_short(name)} stands there twice; the last counts")

    def _take(self, said: Mapping[str, Any], where: str) -> None:
        for name, value in said.items():
            kept = number(value)
            if kept is None:
                self.note(
                    f"{where}: {_short(name)} is {_what(value)}; only finite numbers are kept"
                )
            elif not 0 < len(name) <= LONGEST_NAME:
                self.note(
                    f"{where}: a name has {len(name)} characters; 1 to {LONGEST_NAME} can be kept"
                )
            elif name not in self.found and len(self.found) >= MOST_NAMES:
                self.note(f"there are more than {MOST_NAMES} metrics; {_short(name)} is not kept")
            else:
                self.found[name] = kept


def _content(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _Unreadable("is no file")
            content = file.read(_LARGEST_FILE + 1)
    except OSError as e:
        why = "it is a link" if path.is_symlink() else str(e.strerror)
        raise _Unreadable(f"is not read: {why}") from None
    if len(content) > _LARGEST_FILE:
        raise _Unreadable("is larger than 1 MiB, and is not read")
    return content


def _objects(content: bytes, twice: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file: one, a list of them, or one in each line; the last number counts."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            seen: set[str] = set()
            twice.extend(name for name, _ in found if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        return made

    try:
        said = json.loads(content, object_pairs_hook=pairs)
    except RecursionError:
        raise _Unreadable("is nested too deeply") from None
    except ValueError as e:
        said = _lines(content, pairs)
        if said is None:
            place = f": line {e.lineno}: {e.msg}" if isinstance(e, json.JSONDecodeError) else ""
            raise _Unreadable(f"is no JSON{place}") from None
    listed = said if isinstance(said, list) else [said]
    objects = [one for one in listed if isinstance(one, dict)]
    yield from objects
    if len(objects) < len(listed) or not objects:
        kind = "a list of other things than objects" if isinstance(said, list) else _what(said)
        raise _Unreadable(f"is {kind}; an object with numbers is wanted")


def _lines(content: bytes, pairs: Callable[[list[tuple[str, Any]]], Any]) -> list[Any] | None:
    """One JSON text per line, as many tools write them; none where a line is no JSON."""
    try:
        lines = [line for line in content.decode().splitlines() if line.strip()]
        return [json.loads(line, object_pairs_hook=pairs) for line in lines] or None
    except (ValueError, RecursionError):
        return None


def _what(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool):
        return "a number too large"  # its digits may be many
    return _short(value) if isinstance(value, str) else str(value).lower()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
