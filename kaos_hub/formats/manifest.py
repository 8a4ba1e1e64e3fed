"""Manifests: lists of what to fetch from where, one JSON object per line.

    # the training set
    {"url": "https://example.org/a.csv", "path": "training/a.csv"}
    {"url": "https://example.org/b.csv", "path": "training/b.csv", "size": 512, "sha256": "9f86…"}

A path is relative to the folder of the manifest file within its bundle. Blank lines count for
nothing, nor do those that begin with ``#`` or ``//``. Every error names file and line.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import Limits
from kaos_hub.errors import InvalidBundle

LONGEST_LINE = 1 << 16
"""Bytes of a line."""

_KEYS = ("url", "path", "sha256", "size")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")
_LIMITS = Limits()


class Entry(NamedTuple):
    """A file to be fetched."""

    path: str
    """Within the data bundle."""
    url: str
    sha256: str | None
    """64 hexadecimal digits, in lower case."""
    size: int | None
    """Bytes."""
    file: str
    """The manifest file that says so."""
    line: int

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.file}:{self.line}"


def parse(file: str, lines: Iterable[bytes]) -> Iterator[Entry]:
    """Read one manifest file.

    Args:
        file: its path within the bundle.
        lines: its lines, with or without their ends.

    Raises:
        InvalidBundle: a line is wrong, or its path cannot stand beside an earlier one.
    """
    return _parse(file, lines, _Paths())


def read(place: Path) -> Iterator[Entry]:
    """Read a manifest: a file, or a folder of such.

    In a folder, hidden files and those whose name ends with ``.md`` are no manifests.

    Raises:
        InvalidBundle: as :func:`parse`; or there is nothing to fetch at all.
        OSError: it cannot be read.
    """
    paths, found = _Paths(), False
    for file in [place] if place.is_file() else _files(place):
        with file.open("rb") as lines:
            shown = file.name if file == place else file.relative_to(place).as_posix()
            for entry in _parse(shown, _whole(lines), paths):
                found = True
                yield entry
    if not found:
        raise InvalidBundle(
            f"{place.name} names no file to fetch; it takes lines of JSON: "
            '{"url": "https://…", "path": "…"}'
        )


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix == ".md":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _whole(lines: Any) -> Iterator[bytes]:
    """Yield lines, the longest ones cut: a line without end must not fill the memory."""
    while line := lines.readline(LONGEST_LINE + 1):
        yield line


def _parse(file: str, lines: Iterable[bytes], paths: "_Paths") -> Iterator[Entry]:
    folder = file.rpartition("/")[0]
    for number, raw in enumerate(lines, start=1):
        line = _Line(file, number)
        said = line.read(raw)
        if said is not None:
            entry = line.entry(said, folder)
            paths.add(entry, line)
            yield entry


@dataclass(frozen=True)
class _Line:
    """One line, and how it refuses."""

    file: str
    number: int

    def refuse(self, problem: str) -> NoReturn:
        message = f"{self.file}:{self.number}: {problem}"
        raise InvalidBundle(message, file=self.file, line=self.number) from None

    def read(self, raw: bytes) -> dict[str, Any] | None:
        """Return the object on the line; None if it is blank or a comment."""
        if len(raw) > LONGEST_LINE:
            self.refuse(f"the line is longer than {LONGEST_LINE:,} bytes; each is one JSON object")
        try:
            text = raw.decode("utf-8-sig" if self.number == 1 else "utf-8").strip()
            if not text or text.startswith(("#", "//")):
                return None
            said = json.loads(text, object_pairs_hook=self._pairs)
        except UnicodeDecodeError:
            self.refuse("this is not UTF-8")
        except json.JSONDecodeError as e:
            self.refuse(f"this is not JSON (column {e.colno}); each line is one object")
        except (ValueError, RecursionError):
            self.refuse("this is no JSON that can be read")
        if not isinstance(said, dict):
            self.refuse('expected an object: {"url": "https://…", "path": "…"}')
        return said

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self.refuse(f"{next(n for n in names if names.count(n) > 1)!r} stands there twice")
        return found

    def entry(self, said: Mapping[str, Any], folder: str) -> Entry:
        """The entry that the line stands for."""
        for key in said:
            # What is only meant for people may stand there; a mistyped check must not go unseen.
            near = get_close_matches(key.lower(), _KEYS, 1, 0.7) if key not in _KEYS else []
            if near:
                self.refuse(f"{key!r} is unknown; is {near[0]!r} meant?")
        path = tree.join(folder, self._path(said.get("path")))
        try:
            _LIMITS.check_path(path)
        except InvalidBundle as e:
            self.refuse(e.message)
        url, sha256, size = self._url(said.get("url")), said.get("sha256"), said.get("size")
        if size is not None and (type(size) is not int or not 0 <= size < 2**63):
            self.refuse(f"size {_shown(size)} is not a number of bytes")
        return Entry(path, url, self._sha256(sha256), size, self.file, self.number)

    def _url(self, url: object) -> str:
        if url is None:
            self.refuse('there is no "url"')
        if not isinstance(url, str):
            self.refuse(f"url {_shown(url)} is not a text")
        url = url.strip()
        if not url:
            self.refuse(
                "it has an empty url; the published examples have theirs removed: fill it in"
            )
        if _CONTROL.search(url):
            self.refuse(f"url {_shown(url)} has a space or control character; write it as %20")
        try:
            parts = urlsplit(url)
            port, url_path = parts.port, url.encode()  # both can refuse
        except ValueError:
            self.refuse(f"{_shown(url)} is no URL")
        if not parts.scheme or not parts.netloc or port == 0 or not url_path:
            self.refuse(f"{_shown(url)} is no whole URL; it begins like https://example.org/")
        return url

    def _sha256(self, sha256: object) -> str | None:
        if sha256 is None:
            return None
        match = _SHA256.fullmatch(sha256) if isinstance(sha256, str) else None
        if match is None:
            self.refuse(f"sha256 {_shown(sha256)} is not 64 hexadecimal digits")
        return match[1].lower()

    def _path(self, path: object) -> str:
        """The path without a leading slash, ``.`` and doubled slashes."""
        if path is None:
            self.refuse('there is no "path"')
        if not isinstance(path, str) or not path:
            self.refuse(f"path {_shown(path)} is not a text, or empty")
        names = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in names:
            self.refuse(f"path {_shown(path)} leads out of its folder; leave out the '..'")
        if not names or path.endswith(("/", "/.")):
            self.refuse(f"path {_shown(path)} names a folder; say the file's name, too")
        try:
            for name in names:
                tree.check_name(name.encode(errors="surrogatepass"))
        except InvalidBundle as e:
            self.refuse(e.message)
        return "/".join(names)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 100 else text[:100] + "…"


class _Paths:
    """The paths so far: no two may be one file, and none may be a folder of another."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, int]] = {}
        self._folders: dict[str, tuple[str, str, int]] = {}

    def add(self, entry: Entry, line: _Line) -> None:
        path, where = entry.path, (entry.file, entry.line)
        folded = tree.fold(path)
        if folded in self._files:
            file, number = self._files[folded]
            line.refuse(f"{path!r} stands already in {file}:{number}")
        if folded in self._folders:
            _, file, number = self._folders[folded]
            line.refuse(f"{path!r} is a file here, and a folder in {file}:{number}")
        self._files[folded] = where
        folder = path.rpartition("/")[0]
        while folder and self._add_folder(folder, where, line):
            folder = folder.rpartition("/")[0]

    def _add_folder(self, folder: str, where: tuple[str, int], line: _Line) -> bool:
        """Add a folder. Return whether it is new, and with it perhaps the folders above."""
        folded, known = tree.fold(folder), len(self._folders)
        if folded in self._files:
            file, number = self._files[folded]
            line.refuse(f"{folder!r} is a folder here, and a file in {file}:{number}")
        spelled, file, number = self._folders.setdefault(folded, (folder, *where))
        if spelled != folder:
            line.refuse(
                f"{folder!r} and {spelled!r} ({file}:{number}) are one name where case or accents"
                " do not count (macOS, Windows); rename one"
            )
        return len(self._folders) > known
