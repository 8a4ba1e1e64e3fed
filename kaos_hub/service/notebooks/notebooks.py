"""The requests that may be made about notebooks."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from kaos_hub.errors import NotFound
from kaos_hub.installation.logins import Served
from kaos_hub.schemas import (
    Choices,
    DeployAnswer,
    Event,
    GitState,
    Notebook,
    NotebookRequest,
    NotebookState,
)
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, contains
from kaos_hub.service.notebooks.deletion import Deletions, Forgotten
from kaos_hub.service.notebooks.errands import Errands
from kaos_hub.service.notebooks.gate import Gate
from kaos_hub.service.notebooks.hosting import Hosting
from kaos_hub.service.notebooks.plans import needs_restart, restart_required, steps
from kaos_hub.service.notebooks.records import (
    announce,
    as_model,
    build_to_read,
    expect_build,
    find,
    followed,
    refuse_deleted,
    set_state,
    stream,
)
from kaos_hub.service.notebooks.repositories import Repositories
from kaos_hub.service.notebooks.wishes import Offer, Wishes
from kaos_hub.service.users.last_options import recall, remember
from kaos_hub.util.notifier import Bell

__all__ = ["Bell", "Errands", "Gate", "Hosting", "Notebooks", "Offer", "Wishes"]


class Notebooks:
    """The requests of a user about notebooks. ``owner`` is always the asking user.

    Args:
        hosting: makes wishes so.
        wishes: what requests make of rows.
        public_url: where browsers reach the Hub.
        served: the only user who may be served; None serves all users.
    """

    def __init__(
        self,
        hosting: Hosting,
        wishes: Wishes,
        public_url: str,
        served: Served | None = None,
    ) -> None:
        self._hosting, self._wishes = hosting, wishes
        self._public_url, self._served = public_url, served
        self._db: Database = hosting.db
        self._bell: Bell = hosting.bell
        self._forgotten, self._deletions = Forgotten(hosting), Deletions(hosting)
        self.repositories = Repositories(hosting.db, hosting.bell)

    # --- looking ---

    async def list(
        self,
        owner: str,
        states: Sequence[NotebookState] = (),
        limit: int | None = None,
        after: int = 0,
        search: str = "",
        order: str = "",
    ) -> Sequence[Notebook]:
        """The owner's notebooks, the youngest first.

        Args:
            owner: whose.
            states: only those in one of them, if any is named.
            limit: at most so many.
            after: leave out so many of the first.
            search: only those whose name or description contains it, in whatever case.
            order: ``name`` or ``state``, instead of by age.
        """
        query = select(NotebookRow).where(NotebookRow.owner == owner)
        if search:
            query = query.where(contains(search, NotebookRow.name, NotebookRow.display_name))
        if states:
            query = query.where(NotebookRow.state.in_(states))
        first = {"name": [NotebookRow.name], "state": [NotebookRow.state]}.get(order, [])
        query = query.order_by(*first, NotebookRow.created.desc(), NotebookRow.name)
        return await self._shown(query.offset(after).limit(limit))

    async def ended(self, owner: str, since: datetime, limit: int) -> Sequence[Notebook]:
        """Notebooks that were stopped or failed lately, the last first."""
        ended = (NotebookState.STOPPED, NotebookState.FAILED)
        when = func.coalesce(NotebookRow.stopped, NotebookRow.created)
        query = select(NotebookRow).where(
            NotebookRow.owner == owner, NotebookRow.state.in_(ended), when > since
        )
        return await self._shown(query.order_by(when.desc()).limit(limit))

    async def last_choices(self, owner: str, since: datetime | None = None) -> Choices | None:
        """Return what the owner, created at ``since``, chose for a notebook last."""
        return await recall(self._db, owner, since)

    async def names(self, owner: str) -> set[str]:
        """Of all notebooks of the owner."""
        query = select(NotebookRow.name).where(NotebookRow.owner == owner)
        return await self._db.run(lambda session: set(session.scalars(query)))

    async def _shown(self, query: Select[NotebookRow]) -> Sequence[Notebook]:
        return await self._db.run(
            lambda session: [
                as_model(session, row, self._public_url) for row in session.scalars(query)
            ]
        )

    async def get(self, owner: str, name: str) -> Notebook:
        """One notebook.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._db.run(
            lambda session: as_model(session, find(session, owner, name), self._public_url)
        )

    def events(self, owner: str, name: str | None, after: int | None) -> AsyncIterator[Event]:
        """Return the events of one notebook, or of all of the owner's; they never end."""
        return stream(self._db, self._bell, owner, name, after)

    async def build_log(
        self, owner: str, name: str, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The log of its latest build.

        Raises:
            NotFound: no such notebook, or nothing was built for it.
        """
        job = await self._log_of(owner, name, "build_job")
        return self._hosting.logs.read(job, offset, follow)

    async def host_log(
        self, owner: str, name: str, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The output of its latest start.

        Raises:
            NotFound: no such notebook, or it was never started.
        """
        workload = await self._log_of(owner, name, "workload")
        return self._hosting.logs.read(workload, offset, follow)

    async def _log_of(self, owner: str, name: str, column: str) -> str:
        def look(session: Session) -> str | None:
            row = find(session, owner, name)
            return build_to_read(session, row) if column == "build_job" else row.workload

        log_id = await self._db.run(look)
        if not log_id:
            nothing = "nothing was built for it" if column == "build_job" else "it never started"
            raise NotFound(
                f"Notebook {name!r} has no such log: {nothing}. What it is doing:"
                f" kaos notebook info -n {name}"
            )
        return log_id

    async def source_digest(self, owner: str, name: str) -> str:
        """The tree that the notebook's working copy follows.

        Raises:
            NotFound: no such notebook, or it has neither source nor context.
            Forbidden: it is of a group that the owner has left.
        """

        def look(session: Session) -> tuple[NotebookRow, str | None]:
            row = find(session, owner, name)
            return row, followed(session, row) if row.held else None

        row, digest = await self._db.run(look)
        await self._hosting.rights.check(row)
        digest = digest or await self._hosting.trees.followed(row)
        if digest is None:
            raise NotFound(
                f"Notebook {name!r} has neither source nor context. Give it one:"
                f" kaos notebook deploy -n {name} -s DIR"
            )
        return digest

    # --- wishing ---

    async def deploy(
        self, owner: str, author: str, wish: NotebookRequest, owners: Collection[str] = ()
    ) -> DeployAnswer:
        """Make a notebook, or change one; what the wish leaves out stays as it is.

        Args:
            owner: whose notebook it is.
            author: who asks.
            wish: what is wanted.
            owners: whose runs, besides the owner's own, it may work on.

        Raises:
            RestartRequired: it runs, the change needs a restart, and the wish does not allow one.
            NotFound: a bundle or size that is not there.
            Conflict: it is being deleted.
            InvalidBundle: source and context cannot be laid over one another.
            Forbidden: a folder that the admin does not offer, or things of a group that the owner
                has left.
            InvalidResources, InvalidName: the wish makes no sense.
        """
        if self._served is not None:
            self._served.check(self._name(owner))
        run_before = await self._db.run(
            lambda session: session.scalar(
                select(NotebookRow.run).where(
                    NotebookRow.owner == owner, NotebookRow.name == wish.name
                )
            )
        )
        row, new = await self._db.run(
            lambda session: self._wishes.draft(session, owner, wish, owners)
        )
        await self._hosting.rights.check(row)
        environment = await self._hosting.environment_of(row, ask=False)
        await self._hosting.trees.followed(row)
        await self._hosting.mounts.of(row)
        restart = needs_restart(row, environment, run_before) if row.held else []
        actions = [f"make notebook {row.name!r}"] if new else []
        actions += steps(row, environment, restart)
        if restart and not (wish.restart or wish.dry_run):
            raise restart_required(row, wish, restart)
        if wish.dry_run:
            model = await self._db.run(lambda session: as_model(session, row, self._public_url))
            return DeployAnswer(notebook=model, actions=actions)

        def write(session: Session) -> tuple[str, Notebook]:
            fresh, _ = self._wishes.apply(session, owner, wish, row.name, owners)
            session.add(fresh)
            session.flush()
            self._wishes.check_fits(session, fresh)
            self._wishes.claim(session, fresh)
            fresh.wanted, fresh.restart = "RUNNING", bool(restart)
            expect_build(fresh)
            if fresh.held:
                fresh.reason = ""
                announce(session, fresh)
            else:
                set_state(session, fresh, NotebookState.QUEUED, "on its way")
            session.flush()
            model = as_model(session, fresh, self._public_url)
            remember(session, owner, model)
            return fresh.id, model

        notebook_id, model = await self._db.run(write)
        if wish.git_credentials is not None and model.git and model.git.state is GitState.ASKED:
            self.repositories.keep(notebook_id, str(model.git), wish.git_credentials)
        self._bell.ring()
        self._hosting.wake(notebook_id)
        return DeployAnswer(notebook=model, actions=actions)

    async def start(self, owner: str, name: str) -> Notebook:
        """Start it. If its latest source never built, the last that did is used."""
        await self._check_rights(owner, name)
        return await self._wish(owner, name, self._wish_start)

    async def retry(self, owner: str, name: str) -> Notebook:
        """Build again, and start."""
        await self._check_rights(owner, name)
        return await self._wish(owner, name, self._wish_run)

    async def _check_rights(self, owner: str, name: str) -> None:
        row = await self._db.run(lambda session: find(session, owner, name))
        await self._hosting.rights.check(row)

    def _wish_start(self, session: Session, row: NotebookRow) -> None:
        broken = row.build_state == "FAILED" and row.source_id != row.good_source_id
        if broken and row.good_source_id is not None:
            row.source_id = row.good_source_id
        self._wish_run(session, row)

    def _wish_run(self, session: Session, row: NotebookRow) -> None:
        refuse_deleted(row)
        self._wishes.check_fits(session, row)
        if row.build_state in ("FAILED", "CANCELLED"):
            expect_build(row)
        row.wanted, row.stop_reason = "RUNNING", ""
        if not row.held:
            set_state(session, row, NotebookState.QUEUED, "on its way")

    async def stop(self, owner: str, name: str, by: str | None = None) -> Notebook:
        """Stop it (a build it waits for, too). Its home stays."""

        return await self._wish(owner, name, _wish_stop(f"stopped by {by or self._name(owner)}"))

    async def kill(self, owner: str, name: str) -> Notebook:
        """Stop it without waiting for it: nothing it runs gets time to finish. Its home stays."""

        wish = _wish_stop(f"killed by {self._name(owner)}")
        model = await self._wish(owner, name, wish)
        self._deletions.end(await self._db.run(lambda session: find(session, owner, name)))
        return model

    async def delete(self, owner: str, name: str, seconds: float | None = None) -> bool:
        """Stop it and forget it with its home. Bundles stay.

        Args:
            owner: whose.
            name: of the notebook.
            seconds: to wait at most until it is gone; None waits for it.

        Returns:
            whether it is gone. Else it goes by itself, as soon as its server has ended.
        """
        await self._wish(owner, name, _wish_stop(f"deleted by {self._name(owner)}", "DELETED"))
        row = await self._db.run(lambda session: find(session, owner, name))
        return await self._deletions.delete(row, seconds)

    async def recover(self) -> None:
        """Go on deleting what was being deleted when the service ended."""

        def begun(session: Session) -> list[NotebookRow]:
            found = select(NotebookRow).where(NotebookRow.wanted == "DELETED")
            return list(session.scalars(found))

        for row in await self._db.run(begun):
            self._deletions.begin(row)

    async def removed_at_hub(self, owner: str, name: str) -> None:
        """Forget a notebook once the Hub has forgotten its server, as it is about to."""
        await self._forgotten.follow(owner, name, self.delete)

    def _name(self, owner: str) -> str:
        return self._hosting.identities.name(owner)

    async def _wish(self, owner: str, name: str, change: Any) -> Notebook:
        def write(session: Session) -> tuple[str, Notebook]:
            row = find(session, owner, name)
            change(session, row)
            session.flush()
            return row.id, as_model(session, row, self._public_url)

        if self._served is not None:
            self._served.check(self._name(owner))
        notebook_id, model = await self._db.run(write)
        self._bell.ring()
        self._hosting.wake(notebook_id)
        return model


def _wish_stop(reason: str, wanted: str = "STOPPED") -> Callable[[Session, NotebookRow], None]:
    def wish(session: Session, row: NotebookRow) -> None:
        if row.wanted != "DELETED":
            row.wanted = wanted
        row.restart = False
        if row.held or not NotebookState(row.state).settled:
            row.stop_reason = reason
            set_state(session, row, NotebookState.STOPPING, reason)

    return wish
