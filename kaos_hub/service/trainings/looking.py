"""Looking at trainings: lists, logs, metrics, events, archives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence

from sqlalchemy.orm import Session

from kaos_hub.bundles.archive import write_tar
from kaos_hub.errors import NotFound
from kaos_hub.schemas import (
    Inputs,
    Training,
    TrainingEvent,
    TrainingState,
    Trial,
    TrialComparison,
    TrialState,
)
from kaos_hub.service.db.tables import TrainingRow
from kaos_hub.service.trainings import listing, metrics, trained
from kaos_hub.service.trainings.archives import PARTS, compose
from kaos_hub.service.trainings.base import Base
from kaos_hub.service.trainings.following import stream
from kaos_hub.service.trainings.inputs import current
from kaos_hub.service.trainings.records import (
    as_model,
    find_trial,
    log_name,
    points_name,
    trial_model,
)

Pieces = AsyncIterator[tuple[int, bytes]]


class Looking(Base):
    """The requests that change nothing."""

    async def inputs(self, owner: str, source: str | None = None) -> Inputs:
        """Return the inputs that a training would use now, where nothing else is said.

        ``source`` is a name or reference; without it, the source used last is meant.

        Raises:
            NotFound: a digest that is no source of the owner's.
        """
        return await self._db.run(lambda session: current(session, owner, source).shown(session))

    async def list(
        self,
        owner: str,
        states: Sequence[TrainingState] = (),
        limit: int = 100,
        after: str | None = None,
        search: str = "",
    ) -> Sequence[Training]:
        """The owner's trainings, the youngest first; ``after`` is the id of the last one seen,
        ``search`` a part of name or id."""
        return await self._db.run(
            lambda session: listing.trainings(session, owner, states, limit, after, search)
        )

    async def get(self, owner: str, training: str) -> Training:
        """One training."""
        return await self._with(owner, training, as_model)

    async def trials(
        self,
        owner: str,
        training: str,
        sort: str = "number",
        order: str | None = None,
        state: TrialState | None = None,
        limit: int = 100,
        after: int = 0,
    ) -> Sequence[Trial]:
        """Trials of a training.

        Args:
            owner, training: whose, and which.
            sort: ``number``, ``score`` (of its goal), ``state``, ``started``, ``finished``,
                ``duration``, ``metrics.<name>`` or ``params.<key>``; numbers as numbers, what has
                none last.
            order: ``asc`` or ``desc``; none: the best first by score, else ascending.
            state: only those.
            limit, after: at most so many, after so many were left out.

        Raises:
            InvalidRequest: nothing can be sorted by that.
        """
        return await self._with(
            owner,
            training,
            lambda session, row: listing.trials(session, row, sort, order, state, limit, after),
        )

    async def trial(self, owner: str, training: str, number: int) -> Trial:
        """One trial."""
        return await self._with(
            owner,
            training,
            lambda session, row: trial_model(row, find_trial(session, row, number)),
        )

    def events(
        self, owner: str, training: str | None = None, after: int | None = None
    ) -> AsyncIterator[TrainingEvent]:
        """Return the events of one training, or of all of the owner's; they never end.

        Without ``after`` they begin with the present state of each training that has not ended (and
        of the one asked for).
        """
        return stream(self._db, self._bell, owner, training, after)

    async def points(
        self,
        owner: str,
        training: str,
        trial: int | None = None,
        offset: int = 0,
        follow: bool = False,
    ) -> Pieces:
        """Return what trials reported while they ran: NDJSON of ``MetricPoint``, in whole lines.

        Each piece has the offset at which to go on. With ``follow``, until the training ends.
        """

        def look(session: Session, row: TrainingRow) -> bool:
            if trial is not None:
                find_trial(session, row, trial)
            return TrainingState(row.state).ended

        await self._listen(follow, points_name(training), self._with(owner, training, look))
        return metrics.read(self._logs, training, trial, offset, follow)

    async def log(
        self, owner: str, training: str, trial: int, offset: int = 0, follow: bool = False
    ) -> Pieces:
        """The output of a trial, as :meth:`.LogStore.read` gives it."""

        def look(session: Session, row: TrainingRow) -> bool:
            return TrialState(find_trial(session, row, trial).state).ended

        name = log_name(training, trial)
        await self._listen(follow, name, self._with(owner, training, look))
        return self._logs.read(name, offset, follow)

    async def _listen(self, follow: bool, name: str, ended: Awaitable[bool]) -> None:
        """Have a log that is followed wait for what comes, unless what writes it has ended."""
        if not follow:
            await ended
            return
        # opened before looking: who ends between closes it again
        known = name in self._logs.live(name)
        self._logs.open(name)
        over = not known  # what is not the owner's is left as it was
        try:
            over = await ended
        finally:
            if over:
                self._logs.close(name)

    async def build_log(
        self, owner: str, training: str, offset: int = 0, follow: bool = False
    ) -> Pieces:
        """The log of its build.

        Raises:
            NotFound: nothing was built for it.
        """
        job = (await self._row(owner, training)).build_job
        if job is None:
            raise NotFound(
                f"Training {training} has no such log: nothing was built for it. What it is doing:"
                f" kaos train info -j {training}"
            )
        return self._logs.read(job, offset, follow)

    async def ingest_log(
        self, owner: str, training: str, offset: int = 0, follow: bool = False
    ) -> Pieces:
        """The log of the job that fetched its data.

        Raises:
            NotFound: nothing was fetched for it.
        """
        job = (await self._row(owner, training)).ingest_job
        if job is None:
            raise NotFound(
                f"Training {training} has no such log: nothing was fetched for it. What it is"
                f" doing: kaos train info -j {training}"
            )
        return self._logs.read(job, offset, follow)

    async def _row(self, owner: str, training: str) -> TrainingRow:
        return await self._with(owner, training, lambda session, row: row)

    async def comparison(self, owner: str, training: str) -> Sequence[TrialComparison]:
        """The trials of a repetition beside those that it repeats.

        Raises:
            Conflict: it repeats none, or that was deleted.
        """
        return await self._with(owner, training, trained.comparison)

    async def archive(
        self, owner: str, training: str, trial: int | None = None, parts: Sequence[str] = PARTS
    ) -> AsyncIterator[bytes]:
        """Code, data, params and model as a tar, each in a folder of that name that can be sent
        again as it is. Without ``trial``: all trials' models, each in ``model/<number>``, unless
        there is only one.

        Raises:
            NotFound: it has nothing of a part that was asked for; says which.
            InvalidRequest: no such part.
        """
        composed = await self._with(
            owner, training, lambda session, row: compose(session, row, trial, parts)
        )
        read = composed.reader(self._versions.read)
        # all listings are read before the first byte: what is missing is an answer, not a cut
        return _each(await asyncio.to_thread(write_tar, composed.root, read))


async def _each(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
