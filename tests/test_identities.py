"""Owners are users and groups of the Hub for good, whatever they are called."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from sqlalchemy import select, text

from kaos_hub.errors import NotFound
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow, OwnerRow, now
from kaos_hub.service.hub_client import Hub, HubUser
from kaos_hub.service.quota import Ledger
from kaos_hub.service.users.identities import Identities, shown_author, shown_owner
from tests import databases


class HubOfRenames(Hub):
    """Has whom a test says, and says so by name or identity."""

    def __init__(self, **users: str) -> None:
        super().__init__("http://127.0.0.1:1", "")
        self.users = {identity: name for name, identity in users.items()}
        self.groups: dict[str, Mapping[str, str]] = {}

    async def owners(
        self,
        names: Collection[str] = (),
        identities: Collection[str] = (),
        groups: Collection[str] = (),
    ) -> tuple[list[HubUser], dict[str, str]]:
        found = [
            HubUser(identity, name, self.groups.get(name, {}))
            for identity, name in self.users.items()
            if name in names or identity in identities
        ]
        there = {i: name for each in self.groups.values() for name, i in each.items()}
        return found, {i: name for i, name in there.items() if i in groups}


async def known(db: Database, hub: Hub) -> Identities:
    """As a service that begins."""
    identities = Identities(db, hub)
    await identities.start()
    return identities


async def test_a_name_that_is_taken_again_is_another_owner(db: Database) -> None:
    hub = HubOfRenames(ada="1-a")
    identities = await known(db, hub)
    assert await identities.bind("user", "1-a", "ada") == "user:ada"
    hub.users = {"1-a": "ada2", "2-b": "ada"}
    for _ in range(2):
        assert await identities.bind("user", "2-b", "ada") == "user:ada~2"
        assert await identities.bind("user", "1-a", "ada2") == "user:ada"
        assert identities.shown("user:ada") == "user:ada2"
        assert identities.shown("user:ada~2") == "user:ada"
        identities = await known(db, hub)  # and after a restart
    # What the Hub said of a token some seconds ago does not bring the old name back.
    assert await identities.bind("user", "1-a", "ada", current=False) == "user:ada"
    assert identities.name("user:ada") == "ada2"
    names = await db.run(lambda s: (shown_owner(s, "user:ada"), shown_author(s, "ada~2")))
    assert names == ("user:ada2", "ada")


async def test_keys_never_collide_with_names(db: Database) -> None:
    identities = await known(db, HubOfRenames())
    made = [
        await identities.bind("user", f"{number}-x", name)
        for number, name in enumerate(["ada", "ada~2", "ada", "ada", "x" * 255, "x" * 255])
    ]
    assert len(set(made)) == len(made) and all(len(key) <= 255 for key in made)
    assert await identities.bind("group", "0-x", "ada") == "group:ada"


async def test_who_was_there_before_is_bound_at_first_sight(db: Database) -> None:
    rows = [
        OwnerRow(owner="user:ada", name="ada", seen=now()),
        OwnerRow(owner="group:lab", name="lab", seen=now()),
        HoldingRow(owner="user:ada", digest="blake3:" + "0" * 64, size=7),
    ]
    await db.run(lambda session: session.add_all(rows))
    hub = HubOfRenames(ada="1-a")
    hub.groups = {"ada": {"lab": "g1"}}
    identities = await known(db, hub)
    user = await identities.user("user:ada")
    assert user is not None and (user.owner, user.groups) == ("user:ada", {"lab": "group:lab"})
    # From now on it is that one, and nobody else of that name.
    hub.users, hub.groups = {"2-b": "ada"}, {"ada": {"lab": "g2"}}
    namesake = await identities.called("ada")
    assert namesake is not None
    assert (namesake.owner, namesake.groups) == ("user:ada~2", {"lab": "group:lab~2"})
    assert await identities.user("user:ada") is None


async def test_whoever_is_gone_is_noted_and_never_bound_again(db: Database) -> None:
    hub = HubOfRenames(ada="1-a")
    identities = await known(db, hub)
    assert await identities.called("ada") is not None
    hub.users = {}
    with pytest.raises(NotFound, match="kaos admin owners list"):
        await identities.require("user:ada")
    await identities.check_all()
    row = await db.run(lambda s: s.get_one(OwnerRow, "user:ada"))
    assert row.gone is not None and row.identity == "user:1-a"
    hub.users = {"1-b": "ada"}
    assert await identities.bind("user", "1-b", "ada") == "user:ada~2"
    assert await identities.user("user:ada") is None
    # The Hub forgot it for a moment only, as one that was restored: it is there again.
    hub.users = {"1-a": "ada"}
    assert await identities.bind("user", "1-a", "ada") == "user:ada"
    assert (await db.run(lambda s: s.get_one(OwnerRow, "user:ada"))).gone is None


async def test_limits_are_for_whom_the_name_is_now(db: Database) -> None:
    identities = await known(db, HubOfRenames())
    await identities.bind("user", "1-a", "ada")
    ledger = Ledger(db, {"user:lovelace": {"notebooks": 3}}, shown=identities.shown)
    assert ledger.limits("user:ada").notebooks is None
    await identities.bind("user", "1-a", "lovelace")
    assert ledger.limits("user:ada").notebooks == 3


@pytest.mark.parametrize("kind", databases.chosen_kinds())
async def test_owners_of_an_older_database_are_written_down(kind: str, tmp_path: Path) -> None:
    """A database of the release before, with owners and authors of all kinds."""
    here = kind == "sqlite"
    url = databases.sqlite_url(tmp_path) if here else databases.postgresql_url(template=False)
    db = Database(url)
    try:
        await db.migrate("0009")
        old = "INSERT INTO choices (owner, chosen, at, asked) VALUES (:o, '{}', :t, :t)"
        for owner in ("user:ada", "group:lab: one", "user:user:x"):
            values = {"o": owner, "t": "2026-01-01 00:00:00"}
            await db.run(lambda s, values=values: s.execute(text(old), values))  # type: ignore[misc]
        await db.migrate()
        rows = await db.run(lambda s: list(s.scalars(select(OwnerRow).order_by(OwnerRow.owner))))
        assert [(row.owner, row.name, row.identity) for row in rows] == [
            ("group:lab: one", "lab: one", None),
            ("user:ada", "ada", None),
            ("user:user:x", "user:x", None),
        ]
    finally:
        db.close()
        databases.drop(url)
