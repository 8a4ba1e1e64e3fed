"""The patterns of ``.gitignore``, matched in time that grows no faster than path times pattern.

Patterns come from strangers, and a regular expression with several stars may take for ever: each
star that fails is tried again for every place at which the one before could have ended. But of a
glob only the last star has to be tried at more than one place: what stands between two stars has a
fixed length, so the first place at which it fits is as good as any. Atomic groups say so to
``re``. The meaning is that of git's ``wildmatch``; a test compares the two.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

MAX_LINE = 4096
"""Characters of a line; no path is as long."""

_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": " \\t", "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~",
    "punct": "!-/:-@\\[-`{-~", "space": " \\t-\\r", "upper": "A-Z", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_STAR, _STARS, _SLASH = "*", "**", "/"
_END = r"(?=/|\Z)"
_NEVER = "(?!)"


@dataclass(frozen=True)
class Pattern:
    """One line that says something."""

    include: bool
    """True if it leaves out, False if it brings back."""
    directories: bool
    """True if it is about directories alone."""
    by_name: bool
    """True if it is matched with the last name of a path, False if with all of it."""
    literal: str | None
    """The text that it matches, if that is only one."""
    regex: re.Pattern[str] | None
    """The expression that it matches, if there is no ``literal``."""


class IgnoreFile:
    """The lines of one file, of which the last that matches counts.

    Args:
        lines: without their ends.

    Raises:
        ValueError: a line is no pattern. Its argument is the line's number, from 1.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._globs: list[tuple[int, Pattern]] = []
        self._names: dict[tuple[str, bool], int] = {}
        self._paths: dict[tuple[str, bool], int] = {}
        self._include: list[bool] = []
        for number, line in enumerate(lines, start=1):
            try:
                pattern = parse(line)
            except ValueError:
                raise ValueError(number) from None
            if pattern is not None:
                self._add(pattern)
        self._globs.reverse()

    def _add(self, pattern: Pattern) -> None:
        at = len(self._include)
        self._include.append(pattern.include)
        if pattern.literal is None:
            self._globs.append((at, pattern))
            return
        texts = self._names if pattern.by_name else self._paths
        for directory in {True, pattern.directories}:
            texts[pattern.literal, directory] = at

    def decide(self, path: str, directory: bool) -> bool | None:
        """Return True if a path is left out, False if brought back, None if no line is about it.

        Args:
            path: within the folder that the file stands in.
            directory: it is one.
        """
        name = path.rpartition("/")[2]
        last = max(self._names.get((name, directory), -1), self._paths.get((path, directory), -1))
        for at, pattern in self._globs:
            if at < last:
                break
            if pattern.directories and not directory:
                continue
            assert pattern.regex is not None, "it is no literal"
            if pattern.regex.fullmatch(name if pattern.by_name else path):
                return pattern.include
        return self._include[last] if last >= 0 else None


def parse(line: str) -> Pattern | None:
    """The pattern in a line; None if it is empty or a comment.

    Raises:
        ValueError: it is no pattern, so git would never find anything by it.
    """
    if len(line) > MAX_LINE:
        raise ValueError("too long")
    text = _without_spaces(line)
    if not text or text.startswith("#"):
        return None
    include = not text.startswith("!")
    text = text.removeprefix("!")
    directories = text.endswith("/")
    text = text.removesuffix("/")
    by_name = "/" not in text
    tokens = list(_tokens(text.removeprefix("/"), by_name))
    if not tokens:
        raise ValueError("empty")
    if all(len(token) == 1 and token != _STAR for token in tokens):
        literal = "".join(token for token in tokens)
        return Pattern(include, directories, by_name, literal, None)
    regex = _segment(tokens) if by_name else _path(tokens)
    return Pattern(include, directories, by_name, None, re.compile(regex))


def _without_spaces(line: str) -> str:
    """Return a line without spaces at its end; a backslash keeps the first of them."""
    bare = line.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2
    return line[: len(bare) + 1] if escaped and len(line) > len(bare) else bare


def _tokens(text: str, by_name: bool) -> Iterator[str]:
    """The parts of a pattern: single characters that mean themselves, ``*``, ``**`` as a whole
    name, and regular expressions (of more than one character) for one character.
    """
    at = 0
    while at < len(text):
        char = text[at]
        if char == "*":
            stars = len(text) - at - len(text[at:].lstrip("*"))
            following = text[at + stars :]
            whole = stars > 1 and text[at - 1 : at] in ("", "/") and following[:1] in ("", "/")
            yield _STARS if whole and not by_name else _STAR
            at += stars
        elif char == "?":
            yield "[^/]"
            at += 1
        elif char == "[":
            regex, at = _set(text, at + 1)
            yield regex
        elif char == "\\":
            if at + 1 == len(text):
                raise ValueError("ends with a backslash")
            # A star that means itself is told from the other by its length.
            yield text[at + 1] if text[at + 1] != "*" else "\\*"
            at += 2
        else:
            yield char
            at += 1


def _set(text: str, at: int) -> tuple[str, int]:
    """The regular expression of a set of characters, and where the pattern goes on after it."""
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    first, previous, found = at, "", [""]
    while text[at : at + 1] != "]" or at == first:
        if at >= len(text):
            raise ValueError("a set without end")
        if text.startswith("[:", at):
            end = text.find("]", at + 2)
            if end < 0:
                raise ValueError("a set without end")
            if text[end - 1] == ":" and end > at + 2:
                found.append(_class(text[at + 2 : end - 1]))
                at, previous = end + 1, ""
                continue
        if text[at] == "-" and previous and text[at + 1 : at + 2] not in ("", "]"):
            last, at = _char(text, at + 1)
            if last < previous:
                raise ValueError("a range that ends before it begins")
            found[-1] += f"-{re.escape(last)}"
            previous = ""
            continue
        previous, at = _char(text, at)
        found.append(re.escape(previous))
    inner = "".join(found)
    return f"[^/{inner}]" if negated else f"(?!/)[{inner}]", at + 1


def _char(text: str, at: int) -> tuple[str, int]:
    at += text[at] == "\\"
    if at >= len(text):
        raise ValueError("a set without end")
    return text[at], at + 1


def _class(name: str) -> str:
    if name not in _CLASSES:
        raise ValueError("an unknown class")
    return _CLASSES[name]


def _segment(tokens: Iterable[str]) -> str:
    """The regular expression of one name, up to its end."""
    chunks = [""]
    for token in tokens:
        if token == _STAR:
            chunks.append("")
        else:
            chunks[-1] += re.escape(token) if len(token) == 1 else token
    first, *middle, last = (chunks[0], *chunks[1:-1], chunks[-1])
    if len(chunks) == 1:
        return f"{first}{_END}"
    found = "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk)
    return f"(?>{first}{found}[^/]*{last}{_END})"


def _path(tokens: list[str]) -> str:
    """The regular expression of a whole path."""
    names = [list(part) for is_slash, part in _split(tokens) if not is_slash]
    if tokens.count(_SLASH) != len(names) - 1:
        # No path has an empty name.
        return _NEVER
    groups: list[list[str]] = [[]]
    for name in names:
        if name == [_STARS]:
            if groups[-1] or len(groups) == 1:
                groups.append([])
        else:
            groups[-1].append(_segment(name))
    first, rest = groups[0], groups[1:]
    regex = "/".join(first)
    if not rest:
        return regex
    regex += "/" if first else ""
    *middle, last = rest
    for group in middle:
        regex += f"(?>(?:[^/]+/)*?{'/'.join(group)}/)"
    if not last:
        return regex + r"[\s\S]+"
    return f"{regex}(?:[^/]+/)*?{'/'.join(last)}"


def _split(tokens: list[str]) -> Iterator[tuple[bool, Iterator[str]]]:
    return groupby(tokens, key=lambda token: token == _SLASH)
