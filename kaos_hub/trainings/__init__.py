"""Trainings: what users and workers may do with them.

A request makes a training of an owner's inputs; its driver has the data fetched, the environment
built, and workers run that lease its trials.
"""

from collections.abc import AsyncIterator, Sequence

from kaos_hub.errors import Unsupported
from kaos_hub.models import (
    Beat,
    BeatAnswer,
    IngestEnd,
    IngestOrder,
    IngestPart,
    Inputs,
    LeaseAnswer,
    LeaseRequest,
    LogAnswer,
    Provenance,
    TrainedModel,
    Training,
    TrainingAnswer,
    TrainingEvent,
    TrainingRequest,
    TrainingState,
    Trial,
    TrialComparison,
    TrialState,
)

PARTS = ("code", "data", "params", "model")
"""What an archive of a training may hold: a folder each."""


class Trainings:
    """What may be asked about trainings. ``owner`` is ``user:ada`` or ``group:vision``, ``user``
    the name of the user who asks; whether he may is for the caller to know.

    Every method raises :class:`~kaos_hub.errors.NotFound` for what is not the owner's.
    """

    # --- asking for one ---

    async def request(self, owner: str, user: str, wanted: TrainingRequest) -> TrainingAnswer:
        """Train, or (dry run) say what that would do.

        Raises:
            NotFound: a bundle that the owner does not have.
            Conflict: inputs that were not given are not (any more) those that were expected.
            InvalidRequest, InvalidResources: it makes no sense, or could never run here.
            Unsupported: the source cannot be trained with; says why.
        """
        raise Unsupported

    async def inputs(self, owner: str) -> Inputs:
        """What a training would use now, where nothing else is said."""
        raise Unsupported

    async def reproduce(self, owner: str, user: str, training: str) -> TrainingAnswer:
        """Run a training again with the very same inputs, parameters and environment.

        Raises:
            Conflict: it never came as far as to have all of them.
        """
        raise Unsupported

    async def kill(
        self, owner: str, user: str, training: str, trial: int | None = None
    ) -> Training:
        """End a training, or one of its trials; what ended already stays as it is."""
        raise Unsupported

    async def delete(self, owner: str, user: str, training: str) -> None:
        """Forget a training with its trials, logs and metrics. Bundles and named models stay.

        Raises:
            Conflict: it has not ended.
        """
        raise Unsupported

    # --- looking ---

    async def list(
        self,
        owner: str,
        states: Sequence[TrainingState] = (),
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[Training]:
        """The owner's trainings, the youngest first; ``after`` is the id of the last one seen."""
        raise Unsupported

    async def get(self, owner: str, training: str) -> Training:
        """One training."""
        raise Unsupported

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
            sort: ``number``, ``score`` (of its goal), ``state``, ``started``, ``finished``,
                ``duration``, ``metrics.<name>`` or ``params.<key>``; numbers as numbers, what has
                none last.
            order: ``asc`` or ``desc``; none: the best first by score, else ascending.
            state: only those.
            limit, after: at most so many, after so many were left out.

        Raises:
            InvalidRequest: nothing can be sorted by that.
        """
        raise Unsupported

    async def trial(self, owner: str, training: str, number: int) -> Trial:
        """One trial."""
        raise Unsupported

    def events(
        self, owner: str, training: str | None = None, after: int | None = None
    ) -> AsyncIterator[TrainingEvent]:
        """What happens to one training, or all of the owner's; never ends. Without ``after`` it
        begins with the present state of each that has not ended (and of the one asked for)."""
        raise Unsupported

    async def points(
        self,
        owner: str,
        training: str,
        trial: int | None = None,
        offset: int = 0,
        follow: bool = False,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """What trials said of themselves: NDJSON of ``MetricPoint``, in whole lines, each piece
        with the offset at which to go on. With ``follow``, until the training ends."""
        raise Unsupported

    async def log(
        self, owner: str, training: str, trial: int, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The output of a trial, as :meth:`.LogStore.read` gives it."""
        raise Unsupported

    async def build_log(
        self, owner: str, training: str, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The log of its build.

        Raises:
            NotFound: nothing was built for it.
        """
        raise Unsupported

    async def ingest_log(
        self, owner: str, training: str, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The log of the job that fetched its data.

        Raises:
            NotFound: nothing was fetched for it.
        """
        raise Unsupported

    async def comparison(self, owner: str, training: str) -> Sequence[TrialComparison]:
        """The trials of a repetition beside those that it repeats.

        Raises:
            Conflict: it repeats none, or that was deleted.
        """
        raise Unsupported

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
        raise Unsupported

    # --- models ---

    async def models(
        self, owner: str, limit: int = 100, after: str | None = None, named: bool = False
    ) -> Sequence[TrainedModel]:
        """Models of the owner's, the youngest first; ``after`` is the id of the last one seen,
        ``named`` leaves out those without a name."""
        raise Unsupported

    async def model(self, owner: str, text: str) -> TrainedModel:
        """The model of an id, a name, or a name and version: ``mnist@v3``."""
        raise Unsupported

    async def name_model(self, owner: str, user: str, text: str, name: str) -> TrainedModel:
        """Give a model a name; the same name again makes a new version of it."""
        raise Unsupported

    async def delete_model(self, owner: str, text: str) -> None:
        """Take a name (or one version: ``mnist@v3``) from its models. The trials keep what they
        left.

        Raises:
            Conflict: something that has not ended uses it.
        """
        raise Unsupported

    async def model_archive(self, owner: str, text: str) -> AsyncIterator[bytes]:
        """A model's files as a tar."""
        raise Unsupported

    async def provenance(self, owner: str, text: str) -> Provenance:
        """All that made a model."""
        raise Unsupported

    # --- what workers ask; each knows its own job ---

    async def lease(self, job_id: str, asked: LeaseRequest) -> LeaseAnswer:
        """Write down how a trial ended, and give the next one."""
        raise Unsupported

    async def beat(self, job_id: str, beat: Beat) -> BeatAnswer:
        """Take what a trial said of itself; whether it is still wanted."""
        raise Unsupported

    async def append_log(
        self, job_id: str, trial: int, attempt: int, offset: int, data: bytes
    ) -> LogAnswer:
        """Write output of a trial at an offset; how much of it is there now. What is there already
        is passed over; what would leave a gap is not taken."""
        raise Unsupported

    async def order(self, job_id: str) -> IngestOrder:
        """What a job of kind INGEST is to fetch."""
        raise Unsupported

    async def fetched(self, job_id: str, part: IngestPart) -> None:
        """Write down what a job of kind INGEST has fetched up to now: the next one goes on."""
        raise Unsupported

    async def ingested(self, job_id: str, end: IngestEnd) -> None:
        """Write down what a job of kind INGEST has fetched; told twice, it counts once."""
        raise Unsupported
