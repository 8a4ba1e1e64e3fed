"""Notebooks as rows: to find them, to set their state, and to follow their events."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict, NotFound
from kaos_hub.installation.domains import server_root
from kaos_hub.schemas import (
    DEFAULT_SERVER,
    BundleLink,
    Clone,
    Event,
    GitState,
    IdlePolicy,
    IdleType,
    JobState,
    Notebook,
    NotebookOptions,
    NotebookState,
    Resources,
    Stage,
    parse_repository,
)
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, EventRow, JobRow, NotebookRow, VersionRow, now
from kaos_hub.service.notebooks import idle
from kaos_hub.service.users.identities import shown_owner
from kaos_hub.util.notifier import Bell, resumable

USER = "user:"
KEEP_EVENTS = 200
"""Events kept of one notebook; older ones are forgotten."""


def server_of(name: str) -> str:
    """The Hub's name for a notebook's server."""
    return "" if name == DEFAULT_SERVER else name


def find(session: Session, owner: str, name: str) -> NotebookRow:
    """Return the owner's notebook of that name.

    Raises:
        NotFound: there is none, or it is another owner's.
    """
    row = session.scalar(
        select(NotebookRow).where(NotebookRow.owner == owner, NotebookRow.name == name)
    )
    if row is None:
        raise NotFound(f"You have no notebook {name!r}. `kaos notebook list` shows yours.")
    return row


def options_of(row: NotebookRow) -> NotebookOptions:
    """Return the other options that are wanted of a notebook."""
    return NotebookOptions.model_validate(row.options)


def held_options(row: NotebookRow) -> NotebookOptions:
    """Return the other options that a notebook was started with."""
    return NotebookOptions.model_validate(row.held_options)


def keep_options(row: NotebookRow, options: NotebookOptions) -> None:
    """Write what else is wanted of a notebook."""
    kept = options.model_dump(mode="json", exclude_defaults=True)
    if kept != row.options:
        row.options = kept


def expect_build(row: NotebookRow) -> None:
    """Forget what became of earlier builds: nothing of it is the next one's."""
    row.build_state, row.build_reason = JobState.QUEUED.value, ""


def never_built(row: NotebookRow) -> None:
    """Note that it was stopped while it waited for its build."""
    row.build_state, row.build_reason = JobState.CANCELLED.value, "stopped before it was built"


def refuse_deleted(row: NotebookRow) -> None:
    """Refuse to start a notebook that is being deleted: its home goes.

    Raises:
        Conflict: it is being deleted.
    """
    if row.wanted == "DELETED":
        raise Conflict(
            f"Notebook {row.name!r} is being deleted. Its name is free as soon as it is gone:"
            f" `kaos notebook delete -n {row.name}` waits for that."
        )


def no_longer_wanted(row: NotebookRow) -> None:
    """Note that it is not to run. One that is to be deleted still is."""
    if row.wanted == "RUNNING":
        row.wanted = "STOPPED"


def not_prepared(session: Session, row: NotebookRow, message: str) -> None:
    """Note that its environment or bundles cannot be had; what runs goes on running."""
    row.restart = False
    if row.build_state not in (JobState.FAILED, JobState.CANCELLED):
        row.build_job = None  # there was none now, and an earlier one's log explains nothing
    if row.build_state != JobState.CANCELLED:
        row.build_state, row.build_reason = JobState.FAILED.value, message
    if row.held:
        reason = f"{message} (the previous version still runs)"
        set_state(session, row, NotebookState(row.state), reason)
    else:
        no_longer_wanted(row)
        set_state(session, row, NotebookState.FAILED, message)
    announce(session, row)  # also when it is the same failure as before


def set_state(
    session: Session, row: NotebookRow, state: NotebookState, reason: str = "", progress: int = 0
) -> None:
    """Write a notebook's state, and the event of it if anything changed."""
    if state.settled:
        progress = 100 if state is NotebookState.RUNNING else 0
    if (row.state, row.reason, row.progress) == (state, reason, progress):
        return
    row.state, row.reason, row.progress = state, reason, progress
    announce(session, row)


def announce(session: Session, row: NotebookRow) -> None:
    """Write an event of the notebook as it is."""
    event = EventRow(
        owner=row.owner, notebook=row.name, at=now(), state=row.state, reason=row.reason,
        progress=row.progress,
    )  # fmt: skip
    session.add(event)
    session.flush()
    if event.id % 50 == 0:
        _forget_old(session, row)


def _forget_old(session: Session, row: NotebookRow) -> None:
    mine = (EventRow.owner == row.owner, EventRow.notebook == row.name)
    newest = (
        select(EventRow.id)
        .where(*mine)
        .order_by(EventRow.id.desc())
        .offset(KEEP_EVENTS)
        .limit(1)
        .scalar_subquery()
    )
    session.execute(delete(EventRow).where(*mine, EventRow.id <= newest))


def as_model(session: Session, row: NotebookRow, public_url: str) -> Notebook:
    """A notebook as the API shows it."""
    running = row.state == NotebookState.RUNNING
    options, owner = options_of(row), shown_owner(session, row.owner)
    return Notebook(
        name=row.name,
        display_name=row.display_name,
        owner=owner,
        state=NotebookState(row.state),
        reason=row.reason,
        progress=row.progress,
        pending=row.held and (row.restart or row.build_state in ACTIVE_JOBS),
        url=notebook_url(public_url, owner.removeprefix(USER), row.name),
        source=_link(session, row.source_id),
        data=_link(session, row.data_id),
        context=_link(session, row.context_id),
        run=row.run,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        pool=row.pool,
        environment=sorted(options.environment),
        bind_mounts=options.bind_mounts,
        volumes=options.volumes,
        image=options.image,
        git=clone_of(row),
        idle=IdlePolicy(timeout=row.idle_timeout, type=IdleType(row.idle_type)),
        verdict=idle.verdict(row, now()) if running else None,
        build=_build_stage(session, row),
        host=_host_stage(row),
        created=row.created,
        started=row.started,
        stopped=row.stopped,
    )


def clone_of(row: NotebookRow) -> Clone | None:
    """A notebook's repository, and what became of it."""
    text = options_of(row).git
    if text is None:
        return None
    repository = parse_repository(text)
    found = Clone(url=repository.url, ref=repository.ref, **row.clone)
    if found.state is GitState.CLONING and not row.held:
        note = "the notebook stopped meanwhile; begins anew when it starts"
        return found.model_copy(update={"state": GitState.ASKED, "note": note})
    return found


def notebook_url(public_url: str, user: str, name: str) -> str:
    """Return the URL of a user's notebook.

    ``public_url`` is as of :func:`~kaos_hub.installation.domains.servers_url`, or the Hub's own.
    """
    base = f"{server_root(public_url.rstrip('/'), user)}/user/{quote(user, safe='@~')}"
    server = server_of(name)
    return f"{base}/{server}" if server else base


def _link(session: Session, version_id: int | None) -> BundleLink | None:
    if version_id is None:
        return None
    row = session.get_one(VersionRow, version_id)
    return BundleLink(name=row.name, version=row.number, digest=row.digest)


def _build_stage(session: Session, row: NotebookRow) -> Stage:
    """The build of the present version. The newest job may be an older one's: its log stays."""
    job = session.get(JobRow, row.build_job) if row.build_job else None
    waiting = row.build_state in ACTIVE_JOBS
    refused = row.build_state == JobState.FAILED != (job.state if job else "")
    if (
        job is None
        or row.build_state == "SKIPPED"
        or refused
        or (waiting and JobState(job.state).ended)
    ):
        return Stage(
            name="build", state=row.build_state, reason=row.build_reason,
            progress=0 if waiting else 100, job=None if waiting else row.build_job,
        )  # fmt: skip
    return Stage(
        name="build", state=job.state, reason=job.reason, progress=job.progress,
        started=job.started, finished=job.finished, job=job.id,
    )  # fmt: skip


_HOST = {
    NotebookState.QUEUED: ("QUEUED", 0),
    NotebookState.BUILDING: ("QUEUED", 0),
    NotebookState.STARTING: ("SUBMITTED", 50),
    NotebookState.RUNNING: ("RUNNING", 100),
    NotebookState.STOPPING: ("RUNNING", 100),
    NotebookState.STOPPED: ("SUCCEEDED", 0),
    NotebookState.FAILED: ("FAILED", 0),
}


def build_to_read(session: Session, row: NotebookRow) -> str | None:
    """The build whose log is the latest: none while the next one has not begun."""
    job = session.get(JobRow, row.build_job) if row.build_job else None
    earlier = job is not None and row.build_state in ACTIVE_JOBS and JobState(job.state).ended
    return None if earlier else row.build_job


def _host_stage(row: NotebookRow) -> Stage:
    state, progress = _HOST[NotebookState(row.state)]
    never_wanted = row.state == NotebookState.STOPPED and row.starts == 0
    if never_wanted:
        state = "QUEUED"
    reason = row.reason
    if row.build_state == "FAILED":
        reason = ""  # it is the build's
        if row.state == NotebookState.FAILED:
            state, reason = "SKIPPED", "the build failed"
    elif state == "QUEUED" and not never_wanted:
        reason = "waits for the build"
    return Stage(
        name="host",
        state=state,
        reason=reason,
        progress=progress,
        started=row.started,
        finished=row.stopped if row.state != NotebookState.RUNNING else None,
    )


def stream(
    db: Database, bell: Bell, owner: str, name: str | None, after: int | None
) -> AsyncIterator[Event]:
    """Events of one notebook or all of the owner's, from ``after`` on, then live.

    Without ``after`` it begins with the present state of each.
    """
    return resumable(
        bell,
        after,
        lambda: db.run(lambda session: _present(session, owner, name)),
        lambda last: db.run(lambda session: _since(session, owner, name, last)),
    )


def _present(session: Session, owner: str, name: str | None) -> tuple[list[Event], int]:
    last = session.scalar(select(EventRow.id).order_by(EventRow.id.desc()).limit(1)) or 0
    rows = session.scalars(select(NotebookRow).where(NotebookRow.owner == owner))
    events = [
        Event(
            id=last, notebook=row.name, at=now(), state=NotebookState(row.state),
            reason=row.reason, progress=row.progress,
        )
        for row in rows
        if name is None or row.name == name
    ]  # fmt: skip
    return events, last


def _since(session: Session, owner: str, name: str | None, after: int) -> list[Event]:
    query = select(EventRow).where(EventRow.owner == owner, EventRow.id > after)
    if name is not None:
        query = query.where(EventRow.notebook == name)
    return [
        Event(
            id=row.id, notebook=row.notebook, at=row.at, state=NotebookState(row.state),
            reason=row.reason, progress=row.progress,
        )
        for row in session.scalars(query.order_by(EventRow.id).limit(500))
    ]  # fmt: skip


def followed(session: Session, row: NotebookRow) -> str | None:
    """Digest of the tree that the working copy of what runs follows; it fits what that runs in."""
    source = session.get(VersionRow, row.good_source_id) if row.good_source_id else None
    return row.good_tree or (source.digest if source else None)
