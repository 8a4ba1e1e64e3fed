"""The rules of source and data bundles, and the names they get."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kaos_hub.bundles.ignore import DATA, SOURCE
from kaos_hub.bundles.scan import scan
from kaos_hub.bundles.source import (
    check_data,
    check_data_tree,
    check_source,
    check_source_tree,
    default_name,
    find_source_root,
)
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import bundle_name
from tests.strategies import EXAMPLE, File, Folder, Link, fill, scanned

SOURCE_BUNDLE: Folder = {
    "Dockerfile": File(b"FROM python:3.13\n"),
    "model": {"requirements.txt": File()},
}


@pytest.mark.parametrize("given_folder", ["notebook", "notebook/example"])
def test_the_folder_or_its_only_source_bundle_is_found(tmp_path: Path, given_folder: str) -> None:
    fill(tmp_path, {"notebook": {"example": SOURCE_BUNDLE, "README.md": File(b"#"), ".git": {}}})
    root = find_source_root(tmp_path / given_folder)
    assert root == tmp_path / "notebook/example"
    check_source(scan(root, SOURCE))


def test_the_folder_itself_goes_before_its_sub_folders(tmp_path: Path) -> None:
    fill(tmp_path, SOURCE_BUNDLE | {"other": SOURCE_BUNDLE})
    assert find_source_root(tmp_path) == tmp_path


def test_several_source_bundles_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"one": SOURCE_BUNDLE, "two": SOURCE_BUNDLE})
    with pytest.raises(InvalidBundle) as caught:
        find_source_root(tmp_path)
    assert all(str(tmp_path / name) in caught.value.message for name in ("one", "two"))


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ({}, "is empty"),
        ({"model": {}}, "holds a Dockerfile"),
        ({"dockerfile": File(b"FROM x"), "model": {}}, "'dockerfile' must be called 'Dockerfile'"),
    ],
)
def test_no_source_bundle_shows_what_one_looks_like(
    tmp_path: Path, folder: Folder, said: str
) -> None:
    with pytest.raises(InvalidBundle) as caught:
        find_source_root(fill(tmp_path / "it", folder))
    assert said in caught.value.message
    assert "├── Dockerfile" in caught.value.message


def test_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "nowhere"):
        with pytest.raises(InvalidBundle, match=name):
            find_source_root(tmp_path / name)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(EXAMPLE, id="one of everything"),
        pytest.param(SOURCE_BUNDLE, id="the documented minimum"),
        pytest.param(SOURCE_BUNDLE | {"model": {}}, id="an empty model"),
    ],
)
def test_a_source_bundle_needs_little(tmp_path: Path, folder: Folder) -> None:
    found = scanned(tmp_path, folder)
    check_source(found)
    check_source_tree(found.nodes.__getitem__, found.root)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ({}, "is empty"),
        ({"model": {}}, "has no Dockerfile"),
        ({"Dockerfile": {}, "model": {}}, "'Dockerfile' must be a file; it is a directory"),
        ({"Dockerfile": Link("x"), "model": {}}, "'Dockerfile' must be a file; it is a link"),
        ({"Dockerfile": File(), "model": {}}, "'Dockerfile' is empty"),
        ({"Dockerfile": File(b"FROM x")}, "has no folder 'model'"),
        (
            {"Dockerfile": File(b"FROM x"), "model": File()},
            "'model' must be a folder; it is a file",
        ),
    ],
)
def test_what_a_source_bundle_lacks_is_said(tmp_path: Path, folder: Folder, said: str) -> None:
    found = scanned(tmp_path, folder)
    with pytest.raises(InvalidBundle) as caught:
        check_source(found)
    assert said in caught.value.message
    assert "├── Dockerfile" in caught.value.message


@pytest.mark.parametrize(
    "folder",
    [
        {"features": {"test": {"test_mini.csv": File(b"1,2\n")}, "training": {}}},
        {"empty": File()},
        {"only": {}},
        {"a": File(b"1"), "b": File(b"2"), ".hidden": File(b"3")},
    ],
)
def test_data_may_have_any_shape(tmp_path: Path, folder: Folder) -> None:
    found = scanned(tmp_path, folder)
    check_data(found)
    check_data_tree(found.root)


def test_no_data_is_refused(tmp_path: Path) -> None:
    found = scanned(tmp_path / "nothing", {})
    with pytest.raises(InvalidBundle, match=r"nothing' is empty; it needs at least one file"):
        check_data(found)
    with pytest.raises(InvalidBundle, match="empty"):
        check_data_tree(found.root)


def test_data_of_which_all_was_left_out_says_so(tmp_path: Path) -> None:
    fill(tmp_path, {".DS_Store": File(b"x"), ".git": {}})
    with pytest.raises(InvalidBundle, match=r"leave out: '\.DS_Store', '\.git/'"):
        check_data(scan(tmp_path, DATA))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("example", "example"),
        ("model-train", "model-train"),
        ("My Data (final)", "My Data -final"),
        ("_private", "private"),
        ("Übung é", "Ubung e"),
        ("größe-ü", "grosse-u"),
        ("a//b/", "b"),
        ("x:y", "x-y"),
        ("v1.0_b", "v1.0_b"),
    ],
)
def test_a_bundle_is_called_like_its_folder(folder: str, name: str) -> None:
    assert default_name(folder) == name


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("lab", ["lab/project/code/digits"]),
        ("lab/project", ["lab/project/code/digits"]),
        ("lab/project/code/digits/model", ["lab/project/code/digits"]),
        ("lab/project/code/digits/model/deep", ["lab/project/code/digits"]),
        ("lab/project/code/digits/Dockerfile", ["lab/project/code/digits"]),
        ("many", ["many/a/one", "many/a/two", "many/b/three"]),
        ("lab/project/data", []),
    ],
)
def test_a_folder_near_a_bundle_names_it(
    named: str, meant: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One level too high or too deep, or a file in it: what is probably meant is said."""
    places = ["lab/project/code/digits", "many/a/one", "many/a/two", "many/b/three"]
    for place in places:
        (tmp_path / place / "model" / "deep").mkdir(parents=True)
        (tmp_path / place / "Dockerfile").write_text("FROM python:3.13-slim\n")
    (tmp_path / "lab/project/data/more").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidBundle) as refused:
        find_source_root(named, look_around=True)
    assert refused.value.details.get("meant", []) == meant
    assert all(repr(each) in refused.value.message for each in meant)
    assert ("A source bundle looks like this" in refused.value.message) == (not meant)


def test_dots_are_the_folders_they_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer/inner")
    assert [default_name(path) for path in (".", "..", "./", "../inner/..")] == [
        "inner", "outer", "inner", "outer",
    ]  # fmt: skip


def test_different_folders_keep_different_names() -> None:
    """Where too much of a name is lost, a digest of it stays."""
    odd = ["数据", "图像", "数据1", "图像1", "***", "a" * 70, "a" * 71, os.fsdecode(b"\xff")]
    assert len({default_name(name) for name in odd}) == len(odd)
    assert default_name("e\u0301数") == default_name("é数")


def test_the_root_has_a_name_too() -> None:
    assert default_name("/") == "bundle"


# Half a character beyond 16 bits is in no file's name.
@given(
    st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="/\0"),
        min_size=1, max_size=80,
    )
)  # fmt: skip
def test_a_default_name_is_valid(folder: str) -> None:
    assert bundle_name(default_name(f"/somewhere/{folder}"))


@given(st.text(string.ascii_letters + string.digits + ".-_", min_size=1, max_size=64))
def test_a_valid_name_mostly_stays(folder: str) -> None:
    if folder[0].isalnum() and folder[-1].isalnum() and "--" not in folder:
        assert default_name(folder) == folder
