"""What folders stand for and do not hold, and what is left out of them without being asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaos_hub.bundles.ignore import DATA, KEEP_ALL, SOURCE
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.prune import prune
from kaos_hub.bundles.scan import scan
from kaos_hub.bundles.sift import sift
from kaos_hub.errors import InvalidBundle

KEY = "SHA256E-s5--abc.csv"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def annexed(tmp_path: Path) -> Path:
    """A dataset as git-annex keeps it: the content of `b.csv` is not here."""
    objects = tmp_path / ".git/annex/objects/aa/bb" / KEY
    objects.mkdir(parents=True)
    (objects / KEY).write_text("1,2,3")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").symlink_to(f"../.git/annex/objects/aa/bb/{KEY}/{KEY}")
    (tmp_path / "data/b.csv").symlink_to("../.git/annex/objects/cc/dd/K/K")
    (tmp_path / "again.csv").symlink_to("data/a.csv")
    return tmp_path


def test_content_that_git_annex_keeps_is_taken(annexed: Path) -> None:
    found = scan(annexed, DATA)
    assert found.size == 2 * len("1,2,3")
    taken, absent = found.notes
    assert "again.csv" in taken and "data/a.csv" in taken
    assert "data/b.csv" in absent and "git annex get" in absent
    (digest,) = found.files
    assert b"".join(found.read(digest)) == b"1,2,3"


def test_a_link_is_followed_through_no_other_link(annexed: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_text("secret")
    (annexed / ".git/way").symlink_to(outside)
    (annexed / "data/c.csv").symlink_to("../.git/way/secret")
    found = scan(annexed, DATA)
    assert "data/c.csv" in found.notes[1]
    assert len(found.files) == 1


def test_links_to_folders_that_are_left_out_are_named(tmp_path: Path) -> None:
    (tmp_path / ".git/x").mkdir(parents=True)
    (tmp_path / "x").symlink_to(".git/x")
    (tmp_path / "y").symlink_to("nowhere")
    into, nowhere = scan(tmp_path, DATA).notes
    assert "'x'" in into
    assert "'y'" in nowhere


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_text(POINTER)
    (tmp_path / "small.txt").write_text("version 1")
    (note,) = scan(tmp_path, DATA).notes
    assert "big.bin" in note and "git lfs pull" in note and "small" not in note


def test_what_desktops_leave_is_left_out(tmp_path: Path) -> None:
    for name in ("Icon\r", ".DS_Store", "Thumbs.db", "desktop.ini", "._a.csv", "a.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    found = scan(tmp_path, DATA)
    assert [path for path, _ in found.files.values()] == ["a.csv"]
    assert set(found.skipped) >= {"Icon\r", "__MACOSX/", "._a.csv"}
    with pytest.raises(InvalidBundle, match="control character"):
        scan(tmp_path, KEEP_ALL)


@pytest.mark.parametrize("name", [b"new\nline.csv", b"latin-\xe9.csv"])
def test_names_that_no_bundle_can_hold_are_left_out_and_said(tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    (tmp_path / "a.csv").write_text("y")
    found = scan(tmp_path, DATA)
    assert found.count == 1
    assert "no bundle can hold their names" in found.notes[0]


@pytest.mark.parametrize("rules", [DATA, SOURCE], ids=["data", "source"])
def test_virtual_environments_are_left_out_whatever_they_are_called(
    tmp_path: Path, rules: object
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (tmp_path / "conda/conda-meta").mkdir(parents=True)
    (tmp_path / "conda/conda-meta/history").touch()
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment/a.csv").write_text("x")
    found = scan(tmp_path, rules)  # type: ignore[arg-type]
    assert set(found.skipped) == {"env/", "conda/"}
    paths = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    told = sift(paths, {}, rules, Limits())  # type: ignore[arg-type]
    assert {one.path for one in told} == {"env/", "conda/"}
    assert set(prune(tmp_path, rules)) == {"env/", "conda/"}  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["environment"]


def test_who_wants_an_environment_gets_it(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env/pyvenv.cfg").write_text("x")
    (tmp_path / ".kaosignore").write_text("!env/\n")
    assert scan(tmp_path, DATA).skipped == ()


@pytest.mark.parametrize(
    "text",
    [
        "*.log\nb.csv\n".encode("utf-8-sig"),
        "*.log\r\nb.csv\r\n".encode("utf-8-sig"),
        "*.log\nb.csv\n".encode("utf-16"),
        b"\xfe\xff" + "*.log\nb.csv\n".encode("utf-16-be"),
        b"*.log\rb.csv\r",
    ],
    ids=["bom", "crlf", "utf-16", "utf-16-be", "cr"],
)
def test_rules_hold_however_an_editor_saved_them(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".kaosignore").write_bytes(text)
    for name in ("a.csv", "b.csv", "x.log"):
        (tmp_path / name).write_text(name)
    assert set(scan(tmp_path, DATA).skipped) == {"b.csv", "x.log"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\nä*.csv\n".encode("latin-1"), 2), ("a\n".encode("utf-16-le"), 1), (b"\xff\xfea", 1)],
    ids=["latin-1", "utf-16 without a mark", "half"],
)
def test_rules_that_cannot_be_read_are_an_error(tmp_path: Path, text: bytes, line: int) -> None:
    (tmp_path / ".kaosignore").write_bytes(text)
    with pytest.raises(InvalidBundle, match=f".kaosignore' line {line}: .*save") as failed:
        scan(tmp_path, DATA)
    assert failed.value.details["line"] == line
