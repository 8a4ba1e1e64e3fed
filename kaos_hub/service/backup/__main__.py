"""``python -m kaos_hub.service.backup create|check|restore FOLDER``: backups, for admins.

``create`` may be run while the service runs; ``restore`` may not. What is backed up is what the
service's own settings name: those of the file given with ``--config``, else of the environment.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from traitlets import TraitError

from kaos_hub.errors import Conflict, KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.app import KaosService
from kaos_hub.service.backup import Backup, check, make, restore
from kaos_hub.service.backup.folder import Manifest
from kaos_hub.service.backup.making import copy_sqlite
from kaos_hub.service.db.database import Database
from kaos_hub.service.process import leave
from kaos_hub.stores.access import open_store
from kaos_hub.stores.base import Store

_COMMANDS = {
    "create": "back up into a new folder, or into one with an earlier backup",
    "check": "read all of a backup, and see whether it is whole",
    "restore": "restore a backup to where nothing is; the hub may not run",
    "hub": "copy the Hub's own SQLite database, which may be in use, to a file",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except KaosError as e:
        problem = e.message
    except TraitError as e:
        problem = f"A setting is wrong: {e}"
    except KeyboardInterrupt:
        problem = "interrupted; run it again"
    print(f"error: {problem}", file=sys.stderr, flush=True)
    return 1


async def _run(options: argparse.Namespace) -> int:
    path = options.folder.absolute()
    if options.command == "check":
        return _tell("is whole", path, await check(path, _say))
    service = KaosService()
    service.initialize([f"--config={options.config}"] if options.config else [])
    data = DataDir(service.data_dir, create=options.command == "restore")
    if options.command == "hub":
        copy_sqlite(data.hub_database, path)
        print(f"{data.hub_database} is copied to {path}", flush=True)
        return 0
    with contextlib.ExitStack() as stack:
        if options.command == "restore":
            Backup(path).manifest()  # else it would hold the place for nothing
            _be_alone(data, stack)
        db = stack.enter_context(contextlib.closing(Database(service.database_url)))
        store = open_store(service.store_url(), data.secrets)
        await store.probe()
        if options.command == "create":
            made = await make(path, db, store, data, _say, not options.without_bundles)
            return _tell("is made", path, made)
        return await _restore(options, path, db, store, data)


async def _restore(
    options: argparse.Namespace, path: Path, db: Database, store: Store, data: DataDir
) -> int:
    restored = await restore(path, db, store, data, _say, options.replace)
    code = _tell("is restored", path, restored)
    print("Homes and volumes of notebooks are not in a backup: see docs/howto/back-up.md")
    return code


def _be_alone(data: DataDir, stack: contextlib.ExitStack) -> None:
    """Keep Hub and service from starting meanwhile.

    Raises:
        Conflict: one runs.
    """
    for name in ("lock", "hub.lock"):
        try:
            stack.enter_context(data.hold(name))
        except Conflict as e:
            raise Conflict(
                f"A hub runs on {data.path} (process {e.details.get('pid') or '?'}). Stop it first."
            ) from None


def _tell(what: str, path: Path, manifest: Manifest) -> int:
    rows = sum(manifest.counts.values())
    bundles = f"{manifest.objects:,} objects ({manifest.bytes:,} bytes)"
    print(
        f"The backup in {path}, of {manifest.made:%Y-%m-%d %H:%M:%S} UTC, {what}: {rows:,} rows,"
        f" {bundles if manifest.bundles else 'without bundles'}",
        flush=True,
    )
    if manifest.lacking:
        shown = ", ".join(manifest.lacking[:3])
        print(
            f"error: {len(manifest.lacking):,} objects were missing or damaged in the store itself,"
            f" such as {shown}",
            file=sys.stderr,
        )
    return 1 if manifest.lacking else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kaos_hub.service.backup",
        description="Back up and restore what the kaos service keeps.",
        epilog="docs/howto/back-up.md tells the whole of it.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        word = "FILE" if name == "hub" else "FOLDER"
        command.add_argument("folder", type=Path, metavar=word)
        if name != "check":
            command.add_argument(
                "--config", type=Path, metavar="FILE", help="the service's settings, if in a file"
            )
        if name == "create":
            command.add_argument(
                "--without-bundles", action="store_true",
                help="rows and logs alone, where the store has copies of its own",
            )  # fmt: skip
        if name == "restore":
            command.add_argument(
                "--replace", action="store_true", help="replace what is there; it is lost"
            )
    return parser


if __name__ == "__main__":
    leave(main())
