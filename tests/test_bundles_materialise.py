"""A tree → a read-only folder, whole or not at all."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings

from kaos_hub.bundles import tree
from kaos_hub.bundles.materialise import materialise, remove_tree
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.errors import InvalidBundle, KaosError, NotFound
from kaos_hub.schemas import EntryKind, TreeEntry
from tests.strategies import (
    EXAMPLE,
    File,
    Folder,
    Link,
    fill,
    folders,
    ordinary_user,
    scanned,
    snapshot,
)


class ObjectsInAFolder:
    """Read-only objects as files, as a store has them."""

    def __init__(self, directory: Path, found: Scan) -> None:
        self.directory = directory
        directory.mkdir()
        for digest in found.objects:
            self.keep(b"".join(found.read(digest)))

    def keep(self, content: bytes) -> str:
        path = self.path(tree.digest(content))
        path.write_bytes(content)
        path.chmod(0o444)
        return tree.digest(content)

    def path(self, digest: str) -> Path:
        return self.directory / digest


@settings(max_examples=30, deadline=None)
@given(folders())
def test_what_is_laid_out_is_what_was_scanned(folder: Folder) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = scanned(Path(directory, "a"), folder)
        objects = ObjectsInAFolder(Path(directory, "objects"), found)
        for link, read in ((False, found.read), (True, objects.path)):
            target = Path(directory, f"laid out {link}")
            materialise(found.root, read, target, link=link)
            assert scan(target).root == found.root
            remove_tree(target)
        assert sorted(os.listdir(directory)) == ["a", "objects"]


def test_everything_is_read_only(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    umask = os.umask(0o077)
    try:
        materialise(found.root, found.read, tmp_path / "out")
    finally:
        os.umask(umask)
    modes = {path: mode[-3:] for path, (mode, _) in snapshot(tmp_path / "out").items()}
    assert modes.pop("model/latest") == "777"  # links have no mode of their own
    assert modes == {
        "Dockerfile": "444", "model": "555", "model/__init__.py": "444", "model/empty": "555",
        "model/requirements.txt": "444", "model/train": "555",
    }  # fmt: skip
    assert oct((tmp_path / "out").stat().st_mode)[-3:] == "555"


def test_files_share_the_stores_bytes_and_executables_do_not(tmp_path: Path) -> None:
    """A mode belongs to the inode: an exec bit must not appear on the same content elsewhere."""
    same = b"#!/bin/sh\n"
    folder: Folder = {"plain": File(same), "run": File(same, executable=True), "empty": File()}
    found = scanned(tmp_path / "a", folder)
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    materialise(found.root, objects.path, tmp_path / "out", link=True)
    inode = objects.path(tree.digest(same)).stat().st_ino
    assert (tmp_path / "out/plain").stat().st_ino == inode
    assert (tmp_path / "out/run").stat().st_ino != inode
    assert objects.path(tree.digest(same)).stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "out/empty").stat().st_nlink == 1


def test_without_link_nothing_is_shared(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    materialise(found.root, objects.path, tmp_path / "out")
    assert all(path.stat().st_nlink == 1 for path in objects.directory.iterdir())


def test_an_object_that_somebody_could_write_to_is_copied(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", {"file": File(b"hello")})
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    objects.path(tree.digest(b"hello")).chmod(0o644)
    materialise(found.root, objects.path, tmp_path / "out", link=True)
    assert (tmp_path / "out/file").stat().st_nlink == 1
    assert (tmp_path / "out/file").stat().st_mode & 0o777 == 0o444


def test_laying_out_again_does_nothing(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    materialise(found.root, found.read, tmp_path / "out", durable=True)

    def nobody_asks(digest: str) -> list[bytes]:
        raise AssertionError(digest)

    before = sorted((p, p.lstat().st_ino) for p in (tmp_path / "out").rglob("*"))
    materialise(found.root, nobody_asks, tmp_path / "out")
    assert before == sorted((p, p.lstat().st_ino) for p in (tmp_path / "out").rglob("*"))


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    fill(tmp_path / ".out.partial", {"read": {"only": File(b"x")}})
    (tmp_path / ".out.partial/read").chmod(0o555)
    fill(tmp_path / ".out.removed", EXAMPLE)
    (tmp_path / ".out.lock").touch()
    materialise(found.root, found.read, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a", "out"]
    assert scan(tmp_path / "out").root == found.root


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    for link in (True, False):
        seen: list[tuple[int, int]] = []
        materialise(
            found.root,
            objects.path,
            tmp_path / str(link),
            link=link,
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen[0] == (0, found.size)
        assert seen[-1] == (found.size, found.size)
        assert seen == sorted(seen)


def _lay_out_slowly(found_root: str, objects: Path, target: Path) -> None:
    def read(digest: str) -> Path:
        return objects / digest

    materialise(found_root, read, target)


def test_two_at_once_make_one(tmp_path: Path) -> None:
    folder: Folder = {f"{number}": File(b"%d" % number) for number in range(200)}
    found = scanned(tmp_path / "a", folder)
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(
            target=_lay_out_slowly, args=(found.root, objects.directory, tmp_path / "out")
        )
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert scan(tmp_path / "out").root == found.root
    assert sorted(os.listdir(tmp_path)) == ["a", "objects", "out"]


# --- hostile trees and broken stores -------------------------------------------------------------


class HostileStore(dict[str, bytes]):
    """Gives out what nobody checked."""

    def put(self, content: bytes) -> str:
        self[tree.digest(content)] = content
        return tree.digest(content)

    def read(self, digest: str) -> Iterable[bytes]:
        return [self[digest]]

    def listing(self, *lines: tuple[str, bytes, str]) -> str:
        """A listing of (kind, content, name), whatever the names are."""
        text = "kaos tree 1\n"
        for kind, content, name in lines:
            text += f"{kind} {self.put(content).removeprefix('blake3:')} {len(content)} {name}\n"
        return self.put(text.encode())


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([("f", b"x", "../evil")], id="parent"),
        pytest.param([("f", b"x", "/tmp/evil")], id="absolute"),
        pytest.param([("f", b"x", "..")], id="dots"),
        pytest.param([("l", b"/etc", "a"), ("f", b"x", "a/evil")], id="through a link"),
        pytest.param([("l", b"..", "a")], id="link to the outside"),
        pytest.param([("l", b"/etc/passwd", "a")], id="absolute link"),
        pytest.param([("f", b"x", "b"), ("f", b"x", "a")], id="order"),
        pytest.param([("f", b"x", "bad\rname")], id="control character"),
    ],
)
def test_hostile_trees_leave_nothing(tmp_path: Path, lines: list[tuple[str, bytes, str]]) -> None:
    store = HostileStore()
    root = store.listing(*lines)
    with pytest.raises(InvalidBundle):
        materialise(root, store.read, tmp_path / "in/out")
    assert list((tmp_path / "in").iterdir()) == []


class FlippedBit(HostileStore):
    """A store whose disk rots: every large enough object comes back wrong."""

    def read(self, digest: str) -> Iterable[bytes]:
        content = self[digest]
        return [content if content.startswith(b"kaos") else bytes([content[0] ^ 1]) + content[1:]]


class CutShort(HostileStore):
    """A store that loses the end of files."""

    def read(self, digest: str) -> Iterable[bytes]:
        content = self[digest]
        return [content if content.startswith(b"kaos") else content[:-1]]


@pytest.mark.parametrize("store", [FlippedBit(), CutShort()])
def test_damaged_objects_leave_nothing(tmp_path: Path, store: HostileStore) -> None:
    root = store.listing(("f", b"hello", "a"), ("f", b"world", "b"))
    with pytest.raises(KaosError, match="damaged"):
        materialise(root, store.read, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_linked_object_of_the_wrong_size_is_noticed(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", {"file": File(b"hello")})
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    objects.path(tree.digest(b"hello")).chmod(0o644)
    os.truncate(objects.path(tree.digest(b"hello")), 2)
    with pytest.raises(KaosError, match="damaged"):
        materialise(found.root, objects.path, tmp_path / "out", link=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "objects"]


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("gone", ["the file", "the root"])
def test_a_missing_object_is_named_and_leaves_nothing(
    tmp_path: Path, gone: str, link: bool
) -> None:
    found = scanned(tmp_path / "a", {"file": File(b"hello")})
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    digest = found.root if gone == "the root" else tree.digest(b"hello")
    objects.path(digest).unlink()
    with pytest.raises(NotFound, match=digest):
        materialise(found.root, objects.path, tmp_path / "out", link=link)
    assert sorted(os.listdir(tmp_path)) == ["a", "objects"]


def test_more_equal_files_than_an_inode_has_names(tmp_path: Path) -> None:
    """The entry is copied where the file system allows no further link (65,000 on ext4)."""
    found = scanned(tmp_path / "a", {"file": File(b"hello")})
    objects = ObjectsInAFolder(tmp_path / "objects", found)
    (tmp_path / "links").mkdir()
    source = objects.path(tree.digest(b"hello"))
    try:
        for number in range(70_000):
            os.link(source, tmp_path / f"links/{number}")
    except OSError:
        materialise(found.root, objects.path, tmp_path / "out", link=True)
        assert (tmp_path / "out/file").read_bytes() == b"hello"
    else:
        pytest.skip("this file system has no such limit")


# --- removing -------------------------------------------------------------------------------------


def test_an_ordinary_user_can_lay_out_and_remove() -> None:
    with ordinary_user() as folder:
        found = scanned(folder / "a", EXAMPLE)
        materialise(found.root, found.read, folder / "trees/out")
        with pytest.raises(PermissionError):
            (folder / "trees/out/model/new").touch()
        remove_tree(folder / "trees/out")
        assert list((folder / "trees").iterdir()) == []


def test_removing_follows_no_link(tmp_path: Path) -> None:
    fill(tmp_path, {"kept": {"file": File(b"x")}, "gone": {"link": Link("../kept")}})
    (tmp_path / "kept").chmod(0o555)
    remove_tree(tmp_path / "gone")
    assert (tmp_path / "kept/file").exists()
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o555


def test_removing_takes_what_is_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    remove_tree(tmp_path / "no/folder/either")
    (tmp_path / "link").symlink_to("nowhere")
    remove_tree(tmp_path / "link")
    assert list(tmp_path.iterdir()) == []


def test_an_entry_is_what_it_says(tmp_path: Path) -> None:
    """Every kind, once, laid out by hand."""
    store = HostileStore()
    entries = [
        TreeEntry(kind=kind, digest=store.put(content), size=len(content), name=kind.value)
        for kind, content in [
            (EntryKind.FILE, b"1"), (EntryKind.EXECUTABLE, b"2"), (EntryKind.LINK, b"file"),
        ]
    ]  # fmt: skip
    materialise(store.put(tree.encode(entries)), store.read, tmp_path / "out")
    assert (tmp_path / "out/link").read_bytes() == b"1"
    assert os.access(tmp_path / "out/executable", os.X_OK)
