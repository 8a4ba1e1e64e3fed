"""The database: the same on SQLite and PostgreSQL, exact when many ask, clear when broken."""

import asyncio
import os
from datetime import UTC
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from kaos_hub.database import Database, HoldingRow, NotebookRow, Table, now
from kaos_hub.errors import LimitExceeded, NotFound, Unavailable
from kaos_hub.ledger import Ledger

DIGEST = "blake3:" + "ab" * 32


def notebook(name: str, owner: str = "user:ada", **values: object) -> NotebookRow:
    return NotebookRow(id=f"{owner}-{name}", owner=owner, name=name, created=now(), **values)


async def test_migrations_make_exactly_the_tables(db: Database) -> None:
    """What alembic makes is what the code expects; a forgotten migration shows here."""

    def differences() -> list[object]:
        with create_engine(db.url).connect() as connection:
            context = MigrationContext.configure(connection)
            return list(compare_metadata(context, Table.metadata))

    assert await asyncio.to_thread(differences) == []


async def test_migrating_again_changes_nothing(db: Database) -> None:
    await db.run(lambda s: s.add(HoldingRow(owner="user:ada", digest=DIGEST, size=5)))
    await db.migrate()
    assert await db.run(lambda s: s.scalar(select(HoldingRow.size))) == 5


async def test_digests_and_moments_come_back_as_they_went(db: Database) -> None:
    at = now()
    await db.run(lambda s: s.add(HoldingRow(owner="user:ada", digest=DIGEST, size=5)))
    await db.run(lambda s: s.add(notebook("a", started=at)))
    row = await db.run(lambda s: s.get_one(NotebookRow, "user:ada-a"))
    assert row.started == at
    assert row.started.tzinfo == UTC
    assert await db.run(lambda s: s.scalar(select(HoldingRow.digest))) == DIGEST


async def test_a_failed_transaction_leaves_nothing(db: Database) -> None:
    def fail(session: Session) -> None:
        session.add(notebook("a"))
        session.flush()
        raise NotFound("no")

    with pytest.raises(NotFound):
        await db.run(fail)
    assert await db.run(lambda s: list(s.scalars(select(NotebookRow)))) == []


async def test_simultaneous_asks_never_oversell(db: Database) -> None:
    ledger = Ledger(db, {"default": {"notebooks": 2}})
    names = [f"n{i}" for i in range(6)]
    await db.run(lambda s: s.add_all([notebook(name) for name in names]))

    async def ask(name: str) -> bool:
        def admit(session: Session) -> None:
            row = session.get_one(NotebookRow, f"user:ada-{name}")
            ledger.admit(session, row, 1, 2**30, 0)

        try:
            await db.run(admit)
        except LimitExceeded:
            return False
        return True

    admitted = await asyncio.gather(*map(ask, names))
    assert sum(admitted) == 2
    assert (await ledger.usage("user:ada")).notebooks == 2


async def test_asking_again_holds_once(db: Database) -> None:
    ledger = Ledger(db, {"default": {"cpu": 2}})
    await db.run(lambda s: s.add(notebook("a")))
    for _ in range(3):
        await db.run(lambda s: ledger.admit(s, s.get_one(NotebookRow, "user:ada-a"), 1.5, 0, 0))
    assert (await ledger.usage("user:ada")).cpu == 1.5


@pytest.mark.parametrize(
    ("limits", "ask", "words"),
    [
        ({"cpu": 2}, (3, 0, 0), "2 cpu: 0 held, 3 asked for; 2 would fit"),
        ({"memory": "4Gi"}, (0, 5 * 2**30, 0), "4Gi memory: 0 held, 5Gi asked for; 4Gi would fit"),
        ({"gpu": 0}, (0, 0, 1), "0 gpu: 0 held, 1 asked for."),
        ({"notebooks": 0}, (0, 0, 0), "0 running notebooks: 0 held, 1 asked for."),
    ],
)
async def test_a_refusal_says_the_numbers(
    db: Database, limits: dict[str, object], ask: tuple[float, int, int], words: str
) -> None:
    ledger = Ledger(db, {"default": limits})
    await db.run(lambda s: s.add(notebook("a")))
    with pytest.raises(LimitExceeded, match=words):
        await db.run(lambda s: ledger.admit(s, s.get_one(NotebookRow, "user:ada-a"), *ask))
    assert (await ledger.usage("user:ada")).notebooks == 0


def test_a_users_limits_replace_the_default_ones(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/x.sqlite")
    ledger = Ledger(db, {"default": {"notebooks": 2, "gpu": 1}, "user:ada": {"notebooks": 9}})
    assert ledger.limits("user:ada").notebooks == 9
    assert ledger.limits("user:ada").gpu == 1
    assert ledger.limits("user:bob").notebooks == 2
    assert ledger.limits("group:ada").notebooks == 2
    db.close()


async def test_a_missing_directory_is_said_plainly(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/not/there.sqlite")
    with pytest.raises(Unavailable, match="unable to open database file"):
        await db.migrate()
    db.close()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_disk_refuses_clearly_and_recovers(tmp_path: Path, small_disk: Path) -> None:
    db = Database(f"sqlite:///{small_disk}/kaos.sqlite")
    await db.migrate()
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 65536)
            file.flush()

    def write(session: Session) -> None:
        for i in range(2000):
            digest = "blake3:" + f"{i:064x}"
            session.add(HoldingRow(owner="user:ada", digest=digest, size=i))

    with pytest.raises(Unavailable, match="Nothing was changed"):
        await db.run(write)
    filler.unlink()
    await db.run(write)
    assert len(await db.run(lambda s: list(s.scalars(select(HoldingRow.size))))) == 2000
    db.close()
