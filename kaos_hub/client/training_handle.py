"""A training that was asked for, and what it stands for in the end."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kaos_hub.errors import BuildFailed, KaosError
from kaos_hub.models import (
    Direction,
    Training,
    TrainingAnswer,
    TrainingEvent,
    TrainingState,
    Trial,
)

if TYPE_CHECKING:
    from kaos_hub.client.trainings import Trainings


class TrainingHandle:
    """A training one has asked for.

    Attributes:
        model: the training as last seen.
        answer: what the request did.
    """

    def __init__(self, trainings: "Trainings", model: Training, answer: TrainingAnswer) -> None:
        self._trainings = trainings
        self.model = model
        self.answer = answer

    def __repr__(self) -> str:
        return f"<training {self.id}: {self.model.state}, {self.model.trials.total} trials>"

    @property
    def id(self) -> str:
        """The training's id."""
        return self.model.id

    @property
    def actions(self) -> list[str]:
        """What the request did."""
        return self.answer.actions

    def wait(
        self,
        timeout: float | None = None,
        on_event: Callable[[TrainingEvent], object] | None = None,
    ) -> Training:
        """Wait until it has ended; see :meth:`Trainings.wait`."""
        self.model = self._trainings.wait(self.id, timeout, on_event)
        return self.model

    def trials(self, sort: str | None = None, order: Direction | str | None = None) -> list[Trial]:
        """Its trials; see :meth:`Trainings.trials`."""
        return self._trainings.trials(self.id, sort, order)

    def logs(self, trial: int = 1, follow: bool = False) -> Iterator[str]:
        """The lines of a trial's log."""
        return self._trainings.logs(self.id, trial, follow)

    def build_logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its Build log."""
        return self._trainings.build_logs(self.id, follow)

    def metrics(self, trial: int | None = None) -> Any:
        """What its trials said of themselves; see :meth:`Trainings.metrics`."""
        return self._trainings.metrics(self.id, trial)

    def kill(self, trial: int | None = None) -> Training:
        """End it, or one of its trials."""
        self.model = self._trainings.kill(self.id, trial)
        return self.model


def failure(training: Training) -> KaosError | None:
    """The error that a training stands for, if it ended without success."""
    if training.state not in (TrainingState.FAILED, TrainingState.CANCELLED):
        return None
    build = next((stage for stage in training.stages if stage.name == "build"), None)
    failed_build = build is not None and build.state == "FAILED"
    default = "it was cancelled" if training.state is TrainingState.CANCELLED else "it failed"
    reason = training.reason or default
    return (BuildFailed if failed_build else KaosError)(reason, training=training.id)
