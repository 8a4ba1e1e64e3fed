"""Identities: an owner is a user or group of the Hub's for good, not a name.

The owner in all tables is a key. It is made of the first name, once, and is never given to
anything else: a renamed user keeps it, and a namesake gets another. Names are for people, and for
the Hub's own addresses; they are looked up here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import NotFound
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import OwnerRow, now
from kaos_hub.service.hub_client import Hub, HubUser

USER, GROUP = "user", "group"
_LONGEST = 240
"""Signs of a name that go into a key."""


@dataclass(frozen=True)
class User:
    """A user as the Hub has it now."""

    owner: str
    name: str
    groups: Mapping[str, str]
    """Owners by the names of the groups that the user is in."""


class Identities:
    """Knows which owner is who.

    Args:
        db: the service's database.
        hub: the Hub.
    """

    def __init__(self, db: Database, hub: Hub) -> None:
        self._db, self._hub = db, hub
        self._owners: dict[str, str] = {}
        """By identity."""
        self._names: dict[str, str] = {}
        """By owner."""
        self._identities: dict[str, str] = {}
        """By owner; only of those that are there."""

    async def start(self) -> None:
        """Read what is known."""
        for row in await self._db.run(lambda session: list(session.scalars(select(OwnerRow)))):
            self._take(row)

    def _take(self, row: OwnerRow) -> None:
        self._names[row.owner] = row.name
        self._identities.pop(row.owner, None)
        if row.identity is not None:
            self._owners[row.identity] = row.owner
            if row.gone is None:
                self._identities[row.owner] = row.identity

    # --- names ---

    def name(self, owner: str) -> str:
        """The name of an owner, as it was last seen."""
        return self._names.get(owner) or owner.partition(":")[2]

    def shown(self, owner: str) -> str:
        """The owner for people: ``user:ada``, ``group:vision``."""
        return f"{owner.partition(':')[0]}:{self.name(owner)}"

    # --- who is who ---

    async def bind(self, kind: str, identity: str, name: str, current: bool = True) -> str:
        """The owner that belongs to an identity; it is made at first sight.

        What was there before there were identities goes to whom is called so when first seen.

        Args:
            kind: ``user`` or ``group``.
            identity: as the Hub says.
            name: as it is called.
            current: it is called so now; else it was, a moment ago.
        """
        known = f"{kind}:{identity}"
        owner = self._owners.get(known)
        there = owner is not None and self._identities.get(owner) == known
        if owner is not None and (not current or (there and self._names[owner] == name)):
            return owner

        def write(session: Session) -> OwnerRow:
            row = session.scalar(select(OwnerRow).where(OwnerRow.identity == known))
            if row is None:
                row = _unbound(session, kind, name) or _new(session, kind, name)
                row.identity = known
            if current:
                row.name, row.gone = name, None
            return row

        row = await self._db.run(write)
        self._take(row)
        return row.owner

    async def called(self, name: str) -> User | None:
        """The user of that name, if the Hub has one.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        found, _ = await self._hub.owners(names=[name])
        return await self._seen(found[0]) if found else None

    async def user(self, owner: str) -> User | None:
        """The user that an owner is; None if the Hub has that user no more.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        return (await self.users([owner])).get(owner)

    async def users(self, owners: Collection[str]) -> dict[str, User]:
        """Those of the owners that are users of the Hub now.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        wanted = [owner for owner in owners if owner.startswith(f"{USER}:")]
        known = {self._identities[o].partition(":")[2] for o in wanted if o in self._identities}
        names = [self.name(o) for o in wanted if await self._is_unbound(o)]
        if not known and not names:
            return {}
        found, _ = await self._hub.owners(names=names, identities=sorted(known))
        seen = {user.owner: user for user in [await self._seen(each) for each in found]}
        await self._note_gone([o for o in wanted if o in self._identities and o not in seen])
        return {owner: seen[owner] for owner in wanted if owner in seen}

    async def gone(self, owners: Collection[str]) -> list[str]:
        """Those of the owners that are users whom the Hub has no more.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        there = await self.users(owners)
        return [
            o
            for o in owners
            if o in self._names and o not in there and not await self._is_unbound(o)
        ]

    async def _is_unbound(self, owner: str) -> bool:
        if owner in self._identities:
            return False
        row = await self._db.run(lambda session: session.get(OwnerRow, owner))
        return row is not None and row.identity is None and row.gone is None

    async def _seen(self, user: HubUser) -> User:
        groups = {
            name: await self.bind(GROUP, identity, name) for name, identity in user.groups.items()
        }
        return User(await self.bind(USER, user.identity, user.name), user.name, groups)

    async def _note_gone(self, owners: Collection[str]) -> None:
        """Note that the Hub has them no more. Their things wait for an admin."""
        if not owners:
            return

        def write(session: Session) -> list[OwnerRow]:
            rows = list(session.scalars(select(OwnerRow).where(OwnerRow.owner.in_(owners))))
            for row in rows:
                row.gone = row.gone or now()
            return rows

        for row in await self._db.run(write):
            self._take(row)

    async def check_all(self) -> None:
        """Compare all owners with the Hub.

        Raises:
            HubUnavailable: the Hub does not answer.
        """
        rows = await self._db.run(lambda session: list(session.scalars(select(OwnerRow))))
        await self.users([row.owner for row in rows])
        groups = {
            row.owner: str(row.identity).partition(":")[2]
            for row in rows
            if row.owner.startswith(f"{GROUP}:") and row.identity is not None
        }
        _, found = await self._hub.owners(groups=sorted(groups.values()))
        for identity, name in found.items():
            await self.bind(GROUP, identity, name)
        await self._note_gone([o for o, identity in groups.items() if identity not in found])

    async def owner_called(self, kind: str, name: str) -> str:
        """The owner that is called so in the Hub now.

        Raises:
            NotFound: there is none.
            HubUnavailable: the Hub does not answer.
        """
        if kind == USER and (user := await self.called(name)) is not None:
            return user.owner
        if kind == GROUP:
            await self.check_all()
            for owner in self._identities:
                if owner.startswith(f"{GROUP}:") and self._names[owner] == name:
                    return owner
        raise NotFound(f"The Hub has no {kind} {name!r}, or no member of it was seen yet.")

    async def require(self, owner: str) -> User:
        """The user that an owner is.

        Raises:
            NotFound: the Hub has that user no more.
            HubUnavailable: the Hub does not answer.
        """
        user = await self.user(owner)
        if user is None:
            raise NotFound(
                f"The Hub has no user {self.name(owner)!r} any more, or another of that name. What"
                " that user had waits for an admin: kaos admin owners list"
            )
        return user


def _unbound(session: Session, kind: str, name: str) -> OwnerRow | None:
    query = select(OwnerRow).where(
        OwnerRow.owner.startswith(f"{kind}:"),
        OwnerRow.name == name,
        OwnerRow.identity.is_(None),
        OwnerRow.gone.is_(None),
    )
    return session.scalar(query.limit(1))


def _new(session: Session, kind: str, name: str) -> OwnerRow:
    key, number = f"{kind}:{name[:_LONGEST]}", 1
    while session.get(OwnerRow, key) is not None:
        number += 1
        key = f"{kind}:{name[:_LONGEST]}~{number}"
    row = OwnerRow(owner=key, name=name, seen=now())
    session.add(row)
    return row


def shown_owner(session: Session, owner: str) -> str:
    """An owner for people, with the name that it has now: ``user:ada``."""
    known: dict[str, str] = session.info.setdefault("owners", {})
    if owner not in known:
        row = session.get(OwnerRow, owner)
        known[owner] = f"{owner.partition(':')[0]}:{row.name}" if row else owner
    return known[owner]


def shown_author(session: Session, author: str) -> str:
    """An author for people: authors are owners who are users, without the kind."""
    return shown_owner(session, f"{USER}:{author}").partition(":")[2] if author else author
