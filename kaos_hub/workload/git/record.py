"""The places of clones in a working directory, and the record by which they are known again.

The record of a clone stands in its own ``.git``: it comes with the clone, complete, in the moment
in which that is renamed to its place, and stays with it if a user renames it. Standard library
only: each start of a notebook looks.
"""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kaos_hub.workload.notebook import working_copy

NOTICE = "git-clone.failed.txt"
"""The file in the working directory that tells why there is no clone."""

_RECORD = "kaos.json"
_LARGEST = 1 << 14
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_TRIED = 100


@dataclass(frozen=True)
class Cloned:
    """A clone that is there."""

    place: Path
    commit: str


def find(work: Path, repository: str) -> Cloned | None:
    """The clone of a repository, wherever in ``work`` it is now; None if there is none.

    Args:
        work: the working directory.
        repository: ``URL`` or ``URL@REF``; of another REF it is another one.
    """
    with suppress(OSError), os.scandir(work) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            said = _read(Path(entry.path, ".git", _RECORD))
            if said.get("repository") == repository:
                return Cloned(Path(entry.path), str(said.get("commit") or ""))
    return None


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as opened:
            said = json.loads(opened.read(_LARGEST))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def note(clone: Path, repository: str, commit: str) -> None:
    """Write into a clone what it is of.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps({"repository": repository, "commit": commit}) + "\n"
    Path(clone, ".git", _RECORD).write_text(text, "utf-8")


def settle(home: Path, clone: Path, name: str, more: str) -> Path:
    """Bring a clone that is complete to its place in the working directory; returns that.

    Nothing of the user's is touched: what is there already stays, and this goes beside.

    Args:
        home: the notebook's.
        clone: a folder on the same file system.
        name: what its folder is to be called.
        more: tells it from others of that name.

    Raises:
        OSError: it cannot be brought there.
    """
    work = home / "work"
    work.mkdir(exist_ok=True)
    with working_copy.at_rest(home):
        for each in _names(name, more):
            try:
                # Takes the place of nothing, or of an empty folder; of anything else it does not.
                clone.rename(work / each)
            except OSError as e:
                if e.errno not in _TAKEN:
                    raise
            else:
                return work / each
    raise FileExistsError(errno.EEXIST, "too many of this name are there already", str(work / name))


def _names(name: str, more: str) -> Iterator[str]:
    yield name
    other = f"{name}-{re.sub(r'[^A-Za-z0-9._]+', '-', more)[:60].strip('-')}"
    yield other
    yield from (f"{other}-{number}" for number in range(2, _TRIED))
