"""Archives that strangers send: what becomes a folder, and what is refused by name."""

import gzip
import io
import json
import os
import stat
import subprocess
import tarfile
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.unpack import MODULE, unpack
from kaos_hub.errors import InvalidBundle
from kaos_hub.util import limited


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    """A zip of (name, content, mode)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return file.getvalue()


def tarred(*members: tuple[str, bytes, Any], mode: str = "w:gz") -> bytes:
    """A tar of (name, content, type)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "" if kind == tarfile.REGTYPE else content.decode()
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


FILE = stat.S_IFREG | 0o644


def unpacked(tmp_path: Path, archive: bytes, **limits: int) -> dict[str, str]:
    (tmp_path / "archive").write_bytes(archive)
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack(tmp_path / "archive", folder, Limits(**limits))
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("pack", ["zip", "tar", "tar.gz"])
def test_archives_of_all_kinds(tmp_path: Path, pack: str) -> None:
    if pack == "zip":
        archive = zipped(
            ("a/b.txt", b"1", FILE), ("run", b"2", stat.S_IFREG | 0o755), ("none/", b"", 0),
            ("link", b"a/b.txt", stat.S_IFLNK | 0o777), ("made by windows", b"3", 0),
        )  # fmt: skip
    else:
        mode = "w" if pack == "tar" else "w:gz"
        archive = tarred(
            ("./", b"", tarfile.DIRTYPE), ("./a/b.txt", b"1", tarfile.REGTYPE),
            ("link", b"a/b.txt", tarfile.SYMTYPE), ("none", b"", tarfile.DIRTYPE), mode=mode,
        )  # fmt: skip
    found = unpacked(tmp_path, archive)
    assert found["a/b.txt"] == "1" and found["link"] == "a/b.txt"
    assert (tmp_path / "folder" / "none").is_dir()
    if pack == "zip":
        assert (tmp_path / "folder" / "run").stat().st_mode & 0o100
        assert not (tmp_path / "folder" / "a/b.txt").stat().st_mode & 0o100


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (zipped(("../evil", b"", FILE)), "'../evil' has a path"),
        (zipped(("/etc/passwd", b"", FILE)), "'/etc/passwd' has a path"),
        (zipped(("a/../b", b"", FILE)), "has a path"),
        (zipped(("x", b"", FILE), ("x", b"", FILE)), "'x' stands twice"),
        (zipped(("x", b"", FILE), ("x/y", b"", FILE)), "'x' stands twice"),
        (zipped(("l", b"/etc", stat.S_IFLNK)), "absolute path"),
        (zipped(("l", b"..", stat.S_IFLNK)), "'l'"),
        (zipped(("l", b"a", stat.S_IFLNK), ("l/x", b"", FILE)), "'l' stands twice"),
        (zipped(("pipe", b"", stat.S_IFIFO)), "'pipe' is neither"),
        (zipped(("x\x1b[31m", b"", FILE)), "has a path"),
        (tarred(("../evil", b"", tarfile.REGTYPE)), "'../evil' has a path"),
        (tarred(("dev", b"", tarfile.CHRTYPE)), "'dev' is neither"),
        (tarred(("hard", b"/etc/passwd", tarfile.LNKTYPE)), "'hard' is neither"),
        (tarred(("l", b"../..", tarfile.SYMTYPE)), "'l'"),
        (b"nonsense", "cannot be read"),
        (b"", "cannot be read"),
        (b"PK\x05\x06 nonsense", "cannot be read"),
        (gzip.compress(b"nonsense"), "cannot be read"),
        (tarred(("x", b"1" * 9000, tarfile.REGTYPE))[:-20], "cut off|cannot be read"),
        (zipped(("x", b"1" * 9000, FILE))[:-20], "cannot be read"),
    ],
)
def test_hostile_archives_are_refused_by_name(tmp_path: Path, archive: bytes, said: str) -> None:
    with pytest.raises(InvalidBundle, match=said):
        unpacked(tmp_path, archive)
    assert not (tmp_path / "evil").exists()


def test_bombs_are_refused_before_they_go_off(tmp_path: Path) -> None:
    bomb = zipped(*((f"zeros-{i}", bytes(1 << 20), FILE) for i in range(20)))
    assert len(bomb) < 1 << 20
    with pytest.raises(InvalidBundle, match=r"zeros-5.*larger than the 5,242,880 bytes"):
        unpacked(tmp_path, bomb, max_size=5 << 20)
    held = sum(path.stat().st_size for path in (tmp_path / "folder").iterdir())
    assert held <= 5 << 20


def test_a_file_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    archive = bytearray(zipped(("x", bytes(10_000), FILE)))
    at = archive.index((10_000).to_bytes(4, "little"))
    while at >= 0:
        archive[at : at + 4] = (100).to_bytes(4, "little")
        at = archive.find((10_000).to_bytes(4, "little"))
    with pytest.raises(InvalidBundle):
        unpacked(tmp_path, bytes(archive))


def ask(tmp_path: Path, archive: bytes) -> Any:
    """What the process says."""
    (tmp_path / "archive").write_bytes(archive)
    (tmp_path / "folder").mkdir()
    told = (str(tmp_path / "archive"), str(tmp_path / "folder"), json.dumps(asdict(Limits())))
    run = limited.command(MODULE, *told)
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_process_of_its_own_does_it(tmp_path: Path) -> None:
    assert ask(tmp_path, tarred(("x", b"1", tarfile.REGTYPE))) is None
    assert (tmp_path / "folder" / "x").read_bytes() == b"1"


def test_and_says_what_is_wrong(tmp_path: Path) -> None:
    body = ask(tmp_path, zipped(("a/../b", b"", FILE)))
    assert body["code"] == "invalid_bundle" and body["details"]["entry"] == "a/../b"


def test_a_header_that_would_fill_the_memory_fills_that_processs_alone(tmp_path: Path) -> None:
    """A megabyte of archive whose one header is three gigabytes long."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 3 << 30
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(header.tobuf(tarfile.USTAR_FORMAT))]
    pieces += [packer.compress(bytes(64 << 20)) for _ in range(48)]
    body = ask(tmp_path, b"".join([*pieces, packer.flush()]))
    assert body["code"] == "invalid_bundle" and "memory" in body["message"]
