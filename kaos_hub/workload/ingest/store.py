"""Files that an ingest has fetched, on their way into the store; and the tree that they become."""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from kaos_hub.bundles import tree
from kaos_hub.formats.manifest import Entry
from kaos_hub.schemas import EntryKind, Fetched, TreeEntry
from kaos_hub.transport.workload import Sender, Work
from kaos_hub.workload.ingest.files import Part

_BATCH_BYTES = 8 << 20
_BATCH_FILES = 500
_PIECE = 1 << 20
_SLICE = 10_000


class Content(NamedTuple):
    """The content of a file."""

    digest: str
    size: int


class Shipper:
    """Sends files as they come, in a thread of its own, and deletes them.

    Args:
        work: to the service.
        done: told of each file that the owner holds now.
        failed: told of what went wrong; nothing is sent any more then.
    """

    def __init__(
        self,
        work: Work,
        done: Callable[[Entry, Content], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._sender = Sender(work)
        self._done, self._failed = done, failed
        # As many small files as are held in memory besides those that are being sent.
        self._waiting: queue.Queue[Part | None] = queue.Queue(_BATCH_FILES)
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="ship", daemon=True)
        self._thread.start()

    def add(self, part: Part) -> None:
        """Send a file, some time soon; waits while many others wait."""
        self._waiting.put(part)

    def finish(self) -> None:
        """Wait until all are sent."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (part := self._waiting.get()) is not None:
            batch, size, last = [part], part.size, False
            while size < _BATCH_BYTES and len(batch) < _BATCH_FILES and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
                size += following.size
            self._ship(batch)
            if last:
                return

    def _ship(self, batch: list[Part]) -> None:
        try:
            if not self._broken:
                parts = {part.digest: part for part in batch}
                sizes = {digest: part.size for digest, part in parts.items()}
                self._sender.send(sizes, lambda digest: parts[digest].content())
                for part in batch:
                    self._done(part.entry, Content(part.digest, part.size))
        except BaseException as e:  # whatever it is, the main thread must hear of it
            self._broken = True
            self._failed(e)
        finally:
            for part in batch:
                part.drop()


def pieces(path: Path) -> Iterator[bytes]:
    """The content of a file."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def grow(files: Iterable[tuple[str, Content]]) -> tuple[str, dict[str, bytes]]:
    """The tree of files: the root's digest, and the listings of all folders by digest.

    Raises:
        InvalidBundle: a folder cannot be; the manifest's paths were checked before.
    """
    folders: dict[str, dict[str, TreeEntry]] = {"": {}}
    for path, content in files:
        folder, _, name = path.rpartition("/")
        _open(folders, folder)[name] = TreeEntry(
            kind=EntryKind.FILE, digest=content.digest, size=content.size, name=name
        )
    nodes: dict[str, bytes] = {}
    # The deepest first: a folder is listed with the digests of those within.
    for folder in sorted(folders, key=lambda path: path.count("/") + bool(path), reverse=True):
        entries = folders.pop(folder)
        node = tree.encode(entries.values(), folder)
        digest = tree.digest(node)
        nodes[digest] = node
        if not folder:
            return digest, nodes
        above, _, name = folder.rpartition("/")
        size = sum(entry.size for entry in entries.values())
        folders[above][name] = TreeEntry(
            kind=EntryKind.DIRECTORY, digest=digest, size=size, name=name
        )
    raise AssertionError("the root is always there")


def _open(folders: dict[str, dict[str, TreeEntry]], folder: str) -> dict[str, TreeEntry]:
    """The entries of a folder, which is made with those above it."""
    if folder not in folders:
        folders[folder] = {}
        _open(folders, folder.rpartition("/")[0])
    return folders[folder]


# --- the index: what was fetched from where ---


def write_index(path: Path, files: Iterable[tuple[Entry, Content]]) -> Content:
    """Write an index; what it is as an object."""
    seen, size = blake3(), 0
    with path.open("wb") as file:
        for entry, content in files:
            line = Fetched(
                path=entry.path,
                url=entry.url,
                digest=content.digest,
                size=content.size,
                sha256=entry.sha256,
            )
            raw = line.model_dump_json().encode() + b"\n"
            seen.update(raw)
            size += len(raw)
            file.write(raw)
    return Content(f"blake3:{seen.hexdigest()}", size)


def unchanged(entries: Iterable[Entry], index: Path) -> dict[str, Content]:
    """The entries that stand in an index as they are: path → content."""
    wanted = {entry.path: entry for entry in entries}
    found: dict[str, Content] = {}
    with index.open("rb") as lines:
        for raw in lines:
            line = Fetched.model_validate(json.loads(raw))
            entry = wanted.get(line.path)
            if (
                entry is not None
                and (entry.url, entry.sha256) == (line.url, line.sha256)
                and entry.size in (None, line.size)
            ):
                found[line.path] = Content(line.digest, line.size)
    return found


def still_held(work: Work, found: Mapping[str, Content]) -> dict[str, Content]:
    """Those of some files whose content the owner holds; raises as :meth:`Sender.send`."""
    sender, lacking = Sender(work), set[str]()
    sizes = list({content.digest: content.size for content in found.values()}.items())
    for start in range(0, len(sizes), _SLICE):
        lacking.update(sender.missing(dict(sizes[start : start + _SLICE])))
    return {path: content for path, content in found.items() if content.digest not in lacking}
