"""Repositories that notebooks begin with: what is to be cloned, and what became of it.

The clone is made by the notebook itself. What it needs to read a private repository is held here in
memory, for a day at most, and handed out once.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidRequest, NotFound, Unsupported
from kaos_hub.schemas import (
    GIT_SCHEMES,
    NOTHING,
    Clone,
    CloneLogin,
    CloneOrder,
    CloneReport,
    GitCredentials,
    GitState,
    NotebookRequest,
    parse_repository,
)
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.records import announce, clone_of, find, options_of
from kaos_hub.util.notifier import Bell

_KEPT = 24 * 3600.0
"""Seconds for which a build may keep a notebook from asking."""


@dataclass(frozen=True)
class GitRules:
    """The rules on what may be cloned."""

    networks: Sequence[str] = ()
    """Networks that may be reached though they are private."""
    schemes: Sequence[str] = GIT_SCHEMES
    size: int = 10 << 30
    """Bytes."""
    deadline: int = 3600
    """Seconds."""

    def check(self, text: str) -> None:
        """Refuse what cannot be cloned here at all.

        Raises:
            Unsupported: says what can.
        """
        scheme = parse_repository(text).scheme
        if scheme not in self.schemes:
            allowed = ", ".join(f"{each}://" for each in self.schemes) or "nothing"
            raise Unsupported(f"git: {scheme}:// cannot be cloned here, but {allowed}")

    def order(self, row: NotebookRow) -> CloneOrder | None:
        """Return what a notebook is to clone, if anything."""
        text = options_of(row).git
        if text is None:
            return None
        return CloneOrder(
            repository=text,
            networks=list(self.networks),
            schemes=list(self.schemes),
            size=self.size,
            deadline=self.deadline,
            cloned=row.clone.get("state") == GitState.CLONED,
        )


def is_asked(row: NotebookRow) -> bool:
    """Return whether a notebook has yet to hear that it is to clone something."""
    return row.clone.get("state") == GitState.ASKED


def ask(row: NotebookRow, before: str | None, wish: NotebookRequest) -> None:
    """Have a notebook clone what is wished for, unless that is there.

    Args:
        row: the notebook; its options are as they are to be.
        before: the repository that it had.
        wish: what was asked for.

    Raises:
        InvalidRequest: credentials without a repository.
    """
    now = options_of(row).git
    if now is None:
        if wish.git_credentials is not None:
            raise InvalidRequest(
                "git_credentials: there is no repository that they are for; say one: --git URL"
            )
        row.clone = {}
        return
    again = wish.git not in (None, NOTHING) or wish.git_credentials is not None
    if now != before or (again and row.clone.get("state") != GitState.CLONED):
        row.clone = {"state": GitState.ASKED.value}


class Repositories:
    """Hears from notebooks what became of their clones, and hands out credentials.

    Args:
        db: where notebooks are.
        bell: rung when there is news of them.
    """

    def __init__(self, db: Database, bell: Bell) -> None:
        self._db, self._bell = db, bell
        self._logins: dict[tuple[str, str], tuple[GitCredentials, float]] = {}

    def keep(self, notebook_id: str, repository: str, credentials: GitCredentials) -> None:
        """Hold credentials until the notebook asks for them."""
        now = time.monotonic()
        self._logins = {
            key: kept
            for key, kept in self._logins.items()
            if kept[1] > now and key[0] != notebook_id
        }
        self._logins[notebook_id, repository] = credentials, now + _KEPT

    async def take(self, owner: str, name: str, repository: str) -> CloneLogin:
        """Hand a notebook's credentials out, which then are held no more.

        Raises:
            NotFound: the notebook is to clone something else, or nothing.
        """
        row = await self._db.run(lambda session: _still(session, owner, name, repository))
        credentials, until = self._logins.pop((row.id, repository), (None, 0.0))
        return CloneLogin(credentials=credentials if until > time.monotonic() else None)

    async def report(self, owner: str, name: str, said: CloneReport) -> Clone:
        """Take what a notebook says of its clone.

        Raises:
            NotFound: as :meth:`take`.
        """

        def write(session: Session) -> Clone:
            row = _still(session, owner, name, said.repository)
            before = row.clone.get("state")
            row.clone = said.model_dump(mode="json", exclude={"repository"}, exclude_defaults=True)
            if row.clone["state"] != before:
                announce(session, row)
            found = clone_of(row)
            assert found is not None, "it has a repository"
            return found

        found = await self._db.run(write)
        self._bell.ring()
        return found


def _still(session: Session, owner: str, name: str, repository: str) -> NotebookRow:
    row = find(session, owner, name)
    if options_of(row).git != repository:
        raise NotFound(f"Notebook {name!r} is not to have that repository any more.")
    return row
