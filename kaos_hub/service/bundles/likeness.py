"""Comparison of a folder with the bundle of its name: another version, or something else."""

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.schemas import Likeness, LikenessRequest
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import VersionRow

_TELLS_NOTHING = re.compile(
    r"(.*/)?(Dockerfile|requirements.*\.txt|__init__\.py|LICENSE|\.(git|docker|kaos)ignore)"
)
"""Files that are often the same in what has nothing else in common."""
_LONGEST = 64
"""Characters of a bundle's name."""


class Likenesses:
    """Compares a folder, before it is sent, with what its owner has under the same name.

    Args:
        db, versions: what it works with.
    """

    def __init__(self, db: Database, versions: Versions) -> None:
        self._db, self._versions = db, versions

    async def of(self, owner: str, asked: LikenessRequest) -> Likeness:
        """Find the bundle that a folder belongs to, of its name or one like it; else a free name.

        It belongs to one if it, or another state of the same folder, is a version of that bundle;
        to the one of its very name also if it has a file in common with the version sent last.
        """

        def look(session: Session) -> Sequence[VersionRow]:
            query = select(VersionRow).where(
                VersionRow.owner == owner,
                VersionRow.kind == asked.kind,
                VersionRow.name == asked.name,
            )
            return session.scalars(query.order_by(VersionRow.number.desc())).all()

        versions = await self._db.run(look)
        known = any(_known(asked, v.digest, v.origin) for v in versions)
        if not versions or known or await self._shares_a_file(versions[0], asked.files):
            return Likeness(alike=True, name=asked.name)
        name, known = await self._db.run(lambda session: _other_name(session, owner, asked))
        before = f"{versions[0].name}@v{versions[0].number}"
        return Likeness(alike=known, name=name, before=before)

    async def _shares_a_file(self, version: VersionRow, given: Mapping[str, str]) -> bool:
        there = await self._versions.files(version.digest)
        both = [path for path, digest in given.items() if there.get(path) == digest]
        # Of what holds nothing else, these files tell enough.
        telling = [path for path in both if not _TELLS_NOTHING.fullmatch(path)]
        only = all(_TELLS_NOTHING.fullmatch(path) for path in (*given, *there))
        return bool(telling or (both and only))


def _other_name(session: Session, owner: str, asked: LikenessRequest) -> tuple[str, bool]:
    """A name like it that the same folder got earlier, or that is free; and whether it is known."""
    number = 2
    while True:
        end = f"-{number}"
        name = f"{asked.name[: _LONGEST - len(end)]}{end}"
        query = select(VersionRow.digest, VersionRow.origin).where(
            VersionRow.owner == owner, VersionRow.kind == asked.kind, VersionRow.name == name
        )
        there = session.execute(query).all()
        known = any(_known(asked, *row) for row in there)
        if known or not there:
            return name, known
        number += 1


def _known(asked: LikenessRequest, digest: str, origin: str | None) -> bool:
    """Tell if a version is the folder that is asked about, in this state or another one."""
    return asked.root == digest or (asked.origin is not None and asked.origin == origin)
