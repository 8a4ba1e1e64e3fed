"""A past for tests: rows as the service itself would have written them, in its own database."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow, NotebookRow, VersionRow, now
from tests import databases

T = TypeVar("T")


def write(directory: Path, rows: Iterable[Any]) -> None:
    """Add rows to the database of a data directory; the service may be running."""
    # In a thread of its own: whoever calls may be in the middle of an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _write(directory, list(rows))).result()


async def _write(directory: Path, rows: list[Any]) -> None:
    db = Database(databases.url_of(directory))
    try:
        await db.migrate()
        await db.run(lambda session: session.add_all(rows))
    finally:
        db.close()


def read(directory: Path, transaction: Callable[[Session], T]) -> T:
    """Look at the database of a data directory; the service may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _read(directory, transaction)).result()


async def _read(directory: Path, transaction: Callable[[Session], T]) -> T:
    db = Database(databases.url_of(directory))
    try:
        return await db.run(transaction)
    finally:
        db.close()


def notebook(
    name: str, state: str = "STOPPED", owner: str = "user:ada", **more: Any
) -> NotebookRow:
    """A notebook of some hours ago."""
    begun = now() - timedelta(hours=3, minutes=len(name))
    values: dict[str, Any] = {
        "id": token_hex(8), "owner": owner, "name": name, "state": state, "created": begun,
        "cpu": 1.0, "memory": 2 << 30, "starts": 1, "build_state": "SKIPPED",
        "started": begun + timedelta(minutes=1), "stopped": begun + timedelta(hours=1),
    }  # fmt: skip
    return NotebookRow(**{**values, **more})


def version(id: int, kind: str, name: str, number: int = 1, owner: str = "user:ada") -> VersionRow:
    """A version of a bundle, whose content is nowhere."""
    return VersionRow(
        id=id, owner=owner, kind=kind, name=name, number=number, digest=f"blake3:{id:064x}",
        size=1 << 20, files=12, author="ada", created=now() - timedelta(hours=4), current=True,
    )  # fmt: skip


def build(directory: Path, state: str, log: str, owner: str = "user:ada", **more: Any) -> JobRow:
    """A build that is over, with its log."""
    begun = now() - timedelta(hours=3)
    values: dict[str, Any] = {
        "id": token_hex(8), "kind": "build", "owner": owner, "key": token_hex(8), "state": state,
        "work": {}, "deadline": 3600, "created": begun, "started": begun, "progress": 100,
        "finished": begun + timedelta(seconds=95), "removed": True,
    }  # fmt: skip
    row = JobRow(**{**values, **more})
    path = directory / "logs" / f"{row.id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(log)
    return row
