"""A promised path that a trial named and that is not there: said beside the reason it failed."""

import os
import re
from pathlib import Path

_MOST = 8
"""Entries of a folder that are listed."""
_PROMISED = re.compile(r"(?<![\w./~-])/(?:pfs|kaos)(?:/[^\s'\"`,;:()<>|]*)?")


def note(reason: str, root: str) -> str:
    """The sentence about the first promised path in ``reason`` that does not exist; or nothing.

    Args:
        reason: why the trial failed.
        root: prefix of all paths, where the engine cannot show them at their places; else empty.
    """
    if root:
        return _no_sandbox() if _PROMISED.search(reason) else ""
    for found in _PROMISED.finditer(reason):
        path = found[0].rstrip("/.") or "/"
        if not os.path.lexists(path):
            return _beside(path)
    return ""


def _no_sandbox() -> str:
    return (
        "there are no paths /pfs/… and /kaos/… on this hub, because its engine `local` has no"
        " sandbox here; the machine's admin can install bubblewrap (`kaos doctor` says more), or"
        " read the paths from the variables KAOS_DATA, KAOS_PARAMS and KAOS_OUT"
    )


def _beside(path: str) -> str:
    if path.startswith("/pfs/out/"):
        return "`train` has to make the directory for its output itself"
    folder = next(each for each in Path(path).parents if each.is_dir())
    names = sorted(os.listdir(folder))  # noqa: PTH208
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return f"in {folder} there is {', '.join(names[:_MOST]) or 'nothing'}{more}"
