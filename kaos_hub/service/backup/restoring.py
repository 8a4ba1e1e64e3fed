"""Restoring a backup, to where nothing is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, update

from kaos_hub.errors import Conflict, InvalidRequest, KaosError, NotFound
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.backup import objects, rows
from kaos_hub.service.backup.folder import HUB, SECRETS, Backup, Manifest, Said
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import OwnerRow
from kaos_hub.stores.base import Store


async def check(path: Path, say: Said) -> Manifest:
    """Read all of a backup, and see whether it is whole and right.

    Raises:
        InvalidRequest: it is not; says what is missing or damaged.
    """
    backup = Backup(path)
    manifest = backup.manifest()
    backup.check_files(manifest)
    if manifest.bundles:
        store, wrong = backup.store(), list[str]()
        for number, (digest, _) in enumerate(backup.objects(manifest), start=1):
            if not await store.check(digest) and digest not in manifest.lacking:
                wrong.append(digest)
            if number % 1000 == 0:
                say(f"{number:,} objects")
        _refuse(wrong)
    return manifest


async def restore(
    path: Path, db: Database, store: Store, data: DataDir, say: Said, replace: bool = False
) -> Manifest:
    """Restore a backup.

    Until all objects are there the database is not touched, and then by one transaction: a restore
    that was interrupted begins again.

    Args:
        path: of the backup.
        db, store, data: where to; no service may be at work there.
        say: is told how far it is.
        replace: whether what is there may be replaced.

    Raises:
        InvalidRequest: the backup is not whole; nothing was changed.
        Conflict: something is there already; nothing was changed.
        KaosError: it could not be restored.
    """
    backup = Backup(path)
    manifest = backup.manifest()
    backup.check_files(manifest)
    if not replace:
        await _refuse_to_overwrite(db, data, backup, manifest)
    await _refuse_what_is_not_whole(backup, manifest, store)
    source = backup.store() if manifest.bundles else None
    copied = await objects.copy(source, store, backup.objects(manifest), say)
    _refuse([digest for digest in copied.lacking if digest not in manifest.lacking])
    try:
        _logs(backup, data)
        _files(backup, manifest, data, replace)
    except OSError as e:
        raise KaosError(f"{e.filename} cannot be restored: {e.strerror}") from None
    await db.remake(lambda connection, upgrade: _rows(connection, upgrade, backup, manifest))
    say(f"{sum(manifest.counts.values()):,} rows")
    return manifest


async def _refuse_to_overwrite(
    db: Database, data: DataDir, backup: Backup, manifest: Manifest
) -> None:
    there = [f"rows in {table}" for table in await db.look(rows.are_there)]
    with backup.files(manifest) as files:
        brings_hub = HUB in files.getnames()
    if brings_hub and data.hub_database.exists():
        there.append(str(data.hub_database))
    if there:
        raise Conflict(
            f"There is something already: {', '.join(there[:5])}, in {db.shown} and {data.path}."
            " Name an empty place; or say --replace, and what is there is lost."
        )


async def _refuse_what_is_not_whole(backup: Backup, manifest: Manifest, store: Store) -> None:
    """Before a byte is copied: whether each object is in the backup, or where it is to go."""
    own = backup.store() if manifest.bundles else None
    lacking = []
    for digest, size in backup.objects(manifest):
        kept = own is not None and await own.size(digest) == size
        if not kept and digest not in manifest.lacking and await store.size(digest) != size:
            lacking.append(digest)
    _refuse(lacking)


def _refuse(wrong: list[str]) -> None:
    if wrong:
        shown = ", ".join(wrong[:3])
        raise InvalidRequest(
            f"The backup is not whole: {len(wrong):,} objects are missing or damaged, such as"
            f" {shown}. Was it copied to its end?"
        )


def _logs(backup: Backup, data: DataDir) -> None:
    for path in sorted(backup.logs.glob("*.log")):
        shutil.copy2(path, data.logs / path.name)


def _files(backup: Backup, manifest: Manifest, data: DataDir, replace: bool) -> None:
    """The Hub's database and the secrets; only what the data directory has a place for."""
    own_secrets = not os.environ.get("KAOS_SECRETS_DIR")
    with backup.files(manifest) as files:
        for member in files.getmembers():
            folder, _, name = member.name.rpartition("/")
            given = files.extractfile(member)
            if given is None:
                continue
            if member.name == HUB:
                _write(given, data.hub_database)
                for more in ("-wal", "-shm"):
                    Path(f"{data.hub_database}{more}").unlink(missing_ok=True)
            elif folder == SECRETS and own_secrets:
                target = data.secrets / name
                if replace or not target.exists():
                    _write(given, target)


def _write(given: IO[bytes], target: Path) -> None:
    draft = target.with_name(f".draft-{target.name}")
    with draft.open("wb") as file:
        draft.chmod(0o600)
        shutil.copyfileobj(given, file)
    draft.replace(target)


def _rows(
    connection: Connection,
    upgrade: Callable[[str], None],
    backup: Backup,
    manifest: Manifest,
) -> None:
    """In one transaction: tables as they were, their rows, then tables as they are now."""
    rows.drop(connection)
    try:
        upgrade(manifest.revision)
    except NotFound:
        raise InvalidRequest(
            f"The backup is of a newer kaos_hub ({manifest.version}). Install that, or a newer one."
        ) from None
    rows.fill(connection, backup.rows(manifest))
    rows.go_on_after(connection, manifest.last)
    upgrade("head")
    with backup.files(manifest) as files:
        brings_hub = HUB in files.getnames()
    # Else the Hub may know other users: the first one seen with the name is the owner.
    if not brings_hub:
        there = update(OwnerRow).where(OwnerRow.gone.is_(None))
        connection.execute(there.values(identity=None))
