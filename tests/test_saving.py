"""Saving a working copy, without a service: what is read, what is proposed, what is remembered."""

from pathlib import Path

import pytest

from kaos_hub.bundles.scan import scan
from kaos_hub.errors import InvalidBundle
from kaos_hub.workload.notebook import working_copy
from kaos_hub.workload.notebook.installed import Package, installed, propose
from kaos_hub.workload.notebook.saving import _RULES as RULES, _lacking as lacking, _make as make


def lay(folder: Path, **files: str) -> Path:
    """A folder with files; ``__`` stands for a slash, ``_`` for a dot."""
    for name, text in files.items():
        place = folder / name.replace("__", "/").replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def record(
    packages: Path, name: str, version: str, *, asked: bool = True, origin: str = ""
) -> None:
    """What pip leaves of an installed package."""
    place = packages / "lib" / "python3.12" / "site-packages" / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if asked:
        (place / "REQUESTED").touch()
    if origin:
        (place / "direct_url.json").write_text(origin)


def test_only_what_was_asked_for_is_proposed(tmp_path: Path) -> None:
    """Packages that came with others come again with those."""
    record(tmp_path, "Pandas", "2.2.0")
    record(tmp_path, "numpy", "2.0.0", asked=False)
    found, notes = installed(tmp_path)
    assert (found, notes) == ([Package("pandas", "2.2.0")], [])
    assert propose("", found).text() == "pandas==2.2.0\n"


def test_without_notes_of_pip_everything_counts(tmp_path: Path) -> None:
    """Old versions of pip do not note what they were asked for."""
    record(tmp_path, "a", "1", asked=False)
    record(tmp_path, "b", "2", asked=False)
    assert [each.name for each in installed(tmp_path)[0]] == ["a", "b"]
    assert installed(tmp_path / "nowhere") == ([], [])


def test_what_came_from_a_url_or_a_folder(tmp_path: Path) -> None:
    """A revision is written down; what lies on this machine, or has a password in it, is not."""
    git = '{"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc1"}}'
    record(tmp_path, "x", "1", origin=git)
    record(tmp_path, "here", "1", origin='{"url": "file:///home/kaos/here"}')
    record(tmp_path, "secret", "1", origin='{"url": "https://me:word@example.org/s.whl"}')
    found, notes = installed(tmp_path)
    assert [each.requirement for each in found] == ["x @ git+https://example.org/x.git@abc1"]
    assert [note.split()[0] for note in notes] == ["here", "secret"]
    assert "word" not in "".join(notes)


def test_requirements_keep_their_lines() -> None:
    """What satisfies its line stays; what does not is replaced, and shown as such."""
    text = "# mine\nnumpy>=1.20  # any\nPandas==1.0\n-r more.txt\n"
    packages = [Package("numpy", "2.0"), Package("pandas", "2.2"), Package("rich", "13.7")]
    proposal = propose(text, packages)
    assert proposal.shown() == ["rich==13.7", "pandas==2.2 (now Pandas==1.0)"]
    assert proposal.text() == ("# mine\nnumpy>=1.20  # any\npandas==2.2\n-r more.txt\nrich==13.7\n")


def test_pinned_hashes_are_left_alone() -> None:
    """A line without a hash would break the build."""
    proposal = propose("a==1 --hash=sha256:00\n", [Package("a", "1"), Package("b", "2")])
    assert proposal.shown() == []
    assert "demands hashes" in proposal.notes[0] and "b==2" in proposal.notes[0]


def test_what_we_laid_is_no_part(tmp_path: Path) -> None:
    """Versions beside, the notice of the hook and what an update left are ours; all are told."""
    lay(tmp_path, Dockerfile="FROM x\n", model__train_py="1")
    ours = [
        "model/train.new-1a2b3c4d.py", "model/train.new-1a2b3c4d-2.py", "Dockerfile.new-1a2b3c4d",
        "startup-hook.failed.txt", "model/.kaos-new-0123456789abcdef",
    ]  # fmt: skip
    for name in ours:
        (tmp_path / name).write_text("ours")
    (tmp_path / "folder.new-1a2b3c4d").mkdir()
    (tmp_path / "model" / "train.new-idea.py").write_text("mine")
    found = scan(tmp_path, RULES)
    assert set(found.skipped) == {*ours, "folder.new-1a2b3c4d/"}
    assert {path for path, _ in found.files.values()} == {
        "Dockerfile", "model/train.py", "model/train.new-idea.py"
    }  # fmt: skip


def test_an_empty_notebook_becomes_a_source_bundle(tmp_path: Path) -> None:
    """Only where there never was a source; what is there is kept."""
    (tmp_path / "notes.ipynb").write_text("{}")
    assert set(lacking(tmp_path, "")) == {"model/"}
    needed = lacking(tmp_path, "python:3.13-slim")
    assert set(needed) == {"Dockerfile", "model/", "model/requirements.txt"}
    make(tmp_path, needed)
    assert "FROM python:3.13-slim\n" in (tmp_path / "Dockerfile").read_text()
    assert lacking(tmp_path, "python:3.13-slim") == {}


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    """Neither a linked folder nor a linked file leads elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    (work / "model").symlink_to(outside)
    with pytest.raises(InvalidBundle, match="no folder"):
        make(work, {"model/requirements.txt": "x"})
    (work / "Dockerfile").symlink_to(outside / "file")
    with pytest.raises(InvalidBundle, match="no file"):
        make(work, {"Dockerfile": "x"})
    assert list(outside.iterdir()) == []


def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A home whose working copy was changed, and what was saved of it."""
    home = tmp_path / "home"
    first = lay(tmp_path / "first", Dockerfile="FROM x\n", model__a="1", model__b="1")
    working_copy.follow(home, first, "blake3:first")
    lay(home / "work", model__a="mine")
    second = lay(tmp_path / "second", Dockerfile="FROM x\n", model__a="mine", model__b="1")
    working_copy.saving(home, "blake3:second")
    return home, second


def test_what_was_saved_is_followed_untouched(tmp_path: Path) -> None:
    """Edits made since stay, without a version beside; a later version updates what was not."""
    home, second = saved(tmp_path)
    lay(home / "work", model__a="more")
    assert list(working_copy.follow(home, second, "blake3:second").lines()) == []
    assert working_copy.followed(home) == "blake3:second"
    assert (home / "work" / "model" / "a").read_text() == "more"
    assert sorted(path.name for path in (home / "work" / "model").iterdir()) == ["a", "b"]
    third = lay(tmp_path / "third", Dockerfile="FROM x\n", model__a="theirs", model__b="2")
    report = working_copy.follow(home, third, "blake3:third")
    assert report.updated == ["model/b"] and list(report.kept) == ["model/a"]


def test_saving_that_came_to_nothing_is_forgotten(tmp_path: Path) -> None:
    """A version of the same content that somebody deploys later is laid like any other."""
    home, second = saved(tmp_path)
    working_copy.saving(home, None)
    lay(home / "work", model__b="mine too")
    report = working_copy.follow(home, second, "blake3:second")
    assert working_copy.followed(home) == "blake3:second"
    assert report.kept == {} and (home / "work" / "model" / "b").read_text() == "mine too"
    # another version was followed meanwhile, so the note of it is void
    working_copy.saving(home, "blake3:first")
    working_copy.follow(home, tmp_path / "first", "blake3:other")
    assert working_copy.follow(home, second, "blake3:first").updated == ["model/a"]
