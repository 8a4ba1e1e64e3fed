"""What a scan leaves out: rubbish that tools leave everywhere, and what ``.kaosignore`` lists.

``.kaosignore`` has the syntax and meaning of ``.gitignore``: at the top of the bundle or in any
folder (a deeper file decides first, in one file the last matching line), ``!name`` brings
something back that a line above, an upper file or the defaults leave out. The file itself belongs
to the bundle. Nothing disappears silently: a scan lists what it left out.
"""

import re
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from kaos_hub.bundles.limits import shown
from kaos_hub.errors import InvalidBundle
from kaos_hub.models import BundleKind

IGNORE_FILE = ".kaosignore"
MAX_IGNORE_FILE = 1 << 20
"""Bytes of an ignore file; more is a mistake."""

DATA_NAMES = frozenset({".DS_Store", ".git", ".ipynb_checkpoints", "__MACOSX"})
"""Never anybody's data."""

SOURCE_NAMES = DATA_NAMES | {
    ".hg", ".svn", ".idea", ".vscode", ".venv", "venv", "node_modules", "Thumbs.db",
    "__pycache__", ".cache", ".eggs", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".tox",
}  # fmt: skip
"""What tools make out of source and can make again, or keep beside it."""


@dataclass(frozen=True)
class Rules:
    """What to leave out in a folder and below. Immutable: :meth:`within` gives a sub-folder's."""

    names: frozenset[str] = frozenset()
    """Left out wherever they stand."""
    read_files: bool = True
    """Whether ``.kaosignore`` counts."""
    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()
    """Ignore files met on the way down, deepest first, with the folder each one stands in."""

    def within(self, folder: str, text: bytes) -> "Rules":
        """These rules, and those of the ignore file with ``text`` that stands in ``folder``.

        Raises:
            InvalidBundle: names the file and the line that is no pattern.
        """
        path = f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE
        prefix = f"{folder}/" if folder else ""
        return Rules(self.names, self.read_files, ((prefix, _parse(text, path)), *self.specs))

    def skips(self, path: str, directory: bool) -> bool:
        """Whether the entry at ``path`` is left out; so is then everything below it."""
        for prefix, spec in self.specs:
            below = path.removeprefix(prefix) + ("/" if directory else "")
            include = spec.check_file(below).include
            if include is not None:
                return include
        return path.rpartition("/")[2] in self.names


KEEP_ALL = Rules(read_files=False)
"""Leaves nothing out."""
DATA = Rules(DATA_NAMES)
"""For data: keeps everything but the most obvious rubbish."""
SOURCE = Rules(SOURCE_NAMES)
"""For source, and other files that one works on."""


def rules_for(kind: BundleKind) -> Rules:
    """What is left out of a bundle of this kind."""
    rules = {
        BundleKind.SOURCE: SOURCE,
        BundleKind.CONTEXT: SOURCE,
        BundleKind.DATA: DATA,
        BundleKind.MANIFEST: DATA,
    }
    return rules.get(kind, KEEP_ALL)


def _parse(text: bytes, path: str) -> GitIgnoreSpec:
    lines = []
    for number, raw in enumerate(text.split(b"\n"), start=1):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise _broken(path, number, "is not UTF-8") from None
        _check_line(line, path, number)
        lines.append(line)
    return GitIgnoreSpec.from_lines(lines)


def _check_line(line: str, path: str, number: int) -> None:
    if not line.strip() or line.startswith("#"):
        return
    try:
        patterns = GitIgnoreSpec.from_lines([line]).patterns
    except (ValueError, re.error):
        patterns = []
    if not any(pattern.include is not None for pattern in patterns):
        raise _broken(path, number, f"{line!r} is no pattern (the syntax is that of .gitignore)")


def _broken(path: str, number: int, problem: str) -> InvalidBundle:
    return InvalidBundle(f"{shown(path)} line {number}: {problem}", entry=path, line=number)
