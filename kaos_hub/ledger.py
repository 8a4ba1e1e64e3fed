"""The ledger: what everybody holds, and may hold.

What is held is always added up from the rows that hold it, inside the transaction that decides;
there is no counter that could drift.
"""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kaos_hub.database import Database, HoldingRow, JobRow, NotebookRow
from kaos_hub.errors import LimitExceeded
from kaos_hub.models import JobKind, JobState, Limits, Usage
from kaos_hub.quantities import show_memory


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
        _refuse_over(limits.cpu, held.cpu, cpu, "cpu", lambda v: f"{v:g}")
        _refuse_over(limits.memory, held.memory, memory, "memory", show_memory)
        _refuse_over(limits.gpu, held.gpu, gpu, "gpu", str)

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


def usage(session: Session, owner: str, besides: str = "") -> Usage:
    """Add up what the owner holds, apart from the notebook with the id ``besides``."""
    notebooks, cpu, memory, gpu = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(NotebookRow.held_cpu), 0),
            func.coalesce(func.sum(NotebookRow.held_memory), 0),
            func.coalesce(func.sum(NotebookRow.held_gpu), 0),
        ).where(NotebookRow.owner == owner, NotebookRow.held, NotebookRow.id != besides)
    ).one()
    return Usage(
        notebooks=notebooks,
        builds=running_builds(session, owner),
        cpu=round(float(cpu), 3),
        memory=int(memory),
        gpu=int(gpu),
        storage=stored(session, owner),
    )


def stored(session: Session, owner: str) -> int:
    """Bytes of the owner's objects, each counted once."""
    total = select(func.coalesce(func.sum(HoldingRow.size), 0)).where(HoldingRow.owner == owner)
    return int(session.scalar(total) or 0)


def running_builds(session: Session, owner: str | None = None) -> int:
    """How many builds run now, of one owner or of all."""
    query = select(func.count()).where(
        JobRow.kind == JobKind.BUILD, JobRow.state.in_((JobState.SUBMITTED, JobState.RUNNING))
    )
    if owner is not None:
        query = query.where(JobRow.owner == owner)
    return session.scalar(query) or 0


def _refuse_over(limit, held, asked, what, show) -> None:  # type: ignore[no-untyped-def]
    if limit is None or asked == 0 or held + asked <= limit:
        return
    free = max(limit - held, 0)
    fits = f"; {show(free)} would fit" if free else ""
    if what == "storage":
        message = f"{show(limit)} of storage: {show(held)} held, {show(asked)} to be added."
        todo = "Ask your admin for more."
    else:
        message = f"{show(limit)} {what}: {show(held)} held, {show(asked)} asked for{fits}."
        todo = "Stop a notebook (kaos notebook list), or ask for less."
    raise LimitExceeded(
        f"Your limit is {message} {todo}", limit=limit, held=held, asked=asked, what=what
    )
