"""Notebooks over REST."""

from collections.abc import AsyncIterator

from pydantic import Field

from kaos_hub.errors import (
    Conflict,
    Forbidden,
    HubUnavailable,
    LimitExceeded,
    NotFound,
    RestartRequired,
    Unsupported,
)
from kaos_hub.schemas import (
    Activity,
    ActivityAnswer,
    DeployAnswer,
    Event,
    Model,
    Notebook,
    NotebookRequest,
    Wait,
)
from kaos_hub.service.api.log_answers import LOG_MEDIA, ReadLog, answer_log, from_where
from kaos_hub.service.api.routes import Call, Download, Events, Route
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.web import sse


class Gone(Model):
    """The notebook that is deleted, or about to be."""

    deleted: str = Field(description="its name")
    done: bool = Field(
        True, description="it is gone; false: it goes by itself once its server has ended"
    )


_AT_LEAST = 0.5
"""Seconds to wait for a deletion in any case: a stopped notebook is gone by then."""


async def list_notebooks(call: Call) -> list[Notebook]:
    """List all notebooks of the owner."""
    return list(await call.core.notebooks.list(call.owner))


async def deploy(call: Call) -> DeployAnswer:
    """Record the wish. The build and the start follow by themselves."""
    request: NotebookRequest = call.body
    own = call.caller.notebook
    if request.restart and own is not None and request.name != own:
        raise Forbidden("A notebook's own token may restart no other notebook.")
    owners: list[str] = []
    if request.run is not None and "kaos-train" in call.caller.services:
        # Models are their groups' as much as their own, notebooks are not.
        groups = await call.core.owners.groups(call.caller.owner, fresh=True)
        owners = [call.owner, *groups.values()]
    return await call.core.notebooks.deploy(call.owner, call.caller.author, request, owners)


async def get_notebook(call: Call) -> Notebook:
    """Return one notebook."""
    return await call.core.notebooks.get(call.owner, call.path["name"])


async def start(call: Call) -> Notebook:
    """Start a notebook as it is."""
    return await call.core.notebooks.start(call.owner, call.path["name"])


async def stop(call: Call) -> Notebook:
    """Stop a notebook, or cancel its build or start. A notebook may stop itself."""
    if call.caller.notebook != call.path["name"]:
        call.caller.require(Right.MANAGE)
    return await call.core.notebooks.stop(call.owner, call.path["name"])


async def kill(call: Call) -> Notebook:
    """End a notebook at once."""
    return await call.core.notebooks.kill(call.owner, call.path["name"])


async def retry(call: Call) -> Notebook:
    """Retry what failed."""
    return await call.core.notebooks.retry(call.owner, call.path["name"])


async def delete(call: Call) -> Gone:
    """Delete a notebook with its home."""
    wait: Wait = call.query
    name, seconds = call.path["name"], max(_AT_LEAST, wait.wait)
    return Gone(deleted=name, done=await call.core.notebooks.delete(call.owner, name, seconds))


async def build_log(call: Call) -> Download | Events:
    """Stream the log of the build."""
    offset, follow = from_where(call)
    log = await call.core.notebooks.build_log(call.owner, call.path["name"], offset, follow)
    return answer_log(call, log)


async def host_log(call: Call) -> Download | Events:
    """Stream the log of the server."""
    offset, follow = from_where(call)
    log = await call.core.notebooks.host_log(call.owner, call.path["name"], offset, follow)
    return answer_log(call, log)


async def _event_messages(events: AsyncIterator[Event]) -> AsyncIterator[sse.Message]:
    try:
        async for event in events:
            yield sse.Message("notebook", event.model_dump_json(), event.id)
    finally:
        await sse.close(events)


async def all_events(call: Call) -> Events:
    """Stream the events of all notebooks of the owner."""
    return Events(_event_messages(call.core.notebooks.events(call.owner, None, call.last_event_id)))


async def events(call: Call) -> Events:
    """Stream the events of one notebook."""
    # Asked first, so that what is not there is a 404 and not a stream without end.
    await get_notebook(call)
    name = call.path["name"]
    return Events(_event_messages(call.core.notebooks.events(call.owner, name, call.last_event_id)))


async def activity(call: Call) -> ActivityAnswer:
    """Take the server extension's report, and answer with the verdict."""
    return await call.core.gate.activity(call.owner, call.path["name"], call.body)


async def source(call: Call) -> Download:
    """Stream the source bundle that the notebook follows as a tar archive."""
    digest = await call.core.notebooks.source_digest(call.owner, call.path["name"])
    content = call.core.versions.archive(digest)
    return Download(content, "application/x-tar", f"{call.path['name']}-source.tar")


_ONE = "/notebooks/{name}"

ROUTES = [
    Route("GET", "/notebooks", list_notebooks, "All notebooks.", answer=list[Notebook]),
    Route(
        "POST",
        "/notebooks",
        deploy,
        "Deploy a notebook, or deploy it again. The answer comes at once; build and start follow.",
        body=NotebookRequest,
        answer=DeployAnswer,
        status=202,
        errors=(Conflict, LimitExceeded, NotFound, RestartRequired, Unsupported),
    ),
    Route(
        "GET",
        "/notebooks/events",
        all_events,
        "What happens to all notebooks, as server-sent events. Begins with the present state, or"
        " after Last-Event-ID.",
        media=("text/event-stream",),
    ),
    Route("GET", _ONE, get_notebook, "One notebook.", answer=Notebook, errors=(NotFound,)),
    Route(
        "DELETE",
        _ONE,
        delete,
        "Delete a notebook and its home directory. The answer comes at once, perhaps before its"
        " server has ended; ask again, with `wait`, until it is done or not found.",
        right=Right.MANAGE,
        query=Wait,
        answer=Gone,
        errors=(NotFound, HubUnavailable),
    ),
    Route(
        "POST",
        _ONE + "/start",
        start,
        "Start a stopped notebook.",
        answer=Notebook,
        errors=(NotFound, Conflict, LimitExceeded, HubUnavailable),
    ),
    Route(
        "POST",
        _ONE + "/stop",
        stop,
        "Stop a notebook, or cancel its build. A notebook's own token may stop that notebook only.",
        answer=Notebook,
        errors=(NotFound, Forbidden, HubUnavailable),
    ),
    Route(
        "POST",
        _ONE + "/kill",
        kill,
        "End a notebook at once, without asking it.",
        right=Right.MANAGE,
        answer=Notebook,
        errors=(NotFound, HubUnavailable),
    ),
    Route(
        "POST",
        _ONE + "/retry",
        retry,
        "Try a failed notebook again, from the stage that failed.",
        answer=Notebook,
        errors=(NotFound, Conflict, LimitExceeded),
    ),
    Route(
        "GET",
        _ONE + "/build-log",
        build_log,
        "The log of the build: stamped lines as text, or events whose id is the offset after them.",
        query=ReadLog,
        media=LOG_MEDIA,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/host-log",
        host_log,
        "The server's log: stamped lines as text, or events whose id is the offset after them.",
        query=ReadLog,
        media=LOG_MEDIA,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/events",
        events,
        "What happens to one notebook, as server-sent events. Begins with the present state, or"
        " after Last-Event-ID.",
        media=("text/event-stream",),
        errors=(NotFound,),
    ),
    Route(
        "POST",
        _ONE + "/activity",
        activity,
        "The notebook's own server reports kernels, terminals and last use.",
        right=Right.REPORT,
        body=Activity,
        answer=ActivityAnswer,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/source",
        source,
        "The source bundle that the notebook follows, as a tar archive.",
        media=("application/x-tar",),
        errors=(NotFound,),
    ),
]
