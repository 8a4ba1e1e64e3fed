"""A build context as a tar stream: always the same for the same tree, everything owned by root."""

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 18
_BLOCK = 512
_IGNORE = ".dockerignore"


def dockerfile_name(directory: Path) -> str:
    """A name for the Dockerfile that no file of the context has; the same for the same context."""
    name, number = ".kaos.Dockerfile", 0
    while os.path.lexists(directory / name):
        number += 1
        name = f".kaos-{number}.Dockerfile"
    return name


def context_tar(directory: Path, dockerfile: Path, name: str) -> Iterator[bytes]:
    """The files of ``directory``, and ``dockerfile`` under ``name``.

    The builder removes what ``.dockerignore`` names after reading it: with that, the added file is
    never copied into the image, where it would also spoil the cache.
    """
    ignored = _read_ignored(directory)
    yield from _bytes_entry(_IGNORE, "\n".join([*ignored, _IGNORE, name, ""]).encode())
    yield from _file_entry(name, dockerfile)
    excludes = _matcher(ignored)
    for path in _walk(directory):
        inside = path.relative_to(directory).as_posix()
        if inside == _IGNORE or (ignored and excludes.matches(inside)):
            continue
        if path.is_symlink():
            yield _header(inside, tarfile.SYMTYPE, 0o777, link=str(path.readlink()))
        elif path.is_dir():
            yield _header(inside, tarfile.DIRTYPE, 0o755)
        else:
            yield from _file_entry(inside, path)
    yield bytes(2 * _BLOCK)


def _read_ignored(directory: Path) -> list[str]:
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = (directory / _IGNORE).read_text("utf-8-sig", "surrogateescape").splitlines()
    patterns = [line.strip() for line in lines]
    return [p for p in patterns if p and not p.startswith("#")]


def _matcher(patterns: list[str]):  # type: ignore[no-untyped-def]
    from docker.utils.build import PatternMatcher

    return PatternMatcher(patterns)


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _file_entry(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        # Laid-out bundles are read-only; in the image the user's files are as they were.
        mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        yield _header(name, tarfile.REGTYPE, mode, found.st_size)
        while chunk := file.read(_CHUNK):
            yield chunk
    yield bytes(-found.st_size % _BLOCK)


def _bytes_entry(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, tarfile.REGTYPE, 0o644, len(content))
    yield content + bytes(-len(content) % _BLOCK)


def _header(name: str, kind: bytes, mode: int, size: int = 0, link: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, link
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
