"""The image that a build in a container left, checked, as an archive that a Docker Engine loads.

It was left by a container that ran the user's commands, so nothing in it is trusted. Above all an
image must not name layers that the build did not have: the Engine would take those it already has,
of any owner. So each layer is here in full and holds what the image says it does, or is one of a
base image of this build or of a last image of its owner.
"""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from kaos_hub.errors import BuildFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_BLOCK = 512
_GZIP = b"\x1f\x8b"
_GZIP_BITS = 31
_SMALL = 4 << 20
"""Bytes up to which content is kept until it is known whether it is a configuration."""
_KEPT = 256
"""The largest number of such small pieces that are kept of an image."""
_NO_IMAGE = (tarfile.TarError, zlib.error, ValueError, LookupError, TypeError, AttributeError)


class Result:
    """An image in the making.

    Args:
        bases: for each image whose layers the build need not leave (its base images, and the last
            ones of its owner), the digests of the content of these layers, in order.
        tag: what to call the image.
        labels: what it is labelled with, whatever the build says.
        limit: bytes that its layers may hold.
    """

    def __init__(
        self,
        bases: Sequence[Sequence[str]],
        tag: str,
        labels: Mapping[str, str],
        limit: int,
    ) -> None:
        self._bases, self._tag, self._labels, self._left = bases, tag, labels, limit
        self._small: dict[str, bytes] = {}
        self._holds: dict[str, str] = {}
        self._index = b""
        self.count = self.given = 0
        """The number of the image's layers, and of those that the Engine was given."""

    def archive(self, found: Iterable[bytes]) -> Iterator[bytes]:
        """The archive to load, piece by piece; what ends with an error must not be loaded.

        Args:
            found: a tar with a folder that is an OCI layout, but for layers of base images.

        Raises:
            BuildFailed: it is no image, or not one that this build can have made.
        """
        try:
            # A stream: nothing is unpacked, so links and names in it lead nowhere.
            stream = io.BufferedReader(_Pieces(found), _CHUNK)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.isreg() else None
                    if file is not None:
                        yield from self._take(entry, file)
            yield from self._rest()
        except _NO_IMAGE as e:
            raise BuildFailed(f"the build left something that is no image: {e}") from None

    def _take(self, entry: tarfile.TarInfo, file: IO[bytes]) -> Iterator[bytes]:
        name = entry.name.rpartition("/")[2]
        if name == "index.json":
            self._index = file.read(_SMALL)
        elif _HEX.fullmatch(name):
            content = _Content()
            kept = bytearray() if entry.size <= _SMALL and len(self._small) < _KEPT else None
            if kept is None:
                yield _header(name, entry.size)
            while piece := file.read(_CHUNK):
                self._left -= content.feed(piece, self._left)
                if kept is None:
                    yield piece
                else:
                    kept += piece
            if content.digest != name:
                raise BuildFailed(f"the layer {name[:12]} was changed after it was built")
            self._holds[name] = content.holds
            if kept is None:
                yield bytes(-entry.size % _BLOCK)
            else:
                self._small[name] = bytes(kept)

    def _rest(self) -> Iterator[bytes]:
        """The small layers, the configuration, and what makes an image of it all."""
        manifest = self._json(json.loads(self._index)["manifests"][0]["digest"])
        config = self._json(manifest["config"]["digest"])
        diffs = [_hex(diff) for diff in config["rootfs"]["diff_ids"]]
        layers = [_hex(layer["digest"]) for layer in manifest["layers"]]
        for number, (layer, diff) in enumerate(zip(layers, diffs, strict=True)):
            if self._holds.get(layer) != diff and not self._of_a_base(diffs[: number + 1]):
                raise BuildFailed(f"the build left no layer {diff[:12]}")
        self.count = len(layers)
        self.given = sum(1 for layer in layers if layer in self._holds)
        for layer in sorted(set(layers) & set(self._small)):
            yield from _file(layer, self._small[layer])
        settings = config.setdefault("config", {})
        settings["Labels"] = {**(settings.get("Labels") or {}), **self._labels}
        body = json.dumps(config, separators=(",", ":")).encode()
        name = f"{hashlib.sha256(body).hexdigest()}.json"
        yield from _file(name, body)
        listed = [{"Config": name, "RepoTags": [self._tag], "Layers": layers}]
        yield from _file("manifest.json", json.dumps(listed).encode())
        yield bytes(2 * _BLOCK)

    def _json(self, digest: object) -> dict[str, Any]:
        found = json.loads(self._small[_hex(digest)])
        if not isinstance(found, dict):
            raise BuildFailed("the build left something that is no image")
        return found

    def _of_a_base(self, diffs: Sequence[str]) -> bool:
        """Return whether one of the images in ``bases`` begins with these layers."""
        return any([_hex(d) for d in base[: len(diffs)]] == list(diffs) for base in self._bases)


class _Content:
    """A piece of content that passes by: its digest, and that of what is packed in it."""

    def __init__(self) -> None:
        self._seen, self._inner = hashlib.sha256(), hashlib.sha256()
        self._unpack: Any = None
        self._begun = False

    def feed(self, piece: bytes, most: int) -> int:
        """See a piece; how many bytes were packed in it.

        Raises:
            BuildFailed: more than ``most``.
        """
        self._seen.update(piece)
        if not self._begun:
            self._begun = True
            self._unpack = zlib.decompressobj(_GZIP_BITS) if piece.startswith(_GZIP) else None
        size = 0
        while piece:
            inner, piece = self._next(piece)
            size += len(inner)
            if size > most:
                raise BuildFailed("the image is larger than the disk that a build may fill")
            self._inner.update(inner)
        return size

    def _next(self, piece: bytes) -> tuple[bytes, bytes]:
        """Some of what is packed, and what is left of the piece."""
        if self._unpack is None:
            return piece, b""
        if self._unpack.eof:
            raise BuildFailed("the build left a layer with something behind its end")
        inner = self._unpack.decompress(piece, _CHUNK)
        return inner, self._unpack.unconsumed_tail or self._unpack.unused_data

    @property
    def digest(self) -> str:
        return self._seen.hexdigest()

    @property
    def holds(self) -> str:
        return self._inner.hexdigest()


class _Pieces(io.RawIOBase):
    """Pieces of bytes, to be read as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, into: "WriteableBuffer") -> int:
        """Fill a buffer as far as one piece goes; returns how far."""
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        target = memoryview(into)
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _hex(digest: object) -> str:
    found = str(digest).removeprefix("sha256:")
    if not _HEX.fullmatch(found):
        raise BuildFailed(f"{str(digest)[:100]!r} is no digest")
    return found


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content))
    yield content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)
