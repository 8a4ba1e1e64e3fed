"""Making a backup while the service runs."""

import contextlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from kaos_hub import __version__
from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.backup import objects, rows
from kaos_hub.service.backup.folder import FORMAT, HUB, SECRETS, Backup, Manifest, Said, prepare
from kaos_hub.service.db.database import Database
from kaos_hub.stores.base import Store


async def make(
    path: Path, db: Database, store: Store, data: DataDir, say: Said, bundles: bool = True
) -> Manifest:
    """Back up into a folder: a new one, or one with an earlier backup, whose objects stay.

    Args:
        path: of the folder.
        db, store, data: what to back up; the service may be at work.
        say: is told how far it is.
        bundles: whether objects are copied.

    Raises:
        KaosError: it could not be made; the earlier one is as it was.
    """
    backup = prepare(path)
    made = datetime.now(UTC)
    stamp = made.strftime("%Y%m%dT%H%M%S%fZ")
    names = f"rows-{stamp}.gz", f"more-{stamp}.gz", f"files-{stamp}.tar"
    try:
        revision, counts, last = await db.look(lambda c: _rows(c, backup, names[0]))
        say(f"{sum(counts.values()):,} rows")
        draft = Manifest(
            format=FORMAT, version=__version__, made=made, revision=revision, rows=names[0],
            more=names[1], files=names[2], digests={}, counts=counts, last=last, bundles=bundles,
            objects=0, bytes=0, lacking=[],
        )  # fmt: skip
        await _more(backup, draft, store)
        copied = objects.Copied()
        if bundles:
            copied = await objects.copy(store, backup.store(), backup.objects(draft), say)
        copy_logs(data.logs, backup.logs)
        _files(backup.path / draft.files, data)
    except OSError as e:
        raise KaosError(f"The backup cannot be written: {e.filename}: {e.strerror}") from None
    manifest = draft.model_copy(
        update={
            "digests": {name: backup.digest(name) for name in names},
            "objects": copied.objects,
            "bytes": copied.bytes,
            "lacking": copied.lacking,
        }
    )
    backup.write_manifest(manifest)
    return manifest


def _rows(
    connection: Connection, backup: Backup, name: str
) -> tuple[str, dict[str, int], dict[str, int]]:
    revision = rows.revision(connection)
    if not revision:
        raise InvalidRequest(
            "There is nothing to back up: the database has no tables. Is it the one that the"
            " service uses (c.KaosService.database_url, --config)?"
        )
    if revision != rows.newest():
        raise InvalidRequest(
            f"The database is of another version of kaos_hub (tables of revision {revision}, not"
            f" {rows.newest()}). Start the service of this version once, or back up with that"
            " version's own command."
        )
    with backup.writing(name) as file:
        counts = rows.write(connection, file)
    return revision, counts, rows.last_numbers(connection)


async def _more(backup: Backup, manifest: Manifest, store: Store) -> None:
    """Note the objects that no owner holds."""
    names = set[str]()
    for table, said in backup.rows(manifest):
        if table != "holdings":
            names |= objects.named(json.dumps(said))

    def without_held(digests: set[str]) -> set[str]:
        left = set(digests)
        if left:
            for table, said in backup.rows(manifest):
                if table == "holdings":
                    left.discard(said["digest"])
        return left

    found = await objects.unheld(store, names, without_held)
    with backup.writing(manifest.more) as file:
        file.writelines(json.dumps(pair) + "\n" for pair in found.items())


def copy_logs(source: Path, target: Path) -> None:
    """Copy logs, and remove those that are there no more."""
    target.mkdir(0o700, exist_ok=True)
    there = {path.name: path for path in source.glob("*.log") if path.is_file()}
    for name, path in there.items():
        draft = target / f".draft-{name}"
        with contextlib.suppress(FileNotFoundError):  # it was deleted just now
            shutil.copy2(path, draft)
            draft.replace(target / name)
    for path in target.iterdir():
        if path.name not in there:
            path.unlink()


def _files(target: Path, data: DataDir) -> None:
    """Write the Hub's database and the secrets of the data directory into one file."""
    with tarfile.open(target, "w") as file, tempfile.TemporaryDirectory(dir=target.parent) as work:
        if data.hub_database.exists():
            copy = Path(work) / HUB
            copy_sqlite(data.hub_database, copy)
            file.add(copy, HUB)
        if not os.environ.get("KAOS_SECRETS_DIR"):
            for path in sorted(data.secrets.iterdir()):
                if path.is_file():
                    file.add(path, f"{SECRETS}/{path.name}")
    target.chmod(0o600)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite database that is in use, as it is at one moment.

    Raises:
        KaosError: it cannot be copied.
    """
    target.parent.mkdir(0o700, exist_ok=True)
    draft = target.with_name(f".draft-{target.name}")
    draft.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as given,
            contextlib.closing(sqlite3.connect(draft)) as copy,
        ):
            given.backup(copy)
    except sqlite3.Error as e:
        raise KaosError(f"{source} cannot be copied: {e}") from None
    draft.chmod(0o600)
    draft.replace(target)
