"""The limits on the size of a bundle."""

from dataclasses import dataclass

from kaos_hub.errors import InvalidBundle


def shown(path: str) -> str:
    """A path for people: quoted, with everything that a terminal would not print escaped.

    The empty path is the bundle itself.
    """
    return repr(path) if path else "the bundle"


def refuse(path: str, problem: str) -> InvalidBundle:
    """The error that names an entry: ``'model/x' is a socket``."""
    return InvalidBundle(f"{shown(path)} {problem}", entry=path.encode(errors="replace").decode())


@dataclass(frozen=True)
class Limits:
    """The limits of one tree. The defaults are far above daily use and far below harm."""

    max_files: int = 1_000_000
    """Entries of any kind, folders and links too: bounds the memory a hostile tree can take."""
    max_depth: int = 100
    """Names in a path: keeps recursion and open folders bounded. Not above 200."""
    max_path: int = 1000
    """Bytes of a path within the bundle: leaves room for the folder it is laid out in."""
    max_paths: int = 2**28
    """Bytes of all paths together (256 MiB): a few small objects can mean a million long paths."""
    max_file_size: int = 2**40
    """Bytes of one file (1 TiB)."""
    max_size: int = 2**43
    """Bytes of all files (8 TiB). What an owner may store is the ledger's business."""

    def check_path(self, path: str) -> int:
        """Refuse a path too long or too deep. Returns its bytes.

        Raises:
            InvalidBundle: names the path.
        """
        size = len(path.encode())
        if size > self.max_path:
            raise refuse(path, f"has a path longer than {self.max_path} bytes")
        if path.count("/") >= self.max_depth:
            raise refuse(path, f"lies deeper than {self.max_depth} folders")
        return size


class Meter:
    """Counts what a tree holds and refuses the entry with which it becomes too much."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries = 0
        self.paths = 0
        self.size = 0

    def entry(self, path: str) -> None:
        """Count an entry of any kind.

        Raises:
            InvalidBundle: the path or the number of entries is over the limit.
        """
        self.paths += self.limits.check_path(path)
        if self.paths > self.limits.max_paths:
            raise refuse(path, "and the paths before it are too long together")
        self.expect(path, 1)
        self.entries += 1

    def expect(self, path: str, entries: int) -> None:
        """Refuse a folder whose entries would be too many, before any work is spent on them.

        Raises:
            InvalidBundle: names the folder.
        """
        if self.entries + entries > self.limits.max_files:
            raise refuse(
                path, f"goes beyond the {self.limits.max_files:,} entries allowed in a bundle"
            )

    def file(self, path: str, size: int) -> None:
        """Count the bytes of a file.

        Raises:
            InvalidBundle: the file or the sum of all files is over the limit.
        """
        if size > self.limits.max_file_size:
            raise refuse(path, f"has {size:,} bytes; a file may have {self.limits.max_file_size:,}")
        self.size += size
        if self.size > self.limits.max_size:
            raise refuse(
                path, f"makes the bundle larger than the {self.limits.max_size:,} bytes allowed"
            )
