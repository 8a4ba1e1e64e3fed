"""The rules that make a folder a source bundle or a data bundle, and what a bundle is called."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import shown
from kaos_hub.bundles.scan import Scan
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import EntryKind, TreeEntry, bundle_name

DOCKERFILE = "Dockerfile"
MODEL = "model"

STRUCTURE = """\
A source bundle looks like this:

    example/
    ├── Dockerfile
    └── model/
        └── requirements.txt   (optional, like everything in model/)"""

_ABOVE, _BELOW = 3, 4
"""Levels at which a bundle is looked for where there is none."""
_LOOKED_INTO = 100
"""Folders of one folder that are looked into for that."""
_MEANT = 3
_LETTERS = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O",
     "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
)  # fmt: skip
"""Latin letters that Unicode does not take apart."""
_PLAIN = (EntryKind.FILE, EntryKind.EXECUTABLE)


def find_source_root(directory: str | os.PathLike[str], look_around: bool = False) -> Path:
    """The source bundle in ``directory``: itself if it holds a Dockerfile, else its only sub-folder
    that does. What lies beside that sub-folder does not matter.

    Args:
        directory: the folder.
        look_around: where there is none, look above and below for what is probably meant, and name
            it; the paths are in ``details["meant"]`` of the error.

    Raises:
        InvalidBundle: there is none, or more than one; says what there should be.
    """
    root = Path(directory)
    try:
        if _holds_dockerfile(root):
            return root
        with os.scandir(root) as listing:
            folders = sorted(e.name for e in listing if e.is_dir(follow_symlinks=False))
    except NotADirectoryError:
        raise _no_bundle(root, f"{shown(str(root))} is not a folder", look_around) from None
    except OSError as error:
        raise InvalidBundle(f"{shown(str(root))} cannot be read: {error.strerror}") from None
    found = [root / name for name in folders if _holds_dockerfile(root / name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(str(path)) for path in found)
        raise InvalidBundle(
            f"{shown(str(root))} holds several source bundles; say which one: {names}"
        )
    raise _no_bundle(root, _no_dockerfile(root), look_around)


def _holds_dockerfile(folder: Path) -> bool:
    return os.path.lexists(folder / DOCKERFILE)


def _no_dockerfile(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    if not names:
        return f"{shown(str(root))} is empty"
    odd = [name for name in names if name.lower() == DOCKERFILE.lower()]
    hint = f" ({odd[0]!r} must be called {DOCKERFILE!r})" if odd else ""
    return f"neither {shown(str(root))} nor a folder in it holds a {DOCKERFILE}{hint}"


def _no_bundle(root: Path, problem: str, look_around: bool) -> InvalidBundle:
    if not look_around:
        return InvalidBundle(f"{problem}\n\n{STRUCTURE}")
    above = [path for path in list(root.absolute().parents)[:_ABOVE] if _holds_dockerfile(path)]
    if above:
        meant = [_short(above[0])]
        return InvalidBundle(f"{problem}; it lies in a source bundle: {shown(*meant)}", meant=meant)
    meant = [str(path) for path in sorted(islice(_below(root, _BELOW), _MEANT))]
    if meant:
        names = ", ".join(map(shown, meant))
        return InvalidBundle(f"{problem}; deeper in it there is {names}", meant=meant)
    return InvalidBundle(f"{problem}\n\n{STRUCTURE}")


def _short(path: Path) -> str:
    """Return a path as a user would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _below(root: Path, depth: int) -> Iterator[Path]:
    """Source bundles in a folder, to a depth; hidden folders and links are not looked into."""
    try:
        folders = [e for e in os.scandir(root) if e.is_dir(follow_symlinks=False)][:_LOOKED_INTO]
    except OSError:
        return
    for entry in folders:
        path = root / entry.name
        if _holds_dockerfile(path):
            yield path
        elif depth > 1 and not entry.name.startswith("."):
            yield from _below(path, depth - 1)


def check_source(scan: Scan) -> None:
    """Check that what was scanned is a source bundle.

    Raises:
        InvalidBundle: says what is missing and what there should be.
    """
    check_source_tree(scan.nodes.__getitem__, scan.root)


def check_source_tree(read_node: Callable[[str], bytes], root: str) -> None:
    """Check that the tree ``root`` is a source bundle. ``read_node`` gives a listing by digest.

    Raises:
        InvalidBundle: says what is missing and what there should be.
    """
    entries = {entry.name: entry for entry in tree.decode(read_node(root))}
    problem = _source_problem(entries)
    if problem:
        raise InvalidBundle(f"{problem}\n\n{STRUCTURE}")


def _source_problem(entries: Mapping[str, TreeEntry]) -> str | None:
    if not entries:
        return "the source bundle is empty"
    dockerfile, model = entries.get(DOCKERFILE), entries.get(MODEL)
    if dockerfile is None:
        return f"the source bundle has no {DOCKERFILE}"
    if dockerfile.kind not in _PLAIN:
        return f"{DOCKERFILE!r} must be a file; it is a {dockerfile.kind.value}"
    if dockerfile.size == 0:
        return f"{DOCKERFILE!r} is empty; it must at least say FROM"
    if model is None:
        return f"the source bundle has no folder {MODEL!r} (it is what the Dockerfile copies from)"
    if model.kind is not EntryKind.DIRECTORY:
        return f"{MODEL!r} must be a folder; it is a {model.kind.value}"
    return None


def check_data(scan: Scan) -> None:
    """Check that what was scanned is a data bundle: any shape, but not nothing.

    Raises:
        InvalidBundle: the folder is empty, or everything in it was left out.
    """
    if scan.root != tree.EMPTY:
        return
    if scan.skipped:
        raise InvalidBundle(
            f"{shown(str(scan.directory))} holds only what the ignore rules leave out:"
            f" {', '.join(map(shown, scan.skipped[:5]))}"
        )
    raise InvalidBundle(f"{shown(str(scan.directory))} is empty; it needs at least one file")


def check_data_tree(root: str) -> None:
    """Check that the tree ``root`` can be a data bundle.

    Raises:
        InvalidBundle: it is empty.
    """
    if root == tree.EMPTY:
        raise InvalidBundle("the bundle is empty; it needs at least one file")


def plain_letters(text: str) -> str:
    """Letters without accents, as in ``grosse-u`` for ``größe-ü``. Others stay as they are."""
    letters = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def default_name(path: str | os.PathLike[str]) -> str:
    """A valid bundle name from the name of a folder, the same on every machine.

    Accents are dropped and other odd characters become hyphens; if letters were lost for good, a
    short digest of the folder's name keeps different folders apart. Works for ``.`` and ``..``
    too.
    """
    path = Path(path)
    folder = path.name if path.name not in ("", "..") else path.resolve().name
    plain = plain_letters(folder)
    name = re.sub(r"[^A-Za-z0-9._ -]+", "-", plain)
    name = re.sub(r"-{2,}", "-", name).lstrip("._ -").rstrip(" -")
    if not folder:
        return "bundle"
    if plain.isascii() and 0 < len(name) <= 64:
        return bundle_name(name)
    composed = unicodedata.normalize("NFC", folder).encode(errors="surrogateescape")
    mark = tree.digest(composed).removeprefix("blake3:")[:6]
    return bundle_name(f"{name[:57].rstrip(' -.') or 'bundle'}-{mark}")
