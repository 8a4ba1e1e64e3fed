"""The requests that may be made about trainings."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict
from kaos_hub.schemas import Training, TrainingAnswer, TrainingRequest, TrainingState, TrialState
from kaos_hub.service.db.tables import NotebookRow, TrainingEventRow, TrainingRow, TrialRow
from kaos_hub.service.trainings.execution.leases import conclude
from kaos_hub.service.trainings.execution.settling import kill
from kaos_hub.service.trainings.execution.working import Working
from kaos_hub.service.trainings.inputs import Chosen
from kaos_hub.service.trainings.looking import Looking
from kaos_hub.service.trainings.naming import Naming
from kaos_hub.service.trainings.records import announce, as_model, find_trial, log_name, points_name
from kaos_hub.service.trainings.requests import Params
from kaos_hub.service.trainings.trained import has_names
from kaos_hub.util.quantities import plural


class Trainings(Looking, Naming, Working):
    """The requests that may be made about trainings.

    ``owner`` is ``user:ada`` or ``group:vision``, ``user`` the name of the user who asks. The
    caller has to know that this user may ask for that owner.

    Every method raises :class:`~kaos_hub.errors.NotFound` for what is not the owner's.
    """

    async def request(
        self, owner: str, user: str, wanted: TrainingRequest, notebook: str | None = None
    ) -> TrainingAnswer:
        """Train, or (dry run) say what that would do; ``notebook``: from inside which.

        Raises:
            NotFound: a bundle that the owner does not have.
            Conflict: inputs that were not given are not (any more) those that were expected.
            InvalidRequest, InvalidResources: it makes no sense, or could never run here.
            Unsupported: the source cannot be trained with; says why.
        """
        while True:
            chosen = await self._db.run(lambda s: self._requests.chosen(s, owner, wanted))
            await self._requests.check_source(chosen.source)
            params = await self._requests.params(chosen)
            row = self._requests.draft(owner, user, wanted, chosen)
            row.notebook = notebook
            actions = await self._requests.plan(owner, chosen, params, row)
            model = None
            if not wanted.dry_run:
                model = await self._add(row, wanted, chosen, params)
                if model is None:
                    continue  # the choice has changed meanwhile; look again
            inputs = await self._db.run(chosen.shown)
            return TrainingAnswer(
                training=model, inputs=inputs, actions=actions, trials=len(params)
            )

    async def _add(
        self, row: TrainingRow, wanted: TrainingRequest, chosen: Chosen, params: Params
    ) -> Training | None:
        def write(session: Session) -> tuple[Training, list[str]] | None:
            if not self._requests.chosen(session, row.owner, wanted).same_as(chosen):
                return None
            added, touched = self._requests.write(session, row, wanted, chosen, params)
            session.flush()
            return as_model(session, added), touched

        done = await self._db.run(write)
        if done is None:
            return None
        self._bell.ring()
        for training in done[1]:
            self._driver.wake(training)
        return done[0]

    async def reproduce(
        self, owner: str, user: str, training: str, notebook: str | None = None
    ) -> TrainingAnswer:
        """Run a training again with the very same inputs, parameters and environment.

        Raises:
            Conflict: it never came as far as to have all of them.
        """

        def write(session: Session, row: TrainingRow) -> TrainingAnswer:
            new = self._requests.again(session, row, user)
            new.notebook = notebook
            session.flush()
            return TrainingAnswer(
                training=as_model(session, new),
                inputs=Chosen.of(session, new).shown(session),
                actions=[f"run {plural(new.total, 'trial')} again, in the same environment"],
                trials=new.total,
            )

        answer = await self._with(owner, training, write)
        assert answer.training is not None
        self._bell.ring()
        self._driver.wake(answer.training.id)
        return answer

    async def kill(
        self, owner: str, user: str, training: str, trial: int | None = None
    ) -> Training:
        """End a training, or one of its trials; what ended already stays as it is."""
        reason = f"killed by {user}"

        def write(session: Session, row: TrainingRow) -> Training:
            if trial is not None:
                _kill_trial(session, row, trial, reason)
            elif not TrainingState(row.state).ended and not row.kill_reason:
                kill(session, row, reason)
            session.flush()
            return as_model(session, row)

        model = await self._with(owner, training, write)
        self._bell.ring()
        if trial is not None:
            self._driver.poke(training)
        elif not model.state.ended:
            self._driver.wake(training)
        return model

    async def delete(self, owner: str, user: str, training: str) -> None:
        """Forget a training with its trials, logs and metrics. Bundles stay.

        Raises:
            Conflict: it has not ended, one of its models has a name, or a notebook is on a run.
        """

        def write(session: Session, row: TrainingRow) -> int:
            if not TrainingState(row.state).ended:
                raise Conflict(
                    f"Training {row.id} has not ended. End it first: kaos train kill -j {row.id}"
                )
            if name := has_names(session, row):
                raise Conflict(
                    f"Training {row.id} left the model {name}. Take that name away first:"
                    f" kaos model delete {name}"
                )
            if notebook := _notebook_on(session, row):
                raise Conflict(
                    f"Notebook {notebook!r} works on a run of training {row.id}. Delete it first:"
                    f" kaos notebook delete -n {notebook}"
                )
            mine = TrialRow.training == row.number
            session.execute(delete(TrialRow).where(mine))
            session.execute(delete(TrainingEventRow).where(TrainingEventRow.training == row.id))
            session.delete(row)
            return row.total

        total = await self._with(owner, training, write)
        self._bell.ring()
        for number in range(1, total + 1):
            self._logs.remove(log_name(training, number))
        self._logs.remove(points_name(training))


def _kill_trial(session: Session, row: TrainingRow, number: int, reason: str) -> None:
    trial = find_trial(session, row, number)
    if trial.state == TrialState.QUEUED:
        conclude(session, row, trial, TrialState.CANCELLED, reason)
        announce(session, row)
    elif trial.state == TrialState.RUNNING:
        trial.cancel_reason = trial.cancel_reason or reason


def _notebook_on(session: Session, row: TrainingRow) -> str | None:
    query = select(NotebookRow.name).where(NotebookRow.run.startswith(f"{row.id}."))
    return session.scalar(query.limit(1))
