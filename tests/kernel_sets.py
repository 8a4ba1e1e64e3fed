"""The packages of kernels, made by the first hub that needs them and given to those after it.

It takes a minute of a busy machine, and all hubs of one checkout make the same. A hub looks at the
stamp of what it finds, so that a set of another version of kaos_hub is made anew.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.documentation import ROOT

_KEPT = Path(tempfile.gettempdir()) / f"kaos-tests-{os.getuid()}"
_OURS = _KEPT / f"kernels-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]}"
_MANIFEST = "kaos-manifest.json"


def give(kernels: Path) -> None:
    """Give a hub that begins what others have made, as links to the same files."""
    if _OURS.is_dir() and not kernels.exists():
        kernels.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(_OURS, kernels, symlinks=True, copy_function=os.link)


def keep(kernels: Path) -> None:
    """Keep what a hub has made for those after it."""
    for place in kernels.glob("cp*"):
        kept = _OURS / place.name
        if not (place / _MANIFEST).is_file() or _manifest(kept) == _manifest(place):
            continue
        _OURS.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft", dir=_KEPT)) / place.name
        # Another file system, or another lane that was faster: then it is not kept.
        with contextlib.suppress(OSError):
            shutil.copytree(place, draft, symlinks=True, copy_function=os.link)
            shutil.rmtree(kept, ignore_errors=True)
            draft.rename(kept)
        shutil.rmtree(draft.parent, ignore_errors=True)


def _manifest(place: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return (place / _MANIFEST).read_bytes()
    return b""
