"""The listing of a tree, as a stranger may send it: only what the digest names is taken."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.bundles import tree
from kaos_hub.bundles.scan import Scan
from kaos_hub.service.workers import wire_listing
from kaos_hub.workload.fetch.listing import BadListing, check, read
from tests.strategies import EXAMPLE, scanned


def listing_of(found: Scan) -> list[dict[str, Any]]:
    """The lines that the service would send."""
    text = b"".join(wire_listing.flatten(found.root, found.read).listing())
    return [json.loads(line) for line in text.splitlines()]


def checked(lines: list[dict[str, Any]], root: str) -> list[str]:
    """The paths of a listing that was checked."""
    kept = io.BytesIO()
    totals = check((json.dumps(line).encode() + b"\n" for line in lines), root[-64:], kept)
    kept.seek(0)
    entries = list(read(kept))
    assert totals.files == sum(entry.kind in "fx" for entry in entries)
    return [entry.path for entry in entries]


@pytest.fixture
def found(tmp_path: Path) -> Scan:
    return scanned(tmp_path / "a", EXAMPLE)


def test_a_listing_is_what_the_digest_says(found: Scan) -> None:
    assert checked(listing_of(found), found.root) == [
        "Dockerfile", "model", "model/__init__.py", "model/empty", "model/latest",
        "model/requirements.txt", "model/train",
    ]  # fmt: skip
    assert checked([], tree.EMPTY) == []


def test_no_part_of_a_listing_can_be_changed(found: Scan) -> None:
    """Whatever is left out, added, moved or changed: the digest tells."""
    whole = listing_of(found)
    for number, line in enumerate(whole):
        without = whole[:number] + whole[number + 1 :]
        changes: list[list[dict[str, Any]]] = [without, [*whole, line], [line, *without]]
        changes.append(whole[:number])
        for field, values in {
            "path": ["x", line["path"] + "x", "../" + line["path"], "/" + line["path"], "", "."],
            "kind": ["file", "executable", "link", "directory", "socket", None],
            "size": [0, -1, line["size"] + 1, "1", True, 2**64, None],
            "digest": [found.root, "blake3:x", None, tree.digest(b"x")],
            "target": ["../..", "/etc/passwd", "x", 1],
        }.items():
            changes += [
                [*whole[:number], {**line, field: value}, *whole[number + 1 :]]
                for value in values
                if line.get(field) != value
            ]
        for changed in changes:
            if changed != whole:
                with pytest.raises(BadListing):
                    checked(changed, found.root)
    with pytest.raises(BadListing):
        checked(whole, tree.EMPTY)


def forged(*entries: tuple[str, str, bytes]) -> tuple[list[dict[str, Any]], str]:
    """A listing with one level whose digests are right, whatever stands in it, and its root."""
    text, lines = b"kaos tree 1\n", []
    for kind, name, content in entries:
        digest = tree.digest(content)
        size = 0 if kind == "directory" else len(content)
        letter = "l" if kind == "link" else kind[0]
        text += f"{letter} {digest[7:]} {size} {name}\n".encode("utf-8", "surrogatepass")
        line: dict[str, Any] = {"path": name, "kind": kind, "size": size, "digest": digest}
        if kind == "link":
            line["target"] = content.decode()
        lines.append(line)
    return lines, tree.digest(text)


@pytest.mark.parametrize(
    "entries",
    [
        [("file", "..", b"")],
        [("file", "/etc", b"")],
        [("file", "a/../../b", b"")],
        [("file", "a\nb", b"")],
        [("file", "a\tb", b"")],
        [("file", "a", b""), ("file", "a", b"")],
        [("file", "b", b""), ("file", "a", b"")],
        [("file", "x" * 256, b"")],
        [("file", "\udc80", b"")],
        [("link", "a", b"..")],
        [("link", "a", b"/etc")],
        [("link", "a", b"")],
        [("link", "a", b"b/../.."), ("link", "b", b".")],
        [("link", "a", b"b"), ("link", "b", b"a")],
    ],
)
def test_a_tree_that_nobody_may_make_is_refused(entries: list[tuple[str, str, bytes]]) -> None:
    """Even if its digest is right."""
    lines, root = forged(*entries)
    with pytest.raises(BadListing):
        checked(lines, root)


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b'"x"\n', b"x\n", b"[" * 9999 + b"\n"])
def test_nonsense_is_no_listing(line: bytes) -> None:
    with pytest.raises(BadListing):
        check([line], "0" * 64, io.BytesIO())
