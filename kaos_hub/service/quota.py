"""The ledger: what each owner holds, and may hold.

What is held is always added up from the rows that hold it, inside the transaction that decides;
there is no counter that could drift.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidResources, LimitExceeded
from kaos_hub.schemas import Capacity, JobKind, JobState, Limits, Resources, Usage
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import HoldingRow, JobRow, NotebookRow, ReservationRow, now
from kaos_hub.util.quantities import plural, show_memory

N = TypeVar("N", int, float)
LEAST_CPU, LEAST_MEMORY = 0.01, 6 << 20
"""Cores and bytes: the least that a Docker Engine takes for a limit."""
_RUNNING = (JobState.SUBMITTED, JobState.RUNNING)
_LEAST = 0.25
"""Part of what a build or ingest would get, without which it does not begin."""


class Ledger:
    """Limits and usage of owners.

    Args:
        db: the service's database.
        limits: ``"default"`` and any number of ``"user:<name>"`` entries; a user's entry replaces
            those fields of the default that it names.
        capacity: the most that one workload can have, whatever its owner may.
        shown: says how an owner is called now, which may be another name than it began with.
    """

    def __init__(
        self,
        db: Database,
        limits: Mapping[str, Mapping[str, object]],
        capacity: Capacity | None = None,
        shown: Callable[[str], str] = str,
    ) -> None:
        self._db, self._shown = db, shown
        self.capacity = capacity or Capacity()
        self._limits = {key: Limits.model_validate(dict(value)) for key, value in limits.items()}
        self._open: set[str] = set()

    def limits(self, owner: str) -> Limits:
        """Return what the owner may hold."""
        default = self._limits.get("default", Limits())
        own = self._limits.get(self._shown(owner))
        if own is None:
            return default
        return default.model_copy(update={f: getattr(own, f) for f in own.model_fields_set})

    async def usage(self, owner: str) -> Usage:
        """Return what the owner holds now."""
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

    # --- content on its way ---

    async def clear(self) -> None:
        """Forget what a service that was killed held for content on its way."""
        await self._db.run(lambda session: session.execute(delete(ReservationRow)))

    def reserve(self, owner: str) -> "Reservation":
        """Hold storage for content on its way: nothing as yet."""
        return Reservation(self._db, self, self._open, owner)

    def room(self, session: Session, owner: str) -> int | None:
        """Bytes that the owner may store further, besides what is on its way; None is no bound."""
        limit = self.limits(owner).storage
        if limit is None:
            return None
        return max(0, limit - stored(session, owner) - reserved(session, owner))

    def build_waits(self, session: Session, row: JobRow, most: int, share: Resources) -> str:
        """Return why a build cannot run yet; empty if it can.

        Owners take turns: the one with the fewest builds that run comes first, then the one who
        asked first.

        Args:
            session: the transaction that decides.
            row: the build's job, queued.
            most: builds of all owners that may run at once.
            share: what each would get.
        """
        busy = _builds(session)
        if busy.total() >= most:
            return f"waiting: {busy.total()} of {most} builds run"
        if not self._build_fits(row.owner, busy):
            return "waiting: your other builds run first"
        queued = session.scalars(
            select(JobRow).where(
                JobRow.kind == JobKind.BUILD,
                JobRow.state == JobState.QUEUED,
                ~JobRow.cancel_requested,
                JobRow.not_before.is_(None) | (JobRow.not_before <= now()),
                JobRow.id != row.id,
            )
        )
        turn = (busy[row.owner], row.created, row.id)
        ahead = sum(
            (busy[other.owner], other.created, other.id) < turn
            and self._build_fits(other.owner, busy)
            and not isinstance(self.job_gets(session, other.owner, share.cpu, share.memory), str)
            for other in queued
        )
        if most - busy.total() > ahead:
            return ""
        return f"waiting: {busy.total()} of {most} builds run, {ahead} wait before this one"

    def _build_fits(self, owner: str, busy: Counter[str]) -> bool:
        limit = self.limits(owner).builds
        return limit is None or busy[owner] < limit

    def job_gets(
        self, session: Session, owner: str, cpu: float | None, memory: int | None
    ) -> tuple[float | None, int | None] | str:
        """Cores and bytes that a build or ingest of an owner gets: all of it, or what is left.

        Args:
            session: the transaction that decides.
            owner: whose limits it counts in.
            cpu, memory: what it would get; None is all there is.

        Returns:
            What it gets; or why it waits, if that is too little to be of use.
        """
        limits, held = self.limits(owner), usage(session, owner)
        free_cpu = None if limits.cpu is None else max(0.0, limits.cpu - held.cpu)
        free_memory = None if limits.memory is None else max(0, limits.memory - held.memory)
        for what, asked, free, shown in (
            ("cpu", cpu, free_cpu, f"{free_cpu or 0:g}"),
            ("memory", memory, free_memory, show_memory(free_memory or 0)),
        ):
            if free is not None and free < (asked or 0) * _LEAST:
                return f"waiting: of your {what} {shown} is left; stop something that runs"
        return _least(cpu, free_cpu), _least(memory, free_memory)

    def worker_waits(self, session: Session, row: JobRow, most: int) -> str:
        """Return why a worker of a training cannot run yet; empty if it can.

        Users take turns: the one with the fewest workers that run comes first, then the one who
        asked first.

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
                who = self._shown(owner).partition(":")[2]
                return f"waiting: {who} may have {show(limit)} {what}, and has {show(has)}"
        return ""

    def refuse_never(self, owner: str, cpu: float | None, memory: int | None, gpu: int) -> None:
        """Refuse what could never be admitted, however little else is held.

        Raises:
            InvalidResources: says what is allowed, or how much there is.
        """
        check_size(self.capacity, cpu, memory)
        limits = self.limits(owner)
        _refuse_never("cpu", cpu, limits.cpu, lambda v: f"{v:g}")
        _refuse_never("memory", memory, limits.memory, show_memory)
        _refuse_never("gpu", gpu, limits.gpu, str)


def check_size(there: Capacity, cpu: float | None, memory: int | None) -> None:
    """Refuse more than there is, and less than an engine takes for a limit.

    Raises:
        InvalidResources: says how much there is, or the least.
    """
    if cpu is not None and there.cpu is not None and cpu > there.cpu:
        raise InvalidResources(
            f"cpu {cpu:g} is more than this hub's machine has: {there.cpu:g}. Ask for less:"
            f" --cpu {there.cpu:g}"
        )
    if memory is not None and there.memory is not None and memory > there.memory:
        raise InvalidResources(
            f"memory {show_memory(memory)} is more than this hub's machine has:"
            f" {show_memory(there.memory)}. Ask for less: --memory {there.memory >> 20}Mi"
        )
    if cpu is not None and cpu < LEAST_CPU:
        raise InvalidResources(f"cpu {cpu:g} is too little: the least is {LEAST_CPU:g}.")
    if memory is not None and memory < LEAST_MEMORY:
        raise InvalidResources(
            f"memory {show_memory(memory)} is too little: nothing starts in less than"
            f" {show_memory(LEAST_MEMORY)}."
        )


class Reservation:
    """Storage of an owner that is held for what one request brings: so several at once cannot
    bring more than there is room for.

    Args:
        db: the service's database.
        ledger: knows limits.
        open: the ids of all that are open in this process.
        owner: whose storage it is.
    """

    def __init__(self, db: Database, ledger: Ledger, open: set[str], owner: str) -> None:
        self._db, self._ledger, self._open, self._owner = db, ledger, open, owner
        self._id = secrets.token_hex(16)

    async def grow(self, needed: int, wanted: int = 0) -> int:
        """Hold more.

        Args:
            needed: bytes without which it cannot go on.
            wanted: bytes that will probably be needed, held if there is room for them.

        Returns:
            Bytes that are held further: ``needed``, or ``wanted`` if that is more.

        Raises:
            LimitExceeded: there is no room for what is needed; says the numbers.
        """
        self._open.add(self._id)
        return await self._db.run(lambda session: self._grow(session, needed, wanted))

    def _grow(self, session: Session, needed: int, wanted: int) -> int:
        # What could not be let go of because the database was away.
        session.execute(
            delete(ReservationRow).where(
                ReservationRow.owner == self._owner, ReservationRow.id.not_in(self._open)
            )
        )
        room = self._ledger.room(session, self._owner)
        more = max(needed, wanted)
        if room is not None and more > room:
            more = needed
            limit, held = self._ledger.limits(self._owner).storage, stored(session, self._owner)
            held += reserved(session, self._owner)
            _refuse_over(limit, held, needed, "storage", show_memory)
        row = session.get(ReservationRow, self._id)
        if row is None:
            session.add(ReservationRow(id=self._id, owner=self._owner, size=more))
        else:
            row.size += more
        return more

    def settle(self, session: Session, size: int) -> None:
        """So many bytes are stored now, and count as that, from this transaction on."""
        row = session.get(ReservationRow, self._id)
        if row is not None:
            row.size = max(0, row.size - size)

    def end(self, session: Session) -> None:
        """Let go of the rest with this transaction."""
        session.execute(delete(ReservationRow).where(ReservationRow.id == self._id))

    async def release(self) -> None:
        """Let go of it all. Safe at any time."""
        if self._id in self._open:
            self._open.discard(self._id)
            await self._db.run(self.end)


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

    Workers of trainings count for the user who asked for them, whichever owner the training has.
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
    job_cpu, job_memory = session.execute(
        select(
            func.coalesce(func.sum(JobRow.cpu), 0), func.coalesce(func.sum(JobRow.memory), 0)
        ).where(
            JobRow.kind.in_((JobKind.BUILD, JobKind.INGEST)),
            JobRow.state.in_(_RUNNING),
            JobRow.owner == owner,
        )
    ).one()
    return Usage(
        notebooks=notebooks,
        builds=running_builds(session, owner),
        trials=trials,
        cpu=round(float(cpu) + float(trial_cpu or 0) + float(job_cpu or 0), 3),
        memory=int(memory) + int(trial_memory or 0) + int(job_memory or 0),
        gpu=int(gpu) + int(trial_gpu),
        storage=stored(session, owner),
    )


def stored(session: Session, owner: str) -> int:
    """Bytes of the owner's objects, each counted once."""
    total = select(func.coalesce(func.sum(HoldingRow.size), 0)).where(HoldingRow.owner == owner)
    return int(session.scalar(total) or 0)


def reserved(session: Session, owner: str) -> int:
    """Bytes that are held for what of the owner's is on its way."""
    total = select(func.coalesce(func.sum(ReservationRow.size), 0)).where(
        ReservationRow.owner == owner
    )
    return int(session.scalar(total) or 0)


def running_builds(session: Session, owner: str | None = None) -> int:
    """Count the builds that run now, of one owner or of all."""
    query = select(func.count()).where(JobRow.kind == JobKind.BUILD, JobRow.state.in_(_RUNNING))
    if owner is not None:
        query = query.where(JobRow.owner == owner)
    return session.scalar(query) or 0


def _least(asked: N | None, free: N | None) -> N | None:
    return min((value for value in (asked, free) if value is not None), default=None)


def _builds(session: Session) -> Counter[str]:
    """Running builds by owner."""
    found = session.execute(
        select(JobRow.owner, func.count())
        .where(JobRow.kind == JobKind.BUILD, JobRow.state.in_(_RUNNING))
        .group_by(JobRow.owner)
    )
    return Counter({row[0]: row[1] for row in found})


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
