"""Copy the runtime into a volume, all of it or as good as nothing.

The file ``.complete`` is written last: without it a volume is half-filled by someone who died, and
is filled again. A lock keeps two who fill at once apart.

Usage: fill_volume.py VOLUME (or a folder in one, which is made)
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path

RUNTIME = Path("/opt/kaos")
MARK = ".complete"
LOCK = ".lock"


def empty(volume: Path) -> None:
    for path in volume.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main(volume: Path) -> None:
    volume.mkdir(parents=True, exist_ok=True)
    with (volume / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (volume / MARK).exists():
            return
        empty(volume)
        shutil.copytree(RUNTIME, volume, symlinks=True, dirs_exist_ok=True)
        os.sync()
        (volume / MARK).touch()
        os.sync()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
