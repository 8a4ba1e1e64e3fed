"""Removes from an unpacked folder what its rules leave out. Runs as a process of its own::

    python -m kaos_hub.bundles.prune FOLDER KIND

The rules are those of strangers. What was left out is told as JSON on standard output.
"""

import json
import os
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from kaos_hub.bundles import tree
from kaos_hub.bundles.ignore import (
    ENVIRONMENT_MARKS,
    IGNORE_FILE,
    MAX_IGNORE_FILE,
    Rules,
    rules_for,
)
from kaos_hub.bundles.limits import refuse
from kaos_hub.errors import KaosError
from kaos_hub.schemas import BundleKind
from kaos_hub.util import limited

MEMORY = 512 << 20
"""Bytes of address space."""
SECONDS = 60
"""Of computing: some tens of millions of comparisons."""
MODULE = "kaos_hub.bundles.prune"
_TOLD = 1000
"""Entries that are told by name."""


def prune(folder: Path, rules: Rules) -> list[str]:
    """Remove what a scan by the rules would leave out, and return the paths of that.

    No other process may write to the folder.

    Raises:
        InvalidBundle: an ignore file cannot be read; names it.
    """
    skipped: list[str] = []
    _prune(folder, "", rules, skipped)
    return skipped


def _prune(folder: Path, path: str, rules: Rules, skipped: list[str]) -> None:
    found = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    own = folder / IGNORE_FILE
    if rules.read_files and own.is_file() and not own.is_symlink():
        rules = rules.within(path, _text(own, tree.join(path, IGNORE_FILE)))
    for entry in found:
        below, directory = tree.join(path, entry.name), entry.is_dir(follow_symlinks=False)
        environment = directory and any(
            os.path.lexists(os.path.join(entry.path, mark))  # noqa: PTH118  any bytes
            for mark in ENVIRONMENT_MARKS
        )
        if rules.skips(below, directory, environment):
            skipped.append(below + "/" * directory)
            shutil.rmtree(entry.path) if directory else Path(entry.path).unlink()
        elif directory:
            _prune(Path(entry.path), below, rules, skipped)


def _text(file: Path, path: str) -> bytes:
    with file.open("rb") as opened:
        text = opened.read(MAX_IGNORE_FILE + 1)
    if len(text) > MAX_IGNORE_FILE:
        raise refuse(path, f"has more than {MAX_IGNORE_FILE:,} bytes")
    return text


def _main(folder: str, kind: str) -> dict[str, Any]:
    limited.limit(MEMORY, SECONDS)
    try:
        skipped = prune(Path(folder), rules_for(BundleKind(kind)))
    except KaosError as e:
        return {"error": e.body()}
    names = [os.fsencode(name).decode(errors="replace") for name in islice(skipped, _TOLD)]
    return {"skipped": names, "count": len(skipped)}


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
