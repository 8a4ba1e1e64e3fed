"""Two trees → the tree of both, one laid over the other.

Only folders that both have become new listings; all else is named by the digests that it has.
"""

from dataclasses import dataclass, field

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import refuse
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.schemas import EntryKind, TreeEntry

_NAMES = {
    EntryKind.FILE: "a file",
    EntryKind.EXECUTABLE: "a file",
    EntryKind.LINK: "a link",
    EntryKind.DIRECTORY: "a folder",
}


@dataclass
class Composed:
    """The tree of both."""

    root: str
    nodes: dict[str, bytes] = field(default_factory=dict)
    """The listings that neither of the two has: digest → text."""


def compose(below: str, above: str, read: ReadObject) -> Composed:
    """Lay the tree ``above`` over the tree ``below``; where both have a file, its own counts.

    Raises:
        InvalidBundle: one has a folder where the other has something else; names it.
        NotFound, Damaged: a listing cannot be read.
    """
    composer = _Composer(read)
    root, _ = composer.folder("", below, above)
    return Composed(root, composer.nodes)


class _Composer:
    def __init__(self, read: ReadObject) -> None:
        self.read = read
        self.nodes: dict[str, bytes] = {}

    def folder(self, path: str, below: str, above: str) -> tuple[str, int]:
        """The digest of the folder of both, and the bytes of all files in it."""
        entries = {entry.name: entry for entry in self.entries(path, below)}
        for entry in self.entries(path, above):
            under = entries.get(entry.name)
            place = tree.join(path, entry.name)
            entries[entry.name] = self.both(place, under, entry) if under else entry
        text = tree.encode(entries.values(), path)
        digest = tree.digest(text)
        if digest not in (below, above):
            self.nodes[digest] = text
        return digest, sum(e.size for e in entries.values() if e.kind is not EntryKind.LINK)

    def entries(self, path: str, digest: str) -> tuple[TreeEntry, ...]:
        return tree.decode(whole(self.read, digest, tree.MAX_NODE), path)

    def both(self, path: str, under: TreeEntry, over: TreeEntry) -> TreeEntry:
        folders = [entry.kind is EntryKind.DIRECTORY for entry in (under, over)]
        if not any(folders) or under.digest == over.digest:
            return over
        if not all(folders):
            raise refuse(
                path,
                f"is {_NAMES[over.kind]} in the context and {_NAMES[under.kind]} in the source;"
                " rename one of them",
            )
        digest, size = self.folder(path, under.digest, over.digest)
        return over.model_copy(update={"digest": digest, "size": size})
