"""Backups: of what is at work, whole or refused, restored to where nothing is."""

import asyncio
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import inspect, select

from kaos_hub.bundles.scan import scan
from kaos_hub.client import Client
from kaos_hub.errors import Conflict, InvalidRequest
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import BundleKind, CommitRequest
from kaos_hub.service.backup import Backup, check, make, restore, rows
from kaos_hub.service.backup.__main__ import main
from kaos_hub.service.backup.folder import Manifest
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import TrainingRow, VersionRow, now
from kaos_hub.service.quota import Ledger
from kaos_hub.stores.access import open_store
from kaos_hub.stores.base import Store
from tests import databases, s3
from tests.hub import running_hub, wait_until

ADA = "user:ada"


@dataclass
class Place:
    """A database, a store and a data directory."""

    db: Database
    store: Store
    data: DataDir
    versions: Versions

    async def commit(self, folder: Path, name: str, text: str) -> str:
        """A folder with one file as a version; its digest."""
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{name}.txt").write_text(text)
        found = scan(folder / name)
        receiver = self.versions.receive(ADA)
        for digest, size in found.objects.items():
            await receiver.feed(f"{digest.removeprefix('blake3:')} {size}\n".encode())
            for piece in found.read(digest):
                await receiver.feed(piece)
        await receiver.finish()
        wanted = CommitRequest(kind=BundleKind.DATA, name=name, root=found.root)
        await self.versions.commit(ADA, "ada", wanted)
        return found.root


Make = Callable[[str, str], Place]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes places, with a kind of database and a kind of store."""
    made: list[Place] = []

    def new(database: str, kind: str) -> Place:
        data = DataDir(tmp_path / f"place-{len(made)}")
        url = f"sqlite:///{data.database}"
        if database == "postgresql":
            url = databases.postgresql_url(template=False)
        where = data.store.as_uri()
        if kind == "s3":
            server: s3.Server = request.getfixturevalue("s3_server")
            server.key_files(data.secrets)
            where = server.url(server.bucket(), "p")
        db, store = Database(url), open_store(where, data.secrets)
        versions = Versions(db, store, Ledger(db, {}), 1 << 40, 1000)
        made.append(Place(db, store, data, versions))
        return made[-1]

    yield new
    for each in made:
        each.db.close()
        databases.drop(each.db.url)


def quiet(_: str) -> None:
    pass


def training(number: int | None = None) -> TrainingRow:
    more = {} if number is None else {"number": number}
    return TrainingRow(
        id=os.urandom(4).hex(), owner=ADA, name="t", author="ada", deadline=1, state="SUCCEEDED",
        created=now(), started=now(), metrics=["loss"], best_score=0.5, **more,
    )  # fmt: skip


@pytest.fixture
async def full(place: Make, tmp_path: Path) -> Place:
    """A place with some of everything."""
    made = place("sqlite", "file")
    await made.db.migrate()
    below = await made.commit(tmp_path / "bundles", "below", "first")
    (tmp_path / "bundles" / "above" / "folder").mkdir(parents=True)
    (tmp_path / "bundles" / "above" / "folder" / "more").write_text("more")
    above = await made.commit(tmp_path / "bundles", "above", "second")
    both = await made.versions.compose(below, above)
    (made.data.logs / "a.log").write_text("what was said\n")

    def add(session: object) -> None:
        from tests.history import notebook

        session.add(notebook("mine", good_tree=both, options={"a": None}))  # type: ignore[attr-defined]
        session.add_all([training(), training()])  # type: ignore[attr-defined]

    await made.db.run(add)
    # a number that was given once
    await made.db.run(lambda s: s.delete(s.get_one(TrainingRow, 2)))
    return made


async def content(db: Database) -> list[rows.Row]:
    """All rows."""

    def look(connection: rows.Connection) -> list[rows.Row]:
        import io

        file = io.StringIO()
        rows.write(connection, file)
        return list(rows.read(io.StringIO(file.getvalue())))

    return await db.look(look)


KINDS = [("sqlite", "file"), ("postgresql", "file"), ("sqlite", "s3"), ("postgresql", "s3")]


@pytest.mark.parametrize(("database", "store"), KINDS)
async def test_all_is_back_wherever_it_is_restored(
    full: Place, place: Make, tmp_path: Path, database: str, store: str
) -> None:
    await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
    await check(tmp_path / "backup", quiet)
    there = place(database, store)
    await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    assert await content(there.db) == await content(full.db)
    objects = [p for p in (full.data.store / "objects").rglob("*") if p.is_file()]
    assert len(objects) == 7  # three files, two listings and a folder's, one of both together
    for path in objects:
        digest = f"blake3:{path.parent.name}{path.name}"
        assert await there.store.check(digest), digest
    assert (there.data.logs / "a.log").read_text() == "what was said\n"
    # The same again, from there: nothing depends on the kind.
    await make(tmp_path / "again", there.db, there.store, there.data, quiet)
    back = place("sqlite", "file")
    await restore(tmp_path / "again", back.db, back.store, back.data, quiet)
    assert await content(back.db) == await content(full.db)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_no_number_is_given_twice(
    full: Place, place: Make, tmp_path: Path, database: str
) -> None:
    await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
    there = place(database, "file")
    await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    await there.db.run(lambda s: s.add(training()))
    numbers = await there.db.run(lambda s: list(s.scalars(select(TrainingRow.number))))
    assert sorted(numbers) == [1, 3]
    assert await there.commit(tmp_path / "bundles", "third", "third")


async def test_again_only_what_is_new_is_copied(full: Place, tmp_path: Path) -> None:
    said: list[str] = []
    await make(tmp_path / "backup", full.db, full.store, full.data, said.append)
    assert said[-1].startswith("7 objects") and said[-1].endswith("7 of them copied")
    await full.commit(tmp_path / "bundles", "third", "third")
    made = await make(tmp_path / "backup", full.db, full.store, full.data, said.append)
    assert said[-1].startswith("9 objects") and said[-1].endswith("2 of them copied")
    await check(tmp_path / "backup", quiet)
    assert {p.name for p in (tmp_path / "backup").glob("*.gz")} == {made.rows, made.more}
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


async def test_it_is_of_one_moment_while_others_write(
    full: Place, place: Make, tmp_path: Path
) -> None:
    """Whatever a restored row names is there, however much was written meanwhile."""
    stop = threading.Event()

    async def write() -> None:
        other = Database(full.db.url)
        versions = Versions(other, full.store, Ledger(other, {}), 1 << 40, 1000)
        writer, number = Place(other, full.store, full.data, versions), 0
        while not stop.is_set():
            number += 1
            await writer.commit(tmp_path / "written", f"name-{number}", f"text {number}")
        other.close()

    writing = threading.Thread(target=asyncio.run, args=(write(),))
    writing.start()
    try:
        for _ in range(3):
            await asyncio.sleep(0.2)
            await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
            manifest = await check(tmp_path / "backup", quiet)
    finally:
        stop.set()
        writing.join()
    there = place("sqlite", "file")
    await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    versions = await there.db.run(lambda s: list(s.scalars(select(VersionRow.digest))))
    assert len(versions) == manifest.counts["versions"] > 2
    for digest in versions:
        assert await there.versions.facts(ADA, digest)
        assert await there.versions.files(digest)


def cut(path: Path, size: int = 1) -> None:
    """Take bytes from the end of a file."""
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - size)


def some_object(backup: Path) -> Path:
    return max((p for p in (backup / "store/objects").rglob("*") if p.is_file()), key=str)


def rot(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))


TROUBLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda b: (b / "kaos-backup.json").unlink(), "There is no backup in"),
    "half a manifest": (lambda b: cut(b / "kaos-backup.json", 40), "describes no backup"),
    "half the rows": (lambda b: cut(next(b.glob("rows-*")), 40), "is not what was written"),
    "no rows": (lambda b: next(b.glob("rows-*")).unlink(), "No such file"),
    "half of what is the Hub's": (lambda b: cut(next(b.glob("files-*"))), "not what was written"),
    "no objects": (lambda b: shutil.rmtree(b / "store"), "objects are missing or damaged"),
    "an object less": (lambda b: some_object(b).unlink(), "1 objects are missing or damaged"),
    "half an object": (lambda b: cut(some_object(b)), "1 objects are missing or damaged"),
    "rot": (lambda b: rot(some_object(b)), "1 objects are missing or damaged"),
    "another format": (
        lambda b: (b / "kaos-backup.json").write_text('{"format": 2}'), "backup of format 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_what_is_not_whole_is_refused_and_nothing_is_half_done(
    full: Place, place: Make, tmp_path: Path, trouble: str
) -> None:
    break_it, said = TROUBLES[trouble]
    backup = tmp_path / "backup"
    await make(backup, full.db, full.store, full.data, quiet)
    break_it(backup)
    there = place("sqlite", "file")
    for refused in (
        lambda: check(backup, quiet),
        lambda: restore(backup, there.db, there.store, there.data, quiet),
    ):
        with pytest.raises(InvalidRequest, match=said):
            await refused()
    assert await there.db.look(lambda c: inspect(c).get_table_names()) == []
    assert list(there.data.logs.iterdir()) == []
    assert not there.data.hub_database.exists()


async def test_what_the_store_lacks_is_said_and_the_rest_is_kept(
    full: Place, place: Make, tmp_path: Path
) -> None:
    lost, rotten = sorted(p for p in (full.data.store / "objects").rglob("*") if p.is_file())[:2]
    lost.unlink()
    rot(rotten)
    made = await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
    names = {f"blake3:{path.parent.name}{path.name}" for path in (lost, rotten)}
    assert set(made.lacking) <= names and made.lacking
    await check(tmp_path / "backup", quiet)
    there = place("sqlite", "file")
    await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    assert await content(there.db) == await content(full.db)


async def test_nothing_is_overwritten_unless_told(full: Place, place: Make, tmp_path: Path) -> None:
    await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
    there = place("sqlite", "file")
    await there.db.migrate()
    await there.commit(tmp_path / "other", "other", "other")
    before = await content(there.db)
    with pytest.raises(Conflict, match="rows in holdings"):
        await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    assert await content(there.db) == before
    await restore(tmp_path / "backup", there.db, there.store, there.data, quiet, replace=True)
    assert await content(there.db) == await content(full.db)


async def test_without_bundles_the_store_must_have_them(
    full: Place, place: Make, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    await make(backup, full.db, full.store, full.data, quiet, bundles=False)
    assert not (backup / "store").exists()
    there = place("sqlite", "file")
    with pytest.raises(InvalidRequest, match="7 objects are missing"):
        await restore(backup, there.db, there.store, there.data, quiet)
    shutil.copytree(full.data.store, there.data.store, dirs_exist_ok=True)
    await restore(backup, there.db, there.store, there.data, quiet)
    assert await content(there.db) == await content(full.db)


async def test_a_backup_of_an_older_version_is_restored(
    full: Place, place: Make, tmp_path: Path
) -> None:
    """Tables are made as they were, filled, and brought up to date."""
    backup = tmp_path / "backup"
    made = await make(backup, full.db, full.store, full.data, quiet)
    old = place("sqlite", "file")
    await old.db.migrate("0003")
    known = await old.db.look(
        lambda c: {
            t: {column["name"] for column in inspect(c).get_columns(t)}
            for t in inspect(c).get_table_names()
        }
    )
    with gzip.open(backup / made.rows, "rt") as file:
        given = list(rows.read(file))
    with gzip.open(backup / made.rows, "wt") as file:
        for table, said in given:
            if table in known:
                kept = {name: value for name, value in said.items() if name in known[table]}
                file.write(json.dumps([table, kept]) + "\n")
    digests = {name: Backup(backup).digest(name) for name in made.digests}
    older = made.model_copy(update={"revision": "0003", "digests": digests})
    Backup(backup).write_manifest(older)
    there = place("postgresql", "file")
    await restore(backup, there.db, there.store, there.data, quiet)
    assert await there.db.look(rows.revision) == rows.newest()
    names = [said["name"] for table, said in await content(there.db) if table == "notebooks"]
    assert names == ["mine"]


async def test_a_backup_of_a_newer_version_is_refused(
    full: Place, place: Make, tmp_path: Path
) -> None:
    made = await make(tmp_path / "backup", full.db, full.store, full.data, quiet)
    newer: Manifest = made.model_copy(update={"revision": "9999", "version": "9.9"})
    Backup(tmp_path / "backup").write_manifest(newer)
    there = place("sqlite", "file")
    with pytest.raises(InvalidRequest, match=r"newer kaos_hub \(9\.9\)"):
        await restore(tmp_path / "backup", there.db, there.store, there.data, quiet)
    assert await there.db.look(lambda c: inspect(c).get_table_names()) == []


# --- the command, and the whole hub ---


def command(data: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "KAOS_"))}
    return subprocess.run(
        [sys.executable, "-m", "kaos_hub.service.backup", *map(str, arguments)],
        env={**given, "KAOS_DATA_DIR": str(data)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def fails(done: "subprocess.CompletedProcess[str]") -> str:
    """Check that it failed with one plain line; that line."""
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").touch()
    monkeypatch.setenv("KAOS_DATA_DIR", str(tmp_path / "data"))

    def said(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1
        return told

    assert "no tables" in said("create", tmp_path / "backup")
    assert "something else" in said("create", tmp_path / "full")
    assert "There is no backup" in said("check", tmp_path / "none")
    assert "There is no backup" in said("restore", tmp_path / "none")
    config = tmp_path / "config.py"
    config.write_text("c = get_config()\nc.KaosService.store = 'nowhere'\n")
    assert "nowhere" in said("create", tmp_path / "b", "--config", config)


TRAIN = '#!/bin/sh\nmkdir -p "$1"\necho "weights $KAOS_TRIAL" > "$1/weights"\necho said\n'


def test_a_whole_hub_is_backed_up_while_it_works_and_restored(tmp_path: Path) -> None:
    data, code = tmp_path / "things", tmp_path / "code"
    data.mkdir()
    (data / "x").write_text("data")
    (code / "model").mkdir(parents=True)
    (code / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . /opt/program\n")
    (code / "model" / "train").write_text(TRAIN)
    (code / "model" / "train").chmod(0o755)
    (tmp_path / "extra.txt").write_text("laid over")
    backup = tmp_path / "backup"
    with running_hub(tmp_path / "hub") as hub:
        token = hub.token("ada")
        kaos = Client(hub.url, token)
        trained = kaos.trainings.deploy(source=code, data=data, params={"a": [1, 2]}).wait()
        kaos.notebooks.deploy(
            source=code, data=data, context=tmp_path / "extra.txt", name="mine",
            volumes=[{"volume": "keep", "path": "/mnt/keep"}],
        ).wait()  # fmt: skip
        home = next((hub.data / "homes").iterdir())
        (home / "work" / "notes.txt").write_text("my notes")
        done = command(hub.data, "create", backup)
        assert done.returncode == 0, done.stderr
        assert "is made" in done.stdout
        assert "A hub runs on" in fails(command(hub.data, "restore", backup, "--replace"))
        versions = kaos.bundles.list()
        models = {model.id: model for model in kaos.models.list()}
    # All is lost, but for what users keep; that is copied as the documentation says.
    shutil.copytree(hub.data / "homes", tmp_path / "homes", symlinks=True)
    shutil.copytree(hub.data / "volumes", tmp_path / "volumes", symlinks=True)
    subprocess.run(["chmod", "-R", "u+w", hub.data], check=True)
    shutil.rmtree(hub.data)
    done = command(hub.data, "restore", backup)
    assert done.returncode == 0, done.stderr
    for kept in ("homes", "volumes"):
        shutil.copytree(tmp_path / kept, hub.data / kept, symlinks=True, dirs_exist_ok=True)
    hub.start()
    try:
        kaos = Client(hub.url, token)  # the Hub's database is back, too
        assert kaos.bundles.list() == versions
        assert [volume.name for volume in kaos.volumes.list()] == ["keep"]
        assert kaos.trainings.get(trained.id).trials.succeeded == 2
        assert any("said" in line for line in kaos.trainings.logs(trained.id, 1))
        assert {model.id: model for model in kaos.models.list()} == models
        kaos.bundles.get("data", "things", target=tmp_path / "got")
        assert (tmp_path / "got" / "x").read_text() == "data"
        # It ran then; it does not now, as is soon seen, by the Hub or by the service.
        wait_until(lambda: kaos.notebooks.get("mine").state in ("STOPPED", "FAILED"), 60)
        kaos.notebooks.start("mine")
        assert kaos.notebooks.wait("mine").state == "RUNNING"
        work = hub.data / "homes" / home.name / "work"
        assert (work / "notes.txt").read_text() == "my notes"
        assert (work / "extra.txt").read_text() == "laid over"
    finally:
        hub.stop()
    assert "There is something already" in fails(command(hub.data, "restore", backup))
