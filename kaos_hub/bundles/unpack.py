"""Archives that strangers send → a folder. Runs as a process of its own::

    python -m kaos_hub.bundles.unpack ARCHIVE FOLDER LIMITS

Formats have corners in which a few bytes stand for a great deal of memory. Here that ends this
process and nothing else: it may have as much memory as it needs for an honest archive, and no more.
What is wrong with an archive is told as JSON on standard output.
"""

import gzip
import json
import lzma
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kaos_hub.bundles.archive import Unpacking, Whole, checked_path
from kaos_hub.bundles.limits import Limits, refuse
from kaos_hub.bundles.tree import MAX_TARGET
from kaos_hub.errors import InvalidBundle, KaosError
from kaos_hub.util import limited

MEMORY = 512 << 20
"""Bytes of address space: enough for the list in a zip of three hundred thousand files. A tar has
no such list."""
SECONDS = 1200
"""Of computing: enough for some hundred gigabytes."""
MODULE = "kaos_hub.bundles.unpack"
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
"""Endings of the names of archives."""

_HELP = "Send a .zip, .tar or .tar.gz."
_ENCRYPTED = 1


def unpack(archive: Path, folder: Path, limits: Limits) -> None:
    """Unpack a zip, a tar or a compressed tar into an empty folder.

    Raises:
        InvalidBundle: it is none of these, is damaged, or holds what no bundle may hold; names the
            entry. What was unpacked by then is left to the caller.
    """
    into = Unpacking(folder, limits)
    with archive.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        with _explained():
            if head[:2] == b"PK":
                _unpack_zip(file, into)
            elif head[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as plain:
                    _unpack_tar(plain, into)
            else:
                _unpack_tar(file, into)


def _unpack_tar(file: IO[bytes] | gzip.GzipFile, into: Unpacking) -> None:
    whole = Whole(file)
    with tarfile.open(fileobj=whole, mode="r|") as members:
        into.all(members)
        whole.check(members.offset)


def _unpack_zip(file: IO[bytes], into: Unpacking) -> None:
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            path = checked_path(member.filename, member.is_dir())
            if path:
                _unpack_member(members, member, path, into)
    into.finish()


def _unpack_member(
    members: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, into: Unpacking
) -> None:
    mode = member.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if member.flag_bits & _ENCRYPTED:
        raise refuse(path, "is encrypted; a bundle holds what can be read")
    if member.is_dir():
        into.directory(path)
        return
    with members.open(member) as content:
        if kind == stat.S_IFLNK:
            into.link(path, content.read(MAX_TARGET + 1))
        elif kind in (0, stat.S_IFREG):
            into.file(path, member.file_size, bool(mode & stat.S_IXUSR), content)
        else:
            raise refuse(path, "is neither file, folder nor symbolic link")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of the formats' own modules into errors of ours."""
    try:
        yield
    except MemoryError:
        raise InvalidBundle("The archive needs too much memory to be unpacked.") from None
    except EOFError:
        raise InvalidBundle("The archive is cut off. Send it again.") from None
    except NotImplementedError as e:
        raise InvalidBundle(f"The archive is packed in an unusual way: {e}. {_HELP}") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError) as e:
        raise InvalidBundle(f"The archive cannot be read: {e}. {_HELP}") from None
    except gzip.BadGzipFile as e:
        raise InvalidBundle(f"The archive is damaged: {e}. {_HELP}") from None
    except OSError as e:
        raise KaosError(f"The archive cannot be unpacked here: {e.strerror or e}.") from None


def _main(archive: str, folder: str, limits: str) -> dict[str, Any] | None:
    limited.limit(MEMORY, SECONDS)
    try:
        unpack(Path(archive), Path(folder), Limits(**json.loads(limits)))
    except KaosError as e:
        return e.body()
    return None


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
