"""The database: the same on SQLite and PostgreSQL, exact when many ask, clear when broken."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.orm import Session

from kaos_hub.doctor import storage
from kaos_hub.doctor.finding import BAD, GOOD
from kaos_hub.errors import InvalidRequest, LimitExceeded, NotFound, Unavailable
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow, NotebookRow, Table, now
from kaos_hub.service.quota import Ledger
from tests import databases
from tests.hub import free_port

DIGEST = "blake3:" + "ab" * 32


def notebook(name: str, owner: str = "user:ada", **values: object) -> NotebookRow:
    return NotebookRow(id=f"{owner}-{name}", owner=owner, name=name, created=now(), **values)


async def test_migrations_make_exactly_the_tables(db: Database) -> None:
    """What alembic makes is what the code expects; a forgotten migration shows here."""

    assert await asyncio.to_thread(differences, db.url) == []


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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kaos:hunter2@db", "%2F"),
        ("mysql://kaos:hunter2@db/kaos", "works on SQLite and PostgreSQL"),
    ],
)
def test_what_is_no_database_is_said_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        Database(url)
    assert "hunter2" not in refused.value.message


def test_the_doctor_looks_at_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataDir(tmp_path)
    assert storage.database(data) == []
    (data.secrets / "database-url").write_text(f"sqlite:///{tmp_path}/kaos.sqlite")
    (found,) = storage.database(data)
    assert (found.name, found.state) == ("database", GOOD)
    where = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("KAOS_DATABASE_URL", f"postgresql://kaos:hunter2@{where}/kaos")
    (found,) = storage.database(data)
    assert (found.name, found.state) == ("database", BAD)
    assert f"kaos:***@{where}/kaos cannot be used" in found.text
    assert "hunter2" not in found.text


# --- migrations, when several begin, and when one is killed ---

MIGRATE = """
import asyncio, os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from kaos_hub.service.db.database import Database
url, until = sys.argv[1], int(sys.argv[2])
seen = 0
def killed(*_):
    global seen
    seen += 1
    if seen == until:
        os.kill(os.getpid(), 9)
event.listen(Engine, "after_cursor_execute", killed)
asyncio.run(Database(url).migrate())
print(seen)
"""
OLD = "0001"


def migrating(url: str, until: int = 0) -> "subprocess.Popen[str]":
    """A process that migrates, and kills itself after ``until`` statements."""
    command = [sys.executable, "-c", MIGRATE, url, str(until)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def differences(url: str) -> list[object]:
    """In what the tables differ from the classes."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = list(compare_metadata(MigrationContext.configure(connection), Table.metadata))
    engine.dispose()
    return found


@pytest.fixture(params=databases.chosen_kinds())
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database as the first version left it, with a notebook on a bundle."""
    url = databases.sqlite_url(tmp_path)
    if request.param == "postgresql":
        url = databases.postgresql_url(template=False)

    def add(session: Session) -> None:
        values = {"digest": bytes(32), "at": now(), "true": True, "false": False}
        for statement in (
            "INSERT INTO versions (id, owner, kind, name, number, digest, size, files, author,"
            " created, current) VALUES (1, 'user:ada', 'data', 'd', 1, :digest, 1, 1, 'ada', :at,"
            " :true)",
            "INSERT INTO notebooks (id, owner, name, display_name, wanted, data_id, restart, gpu,"
            " idle_timeout, idle_type, pull, state, reason, progress, build_state, build_reason,"
            " starts, workload, environment_key, created, stop_reason, held, held_cpu,"
            " held_memory, held_gpu, idle_reason) VALUES ('x', 'user:ada', 'n', '', 'STOPPED', 1,"
            " :false, 0, 0, 'activity', :false, 'STOPPED', '', 0, 'SKIPPED', '', 0, '', '', :at,"
            " '', :false, 0, 0, 0, '')",
        ):
            session.execute(text(statement), values)

    async def make() -> None:
        db = Database(url)
        await db.migrate(OLD)
        await db.run(add)
        db.close()

    asyncio.run(make())
    yield url
    databases.drop(url)


def tables(url: str) -> dict[str, list[str]]:
    """All tables there are, with their columns."""
    engine = create_engine(url)
    there = inspect(engine)
    found = {t: sorted(c["name"] for c in there.get_columns(t)) for t in there.get_table_names()}
    engine.dispose()
    return found


def kept(url: str) -> list[tuple[object, ...]]:
    """The notebook, with its bundle."""
    engine = create_engine(url)
    with engine.connect() as connection:
        query = "SELECT n.name, v.name FROM notebooks n JOIN versions v ON v.id = n.data_id"
        found = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return found


def test_current_inputs_go_with_the_source_that_was_current(old: str) -> None:
    """Those of an owner without one wait for the first."""

    def add(session: Session) -> None:
        for owner, kind, version in (("ada", "source", 2), ("ada", "data", 1), ("bob", "data", 1)):
            values = {"owner": f"user:{owner}", "kind": kind, "version": version, "at": now()}
            session.execute(
                text("INSERT INTO inputs VALUES (:owner, :kind, :version, 'ada', :at)"), values
            )

    def more(session: Session) -> None:
        session.execute(
            text(
                "INSERT INTO versions SELECT 2, owner, 'source', 'moons', number, digest, size,"
                " files, author, created, current FROM versions WHERE id = 1"
            )
        )
        add(session)

    def look(session: Session) -> list[tuple[object, ...]]:
        query = text("SELECT owner, source, kind, version_id FROM inputs ORDER BY owner, kind")
        return [tuple(row) for row in session.execute(query)]

    async def migrate() -> list[tuple[object, ...]]:
        db = Database(old)
        await db.migrate("0008")
        await db.run(more)
        await db.migrate()
        found = await db.run(look)
        db.close()
        return found

    assert asyncio.run(migrate()) == [
        ("user:ada", "moons", "data", 1),
        ("user:ada", "moons", "source", 2),
        ("user:bob", "", "data", 1),
    ]


def test_what_a_base_image_means_goes_with_who_built_on_it(old: str) -> None:
    """And what stands in no Dockerfile with everybody who has a notebook; the latest counts."""

    def add(session: Session) -> None:
        first, last = now() - timedelta(days=2), now()
        for reference, resolved in (("python:3.11", "sha256:old"), ("default", "sha256:one")):
            row = {"reference": reference, "resolved": resolved, "at": first}
            session.execute(
                text("INSERT INTO bases VALUES ('docker', :reference, :resolved, :at)"), row
            )
        for owner, key, bases, created in (
            ("ada", "a", {"python:3.11": "sha256:old"}, first),
            ("ada", "b", {"python:3.11": "sha256:new", "debian": "sha256:d"}, last),
            ("bob", "a", {"python:3.11": "sha256:old"}, first),
            ("bob", "c", None, last),
        ):
            inputs = {} if bases is None else {"bases": bases}
            row = {"owner": f"user:{owner}", "key": key, "inputs": json.dumps(inputs)}
            session.execute(
                text(
                    "INSERT INTO images (owner, key, engine, result, inputs, created)"
                    " VALUES (:owner, :key, 'docker', '{}', :inputs, :at)"
                ),
                row | {"at": created},
            )

    def look(session: Session) -> list[tuple[object, ...]]:
        query = text("SELECT owner, engine, reference, resolved FROM bases ORDER BY 1, 2, 3")
        return [tuple(row) for row in session.execute(query)]

    async def migrate() -> list[tuple[object, ...]]:
        db = Database(old)
        await db.migrate("0012")
        await db.run(add)
        await db.migrate()
        found = await db.run(look)
        db.close()
        return found

    assert asyncio.run(migrate()) == [
        ("user:ada", "docker", "debian", "sha256:d"),
        ("user:ada", "docker", "default", "sha256:one"),
        ("user:ada", "docker", "python:3.11", "sha256:new"),
        ("user:bob", "docker", "python:3.11", "sha256:old"),
    ]
    assert differences(old) == []


def test_of_many_that_begin_at_once_one_migrates(old: str) -> None:
    started = [migrating(old) for _ in range(4)]
    statements = [int(process.communicate(timeout=60)[0]) for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert sum(many > 2 * min(statements) for many in statements) == 1
    assert differences(old) == []
    assert kept(old) == [("n", "d")]


def test_a_killed_migration_leaves_the_tables_as_they_were(old: str) -> None:
    before = tables(old)
    assert "trainings" not in before
    for until in (8, 16, 32):
        killed = migrating(old, until)
        killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert tables(old) == before
        assert kept(old) == [("n", "d")]
    assert migrating(old).wait(60) == 0
    assert differences(old) == []
    assert kept(old) == [("n", "d")]
