"""A tree ⇄ a tar stream."""

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kaos_hub.bundles.archive import unpack_tar, write_tar
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.objects import ReadObject, whole
from kaos_hub.bundles.scan import scan
from kaos_hub.errors import InvalidBundle, KaosError, NotFound
from kaos_hub.service.workers.wire_listing import flatten
from kaos_hub.workload.archive import unpack as unpack_inside
from tests.strategies import EXAMPLE, File, Folder, fill, folders, scanned


@settings(max_examples=30, deadline=None)
@given(folders())
def test_what_is_unpacked_is_what_was_scanned(folder: Folder) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = scanned(Path(directory, "a"), folder)
        archive = b"".join(write_tar(found.root, found.read))
        unpack_tar(io.BytesIO(archive), Path(directory, "out"))
        assert scan(Path(directory, "out")).root == found.root
        assert sorted(os.listdir(directory)) == ["a", "out"]


def test_the_same_tree_makes_the_same_bytes(tmp_path: Path) -> None:
    """Golden value: caches and checks may rely on it."""
    found = scanned(tmp_path, EXAMPLE)
    archive = b"".join(write_tar(found.root, found.read))
    assert hashlib.sha256(archive).hexdigest() == (
        "a850ff35b2cf649bba98dc4699cef3ca9102a5f2e22e4f66c2dbe98235b6e7c4"
    )


def test_any_tar_can_read_it(tmp_path: Path) -> None:
    """Long names, accents and all, with nothing but the standard tool."""
    folder: Folder = {"é" * 60: {"b" * 200: File(b"hello", executable=True)}, **EXAMPLE}
    found = scanned(tmp_path / "a", folder)
    (tmp_path / "out").mkdir()
    archive = b"".join(write_tar(found.root, found.read))
    subprocess.run(["tar", "-x", "-C", tmp_path / "out"], input=archive, check=True)
    assert scan(tmp_path / "out").root == found.root


def test_no_piece_is_empty(tmp_path: Path) -> None:
    """Who sends an archive takes no bytes for its end; files of whole blocks need no filling."""
    folder: Folder = {"a": File(bytes(1024)), "b": File(b""), "c": File(b"x")}
    found = scanned(tmp_path, folder)
    assert all(write_tar(found.root, found.read))


@settings(max_examples=20, deadline=None)
@given(folders())
def test_a_notebook_unpacks_the_same(folder: Folder) -> None:
    """With the standard library of the oldest Python we promise, which has no filters for tars."""
    with tempfile.TemporaryDirectory() as directory:
        found = scanned(Path(directory, "a"), folder)
        archive = Path(directory, "a.tar")
        archive.write_bytes(b"".join(write_tar(found.root, found.read)))
        unpack_inside(archive, Path(directory, "out"))
        assert scan(Path(directory, "out")).root == found.root


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out", tarfile.REGTYPE),
        ("/out", tarfile.REGTYPE),
        ("a/../../out", tarfile.DIRTYPE),
        ("a", tarfile.FIFOTYPE),
        ("a", tarfile.LNKTYPE),
    ],
)
def test_a_notebook_unpacks_nothing_else(name: str, kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(tarfile.TarError):
        unpack_inside(tmp_path / "a.tar", tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_large_files_come_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 5 << 20)
    found = scan(tmp_path)
    assert max(len(piece) for piece in write_tar(found.root, found.read)) <= 1 << 20


def test_a_missing_object_cuts_the_archive_off(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", {"a": File(b"1"), "b": File(b"2")})
    objects = {digest: b"".join(found.read(digest)) for digest in found.objects}
    gone = next(digest for digest, content in objects.items() if content == b"2")

    def read(digest: str) -> list[bytes]:
        if digest == gone:
            raise NotFound(digest)
        return [objects[digest]]

    pieces = []
    with pytest.raises(NotFound):
        for piece in write_tar(found.root, read):
            pieces.append(piece)
    with pytest.raises(InvalidBundle):
        unpack_tar(io.BytesIO(b"".join(pieces)), tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", {"a": File(b"1" * 700), "d": {"b": File(b"2")}})
    archive = b"".join(write_tar(found.root, found.read))
    for length in range(0, len(archive), 128):
        with pytest.raises(InvalidBundle):
            unpack_tar(io.BytesIO(archive[:length]), tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a"]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def archive_of(*members: tarfile.TarInfo) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"evil") if info.isreg() else None)
    buffer.seek(0)
    return buffer


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([member("../evil")], id="parent"),
        pytest.param([member("/tmp/kaos-evil")], id="absolute"),
        pytest.param([member("a/../../evil")], id="parent within"),
        pytest.param([member("./../evil")], id="dot first"),
        pytest.param([member("a//b")], id="empty name"),
        pytest.param([member("a\nb")], id="control character"),
        pytest.param([member("")], id="no name"),
        pytest.param([member("link", SYMLINK, "/etc")], id="absolute link"),
        pytest.param([member("link", SYMLINK, "..")], id="link to the outside"),
        pytest.param([member("a/link", SYMLINK, "../../x")], id="link from a folder"),
        pytest.param(
            [member("d/up", SYMLINK, ".."), member("link", SYMLINK, "d/up/..")],
            id="links through links",
        ),
        pytest.param([member("a", SYMLINK, "."), member("a/evil")], id="through a link"),
        pytest.param([member("a"), member("a", SYMLINK, "b")], id="a link over a file"),
        pytest.param([member("a", SYMLINK, "b"), member("a")], id="a file over a link"),
        pytest.param([member("a"), member("a")], id="twice"),
        pytest.param([member("a"), member("a/b")], id="a file as a folder"),
        pytest.param([member("a"), member("b", HARDLINK, "a")], id="hard link inside"),
        pytest.param([member("b", HARDLINK, "/etc/passwd")], id="hard link outside"),
        pytest.param([member("dev", tarfile.CHRTYPE)], id="device"),
        pytest.param([member("pipe", tarfile.FIFOTYPE)], id="pipe"),
    ],
)  # fmt: skip
def test_hostile_archives_leave_nothing(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(KaosError) as caught:
        unpack_tar(archive_of(*members), tmp_path / "in/out")
    assert caught.value.message.isprintable()
    assert list((tmp_path / "in").iterdir()) == []
    assert os.listdir(tmp_path) == ["in"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_garbled_archive_gives_an_error_or_a_bundle(flips: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = scanned(Path(directory, "a"), {"a": File(b"1"), "é": {"b": File(b"2")}})
        archive = bytearray(b"".join(write_tar(found.root, found.read)))
        for position, value in flips:
            archive[position % len(archive)] = value
        try:
            unpack_tar(io.BytesIO(archive), Path(directory, "out"))
        except KaosError:
            assert os.listdir(directory) == ["a"]
        else:
            scan(Path(directory, "out"))


def test_limits_are_kept(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="'b'"):
        unpack_tar(archive_of(member("a"), member("b")), tmp_path / "out", Limits(max_size=7))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path: Path) -> None:
    fill(tmp_path, {"empty": {}, "full": {"mine": File(b"mine")}})
    unpack_tar(archive_of(member("a")), tmp_path / "empty")
    assert (tmp_path / "empty/a").read_bytes() == b"evil"
    with pytest.raises(KaosError, match="full"):
        unpack_tar(archive_of(member("mine")), tmp_path / "full")
    assert (tmp_path / "full/mine").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"]


def test_an_empty_bundle_and_a_leading_dot_are_fine(tmp_path: Path) -> None:
    unpack_tar(archive_of(), tmp_path / "nothing")
    assert list((tmp_path / "nothing").iterdir()) == []
    unpack_tar(archive_of(member(".", tarfile.DIRTYPE), member("./a")), tmp_path / "dotted")
    assert os.listdir(tmp_path / "dotted") == ["a"]


class Distant:
    """Objects behind a network, which answers only when four are asked for at once."""

    def __init__(self, read: ReadObject) -> None:
        self._read, self._gate = read, threading.Barrier(4)

    def __call__(self, digest: str) -> Iterator[bytes]:
        def pieces() -> Iterator[bytes]:
            self._gate.wait(20)
            yield whole(self._read, digest, 1 << 20)

        return pieces()


def test_small_files_come_while_others_are_sent(tmp_path: Path) -> None:
    found = scanned(tmp_path, {f"{n}": File(b"%d" % n) for n in range(16)})
    distant = Distant(found.read)

    def read(digest: str) -> Path | Iterable[bytes]:
        return found.read(digest) if digest in listings else distant(digest)

    listings = {found.root}
    assert b"".join(write_tar(found.root, read)) == b"".join(write_tar(found.root, found.read))
    flat = flatten(found.root, read)
    contents = [b"%d" % n for n in sorted(range(16), key=str)]
    assert b"".join(flat.content(read, 0, flat.files)) == b"".join(contents)
    assert b"".join(flat.content(read, 0, 8)) == b"".join(contents[:8])
