"""The working-copy rule: the bundle's new versions come in, a user's edit is never lost."""

import os
import signal
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kaos_hub.workload.notebook.working_copy import Report, follow, followed, update


@dataclass
class Copy:
    """A working copy, the bundle it follows, and the memory between them."""

    root: Path
    source: Path = field(init=False)
    working: Path = field(init=False)
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.source, self.working = self.root / "source", self.root / "work"
        self.source.mkdir()
        self.working.mkdir()
        self.state = self.root / "state.json"

    def update(self) -> Report:
        report = update(self.working, self.source, self.state)
        leftovers = list(self.working.rglob(".kaos-*"))
        assert not leftovers, leftovers
        return report

    def bundle(self, **files: str | None) -> None:
        lay(self.source, files)

    def edit(self, **files: str | None) -> None:
        lay(self.working, files)


def lay(root: Path, files: dict[str, str | None]) -> None:
    """Write files under keywords: ``a__b_py`` is ``a/b.py``; None removes."""
    for key, text in files.items():
        path = root / key.replace("__", "/").replace("_", ".")
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def listing(root: Path) -> dict[str, str]:
    """Path → content of every file, ``->target`` of every link, ``/`` of every directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"->{path.readlink()}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


def test_the_first_start_seeds_everything(copy: Copy) -> None:
    copy.bundle(Dockerfile="FROM x", model__train_py="1")
    (copy.source / "empty").mkdir()
    (copy.source / "run").write_text("#!/bin/sh")
    (copy.source / "run").chmod(0o500)
    (copy.source / "link").symlink_to("model/train.py")

    report = copy.update()

    assert listing(copy.working) == listing(copy.source)
    assert stat.S_IMODE((copy.working / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((copy.working / "Dockerfile").stat().st_mode) == 0o644
    assert report.added == ["Dockerfile", "link", "model/train.py", "run"]
    assert copy.update().summary() == "nothing to do"


def test_untouched_files_follow_the_bundle(copy: Copy) -> None:
    copy.bundle(a_py="1", b_py="1", old__c_py="1")
    copy.update()
    copy.bundle(a_py="2", old__c_py=None, d_py="1")
    (copy.source / "old").rmdir()

    report = copy.update()

    assert listing(copy.working) == {"a.py": "2", "b.py": "1", "d.py": "1"}
    assert (report.updated, report.added, report.removed) == (["a.py"], ["d.py"], ["old/c.py"])


def test_an_edit_is_kept_and_the_new_version_laid_beside(copy: Copy) -> None:
    copy.bundle(train_py="1", same_py="1")
    copy.update()
    copy.edit(train_py="mine", same_py="mine")
    copy.bundle(train_py="2")

    report = copy.update()

    place = report.kept["train.py"]
    assert place.startswith("train.new-") and place.endswith(".py")
    assert listing(copy.working) == {"train.py": "mine", "same.py": "mine", place: "2"}
    assert f"kept your train.py; the new version is {place}" in report.lines()
    assert copy.update().summary() == "nothing to do"


def test_an_untouched_version_beside_gives_way_to_a_newer_one(copy: Copy) -> None:
    copy.bundle(train_py="1")
    copy.update()
    copy.edit(train_py="mine")
    copy.bundle(train_py="2")
    second = copy.update().kept["train.py"]
    copy.bundle(train_py="3")
    third = copy.update().kept["train.py"]
    assert listing(copy.working) == {"train.py": "mine", third: "3"}

    (copy.working / third).write_text("mine too")
    copy.bundle(train_py="4")
    fourth = copy.update().kept["train.py"]
    assert listing(copy.working) == {"train.py": "mine", third: "mine too", fourth: "4"}
    assert len({second, third, fourth}) == 3


def test_taking_the_new_version_over_makes_the_file_follow_again(copy: Copy) -> None:
    copy.bundle(train_py="1")
    copy.update()
    copy.edit(train_py="mine")
    copy.bundle(train_py="2")
    copy.update()
    copy.edit(train_py="2")
    copy.bundle(train_py="3")
    assert copy.update().updated == ["train.py"]


def test_an_edited_file_that_leaves_the_bundle_stays(copy: Copy) -> None:
    copy.bundle(a_py="1", b_py="1")
    copy.update()
    copy.edit(a_py="mine")
    copy.bundle(a_py=None)
    report = copy.update()
    assert report.kept == {"a.py": ""}
    assert listing(copy.working) == {"a.py": "mine", "b.py": "1"}


def test_what_the_user_deleted_stays_deleted(copy: Copy) -> None:
    copy.bundle(a_py="1", b_py="1", c_py="1")
    copy.update()
    copy.edit(a_py=None, b_py=None)
    copy.bundle(a_py="2", c_py="2")
    report = copy.update()
    assert report.left_out == ["a.py"]
    assert listing(copy.working) == {"c.py": "2"}


def test_a_file_of_the_users_own_is_kept(copy: Copy) -> None:
    copy.edit(notes_md="mine", same_md="same")
    copy.bundle(notes_md="theirs", same_md="same")
    report = copy.update()
    assert listing(copy.working)[report.kept["notes.md"]] == "theirs"
    assert (copy.working / "notes.md").read_text() == "mine"
    assert list(report.kept) == ["notes.md"]
    copy.bundle(same_md="newer")
    assert copy.update().updated == ["same.md"]


def test_a_file_beside_is_never_overwritten(copy: Copy) -> None:
    copy.edit(notes_md="mine")
    copy.bundle(notes_md="theirs")
    first = copy.update().kept["notes.md"]
    (copy.working / first).write_text("mine as well")
    copy.state.unlink()
    second = copy.update().kept["notes.md"]
    assert second == first.replace(".md", "-2.md")
    assert (copy.working / first).read_text() == "mine as well"


@pytest.mark.parametrize("touched", [False, True])
def test_a_file_becomes_a_folder(copy: Copy, touched: bool) -> None:
    copy.bundle(a="1")
    copy.update()
    if touched:
        copy.edit(a="mine")
    copy.bundle(a=None)
    copy.bundle(a__b="2")
    report = copy.update()
    if touched:
        place = report.kept["a"]
        assert listing(copy.working) == {"a": "mine", place: "/", f"{place}/b": "2"}
    else:
        assert listing(copy.working) == {"a": "/", "a/b": "2"}


@pytest.mark.parametrize("touched", [False, True])
def test_a_folder_becomes_a_file(copy: Copy, touched: bool) -> None:
    copy.bundle(a__b="1", a__c="1")
    copy.update()
    if touched:
        copy.edit(a__b="mine")
    copy.bundle(a__b=None, a__c=None)
    (copy.source / "a").rmdir()
    copy.bundle(a="2")
    report = copy.update()
    if touched:
        assert listing(copy.working) == {"a": "/", "a/b": "mine", report.kept["a"]: "2"}
    else:
        assert listing(copy.working) == {"a": "2"}


def test_a_link_of_the_users_is_never_followed(copy: Copy) -> None:
    outside = copy.root / "outside"
    outside.mkdir()
    (outside / "train.py").write_text("1")
    copy.bundle(model__train_py="1", model__gone_py="1", model__sub__x="1")
    copy.update()
    for path in sorted((copy.working / "model").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (copy.working / "model").rmdir()
    (copy.working / "model").symlink_to(outside)
    copy.bundle(model__train_py="2", model__gone_py=None, model__sub__x="2")

    report = copy.update()

    assert listing(outside) == {"train.py": "1"}
    place = report.kept["model"]
    assert (copy.working / place / "train.py").read_text() == "2"
    assert (copy.working / place / "sub/x").read_text() == "2"
    assert (copy.working / "model").is_symlink()


def test_a_working_copy_that_is_a_link_is_refused(copy: Copy) -> None:
    elsewhere = copy.root / "elsewhere"
    elsewhere.mkdir()
    copy.working.rmdir()
    copy.working.symlink_to(elsewhere)
    copy.bundle(a="1")
    with pytest.raises(OSError, match="work"):
        copy.update()
    assert listing(elsewhere) == {}


def test_links_are_laid_as_links(copy: Copy) -> None:
    copy.bundle(a="1", b="1")
    (copy.source / "link").symlink_to("a")
    copy.update()
    (copy.source / "link").unlink()
    (copy.source / "link").symlink_to("b")
    assert copy.update().updated == ["link"]
    assert listing(copy.working)["link"] == "->b"
    (copy.source / "link").unlink()
    copy.bundle(link="now a file")
    copy.update()
    assert listing(copy.working)["link"] == "now a file"


def test_names_of_any_bytes_and_any_length(copy: Copy) -> None:
    name = "ä" * 120 + ".py"
    odd = os.fsdecode(b"odd\xff name")
    for each in (name, odd):
        (copy.source / each).write_text("1")
    copy.update()
    for each in (name, odd):
        (copy.working / each).write_text("mine")
        (copy.source / each).write_text("2")
    report = copy.update()
    assert sorted(report.kept) == sorted([name, odd])
    assert {(copy.working / place).read_text() for place in report.kept.values()} == {"2"}


def test_a_full_disk_fails_single_files_and_the_next_update_lays_them(
    tmp_path: Path, small_disk: Path
) -> None:
    copy = Copy(small_disk)
    copy.source = tmp_path / "elsewhere"
    copy.source.mkdir()
    (copy.source / "big").write_text("1" * 3_000_000)
    (copy.source / "small").write_text("1")
    report = copy.update()
    assert report.failed == {"big": "No space left on device"}
    assert listing(copy.working) == {"small": "1"}
    (copy.source / "big").write_text("1")
    assert copy.update().added == ["big"]


def test_a_memory_that_is_lost_or_spoilt_loses_no_edit(copy: Copy) -> None:
    copy.bundle(a_py="1", b_py="1")
    copy.update()
    copy.edit(a_py="mine")
    copy.state.write_text('{"source": ')
    copy.bundle(a_py="2", b_py="2")
    report = copy.update()
    assert set(report.kept) == {"a.py", "b.py"}
    assert (copy.working / "a.py").read_text() == "mine"


def test_follow_skips_what_it_follows_and_writes_a_log(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    (source / "a.py").write_text("1")
    digest = "blake3:" + "0" * 64
    assert followed(home) is None
    assert follow(home, source, digest).added == ["a.py"]
    assert followed(home) == digest
    (source / "a.py").write_text("2")
    assert follow(home, source, digest).summary() == "nothing to do"
    assert (home / "work/a.py").read_text() == "1"
    log = (home / ".kaos/updates.log").read_text()
    assert "1 added" in log and "added a.py" in log

    (home / "work/a.py").unlink()
    (home / "work").rmdir()
    assert follow(home, source, digest).added == ["a.py"]


# --- anything may happen, and it may be killed at any moment -------------------------------------

NAMES = ("a", "b", "d/a", "d/b", "d/e/a", "d")
CHANGES = ("bundle file", "bundle remove", "user file", "user remove", "user link", "user folder")
CHANGE = st.tuples(st.sampled_from(CHANGES), st.sampled_from(NAMES))
ROUND = st.tuples(st.lists(CHANGE, max_size=6), st.none() | st.integers(1, 60))


def make_way(root: Path, path: Path) -> bool:
    """Whether ``path`` can be written without going through a link or removing anything."""
    for parent in reversed(path.relative_to(root).parents):
        at = root / parent
        if at.is_symlink() or (at.exists() and not at.is_dir()):
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    return True


def drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            drop(child)
        path.rmdir()
    elif path.exists() or path.is_symlink():
        path.unlink()


def change(copy: Copy, what: str, name: str, serial: int) -> None:
    """Do one change, of the bundle's author or of the user."""
    author, act = what.split()
    root = copy.source if author == "bundle" else copy.working
    path = root / name
    if not make_way(root, path):
        return
    drop(path)
    if act == "file":
        path.write_text(f"{author} {serial}")
    elif act == "link":
        path.symlink_to(copy.root / "outside")
    elif act == "folder":
        path.mkdir()


def update_killed_at(copy: Copy, step: int) -> bool:
    """Update in a child that is killed at its ``step``-th change of the disk; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def audit(event: str, _: tuple[object, ...]) -> None:
            nonlocal count
            if event in {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir"}:
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        try:
            update(copy.working, copy.source, copy.state)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def of_the_user(listed: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in listed.items() if text.startswith(("user", "->"))}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROUND, min_size=1, max_size=5))
def test_nothing_is_ever_lost(rounds: list[tuple[list[tuple[str, str]], int | None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        copy = Copy(Path(directory))
        outside = copy.root / "outside"
        outside.mkdir()
        serial = 0
        for changes, kill_at in rounds:
            for what, name in changes:
                serial += 1
                change(copy, what, name, serial)
            edits = of_the_user(listing(copy.working))
            if kill_at is not None:
                update_killed_at(copy, kill_at)
            copy.update()
            after = listing(copy.working)
            assert of_the_user(after) == edits
            assert listing(outside) == {}
            check_every_version_is_there(copy, after)


def check_every_version_is_there(copy: Copy, after: dict[str, str]) -> None:
    """What the user has neither edited nor deleted is as in the bundle; nothing old lingers."""
    theirs = {p: t for p, t in listing(copy.source).items() if t != "/"}
    for path, text in theirs.items():
        if path in after and after[path].startswith("bundle"):
            assert after[path] == text, path
    for path, text in after.items():
        if text.startswith("bundle") and ".new-" not in path:
            assert theirs.get(path) == text, path


def test_a_kill_changes_nothing_in_the_end(tmp_path: Path) -> None:
    """The same story, killed at every single step, ends in the same working copy."""

    def story(root: Path, kill_at: int | None) -> tuple[dict[str, str], bool]:
        root.mkdir()
        copy = Copy(root)
        copy.bundle(a_py="1", b_py="1", c__x="1", d="1", e_py="1", f_py="1")
        copy.update()
        copy.edit(a_py="mine", f_py=None)
        copy.bundle(a_py="2", b_py="2", c__x=None, d=None, e_py=None, f_py="2", g_py="1")
        (copy.source / "c").rmdir()
        copy.bundle(c="now a file", d__y="now a folder")
        killed = kill_at is not None and update_killed_at(copy, kill_at)
        copy.update()
        return listing(copy.working), killed

    wanted, _ = story(tmp_path / "quiet", None)
    assert set(wanted.values()) == {
        "mine",
        "2",
        "1",
        "now a file",
        "now a folder",
        "/",
    }
    for step in range(1, 200):
        result, killed = story(tmp_path / str(step), step)
        assert result == wanted, f"killed at step {step}"
        if not killed:
            assert step > 15
            return
    raise AssertionError("the update never came to its end")
