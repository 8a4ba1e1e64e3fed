"""Deleting bundles: what is refused, what is kept, and what no longer counts."""

from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from kaos_hub.bundles.scan import scan
from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import BundleKind, ChangeKind
from kaos_hub.service.bundles.browse import Catalogue
from kaos_hub.service.bundles.deletion import Removal
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow, IngestRow, InputRow, VersionRow, now
from kaos_hub.service.quota import Ledger, stored
from kaos_hub.stores.file import FileStore
from tests.history import notebook
from tests.test_versions import ADA, BOB, folder, frames, send, submit
from tests.training_history import training

DATA = BundleKind.DATA


@pytest_asyncio.fixture
async def versions(db: Database, tmp_path: Path) -> Versions:
    store = FileStore(tmp_path / "store")
    return Versions(db, store, Ledger(db, {}), max_file_size=10**6, max_files=1000)


@pytest.fixture
def removal(db: Database, versions: Versions) -> Removal:
    return Removal(db, versions)


@pytest.fixture
def catalogue(db: Database, versions: Versions) -> Catalogue:
    return Catalogue(db, versions)


async def held(db: Database, owner: str = ADA) -> int:
    return await db.run(lambda session: stored(session, owner))


async def test_a_version_goes_and_the_others_stay(
    db: Database, versions: Versions, removal: Removal, tmp_path: Path
) -> None:
    await submit(versions, ADA, folder(tmp_path / "a", {"x": "1" * 100, "same/y": "2" * 50}))
    before = await held(db)
    await submit(versions, ADA, folder(tmp_path / "b", {"x": "3" * 300, "same/y": "2" * 50}))
    await submit(versions, BOB, tmp_path / "b")
    gone = await removal.delete(ADA, DATA, "d", 2)
    assert gone.versions == [2] and gone.freed > 300
    assert await held(db) == before
    assert (await versions.get(ADA, DATA, "d")).version == 1, "what is left is the current one"
    assert (await versions.get(BOB, DATA, "d")).version == 1, "others keep theirs"
    tar = b"".join([p async for p in versions.archive((await versions.get(ADA, DATA, "d")).digest)])
    assert b"2" * 50 in tar
    with pytest.raises(NotFound):
        await removal.delete(ADA, DATA, "d", 2)


async def test_all_of_a_bundle_leaves_nothing_behind(
    db: Database, versions: Versions, removal: Removal, tmp_path: Path
) -> None:
    for n in range(3):
        await submit(versions, ADA, folder(tmp_path / str(n), {"x": str(n), "sub/deep/y": "y"}))
    assert (await removal.delete(ADA, DATA, "d")).versions == [1, 2, 3]
    assert await held(db) == 0 and await versions.list(ADA) == []
    # what comes again is a new bundle, sent anew
    assert (await submit(versions, ADA, tmp_path / "0")).version == 1


async def test_what_others_need_still_counts(
    db: Database, versions: Versions, removal: Removal, tmp_path: Path
) -> None:
    """The output of a trial, what an index names, and what was only just sent."""
    one = await submit(versions, ADA, folder(tmp_path / "a", {"w": "weights", "f": "fetched"}))
    await submit(versions, ADA, folder(tmp_path / "b", {"w": "weights"}), "kept-by-trial")
    digests = scan(tmp_path / "a").files
    fetched = next(digest for digest, (path, _) in digests.items() if path == "f")
    index = f'{{"url": "x", "digest": "{fetched}"}}\n'.encode()
    from kaos_hub.bundles import tree

    await send(versions, ADA, frames({tree.digest(index): index, tree.digest(b"new"): b"new"}))
    row = IngestRow(
        owner=ADA, manifest=one.digest, name="m", index=tree.digest(index), data_id=None, at=now()
    )
    await db.run(lambda session: session.add(row))
    gone = await removal.delete(ADA, DATA, "d")
    left = await db.run(lambda s: set(s.scalars(select(HoldingRow.digest))))
    assert one.digest not in left and gone.freed == len(await _node(versions, one.digest))
    assert {fetched, tree.digest(index), tree.digest(b"new"), tree.digest(b"weights")} <= left


async def _node(versions: Versions, digest: str) -> bytes:
    return await versions.object(digest)


async def test_it_is_refused_while_something_is_made_of_it(
    db: Database, versions: Versions, removal: Removal, tmp_path: Path
) -> None:
    await submit(versions, ADA, folder(tmp_path / "a", {"x": "1"}))
    await submit(versions, ADA, folder(tmp_path / "b", {"x": "2"}))
    ids = await db.run(lambda s: list(s.scalars(select(VersionRow.id).order_by(VersionRow.number))))
    rows = [notebook("lab", data_id=ids[0]), training(0x12, ADA, data_id=ids[0])]
    await db.run(lambda session: session.add_all(rows))
    for number in (1, None):
        with pytest.raises(Conflict, match=r"notebook lab, training digits \(0000000000000012\)"):
            await removal.delete(ADA, DATA, "d", number)
    assert await removal.users(ADA, DATA, "d", 2) == []
    await removal.delete(ADA, DATA, "d", 2)
    assert [v.version for v in await versions.list(ADA)] == [1]


async def test_what_one_trains_with_otherwise_is_forgotten(
    db: Database, versions: Versions, removal: Removal, tmp_path: Path
) -> None:
    await submit(versions, ADA, folder(tmp_path / "a", {"x": "1"}))

    def remember(session) -> None:  # type: ignore[no-untyped-def]
        version = session.scalar(select(VersionRow.id))
        session.add(
            InputRow(owner=ADA, source="", kind="data", version_id=version, author="ada", at=now())
        )

    await db.run(remember)
    await removal.delete(ADA, DATA, "d")
    assert await db.run(lambda s: s.scalar(select(InputRow.kind))) is None


async def test_bundles_are_listed_by_name(
    versions: Versions, catalogue: Catalogue, tmp_path: Path
) -> None:
    for number, name in enumerate(("Alpha", "beta_1", "betaX1")):
        await submit(versions, ADA, folder(tmp_path / name, {"x": str(number)}), name)
    await submit(versions, ADA, folder(tmp_path / "again", {"x": "9"}), "Alpha")
    found = await catalogue.names(ADA)
    assert [(b.name, b.versions, b.newest, b.current.version) for b in found] == [
        ("Alpha", 2, 2, 2), ("betaX1", 1, 1, 1), ("beta_1", 1, 1, 1),
    ]  # fmt: skip
    assert [b.name for b in await catalogue.names(ADA, search="alph")] == ["Alpha"]
    assert [b.name for b in await catalogue.names(ADA, search="a_1")] == ["beta_1"], "no wildcards"
    assert [b.name for b in await catalogue.names(ADA, limit=1, after=1)] == ["betaX1"]
    assert await catalogue.names(BOB) == []
    assert (await catalogue.all_of(ADA, DATA, "Alpha")).versions == 2
    with pytest.raises(NotFound):
        await catalogue.all_of(BOB, DATA, "Alpha")


async def test_two_versions_beside_each_other(
    versions: Versions, catalogue: Catalogue, tmp_path: Path
) -> None:
    files = {"same/a": "1", "gone/a": "1", "gone/b": "2", "edited": "x", "turns": "file"}
    first = await submit(versions, ADA, folder(tmp_path / "a", files))
    files = {"same/a": "1", "edited": "y", "turns/into": "folder", "new/deep/c": "3"}
    folder(tmp_path / "b", files)
    (tmp_path / "b" / "edited").chmod(0o755)
    (tmp_path / "b" / "empty").mkdir()
    second = await submit(versions, ADA, tmp_path / "b")
    found = await catalogue.compare(await catalogue.before(second.owner, second), second)
    assert [(c.change.value, c.path) for c in found.changes] == [
        ("changed", "edited"), ("added", "empty"), ("removed", "gone/a"), ("removed", "gone/b"),
        ("added", "new/deep/c"), ("removed", "turns"), ("added", "turns/into"),
    ]  # fmt: skip
    assert (found.added, found.removed, found.changed) == (3, 3, 1)
    few = await catalogue.compare(first, second, 1)
    assert len(few.changes) == 1 and few.removed == 3
    back = await catalogue.compare(second, first)
    assert (back.added, back.removed) == (3, 3)
    assert (await catalogue.compare(first, first)).changes == []
    assert await catalogue.before(first.owner, first) == first
    assert found.changes[0].change is ChangeKind.CHANGED


async def test_a_file_and_its_beginning(
    versions: Versions, catalogue: Catalogue, tmp_path: Path
) -> None:
    big = folder(tmp_path / "a", {"sub/big": "0123456789" * 50_000, "none": ""})
    version = await submit(versions, ADA, big)
    entry = await catalogue.file(version, "sub/big")
    assert await catalogue.beginning(entry, 12) == b"012345678901"
    assert b"".join([p async for p in catalogue.content(entry)]) == b"0123456789" * 50_000
    assert await catalogue.beginning(await catalogue.file(version, "none"), 12) == b""
    for path in ("sub", "nope", "sub/nope", ""):
        with pytest.raises(NotFound):
            await catalogue.file(version, path)
