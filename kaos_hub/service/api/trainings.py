"""Trainings over REST.

Users with access to the Hub's service ``kaos-train`` may use all of these.
"""

from collections.abc import AsyncIterator

from pydantic import Field

from kaos_hub.errors import (
    Conflict,
    InvalidRequest,
    InvalidResources,
    LimitExceeded,
    NotFound,
    Unsupported,
)
from kaos_hub.schemas import (
    Inputs,
    Model,
    Training,
    TrainingAnswer,
    TrainingEvent,
    TrainingRequest,
    TrainingState,
    Trial,
    TrialComparison,
    TrialState,
    Workspace,
)
from kaos_hub.service.api.log_answers import LOG_MEDIA, ReadLog, answer_log, from_where
from kaos_hub.service.api.routes import Call, Download, Events, Route
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.trainings.archives import PARTS
from kaos_hub.service.web import sse

_NDJSON = "application/x-ndjson"
_ID = r"^[0-9a-f]{16}$"


class ListTrainings(Model):
    """The trainings to list."""

    state: str = Field("", max_length=200, description="only in these states, between commas")
    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    after: str | None = Field(None, pattern=_ID, description="id of the last one seen")


class ListTrials(Model):
    """The trials to list, and their order."""

    sort: str = Field(
        "number",
        max_length=200,
        description="`number`, `score`, `state`, `started`, `finished`, `duration`,"
        " `metrics.<name>` or `params.<key>`; what has none comes last",
    )
    order: str | None = Field(
        None, pattern="^(asc|desc)$", description="none: the best first by score, else `asc`"
    )
    state: TrialState | None = Field(None, description="only in this state")
    limit: int = Field(100, ge=1, le=10_000, description="at most so many")
    after: int = Field(0, ge=0, le=10**9, description="leave out so many of the first")


class ReadPoints(ReadLog):
    """The points of metrics to read."""

    offset: int = Field(0, ge=0, description="bytes to leave out at the beginning")
    trial: int | None = Field(None, ge=1, description="only of this trial")


class ReadInputs(Model):
    """The source of which to read the inputs."""

    source: str | None = Field(
        None, max_length=100, description="its digest, name, or name@v2; none: the one used last"
    )


class FetchArchive(Model):
    """The parts of a training to fetch."""

    parts: str = Field(
        ",".join(PARTS), max_length=200, description=f"some of {', '.join(PARTS)}, between commas"
    )
    trial: int | None = Field(None, ge=1, description="only this trial's params and model")


class Kill(Model):
    """The part of a training to end."""

    trial: int | None = Field(None, ge=1, description="only this trial; none: all of it")


class TrainingGone(Model):
    """The training that is deleted."""

    deleted: str


def _split(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _states(text: str) -> list[TrainingState]:
    words = _split(text)
    unknown = sorted(set(words) - set(TrainingState))
    if unknown:
        known = ", ".join(TrainingState)
        raise InvalidRequest(f"state: there is no state {unknown[0]!r}; there are {known}")
    return [TrainingState(word) for word in words]


def _number(call: Call) -> int:
    text = call.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise NotFound(f"{text!r} is no trial; trials have numbers from 1 on")
    return int(text)


async def request(call: Call) -> TrainingAnswer:
    """Record the request. Fetching, building and training follow by themselves."""
    owner, caller = call.owner, call.caller
    return await call.core.trainings.request(owner, caller.author, call.body, caller.notebook)


async def list_trainings(call: Call) -> list[Training]:
    """List trainings, the youngest first."""
    q: ListTrainings = call.query
    found = await call.core.trainings.list(call.owner, _states(q.state), q.limit, q.after)
    return list(found)


async def get_training(call: Call) -> Training:
    """Return one training."""
    return await call.core.trainings.get(call.owner, call.path["id"])


async def list_trials(call: Call) -> list[Trial]:
    """List trials, sorted as the query says."""
    q: ListTrials = call.query
    found = await call.core.trainings.trials(
        call.owner, call.path["id"], q.sort, q.order, q.state, q.limit, q.after
    )
    return list(found)


async def get_trial(call: Call) -> Trial:
    """Return one trial."""
    return await call.core.trainings.trial(call.owner, call.path["id"], _number(call))


async def trial_log(call: Call) -> Download | Events:
    """Stream the log of a trial."""
    offset, follow = from_where(call)
    log = await call.core.trainings.log(call.owner, call.path["id"], _number(call), offset, follow)
    return answer_log(call, log)


async def build_log(call: Call) -> Download | Events:
    """Stream the log of the build."""
    offset, follow = from_where(call)
    log = await call.core.trainings.build_log(call.owner, call.path["id"], offset, follow)
    return answer_log(call, log)


async def ingest_log(call: Call) -> Download | Events:
    """Stream the log of the fetching of data."""
    offset, follow = from_where(call)
    log = await call.core.trainings.ingest_log(call.owner, call.path["id"], offset, follow)
    return answer_log(call, log)


async def metrics(call: Call) -> Download | Events:
    """Stream the points of metrics that trials reported."""
    q: ReadPoints = call.query
    offset, follow = from_where(call)
    points = await call.core.trainings.points(call.owner, call.path["id"], q.trial, offset, follow)
    return answer_log(call, points, _NDJSON, "metrics")


async def archive(call: Call) -> Download:
    """Stream a tar archive of folders that can be sent again as they are."""
    q: FetchArchive = call.query
    training = await get_training(call)
    parts = _split(q.parts) or list(PARTS)
    content = await call.core.trainings.archive(call.owner, training.id, q.trial, parts)
    which = f"{training.id}.{q.trial}" if q.trial else training.id
    return Download(content, "application/x-tar", f"{training.name}-{which}.tar")


async def kill(call: Call) -> Training:
    """End a training, or one of its trials."""
    body: Kill = call.body
    owner, user = call.owner, call.caller.user
    return await call.core.trainings.kill(owner, user, call.path["id"], body.trial)


async def delete(call: Call) -> TrainingGone:
    """Delete a training."""
    await call.core.trainings.delete(call.owner, call.caller.user, call.path["id"])
    return TrainingGone(deleted=call.path["id"])


async def reproduce(call: Call) -> TrainingAnswer:
    """Train again with the very same inputs, parameters and environment."""
    owner, caller = call.owner, call.caller
    training = call.path["id"]
    return await call.core.trainings.reproduce(owner, caller.author, training, caller.notebook)


async def comparison(call: Call) -> list[TrialComparison]:
    """Compare the trials of a repetition with those that it repeats."""
    return list(await call.core.trainings.comparison(call.owner, call.path["id"]))


async def inputs(call: Call) -> Inputs:
    """Return the inputs that a training would use now."""
    q: ReadInputs = call.query
    return await call.core.trainings.inputs(call.owner, q.source)


async def _messages(events: AsyncIterator[TrainingEvent]) -> AsyncIterator[sse.Message]:
    try:
        async for event in events:
            yield sse.Message("training", event.model_dump_json(), event.id)
    finally:
        await sse.close(events)


async def all_events(call: Call) -> Events:
    """Stream the events of all trainings of the owner."""
    return Events(_messages(call.core.trainings.events(call.owner, None, call.last_event_id)))


async def events(call: Call) -> Events:
    """Stream the events of one training."""
    # Asked first, so that what is not there is a 404 and not a stream without end.
    training = await get_training(call)
    found = call.core.trainings.events(call.owner, training.id, call.last_event_id)
    return Events(_messages(found))


async def workspaces(call: Call) -> list[Workspace]:
    """List the owners whose things the caller may see and use."""
    user = call.caller.user
    groups = await call.core.owners.groups(call.caller.owner)
    return [
        Workspace(owner=f"user:{user}", name=user),
        *(Workspace(owner=f"group:{group}", name=group) for group in sorted(groups)),
    ]


_ONE = "/trainings/{id}"
_TRIAL = _ONE + "/trials/{number}"
_EVENT_MEDIA = ("text/event-stream",)

ROUTES = [
    Route(
        "POST",
        "/trainings",
        request,
        "Train. What is not given is the owner's current input. The answer comes at once; fetching,"
        " building and training follow.",
        body=TrainingRequest,
        answer=TrainingAnswer,
        status=202,
        shared=True,
        errors=(NotFound, Conflict, LimitExceeded, InvalidResources, Unsupported),
    ),
    Route(
        "GET",
        "/trainings",
        list_trainings,
        "Trainings, the youngest first.",
        query=ListTrainings,
        answer=list[Training],
        shared=True,
    ),
    Route(
        "GET",
        "/inputs",
        inputs,
        "What a training of a source would use now, where nothing else is said.",
        query=ReadInputs,
        answer=Inputs,
        shared=True,
    ),
    Route(
        "GET",
        "/events",
        all_events,
        "What happens to all trainings, as server-sent events. Begins with the present state of"
        " those that have not ended, or after Last-Event-ID.",
        media=_EVENT_MEDIA,
        shared=True,
    ),
    Route(
        "GET",
        "/workspaces",
        workspaces,
        "Whose things the asker may see and use: their own, and those of each of their groups.",
        answer=list[Workspace],
    ),
    Route(
        "GET", _ONE, get_training, "One training.", answer=Training, shared=True, errors=(NotFound,)
    ),
    Route(
        "DELETE",
        _ONE,
        delete,
        "Forget an ended training with its trials, logs, metrics and models. Bundles stay.",
        right=Right.MANAGE,
        answer=TrainingGone,
        shared=True,
        errors=(NotFound, Conflict),
    ),
    Route(
        "POST",
        _ONE + "/kill",
        kill,
        "End a training, or one of its trials. What has ended already stays as it is.",
        right=Right.MANAGE,
        body=Kill,
        answer=Training,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "POST",
        _ONE + "/reproduce",
        reproduce,
        "Train again with the very same inputs, parameters and environment.",
        answer=TrainingAnswer,
        status=202,
        shared=True,
        errors=(NotFound, Conflict, LimitExceeded),
    ),
    Route(
        "GET",
        _ONE + "/comparison",
        comparison,
        "The trials of a repetition beside those that it repeats.",
        answer=list[TrialComparison],
        shared=True,
        errors=(NotFound, Conflict),
    ),
    Route(
        "GET",
        _ONE + "/events",
        events,
        "What happens to one training, as server-sent events. Begins with the present state, or"
        " after Last-Event-ID.",
        media=_EVENT_MEDIA,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/trials",
        list_trials,
        "Trials of a training, sorted; numbers as numbers.",
        query=ListTrials,
        answer=list[Trial],
        shared=True,
        errors=(NotFound,),
    ),
    Route("GET", _TRIAL, get_trial, "One trial.", answer=Trial, shared=True, errors=(NotFound,)),
    Route(
        "GET",
        _TRIAL + "/log",
        trial_log,
        "What a trial said: stamped lines as text, or events whose id is the offset after them.",
        query=ReadLog,
        media=LOG_MEDIA,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/build-log",
        build_log,
        "The log of the build: stamped lines as text, or events whose id is the offset after them.",
        query=ReadLog,
        media=LOG_MEDIA,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/ingest-log",
        ingest_log,
        "The log of the fetching of its data: stamped lines as text, or events whose id is the"
        " offset after them.",
        query=ReadLog,
        media=LOG_MEDIA,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/metrics",
        metrics,
        "What trials said of themselves: lines of MetricPoint as JSON, or events with such lines"
        " whose id is the offset after them.",
        query=ReadPoints,
        media=(_NDJSON, *_EVENT_MEDIA),
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/archive",
        archive,
        "Code, data, params and model as a tar archive: a folder each, that can be sent again.",
        query=FetchArchive,
        media=("application/x-tar",),
        shared=True,
        errors=(NotFound, InvalidRequest),
    ),
]
