"""Folders on disk → one tree, as far as that can be: what cannot be kept is left out, and said.

For the output of a program, which no user can submit again. Where :mod:`.scan` refuses a folder for
one odd entry, here that entry is missing from the tree: links that lead out, sockets and devices,
what cannot be read, names that no bundle may hold. No process may be writing to the folders any
more.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import Limits, Meter
from kaos_hub.bundles.links import leaving
from kaos_hub.bundles.scan import verified
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import EntryKind, TreeEntry

CHUNK = 1 << 20
MOST_SKIPPED = 100
"""Lines about what was left out."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}

_Folder = dict[str, "_Folder | Path | str"]
"""By name: a folder, a file's place, or a link's target."""


@dataclass
class Kept:
    """A tree, and where its content lies."""

    root: str = tree.EMPTY
    nodes: dict[str, bytes] = field(default_factory=lambda: {tree.EMPTY: tree.HEADER})
    files: dict[str, tuple[Path, int]] = field(default_factory=dict)
    """Equal ones stand here once: digest → place and bytes."""
    size: int = 0
    """Bytes of all files, equal ones counted each time."""
    count: int = 0
    """Number of entries that are not folders."""
    skipped: list[str] = field(default_factory=list)
    """Notes on entries that were left out, at most :data:`MOST_SKIPPED`, each with the reason."""

    def objects(self) -> dict[str, int]:
        """Everything the tree is made of: digest → bytes."""
        sizes = {digest: len(content) for digest, content in self.nodes.items()}
        return sizes | {digest: size for digest, (_, size) in self.files.items()}

    def read(self, digest: str) -> Iterator[bytes]:
        """The content of one object, piece by piece.

        Raises:
            InvalidBundle: the file has changed since; names it.
            OSError: it cannot be read any more.
        """
        if digest in self.nodes:
            yield self.nodes[digest]
            return
        path, size = self.files[digest]
        with os.fdopen(os.open(path, _READ), "rb", buffering=0) as file:
            yield from verified(file.read, str(path), digest, size)


def keep(folders: Sequence[Path], limits: Limits) -> Kept:
    """Read folders as if they lay over one another: where two have an entry, the first's counts.

    A folder that is not there, or is a link, counts as empty.

    Raises:
        InvalidBundle: it is too much: more entries or bytes than ``limits`` allow.
    """
    keeper = _Keeper(folders, limits)
    top: _Folder = {}
    for folder in folders:
        keeper.look(folder, "", top)
    keeper.drop_links(top)
    return keeper.kept(top)


class _Keeper:
    def __init__(self, folders: Sequence[Path], limits: Limits) -> None:
        self._folders = folders
        self._limits = limits
        self._meter = Meter(limits)
        self._links: dict[str, str] = {}
        self._skipped: list[str] = []
        self._uncounted = 0
        self._buffer = memoryview(b"")
        self._kept = Kept(nodes={})

    def skip(self, problem: str) -> None:
        if len(self._skipped) < MOST_SKIPPED - 1:
            self._skipped.append(problem)
        else:
            self._uncounted += 1

    # --- what there is ---

    def look(self, place: Path, path: str, into: _Folder) -> None:
        """Note what lies in a folder on disk."""
        try:
            descriptor = os.open(place, _FOLDER)
        except OSError as e:
            if path:
                self.skip(_unreadable(path, e))
            return
        try:
            with os.scandir(descriptor) as listing:
                found = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as e:
            self.skip(_unreadable(path, e))
            return
        finally:
            os.close(descriptor)
        for entry in found:
            try:
                name = tree.check_name(os.fsencode(entry.name), path)
                self._limits.check_path(tree.join(path, name))
            except InvalidBundle as e:
                self.skip(e.message)
                continue
            self.note(place / name, tree.join(path, name), name, into)

    def note(self, place: Path, path: str, name: str, into: _Folder) -> None:
        there = into.get(name)
        try:
            mode = os.lstat(place).st_mode
            if stat.S_ISDIR(mode):
                if there is None:
                    self._meter.entry(path)
                    there = into[name] = {}
                if isinstance(there, dict):
                    self.look(place, path, there)
            elif there is None and stat.S_ISLNK(mode):
                into[name] = self._links[path] = self.target(place, path)
                self._meter.entry(path)
            elif there is None and stat.S_ISREG(mode):
                into[name] = place
                self._meter.entry(path)
            elif there is None:
                kind = _SPECIAL.get(stat.S_IFMT(mode), "a device")
                self.skip(f"{path!r} is {kind}")
        except _Refused as e:
            self.skip(e.message)
        except OSError as e:
            self.skip(_unreadable(path, e))

    def target(self, place: Path, path: str) -> str:
        """Return the target of a link. An absolute path into our folders is made relative."""
        raw = os.readlink(place)  # noqa: PTH115  Path would tidy it
        for folder in self._folders:
            if raw == str(folder) or raw.startswith(f"{folder}/"):
                inside = os.path.relpath(raw, folder)
                raw = os.path.relpath(inside, os.path.dirname(path) or ".")  # noqa: PTH120
        try:
            return tree.check_target(os.fsencode(raw), path)
        except InvalidBundle as e:
            raise _Refused(e.message.partition(";")[0]) from None

    def drop_links(self, top: _Folder) -> None:
        """Leave out the links that lead out of the tree."""
        for path, problem in leaving(self._links).items():
            self.skip(problem.partition(";")[0])
            *above, name = path.split("/")
            folder = top
            for part in above:
                below = folder[part]
                assert isinstance(below, dict)
                folder = below
            del folder[name]

    # --- what it is ---

    def kept(self, top: _Folder) -> Kept:
        kept = self._kept
        kept.root, kept.size = self.folder("", top)
        kept.skipped = self._skipped
        if self._uncounted:
            kept.skipped.append(f"and {self._uncounted:,} more")
        return kept

    def folder(self, path: str, folder: _Folder) -> tuple[str, int]:
        entries = [
            entry
            for name, what in folder.items()
            if (entry := self.entry(tree.join(path, name), name, what)) is not None
        ]
        node = tree.encode(entries, path)
        return self.node(node), sum(e.size for e in entries if e.kind is not EntryKind.LINK)

    def node(self, content: bytes) -> str:
        digest = tree.digest(content)
        self._kept.nodes[digest] = content
        return digest

    def entry(self, path: str, name: str, what: "_Folder | Path | str") -> TreeEntry | None:
        kind = EntryKind.FILE
        if isinstance(what, dict):
            digest, size = self.folder(path, what)
            return TreeEntry(kind=EntryKind.DIRECTORY, digest=digest, size=size, name=name)
        if isinstance(what, str):
            kind, digest, size = EntryKind.LINK, self.node(os.fsencode(what)), len(what.encode())
        else:
            try:
                kind, digest, size = self.file(what, path)
            except OSError as e:
                self.skip(_unreadable(path, e))
                return None
            self._kept.files.setdefault(digest, (what, size))
        self._kept.count += 1
        return TreeEntry(kind=kind, digest=digest, size=size, name=name)

    def file(self, place: Path, path: str) -> tuple[EntryKind, str, int]:
        descriptor = os.open(place, _READ)
        try:
            status = os.fstat(descriptor)
            self._meter.file(path, status.st_size)
            # Most folders here are empty: those need no buffer.
            self._buffer = self._buffer or memoryview(bytearray(CHUNK))
            hasher = tree.Hasher()
            while got := os.readv(descriptor, [self._buffer]):
                hasher.update(self._buffer[:got])
        finally:
            os.close(descriptor)
        executable = status.st_mode & stat.S_IXUSR
        kind = EntryKind.EXECUTABLE if executable else EntryKind.FILE
        return kind, hasher.digest(), hasher.size


class _Refused(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _unreadable(path: str, error: OSError) -> str:
    return f"{path!r} cannot be read: {error.strerror}"
