"""The ledger: what everybody holds, and may hold.

What is held is always added up from the rows that hold it, inside the transaction that decides;
there is no counter that could drift.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kaos_hub.database import Database
from kaos_hub.errors import InvalidResources, LimitExceeded
from kaos_hub.models import JobKind, JobState, Limits, Usage
from kaos_hub.quantities import plural, show_memory
from kaos_hub.tables import HoldingRow, JobRow, NotebookRow

N = TypeVar("N", int, float)
_RUNNING = (JobState.SUBMITTED, JobState.RUNNING)


class Ledger:
    """Limits and usage of owners.

    Args:
        db: the service's database.
        limits: ``"default"`` and any number of ``"user:<name>"`` entries; a user's entry replaces
            those fields of the default that it names.
    """

    def __init__(self, db: Database, limits: Mapping[str, Mapping[str, object]]) -> None:
        self._db = db
        self._limits = {key: Limits.model_validate(dict(value)) for key, value in limits.items()}

    def limits(self, owner: str) -> Limits:
        """What the owner may hold."""
        default = self._limits.get("default", Limits())
        own = self._limits.get(owner)
        if own is None:
            return default
        return default.model_copy(update={f: getattr(own, f) for f in own.model_fields_set})

    async def usage(self, owner: str) -> Usage:
        """What the owner holds now."""
        return await self._db.run(lambda session: usage(session, owner))

    def admit(self, session: Session, row: NotebookRow, cpu: float, memory: int, gpu: int) -> None:
        """Hold resources for a notebook, or refuse. Asking again replaces what the row held.

        Raises:
            LimitExceeded: says what is held, what was asked for and what is allowed.
        """
        self.check(session, row, cpu, memory, gpu)
        row.held, row.held_cpu, row.held_memory, row.held_gpu = True, cpu, memory, gpu

    def check(self, session: Session, row: NotebookRow, cpu: float, memory: int, gpu: int) -> None:
        """Refuse what would not fit now, besides all that is held by others than the row.

        Raises:
            LimitExceeded: says what is held, what was asked for and what is allowed.
        """
        limits, held = self.limits(row.owner), usage(session, row.owner, besides=row.id)
        _refuse_over(limits.notebooks, held.notebooks, 1, "running notebooks", str)
        also = held.trials > 0
        _refuse_over(limits.cpu, held.cpu, cpu, "cpu", lambda v: f"{v:g}", also)
        _refuse_over(limits.memory, held.memory, memory, "memory", show_memory, also)
        _refuse_over(limits.gpu, held.gpu, gpu, "gpu", str, also)

    def admit_storage(self, session: Session, owner: str, size: int) -> None:
        """Refuse content of ``size`` bytes that would not fit any more.

        Raises:
            LimitExceeded: says what is held, what was asked for and what is allowed.
        """
        limit = self.limits(owner).storage
        if limit is not None:
            _refuse_over(limit, stored(session, owner), size, "storage", show_memory)

    def build_fits(self, session: Session, owner: str) -> bool:
        """Whether one more build of the owner may run."""
        limit = self.limits(owner).builds
        return limit is None or running_builds(session, owner) < limit

    def worker_waits(self, session: Session, row: JobRow, most: int) -> str:
        """Why a worker of a training cannot run yet; nothing if it can.

        Users take turns: whoever has the fewest workers comes first, then whoever asked first.

        Args:
            session: the transaction that decides.
            row: the worker's job, queued.
            most: workers of all users that may run at once; 0 is any number.
        """
        full = self._worker_over(session, row)
        if full or not most:
            return full
        busy = _workers(session)
        free = most - busy.total()
        rank = _rank(row, busy)
        queued = session.scalars(
            select(JobRow).where(
                JobRow.kind == JobKind.TRAIN,
                JobRow.state == JobState.QUEUED,
                ~JobRow.cancel_requested,
                JobRow.id != row.id,
            )
        )
        before = [other for other in queued if _rank(other, busy) < rank]
        if free > len(before):
            return ""
        ahead = sum(not self._worker_over(session, other) for other in before)
        if free > ahead:
            return ""
        return f"waiting: {busy.total()} of {most} workers run, {ahead} wait before this one"

    def _worker_over(self, session: Session, row: JobRow) -> str:
        owner = f"user:{row.author}"
        limits, held = self.limits(owner), usage(session, owner)
        for what, limit, has, asked, show in (
            ("trials at once", limits.trials, held.trials, 1, str),
            ("cpu", limits.cpu, held.cpu, row.cpu or 0, lambda v: f"{v:g}"),
            ("memory", limits.memory, held.memory, row.memory or 0, lambda v: show_memory(int(v))),
            ("gpu", limits.gpu, held.gpu, row.gpu, str),
        ):
            if limit is not None and asked and has + asked > limit:
                return f"waiting: {row.author} may have {show(limit)} {what}, and has {show(has)}"
        return ""

    def refuse_never(self, owner: str, cpu: float | None, memory: int | None, gpu: int) -> None:
        """Refuse what could never be admitted, however little else is held.

        Raises:
            InvalidResources: says what is allowed.
        """
        limits = self.limits(owner)
        _refuse_never("cpu", cpu, limits.cpu, lambda v: f"{v:g}")
        _refuse_never("memory", memory, limits.memory, show_memory)
        _refuse_never("gpu", gpu, limits.gpu, str)


def check_gpus(wanted: int, there: int) -> None:
    """Refuse more devices than there are.

    Raises:
        InvalidResources: says how many there are.
    """
    if wanted > there:
        held = f"there are {plural(there, 'GPU')} here" if there > 1 else "there is one here"
        raise InvalidResources(
            f"{plural(wanted, 'GPU')} asked for, but {held if there else 'there is none here'}."
            f" Ask for fewer: --gpu {there}"
        )


def usage(session: Session, owner: str, besides: str = "") -> Usage:
    """Add up what the owner holds, apart from the notebook with the id ``besides``.

    Workers of trainings count for the user who asked for them, whosever the training is.
    """
    notebooks, cpu, memory, gpu = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(NotebookRow.held_cpu), 0),
            func.coalesce(func.sum(NotebookRow.held_memory), 0),
            func.coalesce(func.sum(NotebookRow.held_gpu), 0),
        ).where(NotebookRow.owner == owner, NotebookRow.held, NotebookRow.id != besides)
    ).one()
    trials, trial_cpu, trial_memory, trial_gpu = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(JobRow.cpu), 0),
            func.coalesce(func.sum(JobRow.memory), 0),
            func.coalesce(func.sum(JobRow.gpu), 0),
        ).where(
            JobRow.kind == JobKind.TRAIN,
            JobRow.state.in_(_RUNNING),
            JobRow.author == (owner.removeprefix("user:") if owner.startswith("user:") else None),
        )
    ).one()
    return Usage(
        notebooks=notebooks,
        builds=running_builds(session, owner),
        trials=trials,
        cpu=round(float(cpu) + float(trial_cpu or 0), 3),
        memory=int(memory) + int(trial_memory or 0),
        gpu=int(gpu) + int(trial_gpu),
        storage=stored(session, owner),
    )


def stored(session: Session, owner: str) -> int:
    """Bytes of the owner's objects, each counted once."""
    total = select(func.coalesce(func.sum(HoldingRow.size), 0)).where(HoldingRow.owner == owner)
    return int(session.scalar(total) or 0)


def running_builds(session: Session, owner: str | None = None) -> int:
    """How many builds run now, of one owner or of all."""
    query = select(func.count()).where(JobRow.kind == JobKind.BUILD, JobRow.state.in_(_RUNNING))
    if owner is not None:
        query = query.where(JobRow.owner == owner)
    return session.scalar(query) or 0


def _workers(session: Session) -> Counter[str]:
    """Running workers of trainings by the user who asked."""
    found = session.execute(
        select(JobRow.author, func.count())
        .where(JobRow.kind == JobKind.TRAIN, JobRow.state.in_(_RUNNING))
        .group_by(JobRow.author)
    )
    return Counter({row[0]: row[1] for row in found})


def _rank(row: JobRow, busy: Counter[str]) -> tuple[int, object, str]:
    return busy[row.author], row.created, row.id


def _refuse_never(what: str, asked: N | None, limit: N | None, show: Callable[[N], str]) -> None:
    if limit is None:
        return
    if asked is None:
        raise InvalidResources(f"Say how much {what} it needs; your limit is {show(limit)}.")
    if asked > limit:
        raise InvalidResources(
            f"{what} {show(asked)} is more than your limit of {show(limit)}; ask for less."
        )


def _refuse_over(limit, held, asked, what, show, trains=False) -> None:  # type: ignore[no-untyped-def]
    if limit is None or asked == 0 or held + asked <= limit:
        return
    free = max(limit - held, 0)
    fits = f"; {show(free)} would fit" if free else ""
    if what == "storage":
        message = f"{show(limit)} of storage: {show(held)} held, {show(asked)} to be added."
        todo = "Ask your admin for more."
    else:
        message = f"{show(limit)} {what}: {show(held)} held, {show(asked)} asked for{fits}."
        either = "a notebook or training (kaos notebook list, kaos train list)"
        todo = f"Stop {either if trains else 'a notebook (kaos notebook list)'}, or ask for less."
    raise LimitExceeded(
        f"Your limit is {message} {todo}", limit=limit, held=held, asked=asked, what=what
    )
