"""Trees kept ready for whoever fetches them: few, not for long, and never at the loop's expense."""

import asyncio
import time
from pathlib import Path

import pytest

from kaos_hub.bundles import tree
from kaos_hub.bundles.scan import Scan
from kaos_hub.errors import Damaged, InvalidBundle, Unavailable
from kaos_hub.schemas import EntryKind, TreeEntry
from kaos_hub.service.workers import listings, wire_listing
from kaos_hub.service.workers.listings import Listings
from tests.strategies import EXAMPLE, File, scanned


class Counted:
    """Reads scanned folders, and counts."""

    def __init__(self, *folders: Scan) -> None:
        self.folders = folders
        self.asked: list[str] = []

    def __call__(self, digest: str) -> list[bytes]:
        self.asked.append(digest)
        (found, *_) = [folder for folder in self.folders if digest in folder.objects]
        return [b"".join(found.read(digest))]


def some(tmp_path: Path, number: int) -> list[Scan]:
    return [scanned(tmp_path / f"{n}", {"f": File(b"%d" % n)}) for n in range(number)]


async def test_those_who_ask_at_once_share_the_work(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    read = Counted(found)
    ready = Listings(read)
    first, *others = await asyncio.gather(*(ready.get(found.root) for _ in range(5)))
    assert all(other is first for other in others)
    assert read.asked.count(found.root) == 1
    leaving = asyncio.create_task(Listings(read).get(found.root))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await ready.get(found.root) is first


async def test_only_a_few_are_kept_and_none_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = some(tmp_path, 7)
    read = Counted(*folders)
    ready = Listings(read)
    for found in folders:
        await ready.get(found.root)
    read.asked.clear()
    for found in folders[3:]:
        await ready.get(found.root)
    assert read.asked == []
    await ready.get(folders[0].root)
    assert read.asked == [folders[0].root]
    monkeypatch.setattr(listings, "_WEIGHT", 1)
    await ready.get(folders[1].root)
    read.asked.clear()
    await ready.get(folders[1].root)
    await ready.get(folders[6].root)
    assert read.asked == [folders[6].root]
    monkeypatch.setattr(listings, "_IDLE", 0.01)
    await ready.get(folders[6].root)
    await asyncio.sleep(0.1)
    read.asked.clear()
    await ready.get(folders[6].root)
    assert read.asked == [folders[6].root]


async def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    lost = tmp_path / "a" / "model"
    sub = next(e.digest for e in tree.decode(b"".join(found.read(found.root))) if e.name == "model")
    there = False

    def read(digest: str) -> Path | list[bytes]:
        return lost / "lost" if digest == sub and not there else [b"".join(found.read(digest))]

    ready = Listings(read)
    for _ in range(2):
        answers = await asyncio.gather(
            *(ready.get(found.root) for _ in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Damaged] * 3
    there = True
    assert (await ready.get(found.root)).files == 4
    with pytest.raises(InvalidBundle):
        await ready.get(tree.digest(b"FROM python:3.13-slim\n"))


async def test_only_so_many_are_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "_PATIENCE", 0.05)
    monkeypatch.setattr(listings, "_STREAMS", 2)
    ready = Listings(lambda digest: [])
    await ready.take_turn()
    await ready.take_turn()
    with pytest.raises(Unavailable):
        await ready.take_turn()
    ready.turns.release()
    await ready.take_turn()


async def test_whoever_leaves_early_leaves_no_open_file(tmp_path: Path) -> None:
    folder = {"big": File(b"x" * 3_000_000)}
    found = scanned(tmp_path / "a", folder)
    path = tmp_path / "a" / "big"

    def read(digest: str) -> Path | list[bytes]:
        return path if digest != found.root else [b"".join(found.read(digest))]

    def opened() -> bool:
        return any(Path(link).resolve() == path for link in Path("/proc/self/fd").iterdir())

    ready = Listings(read)
    flattened = await ready.get(found.root)
    content = ready.content(flattened, 0, 1, 0)
    await anext(content)
    assert opened()
    leaving = asyncio.ensure_future(anext(content))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert not opened()


async def test_a_hundred_thousand_entries_do_not_stall_the_loop() -> None:
    objects: dict[str, bytes] = {}

    def put(content: bytes) -> str:
        return objects.setdefault(tree.digest(content), content) and tree.digest(content)

    def file(number: int) -> TreeEntry:
        digest = tree.digest(b"%d" % number)
        return TreeEntry(kind=EntryKind.FILE, digest=digest, size=3, name=f"{number:06}.csv")

    nodes = [
        (folder, put(tree.encode(file(1000 * folder + n) for n in range(1000))))
        for folder in range(100)
    ]
    root = put(
        tree.encode(
            TreeEntry(kind=EntryKind.DIRECTORY, digest=digest, size=3000, name=f"{folder:03}")
            for folder, digest in nodes
        )
    )
    lags: list[float] = []

    async def watch() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - begun - 0.005)

    watching = asyncio.create_task(watch())
    found = await Listings(lambda digest: [objects[digest]]).get(root)
    watching.cancel()
    assert found.files == 100_000
    assert found.weight < 20_000_000
    # It takes half a second: a loop that is held up for all of it sees hardly any of that.
    assert len(lags) > 10
    assert max(lags) < 0.3


def test_files_are_numbered_in_the_listings_order(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    form = wire_listing.flatten(found.root, found.read)
    read = Counted(found)
    assert form.files == 4
    contents = [b"".join(form.content(read, n, n + 1)) for n in range(4)]
    assert contents == [b"FROM python:3.13-slim\n", b"", b"humanize==4.9.0\n", b"#!/bin/sh\n"]
    assert b"".join(form.content(read, 0, 4)) == b"".join(contents)
    assert sum(map(len, form.listing())) == form.length
