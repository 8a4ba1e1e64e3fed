"""The SDK's trainings."""

import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.client.inputs import Params
from kaos_hub.client.notebooks import Bundle
from kaos_hub.client.receiving import check_target, receive
from kaos_hub.client.submission import parse_goal, prepare, submit
from kaos_hub.client.training_handle import TrainingHandle, failure
from kaos_hub.errors import InvalidRequest, Unavailable
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    Direction,
    Goal,
    Inputs,
    MetricPoint,
    Training,
    TrainingAnswer,
    TrainingEvent,
    TrainingRequest,
    TrainingState,
    Trial,
    TrialComparison,
    parse_request,
)
from kaos_hub.transport.http import Transport, parse, quoted
from kaos_hub.transport.objects import Progress

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Bundles

PARTS = ("code", "data", "params", "model")
"""The parts that an archive of a training can hold, each in a folder of that name."""
Trials = list[Trial]
Points = list[MetricPoint]
Comparisons = list[TrialComparison]
_SORTS = ("number", "score", "state", "started", "finished", "duration")
_PAGE = 1000


class Trainings:
    """Trainings of the asking user, or of the client's workspace. Every method raises a
    :class:`~kaos_hub.errors.KaosError` subclass: ``NotFound`` for an id that is not there,
    ``Unavailable`` for a service that does not answer, else what the service says."""

    def __init__(self, transport: Transport, bundles: "Bundles") -> None:
        self._transport = transport
        self._bundles = bundles

    def deploy(
        self,
        source: Bundle | None = None,
        data: Bundle | None = None,
        *,
        manifest: Bundle | None = None,
        params: Params | BundleVersion | None = None,
        name: str | None = None,
        slots: int = 1,
        goal: str | Goal | None = None,
        cpu: float | str | None = None,
        memory: int | str | None = None,
        gpu: int = 0,
        deadline: int | str | None = None,
        without_params: bool = False,
        stop_on_failure: bool = False,
        pull: bool = False,
    ) -> TrainingHandle:
        """Train. What is not given is what this source was trained with last: ``inputs()`` tells
        which, and ``reused`` of the training which of them were used.

        Returns at once; ``.wait()`` waits for the end.

        Args:
            source: folder with a Dockerfile and ``model/train``, or a submitted bundle.
            data: any folder, or a submitted bundle.
            manifest: instead of data, a file or folder of lines ``{"url": …, "path": …}``.
            params: file of hyperparameters, or the parameters themselves, e.g.
                ``{"degree": [3, 5], "kernel": ["linear", "poly"]}``: four trials.
            name: without it, the source bundle's.
            slots: how many trials run at once.
            goal: what makes a trial the best, e.g. ``"loss:min"``.
            cpu: cores of each slot, e.g. ``0.5`` or ``"500m"``.
            memory: bytes of each slot, or a quantity such as ``"1.5Gi"``.
            gpu: whole devices of each slot.
            deadline: seconds that one trial may take, or a duration such as ``"2h"``.
            without_params: leave out the params used last, now and in later trainings.
            stop_on_failure: the first trial that fails ends the others.
            pull: look the base image up again.

        Raises:
            InvalidRequest: an argument, a folder or a line is wrong; nothing was sent.
            LimitExceeded: it does not fit the limits.
        """
        options: dict[str, Any] = {
            "name": name, "cpu": cpu, "memory": memory, "deadline": deadline,
            "goal": None if goal is None else parse_goal(goal).model_dump(mode="json"),
        }  # fmt: skip
        request = parse_request(
            TrainingRequest,
            {"slots": slots, "gpu": gpu, "pull": pull}
            | {"without_params": without_params, "stop_on_failure": stop_on_failure}
            | {k: v for k, v in options.items() if v is not None},
        )
        given = (
            (BundleKind.PARAMS, params),
            (BundleKind.MANIFEST, manifest),
            (BundleKind.SOURCE, source),
            (BundleKind.DATA, data),
        )
        # All are read before the first is sent: what is wrong with one leaves nothing behind.
        ready = {
            kind.value: prepare(self._bundles, each, kind)
            for kind, each in given
            if each is not None
        }
        return self.handle(self.request(submit(self._bundles, request, ready)))

    def request(self, request: TrainingRequest) -> TrainingAnswer:
        """Send a request as it is."""
        body = request.model_dump(mode="json", exclude_defaults=True)
        return parse(TrainingAnswer, self._call("POST", quoted("trainings"), body))

    def handle(self, answer: TrainingAnswer) -> TrainingHandle:
        """A handle of the training that an answer tells of."""
        assert answer.training is not None
        return TrainingHandle(self, answer.training, answer)

    def inputs(self, source: str | None = None) -> Inputs:
        """Return the inputs that a training would use now, where nothing else is said.

        Args:
            source: of a source bundle of that name (or digest); without it, of the one used last.
        """
        query = {"source": source}
        return parse(Inputs, self._call("GET", quoted("inputs"), query=query))

    def list(
        self,
        state: TrainingState | str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> "list[Training]":
        """Trainings, newest first, at most ``limit`` (1,000), those after the id ``after``."""
        query = {"state": state, "limit": limit, "after": after}
        found = self._call("GET", quoted("trainings"), query=query)
        return [parse(Training, each) for each in found]

    def get(self, training: str) -> TrainingHandle:
        """One training, with what can be done about it."""
        return TrainingHandle(self, self.look(training))

    def look(self, training: str) -> Training:
        """One training, as it is now."""
        return parse(Training, self._call("GET", quoted("trainings", training)))

    def trials(
        self,
        training: str,
        sort: str | None = None,
        order: Direction | str | None = None,
        state: str | None = None,
        limit: int | None = None,
        after: int = 0,
    ) -> Trials:
        """Its trials by number, or by something else.

        Args:
            training: the training.
            sort: a metric's name, ``params.NAME``, or one of ``score``, ``state``, ``started``,
                ``finished`` and ``duration``; a metric with such a name is ``metrics.NAME``.
                Trials that have none come last.
            order: ``min`` (smallest first) or ``max``; without it, by score the best first.
            state: only trials in this state.
            limit: at most so many; without it, all.
            after: leave out so many of the first.
        """
        found: Trials = []
        path = quoted("trainings", training, "trials")
        query = {"sort": _sort(sort), "order": _order(order), "state": state}
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            part = query | {"limit": size, "after": after + len(found)}
            page = self._call("GET", path, query=part)
            found += [parse(Trial, each) for each in page]
            if len(page) < size:
                break
        return found

    def trial(self, training: str, number: int) -> Trial:
        """One trial."""
        return parse(Trial, self._call("GET", quoted("trainings", training, "trials", number)))

    def points(
        self, training: str, trial: int | None = None, follow: bool = False
    ) -> Iterator[MetricPoint]:
        """Yield what trials reported while they ran; ``follow`` goes on until the training ends."""
        path = "/api/v1" + quoted("trainings", training, "metrics")
        for line in self._transport.log(path, follow, {"trial": trial}, "metrics"):
            if line:
                yield parse(MetricPoint, json.loads(line))

    def history(self, training: str, trial: int | None = None) -> Points:
        """All metrics: what trials said while they ran, then what they left in their output."""
        said = list(self.points(training, trial))
        known = {(point.trial, name) for point in said for name in point.values}
        trials = self.trials(training) if trial is None else [self.trial(training, trial)]
        for each in trials:
            left = {k: v for k, v in each.metrics.items() if (each.number, k) not in known}
            if left:
                at = each.finished or each.started or each.created
                said.append(MetricPoint(trial=each.number, at=at, values=left))
        return said

    def metrics(self, training: str, trial: int | None = None) -> Any:
        """The same as a table: a row per moment, a column per metric.

        Returns:
            A ``pandas.DataFrame`` where pandas is installed, else a list of dicts.
        """
        rows = [
            {"trial": point.trial, "step": point.step, "at": point.at, **point.values}
            for point in self.history(training, trial)
        ]
        if importlib.util.find_spec("pandas") is None:
            return rows
        return importlib.import_module("pandas").DataFrame(rows)

    def logs(self, training: str, trial: int = 1, follow: bool = False) -> Iterator[str]:
        """The lines of a trial's log, each with its time; ``follow`` goes on to its end."""
        path = quoted("trainings", training, "trials", trial, "log")
        return self._transport.log("/api/v1" + path, follow)

    def build_logs(self, training: str, follow: bool = False) -> Iterator[str]:
        """The lines of the Build log, each with its time; ``follow`` goes on to its end."""
        path = quoted("trainings", training, "build-log")
        return self._transport.log("/api/v1" + path, follow)

    def ingest_logs(self, training: str, follow: bool = False) -> Iterator[str]:
        """The lines that were said while the files of a manifest were fetched."""
        path = quoted("trainings", training, "ingest-log")
        return self._transport.log("/api/v1" + path, follow)

    def kill(self, training: str, trial: int | None = None) -> Training:
        """End it in whatever stage it is, or one of its trials. What there was is kept."""
        path = quoted("trainings", training, "kill")
        return parse(Training, self._call("POST", path, {} if trial is None else {"trial": trial}))

    def delete(self, training: str) -> None:
        """Forget an ended training with its trials, logs, metrics and models. Bundles stay."""
        self._call("DELETE", quoted("trainings", training))

    def reproduce(self, training: str) -> TrainingHandle:
        """Run it again on the very same inputs; :meth:`comparison` tells what differs."""
        path = quoted("trainings", training, "reproduce")
        return self.handle(parse(TrainingAnswer, self._call("POST", path)))

    def comparison(self, training: str) -> Comparisons:
        """Each trial of a repetition beside the one that it repeats."""
        found = self._call("GET", quoted("trainings", training, "comparison"))
        return [parse(TrialComparison, each) for each in found]

    def archive(
        self,
        training: str,
        target: str | os.PathLike[str],
        parts: Sequence[str] = ("code", "params", "model"),
        trial: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Fetch what a training was made of and what it left, so that it can be deployed again.

        Args:
            training: the training.
            target: folder to make; it must not exist or be empty. It gets a folder per part.
            parts: any of ``code``, ``data``, ``params`` and ``model``.
            trial: only this one's params and model; without it, ``model`` holds one folder per
                trial, unless there is but one.
            progress: called with the bytes fetched; the total is not known and 0.

        Raises:
            InvalidRequest: ``target`` is there already, or there is no such part.
        """
        wrong = [part for part in parts if part not in PARTS]
        if wrong:
            raise InvalidRequest(f"{wrong[0]!r} is none of {', '.join(PARTS)}")
        folder = Path(target).expanduser()
        check_target(folder)
        path = "/api/v1" + quoted("trainings", training, "archive")
        query = {"parts": ",".join(parts), "trial": trial}
        receive(self._transport.stream(path, query), folder, 0, progress)

    def events(self, training: str | None = None) -> Iterator[TrainingEvent]:
        """Return the events of a training, or of all, from the present state on, without end."""
        return (event for event in self._events(training) if event is not None)

    def _events(self, training: str | None) -> Iterator[TrainingEvent | None]:
        """Events, and None whenever nothing has happened for a while."""
        path = quoted("trainings", training, "events") if training else quoted("events")
        for event in self._transport.events("/api/v1" + path):
            if event.event == "training":
                yield parse(TrainingEvent, json.loads(event.data))
            else:
                yield None

    def wait(
        self,
        training: str,
        timeout: float | None = None,
        on_event: Callable[[TrainingEvent], object] | None = None,
    ) -> Training:
        """Wait until a training has ended.

        Args:
            training: the training.
            timeout: seconds to wait at most; may take some seconds more to be noticed.
            on_event: called with each event.

        Returns:
            The training, ``SUCCEEDED``.

        Raises:
            BuildFailed: its build failed; the message is the reason.
            Failed: it failed or was cancelled.
            Unavailable: the timeout is over, or the service does not answer.
        """
        found = self.follow(training, timeout, on_event)
        error = failure(found)
        if error:
            raise error
        return found

    def follow(
        self,
        training: str,
        timeout: float | None = None,
        on_event: Callable[[TrainingEvent], object] | None = None,
        done: Callable[[Training], bool] = lambda found: found.state.ended,
    ) -> Training:
        """As :meth:`wait`, but returns the training whatever became of it.

        Args:
            training: the training.
            timeout: seconds to wait at most.
            on_event: called with each event.
            done: when to stop; without it, when it has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for event in self._events(training):
            if event and on_event:
                on_event(event)
            # Asked again in every silence too: what "done" looks at need not make an event.
            settled = event is None or event.state.ended or event.state is TrainingState.WAITING
            if settled and done(self.look(training)):
                break
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(
                    f"training {training} has not ended after {timeout:g} s. It goes on:"
                    f" kaos train info -j {training}"
                )
        return self.look(training)

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        return self._transport.json(method, "/api/v1" + path, body, query)


def _sort(word: str | None) -> str | None:
    """Return what the service sorts by: a bare name is a metric's."""
    if word is None or word in _SORTS or word.startswith(("metrics.", "params.")):
        return word
    return f"metrics.{word}"


def _order(word: str | None) -> str | None:
    return {None: None, "min": "asc", "max": "desc"}.get(word, word)
