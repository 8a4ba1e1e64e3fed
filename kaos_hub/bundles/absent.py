"""Content that a folder stands for and does not hold: git-annex, DVC or Git LFS keep it apart.

A link into what is left out (``data/x -> ../.git/annex/objects/…``) is worth nothing in a bundle.
Where the content is there, it is taken in the link's place; all else is told.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence

from kaos_hub.bundles.ignore import ENVIRONMENT_MARKS
from kaos_hub.bundles.limits import shown
from kaos_hub.bundles.links import ends

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POINTER = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_LONGEST_POINTER = 1024
_NAMED = 5
"""Names that a note has; more are counted."""


class Absent:
    """The links of a scanned folder that lead into what is left out, or to nothing.

    Args:
        root: descriptor of the folder.
        links: path → target, all of which stay in the folder.
        skipped: what was left out, folders with a slash at the end.
    """

    def __init__(self, root: int, links: Mapping[str, str], skipped: Sequence[str]) -> None:
        left_out = frozenset(skipped)
        self.found: dict[str, str] = {}
        """Links into what is left out → the files they lead to."""
        self.into: list[str] = []
        self.nowhere: list[str] = []
        for path, place in ends(links).items():
            mode = _mode(root, place)
            if mode is None:
                self.nowhere.append(path)
            elif _within(place, left_out):
                if stat.S_ISREG(mode):
                    self.found[path] = place
                else:
                    self.into.append(path)

    def notes(self) -> Iterator[str]:
        """Yield a note for people on each kind of these links."""
        if self.found:
            yield (
                "Taken as files, since they are links to files that are left out:"
                f" {named(self.found)}"
            )
        if self.into:
            yield f"Links into what is left out lead nowhere in the bundle: {named(self.into)}"
        if self.nowhere:
            yield (
                f"Links to what is not here, so the bundle has no content for them:"
                f" {named(self.nowhere)} (`git annex get` or `dvc pull` may fetch it)"
            )


def _within(place: str, left_out: Collection[str]) -> bool:
    parts = place.split("/")
    above = ("/".join(parts[:n]) + "/" for n in range(1, len(parts) + 1))
    return place in left_out or any(folder in left_out for folder in above)


def _mode(root: int, place: str) -> int | None:
    """The mode of what lies at a path below a folder; none if nothing does. Follows no link."""
    folder, _, name = place.rpartition("/")
    try:
        with opened_below(root, folder) as parent:
            return os.stat(name or ".", dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        return None


@contextlib.contextmanager
def opened_below(root: int, folder: str) -> Iterator[int]:
    """A descriptor of a folder below another, on the way to which there is no link.

    Raises:
        OSError: there is no such folder.
    """
    descriptor = os.open(".", _FOLDER, dir_fd=root)
    try:
        for part in filter(None, folder.split("/")):
            below = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def is_pointer(content: bytes) -> bool:
    """Tell whether a file is a pointer, which says no more than where Git LFS has its content."""
    return len(content) <= _LONGEST_POINTER and content.startswith(_POINTER)


def is_environment(parent: int, name: str) -> bool:
    """Tell whether a folder is a virtual environment of Python or conda."""
    for mark in ENVIRONMENT_MARKS:
        with contextlib.suppress(OSError):
            os.stat(f"{name}/{mark}", dir_fd=parent, follow_symlinks=False)
            return True
    return False


def pointer_notes(paths: Sequence[str]) -> Iterator[str]:
    """Yield a note for people on pointers of Git LFS."""
    if paths:
        yield (
            f"Pointers of Git LFS, not the files they stand for: {named(paths)}"
            " (`git lfs pull` fetches them)"
        )


def name_notes(unnamable: Sequence[str], alike: Sequence[str]) -> Iterator[str]:
    """Yield notes for people on names that no bundle, or not every machine, can hold."""
    if unnamable:
        yield f"Left out, since no bundle can hold their names: {named(unnamable)}"
    if alike:
        yield f"On macOS and Windows these are one name, and only one is kept: {named(alike)}"


def named(paths: Collection[str]) -> str:
    """The first of them by name, and how many more there are."""
    first = [shown(path) for path in list(paths)[:_NAMED]]
    more = len(paths) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more else "")
