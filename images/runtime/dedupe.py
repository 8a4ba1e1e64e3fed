"""Store equal packages of several directories once, with a symbolic link in the place of each.

Links, not hard links: builders do not keep those from one stage to the next.

Usage: dedupe.py STORE DIRECTORY…
"""

import hashlib
import shutil
import sys
from collections import defaultdict
from pathlib import Path


def digest(path: Path) -> str:
    """Of a name, and a file's content or all paths and contents below a directory."""
    found = hashlib.sha256(path.name.encode())
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        found.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def movable(path: Path, libraries: set[str]) -> bool:
    """A package whose extensions look for libraries beside it (NAME.libs) has to stay there."""
    if path.is_symlink() or not (path.is_dir() or path.suffix == ".py"):
        return False
    return not path.name.endswith((".libs", "__pycache__")) and path.name.lower() not in libraries


def beside(directory: Path) -> set[str]:
    names = {p.name.removesuffix(".libs").lower() for p in directory.glob("*.libs")}
    return names | {"zmq" for name in names if name == "pyzmq"}


def main(store: Path, directories: list[Path]) -> None:
    store.mkdir(parents=True, exist_ok=True)
    same: dict[str, list[Path]] = defaultdict(list)
    for directory in directories:
        libraries = beside(directory)
        for path in sorted(directory.iterdir()):
            if movable(path, libraries):
                same[digest(path)].append(path)
    for key, paths in same.items():
        if len(paths) == 1:
            continue
        # its own name in a directory of its own: some programs find their packages by going up
        kept = store / key / paths[0].name
        kept.parent.mkdir()
        shutil.move(paths[0], kept)
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.symlink_to(kept.relative_to(path.parent, walk_up=True))
    print(f"{len(list(store.iterdir()))} packages are shared")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(d) for d in sys.argv[2:]])
