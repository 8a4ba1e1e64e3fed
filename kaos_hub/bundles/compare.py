"""The differences between two trees that were checked before.

Folders that are the same are not read, and of entries that are the same nothing is made.
"""

from collections.abc import Iterator

from kaos_hub.bundles import tree
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.schemas import BundleChange, ChangeKind, EntryKind, TreeEntry

Entry = tuple[EntryKind, str, int]
"""Kind, digest, size."""


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
    differ = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    for name in sorted(differ, key=str.encode):
        yield from _entries(tree.join(path, name), old.get(name), new.get(name), read)


def _entries(
    path: str, old: Entry | None, new: Entry | None, read: ReadObject
) -> Iterator[BundleChange]:
    if old is not None and new is not None:
        if _is_folder(old) and _is_folder(new):
            yield from _folders(path, old[1], new[1], read)
        elif _is_folder(old) or _is_folder(new):
            yield from _entries(path, old, None, read)
            yield from _entries(path, None, new, read)
        elif old[:2] != new[:2]:
            yield _change(ChangeKind.CHANGED, path, old, new)
        return
    entry = old or new
    assert entry is not None, "one of them is there"
    if _is_folder(entry) and entry[1] != tree.EMPTY:
        digests = (entry[1], tree.EMPTY) if old else (tree.EMPTY, entry[1])
        yield from _folders(path, *digests, read)
        return
    yield _change(ChangeKind.REMOVED if old else ChangeKind.ADDED, path, old, new)


def _change(kind: ChangeKind, path: str, old: Entry | None, new: Entry | None) -> BundleChange:
    before, after = (
        TreeEntry(kind=e[0], digest=e[1], size=e[2], name=path.rpartition("/")[2]) if e else None
        for e in (old, new)
    )
    return BundleChange(change=kind, path=path, before=before, after=after)


def _is_folder(entry: Entry) -> bool:
    return entry[0] is EntryKind.DIRECTORY


def _listing(digest: str, read: ReadObject) -> dict[str, Entry]:
    if digest == tree.EMPTY:
        return {}
    listed = tree.lines(whole(read, digest, tree.MAX_NODE))
    return {name: (kind, content, size) for kind, content, size, name in listed}
