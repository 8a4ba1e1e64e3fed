"""The gate: what spawners ask before a start and after an end, and what notebooks report.

Users may ask the Hub for servers directly, so limits are checked here, for every start.
"""

from datetime import datetime, timedelta
from typing import NoReturn
from urllib.parse import quote, urljoin, urlsplit

from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict, Forbidden, InvalidRequest, LimitExceeded, NotBuilt, NotFound
from kaos_hub.installation.logins import Served
from kaos_hub.schemas import (
    DEFAULT_SERVER,
    Activity,
    ActivityAnswer,
    AdmissionRequest,
    NotebookRequest,
    NotebookSpec,
    NotebookState,
    ReleaseRequest,
    parse_request,
)
from kaos_hub.service.db.tables import NotebookRow, VersionRow, now
from kaos_hub.service.notebooks import admission, idle
from kaos_hub.service.notebooks.errands import Errands
from kaos_hub.service.notebooks.hosting import Hosting
from kaos_hub.service.notebooks.records import (
    as_model,
    expect_build,
    find,
    followed,
    no_longer_wanted,
    set_state,
)
from kaos_hub.service.notebooks.repositories import is_asked
from kaos_hub.service.notebooks.wishes import Wishes
from kaos_hub.service.quota import Ledger
from kaos_hub.service.users.last_options import remember
from kaos_hub.util.quantities import show_memory

_LATE = timedelta(seconds=10)
"""The longest delay of a start that the Hub was asked for: as long as it lets one wait."""


class Gate:
    """Lets servers start, and lets go of what they held.

    Args:
        hosting: makes wishes so.
        wishes: what requests make of rows.
        ledger: limits.
        errands: what notebooks' servers have to do.
        public_url: where browsers reach the Hub.
        served: the only user who may be served; None serves all users.
    """

    def __init__(
        self,
        hosting: Hosting,
        wishes: Wishes,
        ledger: Ledger,
        errands: Errands,
        public_url: str,
        served: Served | None = None,
    ) -> None:
        self._errands = errands
        self._hosting, self._wishes, self._ledger = hosting, wishes, ledger
        self._public_url, self._served = public_url, served
        self._db, self._bell = hosting.db, hosting.bell

    async def admit(self, asked: AdmissionRequest) -> NotebookSpec:
        """Admit a server that may start. Return as what it starts.

        Raises:
            NotBuilt: something has to be done first; that is begun, and the start follows.
            LimitExceeded: it would not fit.
            Conflict: it is just being stopped.
            Forbidden: this engine does not serve that user, or the notebook uses things of a group
                that its owner has left.
        """
        if self._served is not None:
            self._served.check(asked.user)
        owner = await self.owner(asked.user, asked.identity)
        name = asked.server or DEFAULT_SERVER
        if asked.server == DEFAULT_SERVER:
            raise Forbidden(f"A server cannot be called {DEFAULT_SERVER!r}: the default server is.")
        if "git_credentials" in asked.options:
            # The Hub keeps and shows what a server is asked for.
            raise InvalidRequest(
                "git_credentials: not by way of the Hub. Say it to the service instead:"
                f" kaos notebook deploy -n {name} --git URL --git-credentials"
            )
        ours = ("notebook", "fresh")
        asks = {k: v for k, v in asked.options.items() if k not in ours and v not in (None, "")}
        wish = parse_request(NotebookRequest, {**asks, "name": name})

        def write(session: Session) -> tuple[NotebookRow, bool]:
            row, new = self._wishes.apply(session, owner, wish, name)
            if "fresh" in asked.options and not new:
                raise _taken(self._page_of(name), name)
            if row.wanted != "RUNNING" and "notebook" in asked.options and _just_stopped(row):
                # our own question, or one repeated: on its way when the notebook was stopped
                raise Conflict(f"Notebook {name!r} was stopped a moment ago; start it again then.")
            self._wishes.check_fits(session, row)
            session.add(row)
            session.flush()
            self._wishes.claim(session, row)
            if row.wanted != "RUNNING":
                row.wanted, row.stop_reason = "RUNNING", ""
            if asks:
                session.flush()
                remember(session, owner, as_model(session, row, self._public_url))
            return row, new

        draft, _ = await self._db.run(lambda s: self._wishes.draft(s, owner, wish))
        await self._hosting.rights.check(draft)
        row, new = await self._db.run(write)
        environment = await self._hosting.environment_of(row, ask=False)
        tree, result = await self._hosting.trees.followed(row), environment.result
        mounts = await self._hosting.mounts.of(row)
        if result is None or not await self._laid_out(row):
            await self._follow_up(row)
        try:
            spec = await self._db.run(
                lambda session: admission.admit(
                    session,
                    self._keyed(find(session, owner, name), environment.key),
                    self._ledger,
                    result,
                    self._hosting.engine,
                    self._hosting.inside,
                    tree,
                    mounts,
                )
            )
        except LimitExceeded as e:
            await self._refused(row.id, new, e.message)
            raise
        await self._hosting.engine.admitted(spec)
        self._bell.ring()
        self._hosting.attend(row.id)
        self._hosting.host_logs.follow(spec.workload)
        return spec

    async def owner(self, user: str, identity: str, current: bool = True) -> str:
        """The owner that the Hub means; a Hub that says no identity means whom it calls so now.

        Raises:
            NotFound: there is none.
        """
        identities = self._hosting.identities
        if identity:
            return await identities.bind("user", identity, user, current)
        found = await identities.called(user)
        if found is None:
            raise NotFound(f"The Hub has no user {user!r}.")
        return found.owner

    async def _refused(self, notebook_id: str, new: bool, message: str) -> None:
        """Others were quicker: what was never there is not left behind, what was says why."""

        def write(session: Session) -> None:
            row = session.get_one(NotebookRow, notebook_id)
            if new:
                session.delete(row)
                return
            no_longer_wanted(row)
            set_state(session, row, NotebookState.FAILED, message)

        await self._db.run(write)
        self._bell.ring()

    @staticmethod
    def _keyed(row: NotebookRow, key: str) -> NotebookRow:
        if row.wanted != "RUNNING":
            raise Conflict(
                f"Notebook {row.name!r} was stopped while it was about to start. To start it after"
                f" all: kaos notebook start -n {row.name}"
            )
        row.environment_key = key
        return row

    async def _laid_out(self, row: NotebookRow) -> bool:
        digests = await self._hosting.trees.all(row)
        return all([await self._hosting.engine.places.has_tree(digest) for digest in digests])

    async def _follow_up(self, row: NotebookRow) -> NoReturn:
        """Refuse a start that is not ready yet; make it ready, and start it then."""

        def queue(session: Session) -> None:
            fresh = session.get_one(NotebookRow, row.id)
            if NotebookState(fresh.state).settled:
                expect_build(fresh)
                set_state(session, fresh, NotebookState.QUEUED, "on its way")

        await self._db.run(queue)
        self._bell.ring()
        self._hosting.attend(row.id)
        page = self._page_of(row.name)
        raise NotBuilt(
            f"Notebook {row.name!r} is being prepared and starts by itself when that is done."
            f" Follow it at {urljoin(self._public_url, page)}",
            page=page,
        )

    def _page_of(self, name: str) -> str:
        """The path of a notebook's page."""
        hub = urlsplit(self._public_url).path.rstrip("/")
        return f"{hub}/services/kaos/notebooks/{quote(name)}"

    async def release(self, gone: ReleaseRequest) -> None:
        """A server is gone: let go of what it held. Old news are ignored."""
        try:
            owner = await self.owner(gone.user, gone.identity, current=False)
        except NotFound:
            return
        name = gone.server or DEFAULT_SERVER

        def write(session: Session) -> str:
            row = find(session, owner, name)
            cancelled = not gone.workload and row.state == NotebookState.STARTING
            if not row.held or (gone.workload != row.workload and not cancelled):
                return ""
            again = row.restart or row.state == NotebookState.STOPPING
            if row.wanted == "RUNNING" and again:
                # stopped in order to be started again, or started again while it stopped
                admission.release(session, row, NotebookState.STARTING, "starting again")
                return row.workload
            asked_for = gone.stopped_by_hub or row.stop_reason
            reason = row.stop_reason or gone.reason
            if not asked_for:
                reason = gone.reason or f"it ended by itself (exit code {gone.exit_code})"
            crashed = not asked_for and gone.exit_code not in (None, 0)
            never_ran = row.state == NotebookState.STARTING and not asked_for
            state = NotebookState.FAILED if crashed or never_ran else NotebookState.STOPPED
            no_longer_wanted(row)
            admission.release(session, row, state, reason or "stopped from the Hub")
            return row.workload

        try:
            workload = await self._db.run(write)
        except NotFound:
            workload = gone.workload
        self._bell.ring()
        await self._hosting.end(workload)

    def folders(self, user: str) -> list[str]:
        """Folders of the machine that a user may have mounted, for people."""
        return self._hosting.mounts.offered(user)

    async def activity(self, owner: str, name: str, seen: Activity) -> ActivityAnswer:
        """Take a notebook's evidence of use; answer with the verdict.

        Raises:
            NotFound: there is no such notebook, or it does not run.
        """

        def write(session: Session) -> ActivityAnswer:
            row = find(session, owner, name)
            if not row.held:
                raise NotFound(f"Notebook {name!r} is not running.")
            at = now()
            idle.judge(row, seen, at)
            self._note_memory(session, row, seen)
            source = followed(session, row)
            wished = session.get(VersionRow, row.source_id) if row.source_id else None
            if wished is not None and wished.digest == seen.source:
                # It was saved there, and waits for a start that has its environment.
                source = wished.digest
            git = self._hosting.inside.git.order(row) if is_asked(row) else None
            return ActivityAnswer(
                verdict=idle.verdict(row, at),
                stop=self._let_end(row, at),
                report_in=idle.until_overdue(row, at),
                source=source,
                git=git,
            )

        answer = await self._db.run(write)
        return answer.model_copy(update={"errands": self._errands.orders(owner, name)})

    def _let_end(self, row: NotebookRow, at: datetime) -> str:
        """Note why an idle notebook ends, for when it does. A new report is a new verdict."""
        if row.wanted != "RUNNING" or row.state != NotebookState.RUNNING:
            return ""
        row.stop_reason = idle.overdue(row, at)
        return row.stop_reason

    def _note_memory(self, session: Session, row: NotebookRow, seen: Activity) -> None:
        """Say why a kernel died: in Jupyter it is just gone."""
        if seen.out_of_memory is None or row.state != NotebookState.RUNNING:
            return
        reason = (
            f"a process was ended at {seen.out_of_memory:%H:%M} UTC, because the notebook used more"
            f" than its {show_memory(row.held_memory or None)} of memory; deploy with --memory to"
            " give it more"
        )
        if row.reason != reason:
            set_state(session, row, NotebookState.RUNNING, reason)
            self._bell.ring()


def _taken(page: str, name: str) -> Conflict:
    """The refusal of a new notebook under a name that another has, whose page is there."""
    return Conflict(
        f"You have a notebook {name!r} already, and it stays as it is. Choose another name, or go"
        f" to its page: {page}",
        page=page,
    )


def _just_stopped(row: NotebookRow) -> bool:
    """Return whether a start that was asked for before the last stop may still be under way."""
    if row.state == NotebookState.STOPPING:
        return True
    return row.stopped is not None and now() - row.stopped < _LATE
