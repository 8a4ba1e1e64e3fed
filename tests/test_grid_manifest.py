"""Grids of hyperparameters and manifests of what to fetch, right ones and wrong ones."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kaos_hub.bundles import tree
from kaos_hub.errors import InvalidBundle, InvalidRequest
from kaos_hub.formats import grid, manifest

# --- grids ---

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=3,
)
LISTS = st.lists(
    VALUES, min_size=1, max_size=4, unique_by=lambda v: json.dumps(grid._alike(v), sort_keys=True)
)
NAMES = st.text(min_size=1, max_size=4)


@given(st.dictionaries(NAMES, SCALARS | LISTS, max_size=4), st.sampled_from([None, 1, 7]))
def test_a_grid_is_the_product_of_its_lists(said: dict[str, Any], indent: int | None) -> None:
    found = grid.parse("\ufeff" + json.dumps(said, indent=indent), "p.json")
    lists = [v if isinstance(v, list) else [v] for v in said.values()]
    right = [dict(zip(said, each, strict=True)) for each in itertools.product(*lists)]
    assert list(found) == right and len(found) == len(right)
    assert [list(one) for one in found] == [list(said)] * len(found)
    assert [found[i] for i in range(len(found))] == right and found[-1] == right[-1]
    assert found == grid.parse(json.dumps(said).encode(), "p.json")


@given(st.text(max_size=30) | st.text('{}[]":,1ae \n\\u0dNI-', max_size=30))
def test_whatever_stands_there_is_a_grid_or_is_refused(text: str) -> None:
    try:
        found = grid.parse(text, "p.json", most=50)
    except InvalidRequest as e:
        assert e.message.startswith("p.json:") and e.details["line"] <= text.count("\n") + 1
    else:
        assert dict.fromkeys(found.keys) == dict.fromkeys(json.loads(text))


def test_strings_are_values_and_objects_too_within_lists() -> None:
    found = grid.parse('{"kernel": "poly", "layer": [{"n": [1, 2]}, [3], null, true, 1]}', "p")
    assert [one["kernel"] for one in found] == ["poly"] * 5
    assert [one["layer"] for one in found] == [{"n": [1, 2]}, [3], None, True, 1]
    assert found[1:3] == list(found)[1:3]
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [1],\n "b": []}', r"p\.json:2: 'b' has an empty list"),
        ('{"a": [1],\n\n "a": 2}', r"p\.json:3: 'a' stands here again; first in line 1"),
        ('{"a": 1,\n "b": [2, 1, 2.0]}', r"p\.json:2: 'b' has the value 2\.0 twice"),
        ('{"b": ["x", "x"]}', "'b' has the value \"x\" twice"),
        ('{"b": {"c": [1]}}', "'b' is an object; put it into a list"),
        ('{"b": [{"c": 1, "c": 1}]}', "'b' has an object in which 'c' stands twice"),
        ('{"a": 1,\n"lr": [1, NaN]}', r"p\.json:2: 'lr' has the value NaN"),
        ('{"lr": [-Infinity]}', "'lr' has the value -Infinity"),
        ('{"lr": 1e999}', "'lr' has the number 1e999, which is too large"),
        ('{"lr": [1,\n 2,\n oops]}', r"p\.json:3: in 'lr': this is not JSON"),
        ('{"lr": ' + "9" * 5000 + "}", "'lr' has a number of too many digits"),
        ('{"lr": ' + "[" * 100_000 + "}", "'lr' is nested too deeply"),
        ('{"lr": ' + "[" * 60 + "1" + "]" * 60 + "}", "'lr' is nested too deeply"),
        ('{"lr": ["\\ud800"]}', "'lr' has a string with half a character"),
        ('{"\\ud800": 1}', "a name must not be empty or broken"),
        ('{"": 1}', "a name must not be empty or broken"),
        ("{lr: 1}", "expected a name in double quotes"),
        ('{"lr', "this name has no end"),
        ('{"lr" 1}', "expected ':', found '1'"),
        ('{"a": 1\n "b": 2}', r"p\.json:2: expected ',', found '\"'"),
        ('{"a": 1,}', "expected a name in double quotes"),
        ('{"a": 1', "expected ',', the file ends"),
        ('{"a": 1}\n{"b": 2}', r"p\.json:2: the object has ended"),
        ("[1]", "not a list"),
        ('"abc"', "not a string"),
        ("1", "not a single value"),
        ("", "this is not JSON"),
        ("# no", "this is not JSON"),
    ],
)
def test_a_wrong_grid_is_refused_by_line_and_key(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        grid.parse(text, "p.json")


def test_a_grid_may_be_large_but_not_endless() -> None:
    lists = json.dumps({name: list(range(100)) for name in "abc"})
    with pytest.raises(InvalidRequest, match="with 'c' there are 1,000,000 combinations") as e:
        grid.parse(lists, "p.json")
    assert e.value.details == {"file": "p.json", "line": 1, "key": "c"}
    huge = grid.parse(lists, "p.json", most=10**6)
    assert huge[999_999] == {"a": 99, "b": 99, "c": 99} and len(huge) == 10**6
    with pytest.raises(InvalidRequest, match=r"p\.json:2: this is not UTF-8"):
        grid.parse(b'{"a":\n "\xff"}', "p.json")


# --- manifests ---

SEGMENTS = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"),
    min_size=1,
    max_size=5,
).filter(lambda name: name not in (".", ".."))
LINES = st.fixed_dictionaries(
    {
        "url": st.sampled_from(
            ["https://example.org/a.csv", "http://[::1]:8080/?q=%20", "ftp://h/x"]
        ),
        "path": st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join),
    },
    optional={
        "sha256": st.none() | st.text("0123456789abcdefABCDEF", min_size=64, max_size=64),
        "size": st.none() | st.integers(0, 2**62),
        "label": st.integers(),
    },
)


@given(
    st.lists(LINES, max_size=5),
    st.sampled_from(["m.jsonl", "sub/m", "a/b/m"]),
    st.lists(st.sampled_from(["", "  \t", "# said", "// said", "\ufeff"]), max_size=3),
)
def test_a_manifest_says_what_its_lines_say_or_refuses(
    lines: list[dict[str, Any]], file: str, between: list[str]
) -> None:
    text = [*between[:1], *(json.dumps(line, ensure_ascii=False) for line in lines), *between[1:]]
    raw = [line.encode() + b"\r\n" for line in text if line != "\ufeff"]
    try:
        found = list(manifest.parse(file, raw))
    except InvalidBundle as e:
        _check_collision(e, [line["path"] for line in lines])
        return
    above = file.rpartition("/")[0]
    assert [e.path for e in found] == [tree.join(above, line["path"]) for line in lines]
    assert [e.url for e in found] == [line["url"] for line in lines]
    assert [e.size for e in found] == [line.get("size") for line in lines]
    assert [e.sha256 for e in found] == [
        (line.get("sha256") or "").lower() or None for line in lines
    ]
    assert [raw[e.line - 1] for e in found] == [
        json.dumps(line, ensure_ascii=False).encode() + b"\r\n" for line in lines
    ]


def _check_collision(e: InvalidBundle, paths: list[str]) -> None:
    """It was refused for a reason: some path is another, or its folder, or is so for a Mac."""
    assert e.details["line"]
    folded = [tree.fold(path) for path in paths]
    folders = {f[:at] for f in folded for at in range(len(f)) if f[at] == "/"}
    spelled = {p[:at] for p in paths for at in range(len(p)) if p[at] == "/"}
    assert len(set(folded)) < len(folded) or folders & set(folded) or len(folders) < len(spelled)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_whatever_stands_in_a_manifest_is_understood_or_refused_by_line(lines: list[bytes]) -> None:
    try:
        list(manifest.parse("m", lines))
    except InvalidBundle as e:
        assert e.message.startswith(f"m:{e.details['line']}: ")


U = '"url": "http://h/"'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"url": "", "path": "test/xaaa.csv"}', "empty url; the published examples have theirs"),
        ('{"path": "a"}', 'there is no "url"'),
        (f"{{{U}}}", 'there is no "path"'),
        ('{"url": 7, "path": "a"}', "url 7 is not a text"),
        ('{"url": "a.csv", "path": "a"}', '"a.csv" is no whole URL'),
        ('{"url": "http://[::1/", "path": "a"}', "is no URL"),
        ('{"url": "http://h:99999/", "path": "a"}', "is no URL"),
        ('{"url": "http://h/a b", "path": "a"}', "has a space or control character"),
        (f'{{{U}, "path": ""}}', 'path "" is not a text, or empty'),
        (f'{{{U}, "path": "../a"}}', "leads out of its folder"),
        (f'{{{U}, "path": "a/../../b"}}', "leads out of its folder"),
        (f'{{{U}, "path": "/"}}', "names a folder"),
        (f'{{{U}, "path": "a/"}}', "names a folder"),
        (f'{{{U}, "path": "a\\u0000b"}}', "control character"),
        (f'{{{U}, "path": "\\ud800"}}', "not UTF-8"),
        (f'{{{U}, "path": "{"x" * 300}"}}', "longer than 255 bytes"),
        (f'{{{U}, "path": "{"x/" * 600}x"}}', "longer than 1000 bytes"),
        (f'{{{U}, "path": "a", "sha256": "12"}}', "is not 64 hexadecimal digits"),
        (f'{{{U}, "path": "a", "sha265": "12"}}', "'sha265' is unknown; is 'sha256' meant?"),
        (f'{{{U}, "path": "a", "size": -1}}', "size -1 is not a number of bytes"),
        (f'{{{U}, "path": "a", "size": true}}', "size true is not a number of bytes"),
        (f'{{{U}, "path": "a", "path": "b"}}', "'path' stands there twice"),
        (f'{{{U}, "path": "ok"}}', r"'ok' stands already in m:2"),
        (f'{{{U}, "path": "/./OK"}}', r"'OK' stands already in m:2"),
        (f'{{{U}, "path": "ok/a"}}', r"'ok' is a folder here, and a file in m:2"),
        (f'{{{U}, "path": "deep/er"}}', r"'deep/er' is a file here, and a folder in m:3"),
        (f'{{{U}, "path": "Deep/b"}}', "are one name where case"),
        ("{", "this is not JSON"),
        ("[]", "expected an object"),
        ("[" * 5000, "this is no JSON that can be read"),
        ('{"url": "' + "x" * 70000, "the line is longer than"),
    ],
)
def test_a_wrong_line_is_refused(line: str, said: str) -> None:
    good = ["# what there is", f'{{{U}, "path": "ok"}}', f'{{{U}, "path": "deep/er/a"}}', ""]
    with pytest.raises(InvalidBundle, match=r"^m:5: .*" + said) as e:
        list(manifest.parse("m", [text.encode() for text in [*good, line]]))
    assert (e.value.details["file"], e.value.details["line"]) == ("m", 5)


def test_a_folder_of_manifests(tmp_path: Path) -> None:
    """Each has its own folder as its place; no two of them may mean one file."""
    line = f'{{{U}, "path": "/a.csv"}}\n'
    (tmp_path / "train/more").mkdir(parents=True)
    for name in ("list", "train/list.jsonl", "train/more/list"):
        (tmp_path / name).write_text(f"\ufeff# files\n\n{line}")
    (tmp_path / "README.md").write_text("# What this is")
    (tmp_path / ".hidden").write_text("no JSON")
    found = list(manifest.read(tmp_path))
    assert [e.path for e in found] == ["a.csv", "train/a.csv", "train/more/a.csv"]
    assert [e.where for e in found] == ["list:3", "train/list.jsonl:3", "train/more/list:3"]
    assert [e.path for e in manifest.read(tmp_path / "train/list.jsonl")] == ["a.csv"]
    (tmp_path / "other").write_text(f'{{{U}, "path": "train/a.csv"}}')
    with pytest.raises(
        InvalidBundle, match=r"train/list\.jsonl:3: 'train/a\.csv' stands already in other:1"
    ):
        list(manifest.read(tmp_path))
    (tmp_path / "empty").write_text("\n# nothing\n")
    with pytest.raises(InvalidBundle, match="empty names no file to fetch"):
        list(manifest.read(tmp_path / "empty"))
