"""Volumes: named places for files, their owner's, which outlive notebooks."""

from collections.abc import Sequence
from secrets import token_hex

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from kaos_hub.engines.places import Places
from kaos_hub.errors import Conflict, LimitExceeded, NotFound
from kaos_hub.schemas import Mount, Volume
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, VolumeRow, contains, now
from kaos_hub.service.notebooks.records import held_options, options_of


class Volumes:
    """The requests of an owner about volumes.

    Args:
        db: the service's database.
        places: where the engine has them.
        most: volumes that an owner may have.
    """

    def __init__(self, db: Database, places: Places, most: int) -> None:
        self._db, self._places, self._most = db, places, most

    async def list(self, owner: str, search: str = "") -> list[Volume]:
        """The owner's volumes, by name; ``search``: only those whose name contains it."""
        query = select(VolumeRow).where(VolumeRow.owner == owner).order_by(VolumeRow.name)
        if search:
            query = query.where(contains(search, VolumeRow.name))

        def look(session: Session) -> list[Volume]:
            users = _users(session, owner)
            return [
                Volume(
                    name=row.name, owner=owner, created=row.created,
                    notebooks=sorted(users.get(row.name, ())), shared=self._places.shares_volumes,
                )
                for row in session.scalars(query)
            ]  # fmt: skip

        return await self._db.run(look)

    async def create(self, owner: str, name: str) -> Volume:
        """Make a volume; its disk is made when a notebook first starts with it.

        Raises:
            Conflict: the owner has one of that name.
            LimitExceeded: the owner has as many as may be.
        """

        def add(session: Session) -> Volume:
            if session.scalar(_named(owner, name)) is not None:
                raise Conflict(f"You have a volume {name!r} already.")
            row = _add(session, owner, name, self._most)
            shared = self._places.shares_volumes
            return Volume(name=name, owner=owner, created=row.created, shared=shared)

        return await self._db.run(add)

    async def delete(self, owner: str, name: str) -> None:
        """Delete a volume and all that is in it.

        Raises:
            NotFound: the owner has none of that name.
            Conflict: a notebook uses it; names all that do.
        """

        def forget(session: Session) -> str:
            row = session.scalar(_named(owner, name))
            if row is None:
                raise NotFound(f"You have no volume {name!r}. `kaos volume list` shows yours.")
            users = sorted(_users(session, owner).get(name, ()))
            if users:
                raise Conflict(
                    f"Volume {name!r} is used by {', '.join(users)}. Delete them, or deploy each"
                    f" without it: kaos notebook deploy -n {users[0]} --volume -",
                    notebooks=users,
                )
            session.delete(row)
            return row.id

        await self._places.remove_volume(await self._db.run(forget))


def claim(session: Session, row: NotebookRow, most: int) -> None:
    """Make the volumes that a notebook names and its owner has not yet.

    Raises:
        LimitExceeded: they would be more than an owner may have.
    """
    for name in {mount.volume for mount in options_of(row).volumes}:
        if session.scalar(_named(row.owner, name)) is None:
            _add(session, row.owner, name, most)


def _add(session: Session, owner: str, name: str, most: int) -> VolumeRow:
    held = session.scalar(
        select(func.count()).select_from(VolumeRow).where(VolumeRow.owner == owner)
    )
    if (held or 0) >= most:
        raise LimitExceeded(
            f"Your limit is {most} volumes: {held} held, {name!r} would be one more. Delete one"
            " that you need no more: kaos volume list",
            limit=most, held=held, what="volumes",
        )  # fmt: skip
    row = VolumeRow(id=token_hex(8), owner=owner, name=name, created=now())
    session.add(row)
    session.flush()
    return row


def check_free(session: Session, row: NotebookRow, places: Places) -> None:
    """Refuse a volume that a running notebook holds, where only one at a time can.

    One that is about to stop is not in the way: the cluster itself waits until the volume is free.

    Raises:
        LimitExceeded: names volume and notebook.
    """
    wanted = {mount.volume for mount in options_of(row).volumes}
    if places.shares_volumes or not wanted:
        return
    others = session.scalars(
        select(NotebookRow).where(
            NotebookRow.owner == row.owner,
            NotebookRow.held,
            NotebookRow.wanted == "RUNNING",
            NotebookRow.id != row.id,
        )
    )
    for other in others:
        taken = wanted & {mount.volume for mount in held_options(other).volumes}
        if taken:
            raise LimitExceeded(
                f"Volume {min(taken)!r} is in notebook {other.name!r}, which runs, and a volume of"
                f" this cluster can be in one at a time. Stop that first: kaos notebook stop -n"
                f" {other.name}",
                notebook=other.name,
            )


def mounted(session: Session, row: NotebookRow, places: Places) -> Sequence[Mount]:
    """Return the mounts by which a notebook sees its volumes."""
    found = []
    for mount in options_of(row).volumes:
        volume = session.scalar(_named(row.owner, mount.volume))
        if volume is None:
            raise NotFound(f"Volume {mount.volume!r} is gone. Deploy the notebook again.")
        found.append(places.volume(volume.id, mount.path, mount.read_only))
    return found


def _named(owner: str, name: str) -> "Select[VolumeRow]":
    return select(VolumeRow).where(VolumeRow.owner == owner, VolumeRow.name == name)


def _users(session: Session, owner: str) -> dict[str, set[str]]:
    """Volume → the notebooks that name it, or run with it."""
    found: dict[str, set[str]] = {}
    for row in session.scalars(select(NotebookRow).where(NotebookRow.owner == owner)):
        for mount in [*options_of(row).volumes, *held_options(row).volumes]:
            found.setdefault(mount.volume, set()).add(row.name)
    return found
