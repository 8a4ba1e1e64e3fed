"""Following a training from its request to its end: what it fetches, builds and trains."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaos_hub.cli.base import Session
from kaos_hub.cli.outcome import going_on
from kaos_hub.cli.terminal.display import Log, Tell, display_for, happenings, ring
from kaos_hub.cli.terminal.output import clean_line, on_terminal, say, show, show_json
from kaos_hub.errors import KaosError, NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import Training, TrainingEvent

_TAIL = 30
"""Lines of a trial's log that are shown when it failed."""
_LOOK = 0.5
"""Seconds between two looks at what makes no events."""
_ACTIVE = ("QUEUED", "SUBMITTED", "RUNNING")


class Step:
    """An event as it is shown: with how many trials have ended, now and then."""

    def __init__(self, event: "TrainingEvent") -> None:
        counts = event.trials
        ended = counts.succeeded + counts.failed + counts.cancelled
        self.state, self.progress = str(event.state), event.progress
        self.reason = event.reason
        if event.state == "TRAINING" and counts.total > 1:
            # In a pipe each is a line: a thousand trials make twenty.
            each = max(1, counts.total // 20)
            failed = f", {counts.failed} failed" if counts.failed else ""
            done = f"{ended // each * each} of {counts.total} trials{failed}"
            self.reason = f"{done}; {event.reason}" if event.reason else done


def follow_training(
    session: Session, found: "Training", detach: bool, actions: Sequence[str] = ()
) -> "Training":
    """Follow a training to its end and print its id. Ctrl-C lets it go on.

    Args:
        session: the run of the command line.
        found: the training, as the service answered.
        detach: do not wait for it.
        actions: what the service does, to be told first.

    Raises:
        BuildFailed: its build failed; its log was shown.
        KaosError: it failed or was cancelled; the end of the log was shown.
        Interrupted: Ctrl-C was pressed.
        Unavailable: the Hub is gone.
    """
    from kaos_hub.client.training_handle import failure

    begun = time.monotonic()
    with going_on(f"Training {found.id}", f"kaos train info -j {found.id}"):
        for action in actions:
            session.note(f"- {action}")
        if not detach:
            found = _follow(session, found)
    ring(begun)
    error = None if detach else failure(found)
    if error:
        raise error
    if session.json:
        show_json(found)
    else:
        show(found.id)
    session.note(summary(found))
    return found


def summary(found: "Training") -> str:
    """A training in one sentence, with what to do next."""
    reason = f": {found.reason}" if found.reason else ""
    if found.state == "WAITING":
        return f"Training {found.id} {found.reason or 'waits for what is missing'}"
    best = ""
    if found.best and found.goal:
        best = f" Best is trial {found.best.trial}: {found.goal.metric} {found.best.score:g}."
    where = f"kaos train info -j {found.id}"
    if found.state.ended:
        where += f"\n     kaos train get -j {found.id}"
    return f"Training {found.id} ({found.name}) {found.state}{reason}.{best}\nSee: {where}"


def _follow(session: Session, found: "Training") -> "Training":
    trainings, single = session.client.trainings, found.trials.total <= 1
    logs: dict[str, Log] = {
        "INGESTING": lambda: trainings.ingest_logs(found.id, follow=True),
        "BUILDING": lambda: trainings.build_logs(found.id, follow=True),
    }
    if single:
        logs["TRAINING"] = lambda: trainings.logs(found.id, 1, follow=True)
    last = found

    def watch(tell: Tell) -> None:
        nonlocal last
        last = _until_it_waits(session, found, tell)
        if not _done(last):
            last = trainings.follow(found.id, on_event=_steps(tell), done=_done)

    with display_for(session, found.name, tuple(logs)) as display:
        for happening in happenings(watch, logs):
            display.show(happening)
    if last.state == "FAILED":
        for line in _explanation(session, last, display.log_shown, single):
            say(clean_line(line) if on_terminal() else line, raw=True)
    return last


@dataclass(frozen=True)
class _Preparing:
    """The build or fetch that runs already for a training which waits for its other inputs."""

    state: str
    reason: str
    progress: int


def _until_it_waits(session: Session, found: "Training", tell: Tell) -> "Training":
    """Look at a training that waits until nothing more is done for it meanwhile."""
    while found.state == "WAITING" and not _done(found):
        for stage in found.stages:
            if stage.state == "RUNNING":
                state = {"build": "BUILDING", "ingest": "INGESTING"}.get(stage.name, "WAITING")
                tell(_Preparing(state, found.reason, stage.progress))
        time.sleep(_LOOK)
        found = session.client.trainings.look(found.id)
    return found


def _steps(tell: Tell) -> "Callable[[TrainingEvent], object]":
    return lambda event: tell(Step(event))


def _done(found: "Training") -> bool:
    """Return whether nothing more happens by itself: it ended, or waits with all else done."""
    if found.state.ended:
        return True
    given = {"build": found.source is not None, "ingest": found.manifest is not None}
    return found.state == "WAITING" and not any(
        stage.state in _ACTIVE for stage in found.stages if given.get(stage.name)
    )


def _explanation(session: Session, found: "Training", shown: bool, single: bool) -> Iterator[str]:
    """The log of what failed, unless it was ``shown``: of a job all of it, of a trial its end."""
    trainings = session.client.trainings
    failed = next((s.name for s in found.stages if s.state == "FAILED"), "train")
    try:
        if failed in ("build", "ingest"):
            log = trainings.build_logs if failed == "build" else trainings.ingest_logs
            yield from () if shown else log(found.id)
        elif not (single and shown):
            yield from _first_failed(session, found)
    except NotFound:
        return  # it failed before there was anything to log; the reason says it all
    except KaosError as e:
        say(f"The log cannot be read: {e.message}")


def _first_failed(session: Session, found: "Training") -> Iterator[str]:
    for trial in session.client.trainings.trials(found.id, state="FAILED", limit=1):
        yield f"Trial {trial.number}: {trial.reason}"
        yield from deque(session.client.trainings.logs(found.id, trial.number), _TAIL)
