"""The listing of a tree as the service sends it, checked against nothing but the tree's digest.

Nothing that is sent is believed: each folder's own text is put together again and must have
the digest by which its parent, and at last the root, is known. Names, order and links are checked
besides. What was checked is written down in a short form, so that it need not be held in memory:
a line ``kind, digest, size, path`` (and ``target`` of a link), with tabs between.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from blake3 import blake3

LINE = 1 << 16
"""Bytes of the longest line there can be."""

_HEADER = b"kaos tree 1\n"
_LETTERS = {"file": "f", "executable": "x", "link": "l", "directory": "d"}
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEEPEST = 200
_LONGEST_NAME = 255
_LONGEST_PATH = 4096
_LONGEST_TARGET = 4095
_FOLLOWED = 40
_STEPS = 10_000_000


class BadListing(Exception):
    """The listing is not that of the tree; names the entry."""


class Entry(NamedTuple):
    """One entry of a tree."""

    kind: str
    """f: file, x: executable, l: link, d: directory."""
    digest: str
    """Hexadecimal."""
    size: int
    path: str
    target: str = ""
    """Of a link."""


@dataclass
class Totals:
    """The numbers of files and bytes in a tree."""

    files: int = 0
    bytes: int = 0


class _Folder:
    """A folder whose entries are being read."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.hash = blake3(_HEADER)
        self.size = 0
        self.last = b""

    def take(self, entry: Entry, name: bytes) -> None:
        if name <= self.last:
            raise BadListing(f"{entry.path!r} is out of order, or there twice")
        self.last = name
        self.hash.update(f"{entry.kind} {entry.digest} {entry.size} ".encode() + name + b"\n")

    def check(self) -> None:
        if self.hash.hexdigest() != self.entry.digest:
            raise BadListing(f"{self.entry.path or '.'!r} is not the folder that its digest names")
        if self.entry.size != self.size:
            raise BadListing(f"{self.entry.path!r} has not the size that it is listed with")


def check(lines: Iterable[bytes], root: str, keep: BinaryIO) -> Totals:
    """Check a listing and write it down in its short form.

    Args:
        lines: the lines, as they come.
        root: the tree's digest, in hexadecimal.
        keep: where to write.

    Raises:
        BadListing: it is not that of the tree.
    """
    totals = Totals()
    links: dict[str, str] = {}
    open_folders = [_Folder(Entry("d", root, -1, ""))]
    for line in lines:
        entry, parent, name = _parse(line)
        while open_folders[-1].entry.path != parent:
            _close(open_folders, entry.path)
        open_folders[-1].take(entry, name)
        if entry.kind == "d":
            if len(open_folders) > _DEEPEST:
                raise BadListing(f"{entry.path!r} lies too deep")
            open_folders.append(_Folder(entry))
        elif entry.kind == "l":
            links[entry.path] = entry.target
        else:
            open_folders[-1].size += entry.size
            totals.files += 1
            totals.bytes += entry.size
        keep.write("\t".join(map(str, entry)).encode() + b"\n")
    while len(open_folders) > 1:
        _close(open_folders, "")
    whole = open_folders[0]
    whole.entry = whole.entry._replace(size=whole.size)
    whole.check()
    _check_links(links)
    return totals


def read(kept: BinaryIO) -> Iterator[Entry]:
    """The entries that :func:`check` wrote down."""
    for line in kept:
        kind, digest, size, path, target = line[:-1].decode().split("\t")
        yield Entry(kind, digest, int(size), path, target)


def _close(open_folders: list[_Folder], next_path: str) -> None:
    """Check the innermost folder, all of which was seen."""
    if len(open_folders) == 1:
        raise BadListing(f"{next_path!r} is not below the folder that was listed before it")
    folder = open_folders.pop()
    folder.check()
    open_folders[-1].size += folder.size


def _parse(line: bytes) -> tuple[Entry, str, bytes]:
    """An entry, the path of its folder, and its name."""
    try:
        said = json.loads(line)
        kind, digest, size, path = said["kind"], said["digest"], said["size"], said["path"]
        target = said.get("target", "")
        raw, raw_target = path.encode(), target.encode()
        letter = _LETTERS[kind]
        known = _DIGEST.fullmatch(digest) is not None and type(size) is int and 0 <= size < 2**63
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadListing(f"this is no line of a listing: {line[:80]!r}") from None
    parent, slash, name = path.rpartition("/")
    if not known or len(raw) > _LONGEST_PATH or slash != ("/" if parent else ""):
        raise BadListing(f"this is no line of a listing: {line[:80]!r}")
    raw_name = raw[-len(name.encode()) :] if name else b""
    if name in ("", ".", "..") or _CONTROL.search(path) or len(raw_name) > _LONGEST_NAME:
        raise BadListing(f"{path!r} cannot be a path")
    if letter == "l":
        _check_target(path, target, raw_target, size, digest)
    elif target:
        raise BadListing(f"{path!r} is no link and has a target")
    return Entry(letter, digest[-64:], size, path, target), parent, raw_name


def _check_target(path: str, target: str, raw: bytes, size: int, digest: str) -> None:
    if digest != "blake3:" + blake3(raw).hexdigest() or size != len(raw):
        raise BadListing(f"{path!r} does not lead where its digest says")
    if (
        not target
        or target.startswith("/")
        or _CONTROL.search(target)
        or len(raw) > _LONGEST_TARGET
    ):
        raise BadListing(f"{path!r} is a link to {target!r}, which no tree may hold")


def _check_links(links: dict[str, str]) -> None:
    """Refuse links that leave the tree, worked out on names alone; they may dangle."""
    steps = 0
    for path, target in links.items():
        here, ahead, followed = path.split("/")[:-1], target.split("/")[::-1], 1
        while ahead:
            name = ahead.pop()
            steps += 1 + len(here) // 10
            if name == ".." and not here:
                raise BadListing(f"{path!r} is a link to {target!r}, which is outside the tree")
            if name == "..":
                here.pop()
            elif name not in ("", "."):
                inner = links.get("/".join([*here, name]))
                followed += inner is not None
                if inner is None:
                    here.append(name)
                else:
                    ahead.extend(inner.split("/")[::-1])
            if followed > _FOLLOWED or steps > _STEPS:
                raise BadListing(f"{path!r} is a link that takes too long to follow")
