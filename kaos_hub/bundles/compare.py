"""What is different between two trees. Folders that are the same are not read."""

from collections.abc import Iterator

from kaos_hub.bundles import tree
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.models import BundleChange, ChangeKind, EntryKind, TreeEntry


def compare(before: str, after: str, read: ReadObject) -> Iterator[BundleChange]:
    """The entries that differ, in the order of their paths.

    Raises:
        NotFound: a listing is not in the store.
        InvalidBundle, KaosError: a listing is damaged.
    """
    yield from _folders("", before, after, read)


def _folders(path: str, before: str, after: str, read: ReadObject) -> Iterator[BundleChange]:
    if before == after:
        return
    old, new = _listing(before, read), _listing(after, read)
    for name in sorted(old.keys() | new.keys(), key=str.encode):
        yield from _entries(tree.join(path, name), old.get(name), new.get(name), read)


def _entries(
    path: str, old: TreeEntry | None, new: TreeEntry | None, read: ReadObject
) -> Iterator[BundleChange]:
    if old is not None and new is not None:
        if _is_folder(old) and _is_folder(new):
            yield from _folders(path, old.digest, new.digest, read)
        elif _is_folder(old) or _is_folder(new):
            yield from _entries(path, old, None, read)
            yield from _entries(path, None, new, read)
        elif (old.kind, old.digest) != (new.kind, new.digest):
            yield BundleChange(change=ChangeKind.CHANGED, path=path, before=old, after=new)
        return
    entry = old or new
    assert entry is not None, "one of them is there"
    if _is_folder(entry) and entry.digest != tree.EMPTY:
        digests = (entry.digest, tree.EMPTY) if old else (tree.EMPTY, entry.digest)
        yield from _folders(path, *digests, read)
        return
    change = ChangeKind.REMOVED if old else ChangeKind.ADDED
    yield BundleChange(change=change, path=path, before=old, after=new)


def _is_folder(entry: TreeEntry) -> bool:
    return entry.kind is EntryKind.DIRECTORY


def _listing(digest: str, read: ReadObject) -> dict[str, TreeEntry]:
    if digest == tree.EMPTY:
        return {}
    return {entry.name: entry for entry in tree.decode(whole(read, digest, tree.MAX_NODE))}
