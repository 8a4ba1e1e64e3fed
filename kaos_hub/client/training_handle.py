"""A training that was asked for, and what it stands for in the end."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from kaos_hub.client.handles import Handle, Trials
from kaos_hub.errors import BuildFailed, Failed, KaosError
from kaos_hub.schemas import Training, TrainingAnswer, TrainingEvent, TrainingState

if TYPE_CHECKING:
    from kaos_hub.client.trainings import Trainings


class TrainingHandle(Handle[Training]):
    """A training: one has just asked for it, or got it by its id. Beside what is below it has all
    fields of a training, as in ``handle.state``.

    Attributes:
        model: the training as last seen.
        answer: what the request did; None for one that was there before.
    """

    def __init__(
        self, trainings: "Trainings", model: Training, answer: TrainingAnswer | None = None
    ) -> None:
        super().__init__(model)
        self._trainings = trainings
        self.answer = answer

    def __repr__(self) -> str:
        return f"<training {self.id}: {self.model.state}, {self.model.trials.total} trials>"

    @property
    def id(self) -> str:
        """The training's id."""
        return self.model.id

    @property
    def actions(self) -> list[str]:
        """The steps that the request took; empty for a training found otherwise."""
        return self.answer.actions if self.answer else []

    @property
    def trials(self) -> Trials:
        """Its trials: ``for trial in handle.trials``, sorted with
        ``handle.trials(sort="loss", order="min")`` (see :meth:`Trainings.trials`), and counted,
        as last seen, in ``handle.trials.succeeded``."""
        return Trials(partial(self._trainings.trials, self.id), self.model.trials)

    def refresh(self) -> "TrainingHandle":
        """Look again how it stands."""
        self.model = self._trainings.look(self.id)
        return self

    def wait(
        self,
        timeout: float | None = None,
        on_event: Callable[[TrainingEvent], object] | None = None,
    ) -> Training:
        """Wait until it has ended; see :meth:`Trainings.wait`."""
        self.model = self._trainings.wait(self.id, timeout, on_event)
        return self.model

    def logs(self, trial: int = 1, follow: bool = False) -> Iterator[str]:
        """The lines of a trial's log."""
        return self._trainings.logs(self.id, trial, follow)

    def build_logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its Build log."""
        return self._trainings.build_logs(self.id, follow)

    def ingest_logs(self, follow: bool = False) -> Iterator[str]:
        """The lines that were said while the files of its manifest were fetched."""
        return self._trainings.ingest_logs(self.id, follow)

    def metrics(self, trial: int | None = None) -> Any:
        """Return the metrics of its trials; see :meth:`Trainings.metrics`."""
        return self._trainings.metrics(self.id, trial)

    def kill(self, trial: int | None = None) -> Training:
        """End it, or one of its trials."""
        self.model = self._trainings.kill(self.id, trial)
        return self.model

    def reproduce(self) -> "TrainingHandle":
        """Run it again on the very same inputs."""
        return self._trainings.reproduce(self.id)

    def delete(self) -> None:
        """Forget it with its trials, logs, metrics and models. Bundles stay."""
        self._trainings.delete(self.id)


def failure(training: Training) -> KaosError | None:
    """The error that a training stands for, if it ended without success."""
    if training.state not in (TrainingState.FAILED, TrainingState.CANCELLED):
        return None
    build = next((stage for stage in training.stages if stage.name == "build"), None)
    failed_build = build is not None and build.state == "FAILED"
    default = "it was cancelled" if training.state is TrainingState.CANCELLED else "it failed"
    reason = training.reason or default
    return (BuildFailed if failed_build else Failed)(reason, training=training.id)
