"""The contract of stores, kept by every store; then what only the file store can be asked."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kaos_hub.bundles.materialise import materialise
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.bundles.tree import digest
from kaos_hub.errors import InvalidRequest, NotFound, StorageFull, Unavailable
from kaos_hub.stores.access import open_store, reader
from kaos_hub.stores.base import Store
from kaos_hub.stores.file import STALE, FileStore
from tests.strategies import EXAMPLE, File, Folder, scanned

SMALL = b"hello"
LARGE = bytes(range(256)) * (5 << 12)  # five megabytes, more than any buffer


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    server = request.getfixturevalue("s3_server")
    secrets = server.key_files(tmp_path / "secrets")
    return open_store(server.url(server.bucket(), "of tests/a"), secrets)


async def put(store: Store, content: bytes, piece: int = 1 << 16) -> str:
    """Store bytes, ``piece`` bytes at a time. Returns their digest."""
    upload = await store.upload(digest(content), len(content))
    for start in range(0, len(content), piece):
        await upload.write(content[start : start + piece])
    await upload.finish()
    return digest(content)


async def get(store: Store, name: str, chunk: int = 1 << 20) -> bytes:
    return b"".join([piece async for piece in store.read(name, chunk)])


async def put_bundle(store: Store, found: Scan) -> None:
    for name in found.objects:
        await put(store, b"".join(found.read(name)))


class TestEveryStore:
    """What any store promises."""

    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    async def test_gives_back_what_it_took(self, store: Store, content: bytes) -> None:
        name = await put(store, content)
        assert await get(store, name) == content
        assert await store.size(name) == len(content)
        assert await store.check(name)

    async def test_gives_it_back_in_pieces_of_the_size_asked_for(self, store: Store) -> None:
        name = await put(store, b"0123456789")
        assert [piece async for piece in store.read(name, 4)] == [b"0123", b"4567", b"89"]

    async def test_taking_the_same_again_is_harmless(self, store: Store) -> None:
        for content in (SMALL, LARGE):
            name = await put(store, content)
            assert await put(store, content) == name
            assert await get(store, name) == content

    async def test_many_at_once(self, store: Store) -> None:
        contents = [b"%d" % (number % 50) for number in range(200)]
        names = await asyncio.gather(*(put(store, content) for content in contents))
        assert [await get(store, name) for name in names] == contents

    async def test_an_absent_object_is_absent(self, store: Store) -> None:
        name = digest(b"never stored")
        assert await store.size(name) is None
        assert not await store.check(name)
        with pytest.raises(NotFound, match=name):
            await get(store, name)

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_other_bytes_are_refused(self, store: Store, content: bytes) -> None:
        """Also where the object is held already: sending is proof of having."""
        name = digest(content)
        for _ in range(2):
            upload = await store.upload(name, len(content))
            await upload.write(b"x" + content[1:])
            with pytest.raises(InvalidRequest, match="the bytes sent"):
                await upload.finish()
            await upload.abort()
            await put(store, content)
        assert await get(store, name) == content

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_too_few_bytes_are_refused(self, store: Store, content: bytes) -> None:
        upload = await store.upload(digest(content), len(content))
        await upload.write(content[:-1])
        with pytest.raises(InvalidRequest, match="instead of"):
            await upload.finish()
        assert await store.size(digest(content)) is None

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_too_many_bytes_are_refused_as_they_come(
        self, store: Store, content: bytes
    ) -> None:
        upload = await store.upload(digest(content), len(content))
        with pytest.raises(InvalidRequest, match="more bytes"):
            await upload.write(content + b".")
        await upload.abort()
        assert await store.size(digest(content)) is None

    @pytest.mark.parametrize("written", [0, 1, len(LARGE)])
    async def test_an_aborted_upload_leaves_nothing(self, store: Store, written: int) -> None:
        upload = await store.upload(digest(LARGE), len(LARGE))
        await upload.write(LARGE[:written])
        await upload.abort()
        await upload.abort()
        assert await store.size(digest(LARGE)) is None
        with pytest.raises(InvalidRequest):
            await upload.finish()
        assert await store.size(digest(LARGE)) is None

    async def test_an_abort_after_the_finish_keeps_the_object(self, store: Store) -> None:
        upload = await store.upload(digest(SMALL), len(SMALL))
        await upload.write(SMALL)
        await upload.finish()
        await upload.abort()
        assert await get(store, digest(SMALL)) == SMALL

    @pytest.mark.parametrize(
        "name",
        ["", "hello", "blake3:../../../etc/passwd", "blake3:" + "A" * 64, "sha256:" + "0" * 64],
    )
    async def test_what_is_no_digest_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(InvalidRequest):
            await store.upload(name, 1)
        with pytest.raises(InvalidRequest):
            await store.size(name)
        with pytest.raises(InvalidRequest):
            await get(store, name)

    async def test_its_url_opens_it_again(self, store: Store, tmp_path: Path) -> None:
        name = await put(store, SMALL)
        again = open_store(store.url, tmp_path / "secrets")
        assert type(again) is type(store)
        assert again.url == store.url
        assert await get(again, name) == SMALL

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    async def test_a_thread_reads_it_from_anywhere_on(self, store: Store, content: bytes) -> None:
        name = await put(store, content)
        for offset in (0, 1, len(content) - 1):
            pieces = await asyncio.to_thread(lambda at=offset: list(store.pieces(name, at)))
            assert b"".join(pieces) == content[offset:]
        with pytest.raises(NotFound):
            await asyncio.to_thread(lambda: list(store.pieces(digest(b"never stored"), 0)))

    async def test_it_can_be_used_and_tidied_up(self, store: Store) -> None:
        name = await put(store, SMALL)
        await store.probe()
        assert await store.tidy() == 0
        assert await get(store, name) == SMALL

    async def test_trees_can_be_laid_out_of_it(self, store: Store, tmp_path: Path) -> None:
        found = scanned(tmp_path / "a", EXAMPLE)
        await put_bundle(store, found)
        for link in (True, False):
            target = tmp_path / f"out {link}"
            await asyncio.to_thread(materialise, found.root, reader(store), target, link=link)
            assert scan(target).root == found.root


@pytest.mark.parametrize(
    "url", ["", "nowhere", "ftp://host/x", "file://host/x", "file:x", "/srv/x"]
)
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="file"):
        open_store(url)


# --- the file store -------------------------------------------------------------------------------


def left_over(path: Path) -> list[Path]:
    return list((path / "tmp").iterdir())


async def test_objects_are_read_only_files_under_their_digest(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "a store")
    name = await put(store, SMALL)
    path = tmp_path / "a store/objects/ea" / name.removeprefix("blake3:ea")
    assert path == store.local_path(name)
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.url == f"file://{tmp_path}/a%20store"
    assert left_over(store.path) == []


async def test_one_inode_per_digest(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    inode = store.local_path(await put(store, LARGE)).stat().st_ino
    assert store.local_path(await put(store, LARGE)).stat().st_ino == inode


async def test_a_torn_object_is_healed_by_sending_it_again(tmp_path: Path) -> None:
    """As a disk may leave one behind after a power failure."""
    store = FileStore(tmp_path)
    path = store.local_path(await put(store, SMALL))
    path.unlink()
    path.touch()
    assert not await store.check(digest(SMALL))
    assert await get(store, await put(store, SMALL)) == SMALL


async def test_rot_is_found(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    path = store.local_path(await put(store, SMALL))
    path.chmod(0o600)
    path.write_bytes(b"hellO")
    assert not await store.check(digest(SMALL))


async def test_old_unfinished_objects_go_when_the_store_is_tidied_up(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    upload = await store.upload(digest(LARGE), len(LARGE))
    await upload.write(LARGE)
    (running,) = left_over(tmp_path)
    abandoned = tmp_path / "tmp/abandoned"
    abandoned.touch()
    os.utime(abandoned, (time.time() - STALE - 60,) * 2)
    assert await FileStore(tmp_path).tidy() == 1
    assert left_over(tmp_path) == [running]
    await upload.finish()
    assert await get(store, digest(LARGE)) == LARGE


async def test_a_folder_that_cannot_be_a_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file"):
        FileStore(tmp_path / "file")


async def test_a_reader_that_stops_early_leaves_no_open_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    name = await put(store, LARGE)
    before = len(os.listdir("/proc/self/fd"))
    reading = store.read(name, 1024)
    assert await anext(reading)
    await reading.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    """An abort may come while a thread still writes."""
    store = FileStore(tmp_path)
    upload = await store.upload(digest(LARGE), len(LARGE))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await upload.write(LARGE)
    await upload.abort()
    assert left_over(tmp_path) == []
    assert await store.size(digest(LARGE)) is None


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        run = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if run.returncode:
        pytest.skip(f"a small disk cannot be mounted: {run.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_keeps_what_was_there_and_nothing_else(tiny_disk: Path) -> None:
    store = FileStore(tiny_disk / "store")
    kept = await put(store, b"k" * 300_000)
    for content in (b"x" * 900_000, LARGE):  # fails at the end; fails on the way
        upload = await store.upload(digest(content), len(content))
        with pytest.raises(StorageFull, match="what was there before is intact"):
            for start in range(0, len(content), 1 << 16):
                await upload.write(content[start : start + (1 << 16)])
            await upload.finish()
        assert left_over(store.path) == []
        assert await store.size(digest(content)) is None
        await upload.abort()
    assert await store.check(kept)
    assert await get(store, await put(store, b"y" * 300_000)) == b"y" * 300_000


async def test_a_full_disk_leaves_no_half_tree(tiny_disk: Path, tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", {"one": File(b"1" * 600_000), "two": File(b"2" * 600_000)})
    store = FileStore(tmp_path / "store")
    await put_bundle(store, found)
    with pytest.raises(StorageFull, match="nothing of it was kept"):
        await asyncio.to_thread(
            materialise, found.root, reader(store), tiny_disk / "out", link=True
        )
    assert list(tiny_disk.iterdir()) == []


# --- laying out as a process of its own -----------------------------------------------------------


def layout(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kaos_hub.stores.layout", *map(str, arguments)]


async def test_the_command_lays_out_and_says_so(tmp_path: Path) -> None:
    found = scanned(tmp_path / "a", EXAMPLE)
    store = FileStore(tmp_path / "store")
    await put_bundle(store, found)
    for _ in range(2):
        run = await asyncio.to_thread(
            subprocess.run,
            layout(found.root, store.url, tmp_path / "trees/out", "--link"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.endswith(f"laid out {tmp_path}/trees/out\n")
    assert scan(tmp_path / "trees/out").root == found.root


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        (digest(b"never stored"), "file://{}", "there is no object"),
        ("hello", "file://{}", "'hello' is no digest"),
        (digest(b""), "s9://x", "names no store"),
    ],
)
def test_the_command_fails_with_one_clear_line(
    tmp_path: Path, name: str, url: str, said: str
) -> None:
    run = subprocess.run(
        layout(name, url.format(tmp_path / "store"), tmp_path / "trees/out"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "trees/out").exists()


@pytest.fixture
async def many_files(tmp_path: Path) -> AsyncIterator[tuple[Scan, FileStore]]:
    """A tree that takes a while to lay out, in a store."""
    folder: Folder = {
        f"folder {number}": {f"{other}": File(b"%d" % other, True) for other in range(100)}
        for number in range(50)
    }
    found = scanned(tmp_path / "a", folder)
    store = FileStore(tmp_path / "store")
    await put_bundle(store, found)
    yield found, store


def start_and_kill(command: list[str], partial: Path, after: int) -> bool:
    """Kill the command when it has made some folders. Whether it was still at work."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if partial.is_dir() and len(os.listdir(partial)) >= after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    return process.wait() == -signal.SIGKILL


async def test_killed_half_way_it_is_simply_run_again(
    many_files: tuple[Scan, FileStore], tmp_path: Path
) -> None:
    found, store = many_files
    command = layout(found.root, store.url, tmp_path / "trees/out")
    partial = tmp_path / "trees/.out.partial"
    for after in (1, 20):
        assert await asyncio.to_thread(start_and_kill, command, partial, after)
        assert not (tmp_path / "trees/out").exists()
        assert partial.exists()
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    assert scan(tmp_path / "trees/out").root == found.root
    assert os.listdir(tmp_path / "trees") == ["out"]
