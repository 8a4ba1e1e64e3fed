"""Versions: what an owner sent, what of it is a bundle, and that strangers learn nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kaos_hub.bundles import tree
from kaos_hub.bundles.scan import scan
from kaos_hub.errors import (
    InvalidBundle,
    InvalidRequest,
    LimitExceeded,
    MissingObjects,
    NotFound,
    TooLarge,
)
from kaos_hub.schemas import BundleKind, BundleVersion, CommitRequest, MissingRequest
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.quota import Ledger
from kaos_hub.stores.file import FileStore

ADA, BOB = "user:ada", "user:bob"


@pytest_asyncio.fixture
async def versions(db: Database, tmp_path: Path) -> AsyncIterator[Versions]:
    ledger = Ledger(db, {"default": {"storage": "1Mi"}})
    store = FileStore(tmp_path / "store")
    yield Versions(db, store, ledger, max_file_size=10**6, max_files=1000)


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


def objects(directory: Path) -> tuple[str, dict[str, bytes]]:
    """The root and all objects of a folder, as a client sends them."""
    found = scan(directory)
    return found.root, {digest: b"".join(found.read(digest)) for digest in found.objects}


def frames(content: dict[str, bytes]) -> bytes:
    return b"".join(
        f"{digest.removeprefix('blake3:')} {len(data)}\n".encode() + data
        for digest, data in content.items()
    )


async def send(versions: Versions, owner: str, wire: bytes, step: int = 7) -> int:
    """Feed the wire in small pieces, as a network might."""
    receiver = versions.receive(owner)
    for start in range(0, len(wire), step):
        await receiver.feed(wire[start : start + step])
    return await receiver.finish()


async def submit(
    versions: Versions, owner: str, directory: Path, name: str = "d", kind: str = "data"
) -> BundleVersion:
    root, content = objects(directory)
    sizes = {digest: len(data) for digest, data in content.items()}
    answer = await versions.missing(owner, MissingRequest(objects=sizes))
    await send(versions, owner, frames({digest: content[digest] for digest in answer.missing}))
    wanted = CommitRequest(kind=BundleKind(kind), name=name, root=root)
    return await versions.commit(owner, owner.removeprefix("user:"), wanted)


async def test_versions_are_numbered_and_an_old_tree_is_selected_again(
    versions: Versions, tmp_path: Path
) -> None:
    first = await submit(versions, ADA, folder(tmp_path / "a", {"x": "1", "sub/y": ""}))
    second = await submit(versions, ADA, folder(tmp_path / "b", {"x": "2"}))
    again = await submit(versions, ADA, folder(tmp_path / "c", {"x": "1", "sub/y": ""}))
    assert (first.version, second.version, again.version) == (1, 2, 1)
    assert (first.size, first.files) == (1, 2)
    current = await versions.get(ADA, BundleKind.DATA, "d")
    assert current.version == 1
    assert [v.version for v in await versions.list(ADA) if v.current] == [1]


async def test_only_what_is_missing_is_asked_for(versions: Versions, tmp_path: Path) -> None:
    await submit(versions, ADA, folder(tmp_path / "a", {"x": "1", "y": "2"}))
    root, content = objects(folder(tmp_path / "a", {"y": "3"}))
    sizes = {digest: len(data) for digest, data in content.items()}
    answer = await versions.missing(ADA, MissingRequest(objects=sizes))
    assert set(answer.missing) == {tree.digest(b"3"), root}


async def test_strangers_learn_nothing_and_get_nothing(versions: Versions, tmp_path: Path) -> None:
    version = await submit(versions, ADA, folder(tmp_path / "a", {"secret": "42"}))
    secret = tree.digest(b"42")
    asked = MissingRequest(objects={secret: 2, version.digest: 1})
    answer = await versions.missing(BOB, asked)
    assert set(answer.missing) == {secret, version.digest}
    for root in (version.digest, tree.digest(b"never sent by anybody")):
        wanted = CommitRequest(kind=BundleKind.DATA, name="mine", root=root)
        with pytest.raises(MissingObjects) as refused:
            await versions.commit(BOB, "bob", wanted)
        assert refused.value.details == {"missing": [root], "total": 1}
    # a tree of his own that names her file, or her folder, is refused as if it named nothing
    for inner in (secret, tree.digest(b"nobody's")):
        listing = f"kaos tree 1\nf {inner.removeprefix('blake3:')} 2 stolen\n".encode()
        await send(versions, BOB, frames({tree.digest(listing): listing}))
        wanted = CommitRequest(kind=BundleKind.DATA, name="mine", root=tree.digest(listing))
        with pytest.raises(MissingObjects):
            await versions.commit(BOB, "bob", wanted)
    with pytest.raises(NotFound):
        await versions.select(BOB, BundleKind.DATA, version.digest)
    assert await versions.list(BOB) == []


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b"nonsense\n", "digest and size"),
        (b"x" * 500, "digest and size"),
        (b"0" * 64 + b" 3\nabc", "send them again"),
        (b"0" * 64 + b" 3\nab", "middle of an object"),
        (b"0" * 30, "middle of an object"),
        (b"0" * 64 + b" -3\nabc", "digest and size"),
    ],
)
async def test_a_wrong_wire_is_refused(versions: Versions, wire: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await send(versions, ADA, wire)


async def test_what_was_complete_before_a_broken_connection_is_kept(
    versions: Versions, tmp_path: Path
) -> None:
    root, content = objects(folder(tmp_path / "a", {"x": "1" * 100, "y": "2" * 100}))
    wire = frames(content)
    receiver = versions.receive(ADA)
    await receiver.feed(wire[: len(wire) - 50])
    await receiver.abort()
    sizes = {digest: len(data) for digest, data in content.items()}
    answer = await versions.missing(ADA, MissingRequest(objects=sizes))
    assert len(answer.missing) == 1
    wanted = CommitRequest(kind=BundleKind.DATA, name="d", root=root)
    with pytest.raises(MissingObjects):
        await versions.commit(ADA, "ada", wanted)
    assert await versions.list(ADA) == []
    done = await submit(versions, ADA, tmp_path / "a")
    assert done.files == 2


async def test_storage_is_refused_before_bytes_move_and_on_the_wire(versions: Versions) -> None:
    asked = MissingRequest(objects={tree.digest(b"big"): 900_000, tree.digest(b"too"): 900_000})
    with pytest.raises(LimitExceeded, match=r"1Mi of storage: 0 held, 1\.72Mi to be added"):
        await versions.missing(ADA, asked)
    zeros = bytes(900_000)
    await send(versions, ADA, frames({tree.digest(zeros): zeros}), step=100_000)
    ones = b"1" * 900_000
    with pytest.raises(LimitExceeded, match=r"878\.91Ki held"):
        await send(versions, ADA, frames({tree.digest(ones): ones})[:200])
    with pytest.raises(TooLarge):
        await send(versions, ADA, b"0" * 64 + b" 5000000\n")


async def test_a_source_bundle_has_rules(versions: Versions, tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="Dockerfile"):
        await submit(versions, ADA, folder(tmp_path / "a", {"x": "1"}), kind="source")
    good = folder(tmp_path / "b", {"Dockerfile": "FROM scratch", "model/requirements.txt": ""})
    version = await submit(versions, ADA, good, kind="source")
    names = [entry.name for entry in await versions.entries(version)]
    assert names == ["Dockerfile", "model"]
    assert [e.name for e in await versions.entries(version, "model")] == ["requirements.txt"]
    with pytest.raises(NotFound, match="no directory 'nope'"):
        await versions.entries(version, "nope")


async def test_a_tree_that_lies_about_sizes_is_refused(versions: Versions) -> None:
    inner = tree.digest(b"42")
    listing = f"kaos tree 1\nf {inner.removeprefix('blake3:')} 99 x\n".encode()
    await send(versions, ADA, frames({inner: b"42", tree.digest(listing): listing}))
    wanted = CommitRequest(kind=BundleKind.DATA, name="d", root=tree.digest(listing))
    with pytest.raises(InvalidBundle, match="the tree says 99"):
        await versions.commit(ADA, "ada", wanted)


async def test_an_archive_holds_the_tree(versions: Versions, tmp_path: Path) -> None:
    import io
    import tarfile

    version = await submit(versions, ADA, folder(tmp_path / "a", {"x": "1", "sub/y": "2"}))
    data = b"".join([piece async for piece in versions.archive(version.digest)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(m.name for m in archive if m.isfile()) == ["sub/y", "x"]
