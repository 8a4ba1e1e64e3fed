"""Hyperparameters: a file of JSON with lists of values → every combination of them.

    {"degree": [2, 3], "kernel": ["poly", "rbf"], "gamma": 0.1}

is four trials. What is no list is a list of one; a string is a value, never its letters. An object
or a list is a value only inside a list, so that ``{"a": {"b": [1, 2]}}`` is not taken for a grid.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kaos_hub.errors import InvalidRequest

MOST = 100_000
"""Trials of one grid."""

_SPACE = re.compile(r"[ \t\n\r]*")
_SHOWN = 60
_DEEPEST = 50


@dataclass(frozen=True)
class Grid(Sequence[dict[str, Any]]):
    """All combinations, each once; the last key's values change fastest."""

    keys: tuple[str, ...]
    """In the order of the file."""
    values: tuple[tuple[Any, ...], ...]
    """Of each key."""

    def __len__(self) -> int:
        return math.prod(map(len, self.values))

    def __getitem__(self, index: Any) -> Any:
        """The parameters of a trial, counted from 0, in time that does not grow with the grid."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rest = index + len(self) if index < 0 else index
        if not 0 <= rest < len(self):
            raise IndexError(index)
        picked = []
        for values in reversed(self.values):
            rest, at = divmod(rest, len(values))
            picked.append(values[at])
        return dict(zip(self.keys, reversed(picked), strict=True))


def parse(text: str | bytes, where: str, most: int = MOST) -> Grid:
    """Read a grid.

    Args:
        text: the file's content.
        where: its name, for messages.
        most: trials there may be.

    Raises:
        InvalidRequest: names file, line and key, and says what is wrong.
    """
    return _Reader(_text(text, where), where).grid(most)


def _text(text: str | bytes, where: str) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = text.count(b"\n", 0, e.start) + 1
        raise InvalidRequest(f"{where}:{line}: this is not UTF-8", file=where, line=line) from None


class _Wrong(Exception):
    """Something in a value that JSON has, or Python takes for it, and a grid cannot have."""


class _Reader:
    """Reads the outermost object by hand: no reader of JSON tells where its keys stand."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float
        )

    def grid(self, most: int) -> Grid:
        at = self._skip(0)
        if self._text[at : at + 1] != "{":
            self._not_an_object(at)
        found: dict[str, tuple[Any, ...]] = {}
        trials, lines = 1, dict[str, int]()
        for start, key, value in self._items(at + 1):
            if key in found:
                self._refuse(start, f"{key!r} stands here again; first in line {lines[key]}", key)
            found[key], lines[key] = self._values(start, key, value), self._line(start)
            trials *= len(found[key])
            if trials > most:
                problem = f"with {key!r} there are {trials:,} combinations, more than {most:,}"
                self._refuse(start, problem, key)
        return Grid(tuple(found), tuple(found.values()))

    def _not_an_object(self, at: int) -> NoReturn:
        try:
            found = type(self._decoder.raw_decode(self._text, at)[0]).__name__
        except (ValueError, RecursionError, _Wrong):
            self._refuse(at, "this is not JSON; expected an object of lists")
        found = {"list": "a list", "str": "a string"}.get(found, "a single value")
        self._refuse(at, f'expected an object like {{"name": [1, 2]}}, not {found}')

    def _items(self, at: int) -> Iterator[tuple[int, str, Any]]:
        """Position, key and value of each member of the object, and nothing after it."""
        text, first = self._text, True
        at = self._skip(at)
        while text[at : at + 1] != "}":
            if not first:
                at = self._expect(at, ",")
            first, start = False, at
            key, at = self._key(at)
            value, at = self._value(start, key, self._expect(at, ":"))
            yield start, key, value
            at = self._skip(at)
        at = self._skip(at + 1)
        if at != len(text):
            self._refuse(at, "the object has ended, and something follows")

    def _key(self, at: int) -> tuple[str, int]:
        if self._text[at : at + 1] != '"':
            self._refuse(at, 'expected a name in double quotes, or "}"')
        try:
            key, end = self._decoder.raw_decode(self._text, at)
        except ValueError:
            self._refuse(at, "this name has no end, or a character that JSON forbids")
        if not key or not _encodable(key):
            self._refuse(at, "a name must not be empty or broken", key)
        return key, end

    def _value(self, start: int, key: str, at: int) -> tuple[Any, int]:
        try:
            value, end = self._decoder.raw_decode(self._text, at)
            _check(value)
            return value, end
        except _Wrong as e:
            self._refuse(start, f"{key!r} {e}", key)
        except json.JSONDecodeError as e:
            self._refuse(e.pos, f"in {key!r}: this is not JSON", key)
        except RecursionError:
            self._refuse(start, f"{key!r} is nested too deeply", key)
        except ValueError:
            self._refuse(start, f"{key!r} has a number of too many digits", key)

    def _values(self, at: int, key: str, value: Any) -> tuple[Any, ...]:
        if isinstance(value, dict):
            self._refuse(at, f"{key!r} is an object; put it into a list to have it as a value", key)
        if not isinstance(value, list):
            return (value,)
        if not value:
            self._refuse(at, f"{key!r} has an empty list, so there is nothing to run", key)
        seen = set()
        for one in value:
            same = json.dumps(_alike(one), sort_keys=True)
            if same in seen:
                shown = json.dumps(one, ensure_ascii=False)
                cut = "…" if len(shown) > _SHOWN else ""
                self._refuse(at, f"{key!r} has the value {shown[:_SHOWN]}{cut} twice", key)
            seen.add(same)
        return tuple(value)

    def _skip(self, at: int) -> int:
        """The position of what is no space."""
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _expect(self, at: int, letter: str) -> int:
        at = self._skip(at)
        if self._text[at : at + 1] != letter:
            found = "the file ends" if at >= len(self._text) else f"found {self._text[at]!r}"
            self._refuse(at, f"expected {letter!r}, {found}")
        return self._skip(at + 1)

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def _refuse(self, at: int, problem: str, key: str | None = None) -> NoReturn:
        line = self._line(at)
        details = {"file": self._where, "line": line}
        if key is not None:
            details["key"] = key.encode(errors="replace").decode()
        raise InvalidRequest(f"{self._where}:{line}: {problem}", **details) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Wrong(f"has an object in which {twice!r} stands twice")
    return found


def _check(value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise _Wrong("is nested too deeply")
    if isinstance(value, str) and not _encodable(value):
        raise _Wrong("has a string with half a character in it")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            _check(one, depth + 1)


def _constant(name: str) -> NoReturn:
    raise _Wrong(f"has the value {name}, which is not JSON and no parameter")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Wrong(f"has the number {text[:_SHOWN]}, which is too large")
    return value


def _encodable(text: str) -> bool:
    """Return whether it is text: JSON can write halves of characters, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _alike(value: Any) -> Any:
    """Equal for values that a program would take for one: 1 and 1.0, but not 1 and true."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_alike(one) for one in value]
    if isinstance(value, dict):
        return {key: _alike(one) for key, one in value.items()}
    return value
