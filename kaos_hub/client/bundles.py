"""The SDK's bundles: submitting a folder, listing and fetching versions."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kaos_hub.bundles.ignore import rules_for
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.bundles.source import check_data, check_source, default_name, find_source_root
from kaos_hub.client.handles import warn
from kaos_hub.client.inputs import Laid, check_manifest, check_params, lay_out, lay_out_file
from kaos_hub.client.receiving import check_target, receive
from kaos_hub.errors import InvalidRequest, MissingObjects
from kaos_hub.schemas import (
    BundleComparison,
    BundleKind,
    BundleVersion,
    CommitRequest,
    DeletedBundle,
    Info,
    Likeness,
    LikenessRequest,
    MissingAnswer,
    NamedBundle,
    TreeEntry,
    bundle_name,
)
from kaos_hub.transport.http import Transport, parse, quoted
from kaos_hub.transport.objects import Progress, Sender

_ASK = 50_000
"""Objects asked about in one request."""
_ROUNDS = 3
"""Times a commit is tried: content may be collected by the store between asking and committing."""
_COMPARED = 5000
"""Files by which a folder is told from another one of its name."""
_OF_PROJECTS = (BundleKind.SOURCE, BundleKind.DATA)
"""Kinds of which another project has one of the same name that must not be taken for it."""
_LISTS = {BundleKind.PARAMS: check_params, BundleKind.MANIFEST: check_manifest}
"""Kinds that are a list of something rather than the thing itself, and how to check each."""


@dataclass(frozen=True)
class Folder:
    """A folder that was read and keeps the rules: ready to be submitted."""

    kind: BundleKind
    name: str
    scan: Scan
    lists: int = 0
    """The number of trials that the params make, or of files that the manifest names."""
    keeps: object = None
    """An object that must live until the folder was submitted."""
    origin: str | None = None
    """A digest of where it is: another folder of that name is another thing."""
    other: str = ""
    """The version of the same name that it has nothing in common with: this one has a new name."""
    asked_name: str = ""
    """The name that it would have, if it were the next version of that."""

    @property
    def apart(self) -> str:
        """The reason, for people, why its name is not the folder's; empty where it is."""
        if not self.other:
            return ""
        return (
            f"{self.asked_name} has no file in common with {self.kind} bundle {self.other}, which"
            " was another folder's"
        )

    @property
    def path(self) -> Path:
        """The bundle's root."""
        return self.scan.directory


class Bundles:
    """Bundles of the asking user. Every method raises a :class:`~kaos_hub.errors.KaosError`
    subclass: what is wrong with the folder, what the service says, or ``Unavailable``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        folder: str | os.PathLike[str] | Folder,
        kind: BundleKind | str = BundleKind.SOURCE,
        name: str | None = None,
        progress: Progress | None = None,
    ) -> BundleVersion:
        """Make a folder a version of a bundle. Only what the service lacks is sent.

        Submitting an unchanged folder costs one request and makes no new version; after a failure,
        submit again: what has arrived is not sent twice.

        Args:
            folder: the folder, or what :meth:`prepare` made of it; of params and manifests the
                file, of a context either.
            kind: ``source``, ``data``, ``params``, ``manifest`` or ``context``.
            name: of the bundle; without it, the folder's name. If that is another folder's, with
                which this one has no file in common, a free one like it: ``data-2``; a warning and
                the version's ``notes`` say so.
            progress: called with the bytes sent and the bytes to send.

        Raises:
            InvalidBundle: the folder breaks a rule, or changed meanwhile; names the entry.
            LimitExceeded: there is no room for it.
        """
        ready = folder if isinstance(folder, Folder) else self.prepare(folder, kind, name)
        if ready.other:
            warn(_renamed(ready))
        request = CommitRequest(
            kind=ready.kind, name=ready.name, root=ready.scan.root, origin=ready.origin
        )
        for _ in range(_ROUNDS):
            try:
                return _noted(self._commit(request), ready)
            except MissingObjects:
                lacking = self.missing(ready)
                Sender(self._transport, ready.scan, progress).send(lacking)
        return _noted(self._commit(request), ready)

    def prepare(
        self,
        path: str | os.PathLike[str] | Laid,
        kind: BundleKind | str,
        name: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Folder:
        """Read a folder and check it against the rules and the service's limits. Sends nothing.

        Args:
            path: the folder; of a source bundle, its parent will do; of params and manifests the
                file, of a context either.
            kind: ``source``, ``data``, ``params``, ``manifest`` or ``context``.
            name: of the bundle; without it, the folder's name.
            progress: called with the bytes read so far.
        """
        kind = _kind(kind)
        laid = path if isinstance(path, Laid) else self._laid(Path(path).expanduser(), kind)
        called = bundle_name(name) if name else laid.name
        check = _LISTS.get(kind)
        lists = check(laid) if check else 0
        # A list is small, and wrong more often than the rest: it needs no service to be checked.
        limits = Limits() if check else self._limits()
        read = 0

        def count(_: str, size: int) -> None:
            nonlocal read
            read += size
            if progress:
                progress(read)

        found = scan(laid.folder, rules_for(kind), limits, count)
        (check_source if kind is BundleKind.SOURCE else check_data)(found)
        folder = Folder(kind, called, found, lists, laid.keeps)
        if kind not in _OF_PROJECTS or laid.keeps is not None:
            return folder
        folder = replace(folder, origin=_origin(found.directory))
        return folder if name else self._told_apart(folder)

    def _told_apart(self, folder: Folder) -> Folder:
        """The folder under a name of its own, if its name is something else's."""
        files = {
            path: digest for digest, (path, size) in folder.scan.files.items() if size
        }  # fmt: skip
        request = LikenessRequest(
            kind=folder.kind, name=folder.name, root=folder.scan.root, origin=folder.origin or "",
            files=dict(islice(files.items(), _COMPARED)),
        )  # fmt: skip
        answer = self._call("POST", "/bundles/likeness", request.model_dump(mode="json"))
        found = parse(Likeness, answer)
        other = "" if found.alike else found.before
        return replace(folder, name=found.name, other=other, asked_name=folder.name)

    def _limits(self) -> Limits:
        info = parse(Info, self._transport.json("GET", "/api/v1/info"))
        return Limits(max_files=info.max_files, max_file_size=info.max_file_size)

    def _laid(self, path: Path, kind: BundleKind) -> Laid:
        if kind in _LISTS:
            return lay_out(path, kind)
        if kind is BundleKind.CONTEXT and path.is_file():
            return lay_out_file(path)
        root = self.root_of(path, kind)
        return Laid(root, root, str(root), default_name(root))

    def root_of(self, path: Path, kind: BundleKind) -> Path:
        """The folder that is the bundle: of a source bundle, the one that holds the Dockerfile."""
        path = path.expanduser()
        source = kind is BundleKind.SOURCE
        return find_source_root(path, look_around=True) if source else path

    def missing(self, folder: Folder) -> list[str]:
        """The digests that would have to be sent to submit the folder.

        Raises:
            LimitExceeded: there is no room for them.
        """
        objects = iter(folder.scan.objects.items())
        lacking: list[str] = []
        while part := dict(islice(objects, _ASK)):
            answer = self._call("POST", "/bundles/missing", {"objects": part})
            lacking += parse(MissingAnswer, answer).missing
        return lacking

    def list(
        self,
        kind: BundleKind | str | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> "list[BundleVersion]":
        """Versions, newest first, at most ``limit``."""
        query = {"kind": kind and _kind(kind).value, "name": name, "limit": limit, "after": after}
        return [parse(BundleVersion, b) for b in self._call("GET", "/bundles", query=query)]

    def get(
        self,
        kind: BundleKind | str,
        name: str,
        version: int | None = None,
        target: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> BundleVersion:
        """One version (the current one, if none is named); with ``target`` its content too.

        Args:
            kind: ``source``, ``data``, ``artifact``, ``params``, ``manifest`` or ``context``.
            name: of the bundle.
            version: its number.
            target: folder to make and fill; it must not exist or be empty.
            progress: called with the bytes fetched and the bytes to fetch.

        Raises:
            InvalidRequest: ``target`` is there already.
            NotFound: there is no such version.
        """
        path = quoted("bundles", _kind(kind).value, name, version or "current")
        found = parse(BundleVersion, self._call("GET", path))
        if target is not None:
            self._fetch(found, Path(target).expanduser(), progress)
        return found

    def names(
        self, kind: BundleKind | str | None = None, search: str = "", limit: int = 100
    ) -> Sequence[NamedBundle]:
        """Bundles by name, each with its current version, the one sent last first."""
        query = {"kind": kind and _kind(kind).value, "search": search, "limit": limit}
        return [parse(NamedBundle, b) for b in self._call("GET", "/bundle-names", query=query)]

    def entries(
        self, kind: BundleKind | str, name: str, version: int | None = None, path: str = ""
    ) -> Sequence[TreeEntry]:
        """Return the entries of a folder of a version.

        Raises:
            NotFound: there is no such version, or no such folder in it.
        """
        found = self._call("GET", _path(kind, name, version, "entries"), query={"path": path})
        return [parse(TreeEntry, entry) for entry in found]

    def read(
        self, kind: BundleKind | str, name: str, path: str, version: int | None = None
    ) -> Iterator[bytes]:
        """The content of one file, piece by piece.

        Raises:
            NotFound: there is no such version, or no such file in it.
        """
        where = f"{_path(kind, name, version, 'file')}?{urlencode({'path': path})}"
        return self._transport.stream("/api/v1" + where)

    def compare(
        self,
        kind: BundleKind | str,
        name: str,
        version: int | None = None,
        since: int | None = None,
        limit: int = 1000,
    ) -> BundleComparison:
        """Return what is different between two versions.

        Args:
            kind: ``source``, ``data``, ``artifact``, ``params``, ``manifest`` or ``context``.
            name: of the bundle.
            version: the later one; without it, the current one.
            since: the other; without it, the one before.
            limit: list at most so many changes; the counts are of all.

        Raises:
            NotFound: there is no such version.
        """
        query = {"since": since, "limit": limit}
        found = self._call("GET", _path(kind, name, version, "changes"), query=query)
        return parse(BundleComparison, found)

    def delete(
        self, kind: BundleKind | str, name: str, version: int | None = None
    ) -> DeletedBundle:
        """Delete one version, or (if none is named) all of a bundle.

        Raises:
            NotFound: there is no such version.
            Conflict: a notebook or training is made of it; names them.
        """
        parts = ["bundles", _kind(kind).value, name, *([] if version is None else [str(version)])]
        return parse(DeletedBundle, self._call("DELETE", quoted(*parts)))

    def _fetch(self, version: BundleVersion, target: Path, progress: Progress | None) -> None:
        path = quoted("bundles", version.kind.value, version.name, version.version, "archive")
        check_target(target)
        receive(self._transport.stream("/api/v1" + path), target, version.size, progress)

    def _commit(self, request: CommitRequest) -> BundleVersion:
        answer = self._call("POST", "/bundles", request.model_dump(mode="json"))
        return parse(BundleVersion, answer)

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        return self._transport.json(method, "/api/v1" + path, body, query)


def _origin(folder: Path) -> str:
    """A digest of where a folder is; the service learns no path."""
    place = f"{os.uname().nodename}\0{os.path.realpath(folder)}"
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()


def _path(kind: BundleKind | str, name: str, version: int | None, what: str) -> str:
    return quoted("bundles", _kind(kind).value, name, version or "current", what)


def _kind(kind: BundleKind | str) -> BundleKind:
    try:
        return BundleKind(kind)
    except ValueError:
        kinds = ", ".join(BundleKind)
        raise InvalidRequest(f"{kind!r} is no kind of bundle; there are {kinds}") from None


def _noted(version: BundleVersion, folder: Folder) -> BundleVersion:
    apart = [_renamed(folder)] if folder.other else []
    return version.model_copy(update={"notes": [*apart, *folder.scan.notes]})


def _renamed(folder: Folder) -> str:
    where, asked = str(folder.path), folder.asked_name
    return (
        f"{folder.apart}; it is bundle {folder.name}. To make it the next version of that:"
        f" client.bundles.submit({where!r}, {folder.kind.value!r}, name={asked!r})"
    )
