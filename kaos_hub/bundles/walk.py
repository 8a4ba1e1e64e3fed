"""A whole tree, read from its objects and checked as if a stranger had made it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import Limits, Meter, refuse, shown
from kaos_hub.bundles.links import check_links
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import EntryKind, TreeEntry

DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Item:
    """An entry and where it stands."""

    path: str
    entry: TreeEntry
    target: str | None = None
    """Of a link: where it points."""


@dataclass(frozen=True)
class Tree:
    """A tree that was read whole and keeps every rule."""

    root: str
    """Digest."""
    items: tuple[Item, ...]
    """All entries, each folder before what is in it, else in the order of names."""
    objects: Mapping[str, int]
    """All objects the tree is made of, the root's listing too: digest → bytes."""
    size: int
    """Bytes of all files."""
    files: int
    """Number of entries that are not folders."""


def load(root: str, read: ReadObject, limits: Limits = DEFAULT_LIMITS) -> Tree:
    """Read all listings and link targets of a tree; the files themselves are not touched.

    Raises:
        InvalidBundle: a rule is broken; names the entry.
        NotFound: an object is not there.
        KaosError: an object is damaged.
    """
    loader = _Loader(read, limits)
    items = tuple(loader.folder("", root))
    check_links({item.path: item.target for item in items if item.target is not None})
    files = sum(item.entry.kind is not EntryKind.DIRECTORY for item in items)
    return Tree(root, items, loader.objects, loader.meter.size, files)


class _Loader:
    """The parts of one tree that were read so far. What stands in it many times is read once."""

    def __init__(self, read: ReadObject, limits: Limits) -> None:
        self.read = read
        self.meter = Meter(limits)
        self.objects: dict[str, int] = {}
        self.listings: dict[str, tuple[TreeEntry, ...]] = {}
        self.targets: dict[str, bytes] = {}

    def folder(self, path: str, digest: str) -> Iterator[Item]:
        for entry in self.listing(path, digest):
            below = tree.join(path, entry.name)
            self.meter.entry(below)
            if entry.kind is EntryKind.DIRECTORY:
                yield Item(below, entry)
                yield from self.subfolder(below, entry)
            elif entry.kind is EntryKind.LINK:
                yield Item(below, entry, self.target(below, entry))
            else:
                self.meter.file(below, entry.size)
                self.claim(below, entry.digest, entry.size)
                yield Item(below, entry)

    def listing(self, path: str, digest: str) -> tuple[TreeEntry, ...]:
        if digest not in self.listings:
            data = whole(self.read, digest, tree.MAX_NODE)
            self.claim(path, digest, len(data))
            self.meter.expect(path, data.count(b"\n") - 1)
            self.listings[digest] = tree.decode(data, path)
        return self.listings[digest]

    def subfolder(self, path: str, entry: TreeEntry) -> Iterator[Item]:
        before = self.meter.size
        yield from self.folder(path, entry.digest)
        if self.meter.size - before != entry.size:
            raise refuse(path, "is listed with a size that is not the sum of its files")

    def target(self, path: str, entry: TreeEntry) -> str:
        if entry.size > tree.MAX_TARGET:
            raise refuse(path, "is a link with a target that is too long")
        self.claim(path, entry.digest, entry.size)
        if entry.digest not in self.targets:
            self.targets[entry.digest] = whole(self.read, entry.digest, tree.MAX_TARGET)
        raw = self.targets[entry.digest]
        self.claim(path, entry.digest, len(raw))
        return tree.check_target(raw, path)

    def claim(self, path: str, digest: str, size: int) -> None:
        if self.objects.setdefault(digest, size) != size:
            raise InvalidBundle(
                f"{shown(path)} is listed with {size:,} bytes, but its content"
                f" has {self.objects[digest]:,}",
                entry=path,
            )
