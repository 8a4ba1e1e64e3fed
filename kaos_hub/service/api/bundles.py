"""Bundles over REST."""

import asyncio
import json
from dataclasses import asdict

from pydantic import Field

from kaos_hub.bundles import sift
from kaos_hub.bundles.ignore import rules_for
from kaos_hub.bundles.limits import Limits
from kaos_hub.errors import (
    Conflict,
    InvalidBundle,
    InvalidRequest,
    LimitExceeded,
    MissingObjects,
    NotFound,
    StorageFull,
    TooLarge,
    from_body,
)
from kaos_hub.schemas import (
    BundleComparison,
    BundleKind,
    BundleVersion,
    CommitRequest,
    DeletedBundle,
    Likeness,
    LikenessRequest,
    MissingAnswer,
    MissingRequest,
    Model,
    NamedBundle,
    SiftAnswer,
    SiftRequest,
    TreeEntry,
)
from kaos_hub.service.api.routes import Call, Download, Route
from kaos_hub.service.auth.auth import Right
from kaos_hub.util import limited

_MISSING_LIMIT = 8 << 20
"""Bytes: fifty thousand digests with their sizes."""

_SIFT_LIMIT = 16 << 20
"""Bytes: the paths of fifty thousand files."""

_SIFT_PATIENCE = 30.0
"""Seconds for the patterns' process, which may have to wait for a processor."""

_UPLOAD_LIMIT = 1 << 50
"""Bytes of one upload. The real limit is the owner's storage limit, also while it runs."""


class ListBundles(Model):
    """The bundles to list."""

    kind: BundleKind | None = Field(None, description="only this kind")
    name: str | None = Field(None, max_length=64, description="only versions of this name")
    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    after: int = Field(0, ge=0, le=10**9, description="leave out so many of the newest")


class ListNames(Model):
    """The names of bundles to list."""

    kind: BundleKind | None = Field(None, description="only this kind")
    search: str = Field("", max_length=64, description="only names that contain it")
    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    after: int = Field(0, ge=0, le=10**9, description="leave out so many of the first")


class ReadFile(Model):
    """The file of a bundle to read."""

    path: str = Field(min_length=1, max_length=1000, description="below the bundle's root")


class Compare(Model):
    """The version to compare with, and how many changes to list."""

    since: int | None = Field(
        None, ge=1, le=10**9, description="number of the other version; else the one before"
    )
    limit: int = Field(1000, ge=0, le=100_000, description="list at most so many changes")


class ListEntries(Model):
    """The directory of a bundle to list."""

    path: str = Field("", max_length=1000, description="below the bundle's root; empty is the root")


class Received(Model):
    """The number of objects received."""

    received: int


async def missing(call: Call) -> MissingAnswer:
    """Return which of the objects the owner does not hold.

    Clients ask before they send. Limits are checked here, before bytes move.
    """
    return await call.core.versions.missing(call.owner, call.body)


async def receive(call: Call) -> Received:
    """Return the number of objects received, which uploads.ObjectReader has stored already."""
    return Received(**(call.body or {"received": 0}))


async def commit(call: Call) -> BundleVersion:
    """Make a version."""
    return await call.core.versions.commit(call.owner, call.caller.author, call.body)


async def list_bundles(call: Call) -> list[BundleVersion]:
    """List versions, the newest first."""
    q: ListBundles = call.query
    return await call.core.versions.list(call.owner, q.kind, q.name, q.limit, q.after)


async def look_through(call: Call) -> SiftAnswer:
    """Return the files that are left out of a bundle, before any is read or sent."""
    asked: SiftRequest = call.body
    info = call.core.info
    limits = Limits(max_files=info.max_files, max_file_size=info.max_file_size)
    if sift.quick(asked):
        rules = rules_for(asked.kind)
        return SiftAnswer(
            skipped=await asyncio.to_thread(sift.sift, asked.paths, asked.ignores, rules, limits)
        )
    try:
        output = await limited.run(
            sift.MODULE, json.dumps(asdict(limits)),
            content=asked.model_dump_json().encode(), patience=_SIFT_PATIENCE,
        )  # fmt: skip
    except limited.Exceeded as e:
        raise InvalidBundle(
            f"The patterns of .kaosignore take too much {e.what} on so many files. Send fewer of"
            " either, or use the command line."
        ) from None
    answer = await asyncio.to_thread(json.loads, output)
    if "error" in answer:
        raise from_body(400, answer["error"])
    return SiftAnswer.model_validate(answer)


async def list_names(call: Call) -> list[NamedBundle]:
    """List each name once, the one sent last first."""
    q: ListNames = call.query
    return await call.core.catalogue.names(call.owner, q.kind, q.search, q.limit, q.after)


def kind_of(text: str) -> BundleKind:
    """Return the kind of bundle that a part of an address names.

    Raises:
        NotFound: there is no such kind.
    """
    if text not in set(BundleKind):
        raise NotFound(f"There is no kind of bundle called {text!r}")
    return BundleKind(text)


def number_of(text: str) -> int | None:
    """Return the version number that a part of an address names; None: the current one.

    Raises:
        NotFound: it is not a version.
    """
    if text == "current":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFound(f"{text!r} is no version; say a number or `current`")
    return int(text)


async def _version(call: Call) -> BundleVersion:
    kind, number = kind_of(call.path["kind"]), number_of(call.path["version"])
    return await call.core.versions.get(call.owner, kind, call.path["name"], number)


async def get_bundle(call: Call) -> BundleVersion:
    """Return one version."""
    return await _version(call)


async def list_entries(call: Call) -> list[TreeEntry]:
    """List one directory."""
    version = await _version(call)
    q: ListEntries = call.query
    return await call.core.versions.entries(version, q.path)


async def read_file(call: Call) -> Download:
    """Stream one file."""
    version = await _version(call)
    q: ReadFile = call.query
    entry = await call.core.catalogue.file(version, q.path)
    content = call.core.catalogue.content(entry)
    return Download(content, "application/octet-stream", entry.name)


async def changes(call: Call) -> BundleComparison:
    """Compare one version with another."""
    version = await _version(call)
    q: Compare = call.query
    if q.since is None:
        other = await call.core.catalogue.before(call.owner, version)
    else:
        other = await call.core.versions.get(call.owner, version.kind, version.name, q.since)
    return await call.core.catalogue.compare(other, version, q.limit)


async def delete_version(call: Call) -> DeletedBundle:
    """Delete one version; the others stay."""
    version = await _version(call)
    return await call.core.removal.delete(call.owner, version.kind, version.name, version.version)


async def delete_bundle(call: Call) -> DeletedBundle:
    """Delete all versions."""
    return await call.core.removal.delete(call.owner, kind_of(call.path["kind"]), call.path["name"])


async def archive(call: Call) -> Download:
    """Stream the whole tree as a tar archive."""
    version = await _version(call)
    content = call.core.versions.archive(version.digest)
    return Download(content, "application/x-tar", f"{version.name}-v{version.version}.tar")


_ALL = "/bundles/{kind}/{name}"
_ONE = _ALL + "/{version}"


async def likeness(call: Call) -> Likeness:
    """Return the bundle that a folder belongs to."""
    return await call.core.likenesses.of(call.owner, call.body)


ROUTES = [
    Route(
        "POST",
        "/bundles/likeness",
        likeness,
        "Is a folder another version of the bundle of its name, or something else?",
        body=LikenessRequest,
        answer=Likeness,
        shared=True,
        uploads=True,
        limit=_MISSING_LIMIT,
        errors=(),
    ),
    Route(
        "POST",
        "/bundles/missing",
        missing,
        "Which of these objects does the owner not hold? Limits are checked before bytes move.",
        body=MissingRequest,
        answer=MissingAnswer,
        shared=True,
        uploads=True,
        limit=_MISSING_LIMIT,
        costly=True,
        errors=(LimitExceeded, TooLarge),
    ),
    Route(
        "POST",
        "/bundles/sift",
        look_through,
        "Which files of a folder are left out of a bundle: by .kaosignore, or because tools make"
        " them.",
        body=SiftRequest,
        answer=SiftAnswer,
        shared=True,
        uploads=True,
        limit=_SIFT_LIMIT,
        costly=True,
        errors=(InvalidBundle,),
    ),
    Route(
        "POST",
        "/objects",
        receive,
        "Send objects: for each, a line `<64 hex digits> <size>` and then that many bytes.",
        answer=Received,
        shared=True,
        uploads=True,
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
        uploads=True,
        status=201,
        costly=True,
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
        "/bundle-names",
        list_names,
        "Bundles by name, each with its current version, the one sent last first.",
        query=ListNames,
        answer=list[NamedBundle],
        shared=True,
    ),
    Route(
        "DELETE",
        _ALL,
        delete_bundle,
        "Delete all versions of a bundle. Refused while a notebook or training is made of one.",
        right=Right.MANAGE,
        answer=DeletedBundle,
        shared=True,
        errors=(NotFound, Conflict),
    ),
    Route(
        "DELETE",
        _ONE,
        delete_version,
        "Delete a version. Refused while a notebook or training is made of it.",
        right=Right.MANAGE,
        answer=DeletedBundle,
        shared=True,
        errors=(NotFound, Conflict),
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
        costly=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/file",
        read_file,
        "One file of a bundle.",
        query=ReadFile,
        media=("application/octet-stream",),
        shared=True,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        _ONE + "/changes",
        changes,
        "What is different in a version, compared with the one before or any other.",
        query=Compare,
        answer=BundleComparison,
        shared=True,
        costly=True,
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
