"""Unpacking the source that the service sends. Standard library only: it runs in any container."""

import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar of files, folders and symbolic links below ``target``, which is made.

    By hand: ``extractall(filter=…)`` came with Python 3.11.4, and Debian 12 has 3.11.2.

    Raises:
        tarfile.TarError: it is damaged, or holds what the service never sends.
    """
    links: list[tuple[Path, str]] = []
    target.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise tarfile.ReadError(f"{member.name!r} would lie outside")
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                place.mkdir(exist_ok=True)
            elif member.issym():
                links.append((place, member.linkname))
            else:
                _file(tar, member, place)
    # Last, so that nothing is written through one.
    for place, linked in links:
        place.symlink_to(linked)


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise tarfile.ReadError(f"{member.name!r} is neither file, folder nor symbolic link")
    with content, place.open("xb") as file:
        shutil.copyfileobj(content, file)
    place.chmod(0o755 if member.mode & 0o100 else 0o644)
