"""Notebooks: what users may do with them.

A request writes what is wanted; :mod:`.hosting` makes it so. What may start is decided in
:mod:`.admission`, what is idle in :mod:`.idle`.
"""

import asyncio
import getpass
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.database import Database, EventRow, NotebookRow, VersionRow, now
from kaos_hub.errors import (
    Conflict,
    Forbidden,
    InvalidResources,
    NotBuilt,
    NotFound,
    RestartRequired,
)
from kaos_hub.ledger import Ledger
from kaos_hub.models import (
    DEFAULT_SERVER,
    Activity,
    ActivityAnswer,
    AdmissionRequest,
    BundleKind,
    DeployAnswer,
    Event,
    IdlePolicy,
    IdleVerdict,
    JobState,
    Notebook,
    NotebookRequest,
    NotebookSpec,
    NotebookState,
    ReleaseRequest,
    Size,
    parse_request,
    show_memory,
)
from kaos_hub.notebooks import admission, idle
from kaos_hub.notebooks.hosting import Hosting, remove_home
from kaos_hub.notebooks.names import find_name
from kaos_hub.notebooks.records import (
    Bell,
    announce,
    as_model,
    find,
    server_of,
    set_state,
    stream,
    user_of,
)
from kaos_hub.versions import Versions, select_version

__all__ = ["Bell", "Hosting", "Notebooks"]

N = TypeVar("N", int, float)


class Notebooks:
    """What a user may ask about notebooks. ``owner`` is always the asking user.

    Args:
        hosting: makes wishes so.
        versions: bundles.
        ledger: limits.
        sizes: what the admin offers, and ``default_size`` among them.
        idle: the policy of notebooks that ask for none.
        public_url: where browsers reach the Hub.
        gpus: how many devices the engine can give out.
        trusted: the only user the engine may serve; None serves everybody.
    """

    def __init__(
        self,
        hosting: Hosting,
        versions: Versions,
        ledger: Ledger,
        sizes: Sequence[Size],
        default_size: str,
        idle: IdlePolicy,
        public_url: str,
        gpus: int = 0,
        trusted: str | None = None,
    ) -> None:
        self._hosting, self._versions, self._ledger = hosting, versions, ledger
        self._sizes = {size.name: size for size in sizes}
        self._default_size, self._idle = default_size, idle
        self._public_url, self._gpus, self._trusted = public_url, gpus, trusted
        self._db: Database = hosting.db
        self._bell: Bell = hosting.bell

    # --- looking ---

    async def list(self, owner: str) -> list[Notebook]:
        """The owner's notebooks, the youngest first."""

        def look(session: Session) -> list[Notebook]:
            rows = session.scalars(
                select(NotebookRow)
                .where(NotebookRow.owner == owner)
                .order_by(NotebookRow.created.desc(), NotebookRow.name)
            )
            return [as_model(session, row, self._public_url) for row in rows]

        return await self._db.run(look)

    async def get(self, owner: str, name: str) -> Notebook:
        """One notebook.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._db.run(
            lambda session: as_model(session, find(session, owner, name), self._public_url)
        )

    def events(self, owner: str, name: str | None, after: int | None) -> AsyncIterator[Event]:
        """What happens to one notebook, or all of the owner's; never ends."""
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
        log_id: str | None = await self._db.run(
            lambda session: getattr(find(session, owner, name), column)
        )
        if not log_id:
            nothing = "nothing was built for it" if column == "build_job" else "it never started"
            raise NotFound(f"Notebook {name!r} has no such log: {nothing}.")
        return log_id

    async def source_digest(self, owner: str, name: str) -> str:
        """The source bundle that the notebook's working copy follows.

        Raises:
            NotFound: no such notebook, or it has no source.
        """

        def look(session: Session) -> str:
            row = find(session, owner, name)
            source = _followed(session, row)
            if source is None:
                raise NotFound(f"Notebook {name!r} has no source bundle.")
            return source.digest

        return await self._db.run(look)

    # --- wishing ---

    async def deploy(self, owner: str, author: str, wish: NotebookRequest) -> DeployAnswer:
        """Make a notebook, or change one; what the wish leaves out stays as it is.

        Raises:
            RestartRequired: it runs, the change needs a restart, and the wish does not allow one.
            NotFound: a bundle or size that is not there.
            InvalidResources, InvalidName: the wish makes no sense.
        """
        self._refuse_stranger(user_of(owner))
        row, new = await self._db.run(lambda session: self._draft(session, owner, wish))
        restart = await self._needs_restart(row) if row.held else []
        actions = [f"make notebook {row.name!r}"] if new else []
        actions += await self._plan(row, restart)
        if restart and not (wish.restart or wish.dry_run):
            raise RestartRequired(
                f"Notebook {row.name!r} is running and must restart for: {', '.join(restart)}."
                " Its kernels would be lost, its files stay. Confirm with -y.",
                changes=restart,
            )
        if wish.dry_run:
            model = await self._db.run(lambda session: as_model(session, row, self._public_url))
            return DeployAnswer(notebook=model, actions=actions)

        def write(session: Session) -> tuple[str, Notebook]:
            fresh, _ = self._wished(session, owner, wish, row.name)
            session.add(fresh)
            session.flush()
            self._check_fits(session, fresh)
            fresh.wanted, fresh.restart = "RUNNING", bool(restart)
            fresh.build_state, fresh.build_job, fresh.build_reason = JobState.QUEUED.value, None, ""
            if fresh.held:
                fresh.reason = ""
                announce(session, fresh)
            else:
                set_state(session, fresh, NotebookState.QUEUED, "on its way")
            session.flush()
            return fresh.id, as_model(session, fresh, self._public_url)

        notebook_id, model = await self._db.run(write)
        self._bell.ring()
        self._hosting.wake(notebook_id)
        return DeployAnswer(notebook=model, actions=actions)

    def _check_fits(self, session: Session, row: NotebookRow) -> None:
        """Refuse before anything is built for it what would not be admitted after."""
        self._ledger.check(session, row, row.cpu or 0, row.memory or 0, row.gpu)

    def _draft(
        self, session: Session, owner: str, wish: NotebookRequest
    ) -> tuple[NotebookRow, bool]:
        """The notebook as the wish wants it, and whether it is new. Nothing is written."""
        with session.no_autoflush:
            row, new = self._wished(session, owner, wish, wish.name)
            if not new:
                session.expunge(row)
            return row, new

    def _wished(
        self, session: Session, owner: str, wish: NotebookRequest, name: str | None
    ) -> tuple[NotebookRow, bool]:
        existing = {
            row.name: row
            for row in session.scalars(select(NotebookRow).where(NotebookRow.owner == owner))
        }
        row = existing.get(name) if name is not None else None
        new = row is None
        if row is None:
            row = self._new_row(owner, name or find_name(existing))
            if wish.size is None and self._default_size:
                self._resize(row, self._default_size)
        self._apply(session, row, wish)
        return row, new

    def _new_row(self, owner: str, name: str) -> NotebookRow:
        return NotebookRow(
            id=token_hex(8), owner=owner, name=name, display_name="", created=now(),
            wanted="STOPPED", restart=False, pull=False, gpu=0,
            idle_timeout=self._idle.timeout, idle_type=self._idle.type.value,
            state=NotebookState.STOPPED.value, reason="", progress=0,
            build_state="SKIPPED", build_reason="", starts=0, workload="", environment_key="",
            stop_reason="", idle_reason="", held=False, held_cpu=0, held_memory=0, held_gpu=0,
        )  # fmt: skip

    def _apply(self, session: Session, row: NotebookRow, wish: NotebookRequest) -> None:
        for kind, text, column in (
            (BundleKind.SOURCE, wish.source, "source_id"),
            (BundleKind.DATA, wish.data, "data_id"),
        ):
            if text is not None:
                setattr(row, column, select_version(session, row.owner, kind, text).id)
        if wish.size is not None:
            self._resize(row, wish.size)
        row.cpu = wish.cpu if wish.cpu is not None else row.cpu
        row.memory = wish.memory if wish.memory is not None else row.memory
        row.gpu = wish.gpu if wish.gpu is not None else row.gpu
        row.pull = row.pull or wish.pull
        if wish.display_name is not None:
            row.display_name = wish.display_name
        if wish.idle_type is not None:
            row.idle_type = wish.idle_type
        if wish.idle_timeout is not None:
            row.idle_timeout = wish.idle_timeout
        self._cap(row)

    def _resize(self, row: NotebookRow, name: str) -> None:
        size = self._sizes.get(name)
        if size is None:
            offered = ", ".join(self._sizes) or "none"
            raise InvalidResources(f"There is no size {name!r}; offered: {offered}.")
        row.cpu, row.memory, row.gpu = size.cpu, size.memory, size.gpu

    def _cap(self, row: NotebookRow) -> None:
        """Refuse at once what can never be admitted, and keep the idle timeout within its cap."""
        if row.gpu > self._gpus:
            there_are = f"{self._gpus} GPUs" if self._gpus else "no GPU"
            raise InvalidResources(f"{row.gpu} GPUs asked for, but there is {there_are} here.")
        limits = self._ledger.limits(row.owner)
        _refuse_never("cpu", row.cpu, limits.cpu, str)
        _refuse_never("memory", row.memory, limits.memory, show_memory)
        _refuse_never("gpu", row.gpu, limits.gpu, str)
        cap = limits.idle_timeout
        if cap is not None and (row.idle_timeout == 0 or row.idle_timeout > cap):
            row.idle_timeout = cap

    async def _needs_restart(self, row: NotebookRow) -> Sequence[str]:
        """What of the wish a running notebook cannot take in."""
        changes = []
        if row.data_id != row.mounted_data_id:
            changes.append("other data")
        if (row.cpu or 0, row.memory or 0, row.gpu) != (
            row.held_cpu,
            row.held_memory,
            row.held_gpu,
        ):
            changes.append("other resources")
        environment = await self._find_environment(row)
        if environment.key != row.environment_key:
            changes.append(f"a new environment ({environment.why})")
        return changes

    async def _find_environment(self, row: NotebookRow) -> Any:
        source_id = row.source_id
        source = await self._db.run(
            lambda session: session.get(VersionRow, source_id) if source_id else None
        )
        return await self._hosting.environments.find(
            row.owner, source, pull=row.pull, before=row.environment_key
        )

    async def _plan(self, row: NotebookRow, restart: Sequence[str]) -> Sequence[str]:
        environment = await self._find_environment(row)
        steps = []
        if environment.result is None:
            steps.append(f"build: {environment.why}")
        else:
            steps.append("build nothing: the environment is known")
        steps += environment.advice
        if row.held and not restart:
            steps.append("update the working copy in place; kernels live on")
        elif row.held:
            steps.append(f"restart, for {', '.join(restart)}")
        else:
            cpu = "any" if row.cpu is None else f"{row.cpu:g}"
            size = f"cpu {cpu}, memory {show_memory(row.memory)}, gpu {row.gpu}"
            steps.append(f"start with {size}")
        return steps

    async def start(self, owner: str, name: str) -> Notebook:
        """Start it. If its latest source never built, the last that did is used."""
        return await self._wish(owner, name, self._wish_start)

    async def retry(self, owner: str, name: str) -> Notebook:
        """Build again, and start."""
        return await self._wish(owner, name, self._wish_run)

    def _wish_start(self, session: Session, row: NotebookRow) -> None:
        broken = row.build_state == "FAILED" and row.source_id != row.good_source_id
        if broken and row.good_source_id is not None:
            row.source_id = row.good_source_id
        self._wish_run(session, row)

    def _wish_run(self, session: Session, row: NotebookRow) -> None:
        self._check_fits(session, row)
        row.wanted, row.stop_reason = "RUNNING", ""
        if not row.held:
            set_state(session, row, NotebookState.QUEUED, "on its way")

    async def stop(self, owner: str, name: str, by: str | None = None) -> Notebook:
        """Stop it (a build it waits for, too). Its home stays."""

        return await self._wish(owner, name, _wish_stop(f"stopped by {by or user_of(owner)}"))

    async def kill(self, owner: str, name: str) -> Notebook:
        """Stop it without waiting for it: nothing it runs gets time to finish. Its home stays."""

        wish = _wish_stop(f"killed by {user_of(owner)}")
        model = await self._wish(owner, name, wish)
        row = await self._db.run(lambda session: find(session, owner, name))
        await self._hosting.end(row.workload if row.held else "")
        return model

    async def delete(self, owner: str, name: str) -> None:
        """Stop it and forget it with its home. Bundles stay."""
        await self.kill(owner, name)
        row = await self._db.run(lambda session: find(session, owner, name))
        async with asyncio.timeout(60):
            while row.held or not NotebookState(row.state).settled:
                ring = self._bell.listen()
                row = await self._db.run(lambda session: find(session, owner, name))
                if row.held or not NotebookState(row.state).settled:
                    await ring.wait()
        user, server = user_of(owner), server_of(name)
        await self._hosting.hub.stop(user, server, remove=bool(server))

        def forget(session: Session) -> None:
            fresh = find(session, owner, name)
            if fresh.wanted == "RUNNING":
                raise Conflict(f"Notebook {name!r} was started meanwhile.")
            session.delete(fresh)
            session.execute(
                delete(EventRow).where(EventRow.owner == owner, EventRow.notebook == name)
            )

        await self._db.run(forget)
        grave = remove_home(self._hosting.places.home(row.id))
        await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)

    async def _wish(self, owner: str, name: str, change: Any) -> Notebook:
        def write(session: Session) -> tuple[str, Notebook]:
            row = find(session, owner, name)
            change(session, row)
            session.flush()
            return row.id, as_model(session, row, self._public_url)

        self._refuse_stranger(user_of(owner))
        notebook_id, model = await self._db.run(write)
        self._bell.ring()
        self._hosting.wake(notebook_id)
        return model

    # --- what spawner and server extension ask ---

    async def admit(self, asked: AdmissionRequest) -> NotebookSpec:
        """Whether a server may start, and as what.

        Raises:
            NotBuilt: something has to be done first; that is begun, and the start follows.
            LimitExceeded: it would not fit.
            Forbidden: this engine does not serve that user.
        """
        self._refuse_stranger(asked.user)
        owner, name = f"user:{asked.user}", asked.server or DEFAULT_SERVER
        if asked.server == DEFAULT_SERVER:
            raise Forbidden(f"A server cannot be called {DEFAULT_SERVER!r}: the default server is.")
        asks = {k: v for k, v in asked.options.items() if k != "notebook" and v not in (None, "")}
        wish = parse_request(NotebookRequest, {**asks, "name": name})

        def write(session: Session) -> NotebookRow:
            row, _ = self._wished(session, owner, wish, name)
            session.add(row)
            session.flush()
            if row.wanted != "RUNNING":
                row.wanted, row.stop_reason = "RUNNING", ""
            session.flush()
            return row

        row = await self._db.run(write)
        environment = await self._find_environment(row)
        if environment.result is None or not await self._laid_out(row):
            await self._follow_up(row)
        spec = await self._db.run(
            lambda session: admission.admit(
                session,
                self._keyed(find(session, owner, name), environment.key),
                self._ledger,
                environment.result,
                self._hosting.places,
            )
        )
        self._bell.ring()
        self._hosting.attend(row.id)
        self._hosting.follow(spec.workload)
        return spec

    @staticmethod
    def _keyed(row: NotebookRow, key: str) -> NotebookRow:
        row.environment_key = key
        return row

    async def _laid_out(self, row: NotebookRow) -> bool:
        ids = [i for i in (row.source_id, row.data_id) if i is not None]
        digests = await self._db.run(
            lambda session: [session.get_one(VersionRow, i).digest for i in ids]
        )
        return all(self._hosting.places.tree(digest).is_dir() for digest in digests)

    async def _follow_up(self, row: NotebookRow) -> None:
        """What is asked for is not ready: refuse now, make it ready, start it then."""

        def queue(session: Session) -> None:
            fresh = session.get_one(NotebookRow, row.id)
            if NotebookState(fresh.state).settled:
                set_state(session, fresh, NotebookState.QUEUED, "on its way")

        await self._db.run(queue)
        self._bell.ring()
        self._hosting.attend(row.id)
        page = f"/services/kaos/notebooks/{quote(row.name)}"
        raise NotBuilt(
            f"Notebook {row.name!r} is being prepared and starts by itself when that is done."
            f" Follow it at {self._public_url.rstrip('/')}{page}",
            page=page,
        )

    def _refuse_stranger(self, user: str) -> None:
        if self._trusted is not None and user != self._trusted:
            raise Forbidden(
                f"On the local engine everything runs as {self._trusted!r}, so only that user may"
                " start notebooks. Use --engine docker for several users, or --trust-all-users if"
                " they may all act as one."
            )

    async def release(self, gone: ReleaseRequest) -> None:
        """A server is gone: let go of what it held. Old news are ignored."""
        owner, name = f"user:{gone.user}", gone.server or DEFAULT_SERVER

        def write(session: Session) -> str:
            row = find(session, owner, name)
            if gone.workload not in ("", row.workload) or not row.held:
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
            row.wanted = "STOPPED"
            admission.release(session, row, state, reason or "stopped from the Hub")
            return row.workload

        try:
            workload = await self._db.run(write)
        except NotFound:
            workload = gone.workload
        self._bell.ring()
        await self._hosting.end(workload)

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
            source = _followed(session, row)
            return ActivityAnswer(
                verdict=idle.verdict(row, at), source=source.digest if source else None
            )

        return await self._db.run(write)

    def choices(self) -> Mapping[str, Any]:
        """Sizes and policy to choose from."""
        return {
            "sizes": list(self._sizes.values()),
            "default_size": self._default_size,
            "idle": self._idle,
        }

    async def verdict(self, owner: str, name: str) -> IdleVerdict:
        """What the idle rule says of a notebook now."""
        return await self._db.run(lambda session: idle.verdict(find(session, owner, name), now()))


def _followed(session: Session, row: NotebookRow) -> VersionRow | None:
    """The source that the working copy follows: while it runs, one that fits what it runs in."""
    source_id = row.good_source_id if row.held else row.source_id
    return session.get(VersionRow, source_id) if source_id else None


def _wish_stop(reason: str) -> Callable[[Session, NotebookRow], None]:
    def wish(session: Session, row: NotebookRow) -> None:
        row.wanted, row.restart = "STOPPED", False
        if row.held or not NotebookState(row.state).settled:
            row.stop_reason = reason
            set_state(session, row, NotebookState.STOPPING, reason)

    return wish


def _refuse_never(what: str, asked: N | None, limit: N | None, show: Callable[[N], str]) -> None:
    """Refuse what could never be admitted, however little else is held."""
    if limit is None:
        return
    if asked is None:
        raise InvalidResources(f"Say how much {what} it needs; your limit is {show(limit)}.")
    if asked > limit:
        raise InvalidResources(
            f"{what} {show(asked)} is more than your limit of {show(limit)}; ask for less."
        )


def only_user() -> str:
    """The OS user whom the local engine serves."""
    return getpass.getuser()
