"""The rules by which a scan leaves out rubbish of tools, and what ``.kaosignore`` lists.

``.kaosignore`` has the syntax and meaning of ``.gitignore``: at the top of the bundle or in any
folder (a deeper file decides first, in one file the last matching line), ``!name`` brings
something back that a line above, an upper file or the defaults leave out. The file itself belongs
to the bundle. Nothing disappears silently: a scan lists what it left out.
"""

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass

from kaos_hub.bundles.gitignore import IgnoreFile
from kaos_hub.bundles.limits import shown
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import BundleKind

IGNORE_FILE = ".kaosignore"
MAX_IGNORE_FILE = 1 << 20
"""Bytes of an ignore file; more is a mistake."""

DATA_NAMES = frozenset(
    {
        ".DS_Store", ".git", ".ipynb_checkpoints", "__MACOSX", "Icon\r", ".AppleDouble",
        ".Spotlight-V100", ".TemporaryItems", ".Trashes", ".fseventsd", "Thumbs.db", "desktop.ini",
        "$RECYCLE.BIN", "System Volume Information",
    }
)  # fmt: skip
"""Names that are never a user's data: desktops and tools leave them everywhere."""
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
"""Names that mark a folder as a virtual environment, whatever that is called."""

SOURCE_NAMES = DATA_NAMES | {
    ".hg", ".svn", ".idea", ".vscode", ".venv", "venv", "node_modules",
    "__pycache__", ".cache", ".eggs", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".tox",
}  # fmt: skip
""":data:`DATA_NAMES`, and what tools make out of source and can make again, or keep beside it."""


@dataclass(frozen=True)
class Rules:
    """Rules for a folder and all below. Immutable: :meth:`within` gives those of a sub-folder."""

    names: frozenset[str] = frozenset()
    """Left out wherever they stand."""
    read_files: bool = True
    """True if ``.kaosignore`` counts."""
    specs: tuple[tuple[str, IgnoreFile], ...] = ()
    """Ignore files met on the way down, deepest first, with the folder each one stands in."""

    def within(self, folder: str, text: bytes) -> "Rules":
        """These rules, and those of the ignore file with ``text`` that stands in ``folder``.

        Raises:
            InvalidBundle: names the file and the line that is no pattern.
        """
        path = f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE
        prefix = f"{folder}/" if folder else ""
        return Rules(self.names, self.read_files, ((prefix, _parse(text, path)), *self.specs))

    def skips(self, path: str, directory: bool, environment: bool = False) -> bool:
        """Tell whether the entry at ``path`` is left out; so is then everything below it.

        Args:
            path: within the bundle.
            directory: whether it is a folder.
            environment: whether that is a virtual environment, which works in its own place alone.
        """
        for prefix, spec in self.specs:
            left_out = spec.decide(path.removeprefix(prefix), directory)
            if left_out is not None:
                return left_out
        name = path.rpartition("/")[2]
        # macOS keeps what a foreign file system has no place for in a file beside: `._name`.
        return bool(self.names) and (name in self.names or name.startswith("._") or environment)

    @property
    def lenient(self) -> bool:
        """True if entries that no bundle can hold are left out, and not refused."""
        return bool(self.names)


KEEP_ALL = Rules(read_files=False)
"""Leaves nothing out."""
DATA = Rules(DATA_NAMES)
"""For data: keeps everything but the most obvious rubbish."""
SOURCE = Rules(SOURCE_NAMES)
"""For source, and other files that one works on."""


def rules_for(kind: BundleKind) -> Rules:
    """Return the rules for a bundle of this kind."""
    rules = {
        BundleKind.SOURCE: SOURCE,
        BundleKind.CONTEXT: SOURCE,
        BundleKind.DATA: DATA,
        BundleKind.MANIFEST: DATA,
    }
    return rules.get(kind, KEEP_ALL)


def decoded(text: bytes, path: str) -> list[str]:
    """The lines of an ignore file: of UTF-8, or of UTF-16 that says so by its byte order mark.

    Raises:
        InvalidBundle: it is neither; names the line.
    """
    if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        try:
            text = text.decode("utf-16").encode()
        except UnicodeError:
            raise _broken(path, 1, "is no UTF-16, though it begins so; save it as UTF-8") from None
    text = text.removeprefix(BOM_UTF8)
    lines = []
    for number, raw in enumerate(re.split(rb"\n" if b"\n" in text else rb"\r", text), start=1):
        if b"\0" in raw:
            raise _broken(path, number, "has a character NUL; save the file as UTF-8")
        try:
            lines.append(raw.decode().rstrip("\r"))
        except UnicodeDecodeError:
            raise _broken(path, number, "is not UTF-8; save the file as UTF-8") from None
    return lines


def _parse(text: bytes, path: str) -> IgnoreFile:
    lines = decoded(text, path)
    try:
        return IgnoreFile(lines)
    except ValueError as e:
        number = e.args[0]
        problem = f"{lines[number - 1][:100]!r} is no pattern (the syntax is that of .gitignore)"
        raise _broken(path, number, problem) from None


def _broken(path: str, number: int, problem: str) -> InvalidBundle:
    return InvalidBundle(f"{shown(path)} line {number}: {problem}", entry=path, line=number)
