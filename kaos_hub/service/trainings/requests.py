"""Requests: what they make of rows, or why they cannot."""

from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import Conflict, InvalidBundle, InvalidResources, Unavailable, Unsupported
from kaos_hub.formats import grid as grids
from kaos_hub.schemas import BundleKind, TrainingRequest, TrainingState
from kaos_hub.service.builds import analysis
from kaos_hub.service.builds.environments import Environments
from kaos_hub.service.bundles.upload import batches
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import TrainingRow, TrialRow, VersionRow, now as present
from kaos_hub.service.quota import Ledger, check_gpus
from kaos_hub.service.trainings.execution.settling import kill
from kaos_hub.service.trainings.execution.workers import ENDLESS
from kaos_hub.service.trainings.inputs import Chosen, choose, remember, with_fetched
from kaos_hub.service.trainings.records import announce, set_state
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.util.quantities import show_memory

PARAMS = "params.json"
"""The only file of a bundle of parameters."""

_WISHES = {
    "slots": ("slots",),
    "goal": ("goal_metric", "goal_direction"),
    "stop_on_failure": ("stop_on_failure",),
    "cpu": ("cpu",),
    "memory": ("memory",),
    "gpu": ("gpu",),
    "deadline": ("deadline",),
}
"""Of a request: fields, and their columns."""

Params = Sequence[dict[str, Any] | None]
"""Of each trial."""


class Requests:
    """Makes rows of requests, within what the admin offers.

    Args:
        db, engine, ledger, versions, environments, settings: what it works with.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        ledger: Ledger,
        versions: Versions,
        environments: Environments,
        settings: Settings,
    ) -> None:
        self._db, self._engine, self._ledger = db, engine, ledger
        self._versions, self._environments, self._settings = versions, environments, settings

    # --- looking ---

    def chosen(self, session: Session, owner: str, wanted: TrainingRequest) -> Chosen:
        """Return the inputs that the training would be made of."""
        return with_fetched(session, owner, choose(session, owner, wanted))

    async def params(self, chosen: Chosen) -> Params:
        """The parameters of each trial.

        Raises:
            InvalidBundle, InvalidRequest: they make no grid; names key and line.
        """
        if chosen.params is None:
            return [None]
        files = await self._versions.files(chosen.params.digest)
        if list(files) != [PARAMS]:
            raise InvalidBundle(f"A bundle of parameters holds one file, {PARAMS}.")
        text = await self._versions.object(files[PARAMS])
        return grids.parse(text, f"{chosen.params.name}.json", self._settings.most_trials)

    async def check_source(self, source: VersionRow | None) -> None:
        """Refuse a source that cannot be trained with.

        Raises:
            Unsupported: says why, and what to do.
        """
        if source is None:
            return
        files = await self._versions.files(source.digest)
        dockerfile = (await self._versions.object(files["Dockerfile"])).decode(errors="replace")
        context = analysis.analyse(dockerfile, files).context
        below = "" if context == "." else f"{context}/"
        if not any(p.startswith(below) and p.rpartition("/")[2] == "train" for p in files):
            raise Unsupported(
                f"{source.name} v{source.number} has no {below}train, the program that trains, so"
                " it is a notebook's. `kaos notebook deploy -s DIR` runs it; to train, add one."
            )

    async def plan(self, owner: str, chosen: Chosen, params: Params, row: TrainingRow) -> list[str]:
        """Return the steps to be done, in order, for people."""
        steps = list(_reused(chosen))
        if chosen.manifest is not None and chosen.data is None:
            name = f"{chosen.manifest.name} v{chosen.manifest.number}"
            steps.append(f"fetch what manifest {name} lists")
        if chosen.source is not None:
            steps += await self._build(owner, chosen.source, row.pull)
        if chosen.lacks:
            steps.append(_waits(chosen))
            return steps
        some = f"{len(params):,} trials, {min(row.slots, len(params))} at once"
        cpu = "any" if row.cpu is None else f"{row.cpu:g}"
        size = f"cpu {cpu}, memory {show_memory(row.memory)}, gpu {row.gpu}"
        steps.append(f"run {'one trial' if len(params) == 1 else some}, each with {size}")
        return steps

    async def _build(self, owner: str, source: VersionRow, pull: bool) -> list[str]:
        try:
            environment = await self._environments.find(owner, source, pull=pull, ask=False)
        except Unavailable as e:
            return [f"build, if need be: {e.message}"]  # it waits for that
        known = environment.result is not None
        return [environment.why if known else f"build: {environment.why}", *environment.advice]

    # --- rows ---

    def draft(self, owner: str, user: str, wanted: TrainingRequest, chosen: Chosen) -> TrainingRow:
        """The training as it would be new.

        Raises:
            InvalidResources: it could never run.
        """
        size, settings = self._settings.size, self._settings
        named = chosen.source or chosen.data or chosen.manifest or chosen.params
        row = TrainingRow(
            id=token_hex(8), owner=owner, author=user, created=present(),
            name=wanted.name or (named.name if named else "training"),
            slots=wanted.slots, stop_on_failure=wanted.stop_on_failure, pull=wanted.pull,
            cpu=wanted.cpu or (size.cpu if size else None),
            memory=wanted.memory or (size.memory if size else None),
            gpu=wanted.gpu or (size.gpu if size else 0), pool=size.pool if size else None,
            deadline=settings.deadline if wanted.deadline is None else wanted.deadline or ENDLESS,
            state=TrainingState.WAITING if chosen.lacks else TrainingState.QUEUED,
            reason=_waits(chosen) if chosen.lacks else "on its way", progress=0,
            build_reason="", engine="", environment_key="", environment={}, kill_reason="",
            losses=0, total=0, queued=0, running=0, succeeded=0, failed=0, cancelled=0,
            metrics=[], reused=chosen.reused, **chosen.ids,
        )  # fmt: skip
        if wanted.goal is not None:
            row.goal_metric = wanted.goal.metric
            row.goal_direction = wanted.goal.direction.value
        self._check(row)
        return row

    def _check(self, row: TrainingRow) -> None:
        check_gpus(row.gpu, self._settings.gpus)
        self._ledger.refuse_never(f"user:{row.author}", row.cpu, row.memory, row.gpu)
        if self._ledger.limits(f"user:{row.author}").trials == 0:
            raise InvalidResources("Your limit is 0 trials at once; ask your admin for more.")

    def write(
        self,
        session: Session,
        row: TrainingRow,
        wanted: TrainingRequest,
        chosen: Chosen,
        params: Params,
    ) -> tuple[TrainingRow, list[str]]:
        """Add a training, or go on with the one that waited; what is given becomes current. Also
        says which trainings have to be looked at.

        Args:
            session: the transaction.
            row: how it would be new.
            wanted: what was asked for.
            chosen: what it is made of.
            params: of each trial.
        """
        remember(session, row, chosen, wanted)
        if chosen.continues is not None:
            row = self._continued(session, row, wanted, chosen)
            superseded = []
        else:
            superseded = self._supersede(session, row.owner)
            session.add(row)
        session.flush()
        add_trials(session, row, params)
        announce(session, row)
        return row, [row.id, *superseded]

    def _continued(
        self, session: Session, draft: TrainingRow, wanted: TrainingRequest, chosen: Chosen
    ) -> TrainingRow:
        """Return the training that waited, with what is said now; the rest is as said before."""
        query = select(TrainingRow).where(TrainingRow.id == chosen.continues)
        row = session.scalars(query).one()
        if wanted.name or row.source_id is None:
            row.name = draft.name
        for field, columns in _WISHES.items():
            if getattr(wanted, field) != TrainingRequest.model_fields[field].default:
                for column in columns:
                    setattr(row, column, getattr(draft, column))
        now = "source_id data_id manifest_id params_id reused state reason notebook"
        for column in now.split():
            setattr(row, column, getattr(draft, column))
        self._check(row)
        return row

    def _supersede(self, session: Session, owner: str) -> list[str]:
        """A training that waits is not continued by what is no answer to it."""
        query = select(TrainingRow).where(
            TrainingRow.owner == owner, TrainingRow.state == TrainingState.WAITING
        )
        rows = list(session.scalars(query))
        for row in rows:
            kill(session, row, "a newer training took its place")
            set_state(session, row, TrainingState.CANCELLED, row.kill_reason, 100)
        return [row.id for row in rows]

    def again(self, session: Session, row: TrainingRow, user: str) -> TrainingRow:
        """A new training that repeats one, with the very same of everything.

        Raises:
            Conflict: it never came as far as to have all of it.
        """
        if row.source_id is None or row.data_id is None or not row.environment:
            raise Conflict(
                f"Training {row.id} never had all that it needs. Begin another one:"
                " kaos train deploy -s DIR -d DIR"
            )
        same = (
            "owner name source_id data_id manifest_id params_id slots goal_metric goal_direction"
            " stop_on_failure cpu memory gpu pool deadline environment environment_key engine"
            " build_job"
        )
        values = {column: getattr(row, column) for column in same.split()}
        new = TrainingRow(
            id=token_hex(8), author=user, created=present(), state=TrainingState.QUEUED,
            reason="on its way", pull=False, reproduces=row.id, kill_reason="",
            build_reason="nothing to build: the same environment", **values,
        )  # fmt: skip
        self._check(new)
        session.add(new)
        session.flush()
        query = select(TrialRow.params).where(TrialRow.training == row.number)
        add_trials(session, new, list(session.scalars(query.order_by(TrialRow.number))))
        announce(session, new)
        return new


def add_trials(session: Session, row: TrainingRow, params: Params) -> None:
    """Make these the trials of a training of which none has begun."""
    session.execute(delete(TrialRow).where(TrialRow.training == row.number))
    same = {
        "training": row.number, "owner": row.owner, "state": "QUEUED", "reason": "", "attempt": 1,
        "log_base": 0, "cancel_reason": "", "metrics": {}, "points": 0, "output_size": 0,
        "output_files": 0, "partial": False, "skipped": [],
    }  # fmt: skip
    for batch in batches(enumerate(params, 1), 5000):
        values = [{**same, "number": number, "params": one} for number, one in batch]
        session.execute(insert(TrialRow), values)
    row.total = row.queued = len(params)


def _reused(chosen: Chosen) -> Iterator[str]:
    """Yield a step for each input that is used though it was not given."""
    for kind in chosen.reused:
        version = chosen.versions[BundleKind(kind)]
        yield f"use {kind} {version.name}@v{version.number} from before: none is given now"


def _waits(chosen: Chosen) -> str:
    options = {"source": "`kaos train deploy -s DIR`", "data": "`kaos train deploy -d DIR`"}
    how = " and ".join(options[name] for name in chosen.lacks)
    return f"waits for {' and '.join(chosen.lacks)}: {how}"
