"""Deleting a notebook while the Hub is away: it goes on by itself when the Hub is back."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kaos_hub.errors import HubUnavailable, KaosError
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks import deletion
from kaos_hub.service.notebooks.deletion import Deletions
from kaos_hub.util.notifier import Bell
from tests.history import notebook
from tests.hub import wait_until


class HubThatComesBack:
    """Answers nothing for the first requests, as while it is started anew."""

    def __init__(self, silent: int) -> None:
        self.silent, self.removed = silent, 0

    async def stop(self, _user: str, _server: str, remove: bool) -> None:
        if self.silent:
            self.silent -= 1
            raise HubUnavailable()
        self.removed += remove


class Around:
    """The rest of what a deletion works with: nothing runs, and the home is a folder."""

    def __init__(self, db: Database, hub: HubThatComesBack, home: Path) -> None:
        self.db, self.hub, self.bell, self.home = db, hub, Bell(), home
        self.servers = self.identities = self
        self.engine = SimpleNamespace(places=self)

    async def end(self, _what: Any) -> None:
        return None

    async def at_rest(self, _id: str) -> None:
        return None

    async def user(self, _owner: str) -> Any:
        return SimpleNamespace(name="ada")

    async def remove_home(self, _id: str) -> None:
        self.home.rmdir()


async def test_a_deletion_that_the_hub_kept_from_is_tried_again(
    usual_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_PAUSE", 0.1)
    home = tmp_path / "home"
    home.mkdir()
    row = notebook("lab", wanted="DELETED", held=False)
    await usual_db.run(lambda session: session.add(row))
    hub = HubThatComesBack(silent=2)
    deletions = Deletions(Around(usual_db, hub, home))  # type: ignore[arg-type]
    with pytest.raises(KaosError):
        await deletions.delete(row)
    assert home.exists() and await there(usual_db, row.id)
    await asyncio.to_thread(wait_until, lambda: not home.exists(), 10, "the deletion")
    assert (hub.silent, hub.removed) == (0, 1)
    assert not await there(usual_db, row.id)


async def test_what_is_wanted_again_meanwhile_is_not_deleted(
    usual_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_PAUSE", 0.1)
    home = tmp_path / "home"
    home.mkdir()
    row = notebook("lab", wanted="DELETED", held=False)
    await usual_db.run(lambda session: session.add(row))
    deletions = Deletions(Around(usual_db, HubThatComesBack(silent=1), home))  # type: ignore[arg-type]
    with pytest.raises(KaosError):
        await deletions.delete(row)

    def want(session: Any) -> None:
        session.get_one(NotebookRow, row.id).wanted = "STOPPED"

    await usual_db.run(want)
    await asyncio.sleep(0.5)
    assert home.exists() and await there(usual_db, row.id)


async def there(db: Database, notebook_id: str) -> bool:
    """Return whether the notebook still has its row."""
    return await db.run(lambda session: session.get(NotebookRow, notebook_id)) is not None
