"""One directory of a bundle as canonical text, and the digests that name content.

**The format** is fixed for good: digests of years ago must mean the same tree. A directory is the
text ::

    kaos tree 1
    f 7f8e…64 hex digits… 1234 Dockerfile
    d 03ab…64 hex digits… 99 model
    x 5d1c…64 hex digits… 210 startup-hook.sh

a first line, then one line ``<kind> <hex> <size> <name>`` per entry, in the order of the names'
UTF-8 bytes, each line ended by a newline. Kinds: ``f`` file, ``x`` file its owner may execute,
``l`` symbolic link (the content is the target's text), ``d`` directory (the content is its own
such text; its size is the bytes of all files below, links not counted). There is exactly one text
for a directory, so the digest of the root's text is the digest of the bundle: names, contents,
exec bits and links count, times and owners do not. An empty directory is the first line alone.

**Digests** are BLAKE3, written ``blake3:<64 hex>``. Measured on one thread: BLAKE3 8.3 GB/s,
SHA-256 with the CPU's SHA instructions 2.05 GB/s, and without them about 15 times slower than
BLAKE3. For small files it makes no difference, opening them costs more. BLAKE3 is itself a tree,
so it could use more threads, or verify a part of a file, without a change to any digest.

**Names** are refused that some machine could not hold or that could mislead: empty, ``.``,
``..``, with ``/`` or control characters, not UTF-8, over 255 bytes, or equal to a neighbour's
name when case and Unicode composition are ignored (a Mac would write one over the other).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from blake3 import blake3

from kaos_hub.bundles.limits import refuse, shown
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import EntryKind, TreeEntry
from kaos_hub.schemas.words import UNSEEN

HEADER = b"kaos tree 1\n"
MAX_NAME = 255
"""Bytes of a name; no usual file system takes more."""
MAX_TARGET = 4095
"""Bytes of a link's target; Linux takes no more."""
MAX_NODE = 1 << 27
"""Bytes of one directory's text (128 MiB): a million entries with names of 60 bytes."""

_PREFIX = "blake3:"
_LETTERS = {
    EntryKind.FILE: "f",
    EntryKind.EXECUTABLE: "x",
    EntryKind.LINK: "l",
    EntryKind.DIRECTORY: "d",
}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}
_LINE = re.compile(rb"([fxld]) ([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([^\n]+)")
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")


def digest(data: bytes) -> str:
    """The digest of bytes: ``blake3:<64 hex>``."""
    return _PREFIX + blake3(data).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether this is a digest as we write it. Ask before making a path of it."""
    return _DIGEST.fullmatch(text) is not None


class Hasher:
    """The digest of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._hash = blake3()
        self.size = 0
        """Bytes taken so far."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        """The digest of all bytes so far."""
        return _PREFIX + self._hash.hexdigest()


EMPTY = digest(HEADER)
"""The digest of a directory without entries."""


def check_name(raw: bytes, where: str = "") -> str:
    """A name as text, if a bundle may hold it. ``where`` is the directory, for the message.

    Raises:
        InvalidBundle: names the entry and says what is wrong with its name.
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode(errors="surrogateescape")
        raise refuse(join(where, name), "has a name that is not UTF-8; rename it") from None
    problem = None
    if name in ("", ".", ".."):
        problem = "cannot be a name"
    elif "/" in name:
        problem = "has a slash in its name"
    elif UNSEEN.search(name):
        problem = "has a control character in its name; rename it"
    elif len(raw) > MAX_NAME:
        problem = f"has a name longer than {MAX_NAME} bytes"
    if problem:
        raise refuse(join(where, name), problem)
    return name


def join(where: str, name: str) -> str:
    """The path of an entry; the root's own path is empty."""
    return f"{where}/{name}" if where else name


def check_target(raw: bytes, path: str) -> str:
    """A link's target as text, if a bundle may hold it. Where it leads is checked by :mod:`.links`.

    Raises:
        InvalidBundle: names the link.
    """
    try:
        target = raw.decode()
    except UnicodeDecodeError:
        raise refuse(path, "is a link to a name that is not UTF-8") from None
    if not target or UNSEEN.search(target) or len(raw) > MAX_TARGET:
        raise refuse(path, "is a link with a target that is empty, too long or not printable")
    if target.startswith("/"):
        raise refuse(
            path,
            f"is a link to the absolute path {target!r}; make it relative,"
            " or list it in .kaosignore to leave it out",
        )
    return target


def encode(entries: Iterable[TreeEntry], where: str = "") -> bytes:
    """The text of a directory, from its entries in any order. ``where`` is its path, for messages.

    Raises:
        InvalidBundle: a name is refused, or stands twice; names it.
    """
    ordered = sorted(entries, key=lambda entry: _sort_key(entry.name))
    lines = [HEADER]
    previous = b""
    for entry in ordered:
        raw = _sort_key(entry.name)
        if raw == previous:
            raise refuse(join(where, entry.name), "stands twice in its folder")
        previous = raw
        check_name(raw, where)
        if not 0 <= entry.size < 2**63:
            raise refuse(join(where, entry.name), "has an impossible size")
        hexadecimal = entry.digest.removeprefix(_PREFIX)
        lines.append(f"{_LETTERS[entry.kind]} {hexadecimal} {entry.size} ".encode() + raw + b"\n")
    text = b"".join(lines)
    if len(text) > MAX_NODE:
        raise refuse(where, f"has too many entries in one folder ({len(ordered):,})")
    return text


def decode(data: bytes, where: str = "") -> tuple[TreeEntry, ...]:
    """The entries of a directory's text. Refuses any text that :func:`encode` would not have made.

    ``where`` is the directory's path, for messages.

    Raises:
        InvalidBundle: names the first entry (or line) that is wrong.
    """
    if not data.startswith(HEADER) or not data.endswith(b"\n"):
        raise InvalidBundle(f"the listing of {shown(where)} is not a kaos tree")
    entries = []
    previous = b""
    for number, line in enumerate(data[len(HEADER) :].split(b"\n")[:-1], start=2):
        entry, raw = _decode_line(line, where, number)
        if raw <= previous:
            problem = "stands twice in" if raw == previous else "is out of order in"
            raise refuse(join(where, entry.name), f"{problem} its folder's listing")
        previous = raw
        entries.append(entry)
    return tuple(entries)


def lines(data: bytes) -> Iterator[tuple[EntryKind, str, int, str]]:
    """Kind, digest, size and name of each entry of a directory whose tree was checked before.

    Takes a fraction of the time and memory of :func:`decode`, for it checks no names.

    Raises:
        InvalidBundle: a line is malformed.
    """
    start = len(HEADER)
    while (end := data.find(b"\n", start)) >= 0:
        match = _LINE.fullmatch(data, start, end)
        if match is None:
            break
        letter, hexadecimal, size, raw = match.groups()
        yield _KINDS[letter.decode()], _PREFIX + hexadecimal.decode(), int(size), raw.decode()
        start = end + 1
    if start != len(data) or not data.startswith(HEADER):
        raise InvalidBundle(f"byte {start:,} of a listing is malformed")


def _decode_line(line: bytes, where: str, number: int) -> tuple[TreeEntry, bytes]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidBundle(
            f"line {number} of the listing of {shown(where)} is malformed", line=number
        )
    letter, hexadecimal, size, raw = match.groups()
    name = check_name(raw, where)
    if int(size) >= 2**63:
        raise refuse(join(where, name), "has an impossible size")
    entry = TreeEntry(
        kind=_KINDS[letter.decode()],
        digest=_PREFIX + hexadecimal.decode(),
        size=int(size),
        name=name,
    )
    return entry, raw


def _sort_key(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def fold(name: str) -> str:
    """Return the same for names that a file system blind to case or composition takes for one."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names of one folder that some file systems (macOS, Windows) take for one."""
    seen: dict[str, str] = {}
    pairs = ((seen.setdefault(fold(name), name), name) for name in names)
    return [(first, second) for first, second in pairs if first != second]
