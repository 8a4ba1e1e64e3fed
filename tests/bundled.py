"""Folders as laid out trees, for tests of engines alone."""

import secrets
from pathlib import Path


def laid(data: Path, folder: Path) -> str:
    """Make a folder the laid out tree of an invented digest, which is returned."""
    digest = f"blake3:{secrets.token_hex(32)}"
    place = data / "trees" / digest.removeprefix("blake3:")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(folder)
    return digest
