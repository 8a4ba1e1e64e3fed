"""A folder on disk → a tree: what counts, what is refused, what happens when it moves under us."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kaos_hub.bundles import tree
from kaos_hub.bundles.ignore import DATA, SOURCE, rules_for
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import BundleKind
from tests.strategies import (
    EXAMPLE,
    File,
    Folder,
    Link,
    files_of,
    fill,
    folders,
    ordinary_user,
    reverse,
    scanned,
)

few = settings(max_examples=30, deadline=None)


def test_a_bundle_has_this_digest_for_ever(tmp_path: Path) -> None:
    """Golden value of a folder with one of everything."""
    found = scanned(tmp_path, EXAMPLE)
    assert found.root == "blake3:3c58d193641af2683247494f4f796ecf3bcf3e257458120ab267b0a86c1383cd"
    assert (found.count, found.size) == (5, 48)


def test_a_scan_tells_what_there_is_to_send(tmp_path: Path) -> None:
    found = scanned(tmp_path, EXAMPLE)
    assert {path for path, _ in found.files.values()} == {
        "Dockerfile", "model/__init__.py", "model/requirements.txt", "model/train",
    }  # fmt: skip
    assert len(found.nodes) == 4  # root, model, model/empty, the link
    for digest, size in found.objects.items():
        content = b"".join(found.read(digest))
        assert (tree.digest(content), len(content)) == (digest, size)


@few
@given(folders())
def test_only_names_modes_and_contents_count(folder: Folder) -> None:
    """Not times, not the order of making, not the umask, not where it lies."""
    with tempfile.TemporaryDirectory() as directory:
        one = scanned(Path(directory, "one"), folder)
        umask = os.umask(0o077)
        try:
            fill(Path(directory, "two"), reverse(folder))
        finally:
            os.umask(umask)
        for path in files_of(folder):
            os.utime(Path(directory, "two", *path), (1, 1))
        assert scan(Path(directory, "two")).root == one.root


@few
@given(folders(), st.data())
def test_every_byte_counts(folder: Folder, data: st.DataObject) -> None:
    folder = {**folder, "always": File(b"x")}
    with tempfile.TemporaryDirectory() as directory:
        before = scanned(Path(directory), folder).root
        path = Path(directory, *data.draw(st.sampled_from(sorted(files_of(folder)))))
        content = path.read_bytes() + b"."
        position = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position:])
        assert scan(directory).root != before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: (d / "Dockerfile").chmod(0o755), id="exec bit"),
        pytest.param(lambda d: (d / "Dockerfile").rename(d / "dockerfile"), id="name"),
        pytest.param(lambda d: (d / "model/empty").rmdir(), id="empty folder"),
        pytest.param(lambda d: (d / "model/__init__.py").unlink(), id="empty file"),
        pytest.param(lambda d: (d / "model/new").mkdir(), id="new folder"),
        pytest.param(lambda d: _relink(d / "model/latest", "empty"), id="link"),
    ],
)
def test_every_other_change_counts(tmp_path: Path, change: Callable[[Path], object]) -> None:
    before = scanned(tmp_path, EXAMPLE)
    change(tmp_path)
    assert scan(tmp_path).root != before.root


def _relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_others_exec_bits_and_setuid_do_not_count(tmp_path: Path) -> None:
    before = scanned(tmp_path, EXAMPLE).root
    (tmp_path / "Dockerfile").chmod(0o477)
    (tmp_path / "model/train").chmod(0o4700)
    assert scan(tmp_path).root == before


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    root = scanned(tmp_path / "real", EXAMPLE).root
    (tmp_path / "link").symlink_to("real")
    assert scan(tmp_path / "link").root == root


def test_a_relative_folder_can_be_read_after_moving_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "here", {"a": File(b"hello")})
    monkeypatch.chdir(tmp_path)
    found = scan("here")
    monkeypatch.chdir("/")
    assert b"".join(found.read(tree.digest(b"hello"))) == b"hello"


# --- what is refused ------------------------------------------------------------------------------


def refusal(directory: Path, **options: object) -> InvalidBundle:
    with pytest.raises(InvalidBundle) as caught:
        scan(directory, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"two\nlines", r"'in/two\nlines' has a control character"),
        (b"bell\x07", r"'in/bell\x07' has a control character"),
        (b"del\x7f", r"'in/del\x7f' has a control character"),
        (b"c1\xc2\x85", r"'in/c1\x85' has a control character"),
        (b"latin\xe9", r"'in/latin\udce9' has a name that is not UTF-8"),
        (b"surrogate\xed\xa0\x80", "not UTF-8"),
    ],
)
def test_hostile_names_are_refused(tmp_path: Path, name: bytes, said: str) -> None:
    fill(tmp_path, {"in": {}})
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)).touch()
    error = refusal(tmp_path)
    assert said in error.message
    assert error.message.isprintable()


def test_names_that_differ_in_case_only_are_kept_and_said(tmp_path: Path) -> None:
    fill(tmp_path, {"in": {"README": File(), "Readme": File(), "A": {"x": File()}, "a": {}}})
    found = scan(tmp_path)
    assert found.count == 3
    (note,) = found.notes
    for name in ("'in/README'", "'in/Readme'", "'in/A'", "'in/a'"):
        assert name in note
    tree.decode(found.nodes[tree.decode(found.nodes[found.root])[0].digest])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/etc/passwd", "absolute path"),
        ("../../etc/passwd", "outside the bundle"),
        ("x/../../..", "outside the bundle"),
        ("bad", "circles"),
        ("a\nb", "not printable"),
        (os.fsdecode(b"\xff"), "not UTF-8"),
    ],
)
def test_links_that_lead_elsewhere_are_refused(tmp_path: Path, target: str, said: str) -> None:
    fill(tmp_path, {"in": {"bad": Link(target)}})
    error = refusal(tmp_path)
    assert error.message.startswith("'in/bad' is a link")
    assert said in error.message


def test_linked_folders_are_links_and_not_walked(tmp_path: Path) -> None:
    found = scanned(tmp_path, {"real": {"a": File(b"hello")}, "link": Link("real")})
    assert (found.count, found.size) == (2, 5)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def a_device(path: Path) -> None:
    try:
        os.mknod(path, 0o020666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making devices needs root")


@pytest.mark.parametrize("special", [a_pipe, a_socket, a_device])
def test_special_files_are_refused(special: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as directory:  # short: a socket's path must be
        fill(Path(directory), {"in": {}})
        special(Path(directory, "in/odd"))
        message = refusal(Path(directory)).message
    assert message.startswith("'in/odd' is a ")
    assert special.__name__.removeprefix("a_") in message


def test_what_cannot_be_read_is_named() -> None:
    with ordinary_user() as folder:
        fill(folder, {"in": {"secret": File(b"x")}, "out": {}})
        (folder / "in/secret").chmod(0)
        assert "'in/secret' cannot be read: permission denied" in refusal(folder).message
        (folder / "in/secret").unlink()
        (folder / "out").chmod(0)
        assert "'out' cannot be read: permission denied" in refusal(folder).message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.touch(), "it is not a folder"),
        (lambda path: path.symlink_to("nowhere"), "there is no such folder"),
    ],
)
def test_what_is_no_folder_is_said(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "it")
    assert said in refusal(tmp_path / "it").message


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(max_files=5), "'model/requirements.txt'"),
        (Limits(max_depth=1), "'model/__init__.py'"),
        (Limits(max_path=15), "'model/__init__.py'"),
        (Limits(max_file_size=20), "'Dockerfile'"),
        (Limits(max_size=40), "'model/train'"),
    ],
)
def test_limits_are_kept(tmp_path: Path, limits: Limits, named: str) -> None:
    fill(tmp_path, EXAMPLE)
    assert named in refusal(tmp_path, limits=limits).message


def test_a_path_may_have_a_hundred_names_and_no_more(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * 100)
    deepest.mkdir(parents=True)
    assert scan(tmp_path).count == 0
    (deepest / "too deep").touch()
    assert "lies deeper than 100 folders" in refusal(tmp_path).message


# --- a folder that changes meanwhile --------------------------------------------------------------

LARGE = b"0123456789abcdef" * (1 << 17)  # two megabytes: read in two pieces


class FileThatChanges:
    """A progress callback that does something to the folder after the first bytes of a file."""

    def __init__(self, path: str, change: Callable[[], object]) -> None:
        self.path = path
        self.change = change
        self.done = False

    def __call__(self, path: str, size: int) -> None:
        if path == self.path and not self.done:
            self.done = True
            self.change()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, (1, 1))


def replace(path: Path) -> None:
    content = path.read_bytes()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    new = path.with_name("new")
    new.write_bytes(content)
    os.utime(new, ns=times)
    new.rename(path)


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = [
    pytest.param(lambda path: os.truncate(path, 3), "changed", id="truncated"),
    pytest.param(grow, "changed", id="grown"),
    pytest.param(rewrite, "changed", id="rewritten"),
    pytest.param(replace, "changed", id="replaced by an equal file"),
    pytest.param(Path.unlink, "vanished", id="deleted"),
    pytest.param(lambda path: path.chmod(0o755), "changed", id="made executable"),
    pytest.param(become_a_pipe, "changed", id="a pipe now"),
]


@pytest.mark.parametrize("content", [b"hello", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, change: Callable[[Path], object], said: str, content: bytes
) -> None:
    fill(tmp_path, {"in": {"file": File(content)}})
    trouble = FileThatChanges("in/file", lambda: change(tmp_path / "in/file"))
    error = refusal(tmp_path, progress=trouble)
    assert error.message.startswith(f"'in/file' {said} while it was being read")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(Path.unlink, "vanished", id="deleted"),
        pytest.param(lambda path: _relink(path, "a"), "cannot be read", id="a link now"),
        pytest.param(become_a_pipe, "changed", id="a pipe now"),
    ],
)
def test_a_file_that_is_not_what_was_listed(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    """``b`` was listed as a file; then, while ``a`` is read, it becomes something else."""
    fill(tmp_path, {"a": File(b"hello"), "b": File(b"x")})
    trouble = FileThatChanges("a", lambda: change(tmp_path / "b"))
    assert f"'b' {said}" in refusal(tmp_path, progress=trouble).message


def test_a_folder_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "secret", {"key": File(b"k")})
    fill(tmp_path / "bundle", {"a": File(b"hello"), "d": {}})

    def swap() -> None:
        (tmp_path / "bundle/d").rmdir()
        (tmp_path / "bundle/d").symlink_to("../secret")

    error = refusal(tmp_path / "bundle", progress=FileThatChanges("a", swap))
    assert error.message.startswith("'d' ")


@pytest.mark.parametrize("content", [b"hello", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 3),
        grow,
        rewrite,
        Path.unlink,
        become_a_pipe,
        lambda path: _relink(path, "/etc/hostname"),
    ],
)
def test_a_file_that_changed_since_the_scan_is_never_read_whole(
    tmp_path: Path, change: Callable[[Path], object], content: bytes
) -> None:
    """An uploader that counts bytes never has enough of them."""
    found = scanned(tmp_path, {"file": File(content)})
    change(tmp_path / "file")
    got = 0
    with pytest.raises(InvalidBundle, match="'file'"):
        for piece in found.read(tree.digest(content)):
            got += len(piece)
    assert got < len(content)


# --- what is left out -----------------------------------------------------------------------------

RUBBISH: Folder = {
    ".git": {"HEAD": File(b"x")},
    ".DS_Store": File(b"x"),
    "deep": {"__pycache__": {"a.pyc": File(b"x")}, ".ipynb_checkpoints": {}},
    "kept": File(b"x"),
}


def paths(found: Scan) -> set[str]:
    return {path for path, _ in found.files.values()}


@pytest.mark.parametrize(
    ("kind", "skipped"),
    [
        (
            BundleKind.SOURCE,
            (".DS_Store", ".git/", "deep/.ipynb_checkpoints/", "deep/__pycache__/"),
        ),
        (BundleKind.DATA, (".DS_Store", ".git/", "deep/.ipynb_checkpoints/")),
        (BundleKind.ARTIFACT, ()),
    ],
)
def test_rubbish_is_left_out_and_reported(
    tmp_path: Path, kind: BundleKind, skipped: tuple[str, ...]
) -> None:
    fill(tmp_path, RUBBISH)
    assert scan(tmp_path, rules_for(kind)).skipped == skipped


def test_what_is_left_out_may_be_anything(tmp_path: Path) -> None:
    """A virtual environment is full of links to absolute paths."""
    fill(tmp_path, {".venv": {"python": Link("/usr/bin/python3")}, "a": File()})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".kaosignore").write_text("pipe\n")
    assert scan(tmp_path, SOURCE).skipped == (".venv/", "pipe")


def test_kaosignore_is_gitignore_in_every_folder(tmp_path: Path) -> None:
    lines = b"# big ones\n*.csv\n!small.csv\n/top\nonly/\ndeep/*/gone\n\n"
    fill(
        tmp_path,
        {
            ".kaosignore": File(lines),
            "big.csv": File(b"1"),
            "small.csv": File(b"2"),
            "top": File(b"3"),
            "only": File(b"4"),
            "deep": {
                ".kaosignore": File(b"!back.csv\r\nlocal\r\n"),
                "back.csv": File(b"5"),
                "local": File(b"6"),
                "top": File(b"7"),
                "only": {"x": File(b"8")},
                "x": {"gone": File(b"9"), "local": File(b"10")},
            },
            "local": File(b"11"),
        },
    )
    found = scan(tmp_path, DATA)
    assert found.skipped == (
        "big.csv",
        "deep/local",
        "deep/only/",
        "deep/x/gone",
        "deep/x/local",
        "top",
    )
    assert paths(found) == {
        ".kaosignore", "small.csv", "only", "local", "deep/.kaosignore", "deep/back.csv",
        "deep/top",
    }  # fmt: skip


def test_kaosignore_brings_back_what_is_left_out_by_default(tmp_path: Path) -> None:
    fill(tmp_path, {".kaosignore": File(b"!venv\n"), "venv": {"a": File()}, ".venv": {}})
    found = scan(tmp_path, SOURCE)
    assert found.skipped == (".venv/",)
    assert "venv/a" in paths(found)


def test_leaving_out_changes_the_digest_only_by_what_is_gone(tmp_path: Path) -> None:
    clean = scanned(tmp_path / "clean", {"kept": File(b"x")})
    fill(tmp_path / "dirty", {"kept": File(b"x"), "__pycache__": {}})
    assert scan(tmp_path / "dirty", SOURCE).root == clean.root


@pytest.mark.parametrize("line", [b"!", b"a\\", b"[z-a]", b"[", b"/", b"\xff"])
def test_a_broken_pattern_is_named_with_its_line(tmp_path: Path, line: bytes) -> None:
    fill(tmp_path, {"deep": {".kaosignore": File(b"# fine\n*.csv\n" + line + b"\n")}})
    error = refusal(tmp_path, ignore=SOURCE)
    assert error.message.startswith("'deep/.kaosignore' line 3: ")
    assert error.details == {"entry": "deep/.kaosignore", "line": 3}


def test_an_ignore_file_may_not_be_endless(tmp_path: Path) -> None:
    fill(tmp_path, {".kaosignore": File(b"#" * (2 << 20))})
    assert "'.kaosignore' has more than" in refusal(tmp_path, ignore=SOURCE).message


def test_memory_does_not_depend_on_the_size_of_files(tmp_path: Path) -> None:
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 1 << 29)
    code = (
        "import resource, sys; from kaos_hub.bundles.scan import scan;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "found = scan(sys.argv[1]); all(found.read(next(iter(found.files))));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 32 * 1024  # kilobytes
