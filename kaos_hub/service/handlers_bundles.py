"""Bundles over REST."""

from pydantic import Field

from kaos_hub.errors import (
    Conflict,
    InvalidRequest,
    LimitExceeded,
    MissingObjects,
    NotFound,
    StorageFull,
    TooLarge,
)
from kaos_hub.models import (
    BundleKind,
    BundleVersion,
    CommitRequest,
    MissingAnswer,
    MissingRequest,
    Model,
    TreeEntry,
)
from kaos_hub.service.routes import Call, Download, Route

_MISSING_LIMIT = 128 << 20
"""Bytes: a million digests with their sizes."""

_UPLOAD_LIMIT = 1 << 50
"""Bytes of one upload. What really bounds it is the owner's storage limit, while it runs, too."""


class ListBundles(Model):
    """Which bundles to list."""

    kind: BundleKind | None = Field(None, description="only this kind")
    name: str | None = Field(None, max_length=64, description="only versions of this name")
    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    after: int = Field(0, ge=0, le=10**9, description="leave out so many of the newest")


class ListEntries(Model):
    """Which directory of a bundle to list."""

    path: str = Field("", max_length=4096, description="below the bundle's root; empty is the root")


class Received(Model):
    """How many objects came."""

    received: int


async def missing(call: Call) -> MissingAnswer:
    """Asked before sending: what the owner lacks. Limits are checked here, before bytes move."""
    return await call.core.versions.missing(call.owner, call.body)


async def receive(call: Call) -> Received:
    """The objects went into the store while they came; see uploads.ObjectReader."""
    return Received(**(call.body or {"received": 0}))


async def commit(call: Call) -> BundleVersion:
    """Make a version."""
    return await call.core.versions.commit(call.owner, call.caller.user, call.body)


async def list_bundles(call: Call) -> list[BundleVersion]:
    """Newest first."""
    q: ListBundles = call.query
    return await call.core.versions.list(call.owner, q.kind, q.name, q.limit, q.after)


async def _version(call: Call) -> BundleVersion:
    path = call.path
    if path["kind"] not in set(BundleKind):
        raise NotFound(f"There is no kind of bundle called {path['kind']!r}")
    number = path["version"]
    if number != "current" and not (number.isascii() and number.isdigit() and len(number) < 10):
        raise NotFound(f"{number!r} is no version; say a number or `current`")
    return await call.core.versions.get(
        call.owner,
        BundleKind(path["kind"]),
        path["name"],
        None if number == "current" else int(number),
    )


async def get_bundle(call: Call) -> BundleVersion:
    """One version."""
    return await _version(call)


async def list_entries(call: Call) -> list[TreeEntry]:
    """One directory."""
    version = await _version(call)
    q: ListEntries = call.query
    return await call.core.versions.entries(version, q.path)


async def archive(call: Call) -> Download:
    """The whole tree."""
    version = await _version(call)
    content = call.core.versions.archive(version.digest)
    return Download(content, "application/x-tar", f"{version.name}-v{version.version}.tar")


_ONE = "/bundles/{kind}/{name}/{version}"

ROUTES = [
    Route(
        "POST",
        "/bundles/missing",
        missing,
        "Which of these objects does the owner not hold? Limits are checked before bytes move.",
        body=MissingRequest,
        answer=MissingAnswer,
        shared=True,
        limit=_MISSING_LIMIT,
        errors=(LimitExceeded, TooLarge),
    ),
    Route(
        "POST",
        "/objects",
        receive,
        "Send objects: for each, a line `<64 hex digits> <size>` and then that many bytes.",
        answer=Received,
        shared=True,
        limit=_UPLOAD_LIMIT,
        reader="objects",
        errors=(InvalidRequest, LimitExceeded, StorageFull),
    ),
    Route(
        "POST",
        "/bundles",
        commit,
        "Make a version of a tree whose objects the owner holds. An older tree is selected again.",
        body=CommitRequest,
        answer=BundleVersion,
        shared=True,
        status=201,
        errors=(MissingObjects, LimitExceeded, Conflict),
    ),
    Route(
        "GET",
        "/bundles",
        list_bundles,
        "Versions of bundles, newest first.",
        query=ListBundles,
        answer=list[BundleVersion],
        shared=True,
    ),
    Route(
        "GET",
        _ONE,
        get_bundle,
        "One version of a bundle; `current` is the one used when none is named.",
        answer=BundleVersion,
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/entries",
        list_entries,
        "What stands in a directory of a bundle.",
        query=ListEntries,
        answer=list[TreeEntry],
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/archive",
        archive,
        "The bundle as a tar archive.",
        media=("application/x-tar",),
        shared=True,
        errors=(NotFound,),
    ),
]
