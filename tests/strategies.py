"""Folders as plain values, ways to write them to disk, and hypothesis strategies that draw them."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from hypothesis import strategies as st

from kaos_hub.bundles.scan import Scan, scan


@dataclass(frozen=True)
class File:
    """A file's content and exec bit."""

    content: bytes = b""
    executable: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Folder = dict[str, Union[File, Link, "Folder"]]

EXAMPLE: Folder = {
    "Dockerfile": File(b"FROM python:3.13-slim\n"),
    "model": {
        "requirements.txt": File(b"humanize==4.9.0\n"),
        "train": File(b"#!/bin/sh\n", executable=True),
        "latest": Link("train"),
        "empty": {},
        "__init__.py": File(),
    },
}
"""A source bundle with one of everything."""


def fill(directory: Path, folder: Folder) -> Path:
    """Write a folder's entries into a directory, made if it is not there. Returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, entry in folder.items():
        path = directory / name
        if isinstance(entry, File):
            path.write_bytes(entry.content)
            path.chmod(0o755 if entry.executable else 0o644)
        elif isinstance(entry, Link):
            path.symlink_to(entry.target)
        else:
            fill(path, entry)
    return directory


def scanned(directory: Path, folder: Folder) -> Scan:
    """Write a folder and scan it, leaving nothing out."""
    return scan(fill(directory, folder))


def reverse(folder: Folder) -> Folder:
    """The same folder, its entries to be written in the opposite order."""
    return {
        name: reverse(entry) if isinstance(entry, dict) else entry
        for name, entry in reversed(folder.items())
    }


def files_of(folder: Folder, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all files."""
    for name, entry in folder.items():
        if isinstance(entry, File):
            yield (*above, name)
        elif isinstance(entry, dict):
            yield from files_of(entry, (*above, name))


def snapshot(directory: Path) -> dict[str, tuple[str, bytes]]:
    """What lies in a directory: path → (type and mode, content or target)."""
    found = {}
    for folder, folders, names in os.walk(directory):
        for name in folders + names:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if path.is_symlink():
                content = os.fsencode(path.readlink())
            else:
                content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(directory))] = (oct(mode), content)
    return found


@contextlib.contextmanager
def ordinary_user() -> Iterator[Path]:
    """A fresh folder of an ordinary user, who we are meanwhile: root may do anything."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(0)
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
        shutil.rmtree(folder)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def names() -> st.SearchStrategy[str]:
    """Names a bundle may hold, odd ones among them."""
    letters = st.characters(
        exclude_categories=("Cs", "Cc", "Cn"),
        exclude_characters="/\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    )
    return st.text(letters, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))


def files() -> st.SearchStrategy[File]:
    """Small files, a few with the exec bit."""
    return st.builds(File, st.binary(max_size=40), st.booleans())


def folders(max_leaves: int = 12) -> st.SearchStrategy[Folder]:
    """Folders of files, links and folders, down to empty ones."""
    # No drawn name is that long, so these links dangle and never lead in circles.
    links = names().map(lambda name: Link(f"nowhere-to-be-found/{name}"))

    def holding(entries: st.SearchStrategy[File | Link | Folder]) -> st.SearchStrategy[Folder]:
        pairs = st.lists(
            st.tuples(names(), entries), max_size=4, unique_by=lambda pair: _fold(pair[0])
        )
        return pairs.map(dict)

    inner = st.recursive(st.one_of(files(), links), holding, max_leaves=max_leaves)
    return holding(inner)
