"""A folder on disk → a tree.

The folder belongs to a user, may be hostile, and may change while it is read. So every folder is
opened relative to its parent's descriptor and never through a link, every file is looked at
before and after it was read, and whatever is odd stops the scan with an error that names the
entry. Files are hashed piece by piece: memory does not depend on their size.

The result does not touch the folder again except through :meth:`Scan.read`. Trees are made of nodes
(:mod:`.tree`), so laying several scans over one another is a matter of their nodes alone.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from kaos_hub.bundles import tree
from kaos_hub.bundles.absent import (
    Absent,
    is_environment,
    is_pointer,
    name_notes,
    opened_below,
    pointer_notes,
)
from kaos_hub.bundles.ignore import IGNORE_FILE, KEEP_ALL, MAX_IGNORE_FILE, Rules
from kaos_hub.bundles.limits import Limits, Meter, refuse, shown
from kaos_hub.bundles.links import check_links
from kaos_hub.errors import InvalidBundle, KaosError
from kaos_hub.schemas import EntryKind, TreeEntry

CHUNK = 1 << 20
DEFAULT_LIMITS = Limits()

Progress = Callable[[str, int], None]
"""Called with a file's path and the bytes just read of it, at least once per file."""

# O_NONBLOCK: should a file be swapped for a pipe, opening it must not wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Scan:
    """A folder as it was when it was scanned. Immutable."""

    directory: Path
    """Absolute."""
    root: str
    """Digest of the bundle."""
    nodes: Mapping[str, bytes]
    """The folders' listings and the links' targets: digest → content."""
    files: Mapping[str, tuple[str, int]]
    """The files: digest → (path within the folder, bytes). Equal files stand here once."""
    skipped: tuple[str, ...]
    """Paths that the ignore rules left out, folders with a slash at the end."""
    size: int
    """Bytes of all files, equal ones counted each time."""
    count: int
    """Number of entries that are not folders."""
    notes: tuple[str, ...] = ()
    """Notes on what may not be as meant: content that is elsewhere, names that cannot be kept."""

    @property
    def objects(self) -> dict[str, int]:
        """Everything the bundle is made of: digest → bytes."""
        sizes = {digest: len(content) for digest, content in self.nodes.items()}
        return sizes | {digest: size for digest, (_, size) in self.files.items()}

    def read(self, digest: str) -> Iterator[bytes]:
        """The content of one object, as it was scanned, piece by piece.

        The last piece comes only when the digest is known to be right, so a receiver that counts
        bytes never takes a changed file for complete.

        Raises:
            InvalidBundle: the file has changed since the scan; names it.
            KeyError: the scan has no such object.
        """
        if digest in self.nodes:
            yield self.nodes[digest]
            return
        path, size = self.files[digest]
        with _naming(path):
            descriptor = os.open(self.directory / path, _READ)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _changed(path)
            yield from verified(file.read, path, digest, size)


def scan(
    directory: str | os.PathLike[str],
    ignore: Rules = KEEP_ALL,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Scan:
    """Read a folder and everything in it.

    ``directory`` itself may be a link; nothing below it is followed.

    Raises:
        InvalidBundle: the folder breaks a rule, or changed while it was read; names the entry.
    """
    root = Path(directory)
    try:
        descriptor = os.open(root, _FOLDER)
    except OSError as error:
        raise _not_a_folder(root, error) from None
    try:
        scanner = _Scanner(descriptor, limits, progress)
        digest, size = scanner.folder(descriptor, "", ignore)
        check_links(scanner.links)
        absent = Absent(descriptor, scanner.links, scanner.skipped)
        if absent.found:
            # Once more, with the content in place of such links: git-annex keeps files so.
            scanner = _Scanner(descriptor, limits, progress, absent.found)
            digest, size = scanner.folder(descriptor, "", ignore)
            check_links(scanner.links)
    finally:
        os.close(descriptor)
    return Scan(
        directory=root.absolute(),
        root=digest,
        nodes=MappingProxyType(scanner.nodes),
        files=MappingProxyType(scanner.files),
        skipped=tuple(scanner.skipped),
        size=size,
        count=scanner.count,
        notes=(
            *absent.notes(),
            *pointer_notes(scanner.pointers),
            *name_notes(scanner.unnamable, scanner.alike),
        ),
    )


class _Scanner:
    """The state of one scan: all that it has gathered so far."""

    def __init__(
        self,
        root: int,
        limits: Limits,
        progress: Progress | None,
        content: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.root = root
        self.content = content
        """Links → the files that stand in their place."""
        self.pointers: list[str] = []
        self.unnamable: list[str] = []
        self.alike: list[str] = []
        self.meter = Meter(limits)
        self.progress = progress
        self.buffer = memoryview(bytearray(CHUNK))
        self.nodes: dict[str, bytes] = {}
        self.files: dict[str, tuple[str, int]] = {}
        self.links: dict[str, str] = {}
        self.skipped: list[str] = []
        self.count = 0

    def folder(self, descriptor: int, path: str, rules: Rules) -> tuple[str, int]:
        """Scan an open folder. Returns its digest and the bytes of all files below."""
        with _naming(path), os.scandir(descriptor) as listing:
            found = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        rules = self.local_rules(descriptor, path, rules, found)
        entries = []
        for entry in found:
            below, directory = tree.join(path, entry.name), entry.is_dir(follow_symlinks=False)
            environment = directory and is_environment(descriptor, entry.name)
            if rules.skips(below, directory, environment):
                self.skipped.append(below + "/" * directory)
                continue
            try:
                name = tree.check_name(os.fsencode(entry.name), path)
            except InvalidBundle:
                if not rules.lenient:
                    raise
                self.unnamable.append(below + "/" * directory)
                continue
            self.meter.entry(tree.join(path, name))
            entries.append(self.entry(descriptor, entry, tree.join(path, name), name, rules))
        for pair in tree.alike(entry.name for entry in entries):
            self.alike += [tree.join(path, name) for name in pair]
        node = tree.encode(entries, path)
        return self.keep(node), sum(e.size for e in entries if e.kind is not EntryKind.LINK)

    def keep(self, content: bytes) -> str:
        digest = tree.digest(content)
        self.nodes[digest] = content
        return digest

    def local_rules(
        self, descriptor: int, path: str, rules: Rules, found: list[os.DirEntry[str]]
    ) -> Rules:
        if not rules.read_files:
            return rules
        for entry in found:
            if entry.name == IGNORE_FILE and entry.is_file(follow_symlinks=False):
                return rules.within(path, _read_small(descriptor, entry.name, path))
        return rules

    def entry(
        self, parent: int, entry: os.DirEntry[str], path: str, name: str, rules: Rules
    ) -> TreeEntry:
        if entry.is_dir(follow_symlinks=False):
            digest, size = self.subfolder(parent, entry.name, path, rules)
            return TreeEntry(kind=EntryKind.DIRECTORY, digest=digest, size=size, name=name)
        self.count += 1
        if path in self.content:
            kind, digest, size = self.elsewhere(path, self.content[path])
            return TreeEntry(kind=kind, digest=digest, size=size, name=name)
        if entry.is_symlink():
            with _naming(path):
                target = os.fsencode(os.readlink(entry.name, dir_fd=parent))
            self.links[path] = tree.check_target(target, path)
            return TreeEntry(
                kind=EntryKind.LINK, digest=self.keep(target), size=len(target), name=name
            )
        if not entry.is_file(follow_symlinks=False):
            _refuse_special(parent, entry.name, path)
        kind, digest, size = self.file(parent, entry.name, path)
        return TreeEntry(kind=kind, digest=digest, size=size, name=name)

    def elsewhere(self, path: str, place: str) -> tuple[EntryKind, str, int]:
        """The file at ``place`` that stands for the link at ``path``."""
        folder, _, name = place.rpartition("/")
        with _naming(path), opened_below(self.root, folder) as parent:
            return self.file(parent, name, place)

    def subfolder(self, parent: int, name: str, path: str, rules: Rules) -> tuple[str, int]:
        with _naming(path):
            descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            return self.folder(descriptor, path, rules)
        finally:
            os.close(descriptor)

    def file(self, parent: int, name: str, path: str) -> tuple[EntryKind, str, int]:
        with _naming(path):
            descriptor = os.open(name, _READ, dir_fd=parent)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    _changed(path)
                self.meter.file(path, before.st_size)
                digest, size = self.hash(descriptor, before.st_size, path)
                # By name, not by descriptor: a file that was deleted or replaced is noticed too.
                after = os.stat(name, dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(descriptor)
        if size != before.st_size or _signature(before) != _signature(after):
            _changed(path)
        self.files.setdefault(digest, (path, size))
        executable = before.st_mode & stat.S_IXUSR
        return (EntryKind.EXECUTABLE if executable else EntryKind.FILE), digest, size

    def hash(self, descriptor: int, expected: int, path: str) -> tuple[str, int]:
        """The digest of an open file and the bytes it really had."""
        if expected < CHUNK:
            content = os.read(descriptor, expected + 1)
            self.report(path, len(content))
            if is_pointer(content):
                self.pointers.append(path)
            return tree.digest(content), len(content)
        hasher = tree.Hasher()
        # A file that grows faster than it is read must not hold us for ever.
        while hasher.size <= expected and (got := os.readv(descriptor, [self.buffer])):
            hasher.update(self.buffer[:got])
            self.report(path, got)
        return hasher.digest(), hasher.size

    def report(self, path: str, size: int) -> None:
        if self.progress is not None:
            self.progress(path, size)


def verified(
    read: Callable[[int], bytes | None], path: str, digest: str, size: int
) -> Iterator[bytes]:
    """The bytes of a file, piece by piece; the last only when the digest is known to be right.

    Raises:
        InvalidBundle: they are not (or no longer) those of the digest; names ``path``.
    """
    hasher = tree.Hasher()
    held = b""
    while True:
        with _naming(path):
            piece = read(CHUNK)
        hasher.update(piece or b"")
        if not piece or hasher.size > size:
            break
        if held:
            yield held
        held = piece
    if hasher.size != size or hasher.digest() != digest:
        _changed(path)
    yield held


def _signature(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_small(parent: int, name: str, folder: str) -> bytes:
    path = tree.join(folder, name)
    with _naming(path):
        descriptor = os.open(name, _READ, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(MAX_IGNORE_FILE + 1)
    if len(text) > MAX_IGNORE_FILE:
        raise refuse(path, f"has more than {MAX_IGNORE_FILE:,} bytes")
    return text


def _refuse_special(parent: int, name: str, path: str) -> NoReturn:
    with _naming(path):
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    kind = _SPECIAL.get(stat.S_IFMT(mode))
    if kind is None:
        _changed(path)
    raise refuse(
        path,
        f"is {kind}; a bundle holds files, folders and links"
        " (list it in .kaosignore to leave it out)",
    )


def _changed(path: str) -> NoReturn:
    raise refuse(path, "changed while it was being read; submit again when nothing writes to it")


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn what the operating system says into an error that names the entry."""
    try:
        yield
    except KaosError:
        raise
    except FileNotFoundError:
        raise refuse(path, "vanished while it was being read; submit again") from None
    except PermissionError:
        raise refuse(
            path, "cannot be read: permission denied (list it in .kaosignore to leave it out)"
        ) from None
    except OSError as error:
        raise refuse(path, f"cannot be read: {error.strerror}") from None


def _not_a_folder(root: Path, error: OSError) -> InvalidBundle:
    reasons = {
        FileNotFoundError: "there is no such folder",
        NotADirectoryError: "it is not a folder",
        PermissionError: "permission denied",
    }
    reason = reasons.get(type(error), error.strerror)
    return InvalidBundle(f"{shown(str(root))} cannot be a bundle: {reason}", entry=str(root))
