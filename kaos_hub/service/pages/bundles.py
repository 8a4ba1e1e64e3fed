"""The pages of bundles.

They show the list, one bundle's versions, a version folder by folder and file by file, two versions
beside each other, and the deletion of one.

All of them work without JavaScript. The content of a bundle is shown as text, or as one of a few
kinds of images; it is never served as anything that a browser would run.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import Field

from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import BundleKind, BundleVersion, EntryKind, Model, TreeEntry
from kaos_hub.service.api.bundles import kind_of, number_of
from kaos_hub.service.auth.auth import KAOS, TRAIN, Right
from kaos_hub.service.pages import previews
from kaos_hub.service.pages.base import Searched
from kaos_hub.service.pages.owned import OwnedPage
from kaos_hub.service.pages.trials_table import PAGE
from kaos_hub.service.web.streaming import StreamingHandler

_BUNDLE = r"bundles/(?P<kind>[a-z]+)/(?P<name>[^/]+)"
_VERSION = r"(?P<version>current|[1-9][0-9]{0,8})"
_ENTRIES = 500
"""Entries of a folder on one page."""
_CHANGES = 1000
_CHOICES = 200
"""Versions that can be chosen on a page."""


class NamesQuery(Searched):
    """The bundles that a list shows."""

    kind: BundleKind | None = None
    after: int = Field(0, ge=0, le=10**9)


class PageQuery(Model):
    """The number of entries of a long list to leave out."""

    after: int = Field(0, ge=0, le=10**9)


class SinceQuery(Model):
    """The version to compare with."""

    since: int | None = Field(None, ge=1, le=10**9)


_TRAINING = re.compile(r"^training .* \(([0-9a-f]{16})\)$")


@dataclass(frozen=True)
class Use:
    """A notebook, training or other thing that uses a version."""

    words: str
    page: str = ""
    """The address of its page, if it has one that the user may see."""


class BundlePage(OwnedPage):
    """Base of the pages of bundles."""

    back = ("bundles", "Your bundles")

    async def version(self, kind: str, name: str, version: str) -> BundleVersion:
        """Return the version that an address names.

        Raises:
            NotFound: there is none.
        """
        number = number_of(version)
        return await self.core.versions.get(self.whose, kind_of(kind), name, number)


def place(version: BundleVersion, *more: str) -> str:
    """Return the path of a version's pages."""
    return "/".join(("bundles", version.kind.value, version.name, str(version.version), *more))


class BundlesPage(BundlePage):
    """The page of all bundles."""

    route_name = "/bundles"

    async def get(self) -> None:
        """Show the list, the one sent last first, a page at a time."""
        query = self.asked(NamesQuery)
        found = await self.core.catalogue.names(
            self.whose, query.kind, query.search, PAGE + 1, query.after
        )
        self.show(
            "kaos_bundles.html",
            bundles=found[:PAGE],
            more=len(found) > PAGE,
            page=PAGE,
            query=query,
            kinds=list(BundleKind),
            hub_url=self.core.public_url,
            workspaces=await self.workspaces(),
        )


class BundleVersionsPage(BundlePage):
    """The page of one bundle."""

    route_name = "/bundles/{kind}/{name}"

    async def get(self, kind: str, name: str) -> None:
        """Show its versions, newest first."""
        query = self.asked(PageQuery)
        bundle = await self.core.catalogue.all_of(self.whose, kind_of(kind), name)
        found = await self.core.versions.list(
            self.whose, bundle.kind, bundle.name, PAGE + 1, query.after
        )
        self.show(
            "kaos_bundle.html",
            bundle=bundle,
            versions=found[:PAGE],
            more=len(found) > PAGE,
            page=PAGE,
            query=query,
            place=place,
        )


class FolderPage(BundlePage):
    """The page of a folder of a version, or of a file in it."""

    route_name = "/bundles/{kind}/{name}/{version}"

    async def get(self, kind: str, name: str, version: str, path: str = "") -> None:
        """Show the folder or file at the path."""
        found = await self.version(kind, name, version)
        path = path.strip("/")
        entry = await self.core.catalogue.entry(found, path) if path else None
        common = {"version": found, "path": path, "place": place}
        if entry is None or entry.kind is EntryKind.DIRECTORY:
            await self._show_folder(found, path, common)
        else:
            await self._show_file(entry, common)

    async def _show_folder(self, version: BundleVersion, path: str, common: Any) -> None:
        query = self.asked(PageQuery)
        entries, total = await self.core.catalogue.folder(version, path, query.after, _ENTRIES)
        users = []
        if not path:
            users = await self.core.removal.users(
                self.whose, version.kind, version.name, version.version
            )
        self.show(
            "kaos_bundle_folder.html",
            entries=entries,
            total=total,
            page=_ENTRIES,
            query=query,
            users=[self._use(one) for one in users],
            **common,
        )

    def _use(self, words: str) -> Use:
        """Return the use that the words describe, with the address of its page."""
        kind, _, name = words.partition(" ")
        found = _TRAINING.search(words)
        if kind == "notebook":
            return Use(words, f"{self.pages.path_of(KAOS)}notebooks/{name}")
        if found and TRAIN in self.asker.services:
            page = self.at(f"trainings/{found[1]}").removeprefix(self.prefix)
            return Use(words, self.pages.path_of(TRAIN) + page)
        return Use(words)

    async def _show_file(self, entry: TreeEntry, common: Any) -> None:
        plain = self.get_query_argument("plain", "") == "1"
        data = await self.core.catalogue.beginning(entry, previews.most(entry.name))
        seen = await asyncio.to_thread(previews.preview, entry.name, data, entry.size, plain)
        self.show("kaos_bundle_file.html", entry=entry, preview=seen, plain=plain, **common)


class _Served(BundlePage, StreamingHandler):
    """Base of handlers that serve content as it is.

    Nothing in it can run where the Hub's pages do: we set the type, browsers must not guess another
    one, and a browser that shows it does so in a sandbox.
    """

    def head(self, media_type: str, name: str | None) -> None:
        """Set the headers of the content: its type, and the name under which it is to be kept."""
        self.set_header("Content-Type", media_type)
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("X-Accel-Buffering", "no")
        if name is not None:
            plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in name)
            self.set_header(
                "Content-Disposition",
                f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
            )


class _ServedFile(_Served):
    async def serve(self, entry: TreeEntry, media_type: str, name: str | None = None) -> None:
        """Send a file."""
        self.set_header("Content-Length", str(entry.size))
        self.head(media_type, name)
        await self.stream(self.core.catalogue.content(entry))

    def end(self, complete: bool) -> None:
        # The length was said: what ends before it must not look complete.
        if complete:
            self.finish()
        else:
            self.cut()


class FileDownload(_ServedFile):
    """The download of one file."""

    route_name = "/bundles/{kind}/{name}/{version}/file"

    async def get(self, kind: str, name: str, version: str, path: str) -> None:
        """Send its bytes."""
        entry = await self.core.catalogue.file(await self.version(kind, name, version), path)
        await self.serve(entry, "application/octet-stream", entry.name)


class ImageFile(_ServedFile):
    """An image that one of our pages shows."""

    route_name = "/bundles/{kind}/{name}/{version}/image"

    async def get(self, kind: str, name: str, version: str, path: str) -> None:
        """Send its bytes, if they begin like an image and are not too many."""
        entry = await self.core.catalogue.file(await self.version(kind, name, version), path)
        media_type = previews.image_type(await self.core.catalogue.beginning(entry, 16))
        if media_type is None or entry.size > previews.MOST_IMAGE:
            raise NotFound(f"{path!r} is no image that is shown here.")
        await self.serve(entry, media_type)


class ArchiveDownload(_Served):
    """The download of a version as an archive."""

    route_name = "/bundles/{kind}/{name}/{version}/archive"

    async def get(self, kind: str, name: str, version: str) -> None:
        """Send a tar archive."""
        found = await self.version(kind, name, version)
        self.head("application/x-tar", f"{found.name}-v{found.version}.tar")
        await self.stream(self.core.versions.archive(found.digest))


class ChangesPage(BundlePage):
    """The page of two versions beside each other."""

    route_name = "/bundles/{kind}/{name}/{version}/changes"

    async def get(self, kind: str, name: str, version: str) -> None:
        """Show the files that differ."""
        found = await self.version(kind, name, version)
        other = await self.other(found)
        choices = await self.core.versions.list(self.whose, found.kind, found.name, _CHOICES)
        self.show(
            "kaos_bundle_changes.html",
            version=found,
            other=other,
            comparison=await self.core.catalogue.compare(other, found, _CHANGES),
            choices=[one for one in choices if one.version != found.version],
            place=place,
        )

    async def other(self, version: BundleVersion) -> BundleVersion:
        """Return the version to compare with: the one that the address names, or the one before.

        Raises:
            NotFound: there is none.
        """
        query = self.asked(SinceQuery)
        if query.since is None:
            return await self.core.catalogue.before(self.whose, version)
        return await self.core.versions.get(self.whose, version.kind, version.name, query.since)


class DifferencePage(ChangesPage):
    """The page of one file as it is in two versions."""

    route_name = "/bundles/{kind}/{name}/{version}/changes/{path}"

    async def get(self, kind: str, name: str, version: str, path: str = "") -> None:
        """Show the differences line by line, if it is text and not too long."""
        found = await self.version(kind, name, version)
        other = await self.other(found)
        old, new = [await self._entry(one, path) for one in (other, found)]
        if old is None and new is None:
            raise NotFound(f"Neither version has a file {path!r}.")
        lines = None
        if max(entry.size for entry in (old, new) if entry) <= previews.MOST:
            texts = [await self._text(entry) for entry in (old, new)]
            lines = await asyncio.to_thread(previews.differences, *texts)
        self.show(
            "kaos_bundle_difference.html",
            version=found, other=other, path=path, old=old, new=new, lines=lines, place=place,
        )  # fmt: skip

    async def _entry(self, version: BundleVersion, path: str) -> TreeEntry | None:
        try:
            return await self.core.catalogue.file(version, path)
        except NotFound:
            return None

    async def _text(self, entry: TreeEntry | None) -> bytes:
        return b"" if entry is None else await self.core.catalogue.beginning(entry, entry.size)


class ConfirmDelete(BundlePage):
    """A question before a bundle, or a version of it, is deleted."""

    route_name = "/bundles/{kind}/{name}/confirm/delete"

    async def get(self, kind: str, name: str, version: str | None = None) -> None:
        """Ask the question, or refuse with the names of what would lack the bundle."""
        bundle = await self.core.catalogue.all_of(self.whose, kind_of(kind), name)
        one = None if version is None else await self.version(kind, name, version)
        number = one.version if one else None
        here = f"bundles/{bundle.kind}/{bundle.name}" + (f"/{number}" if one else "")
        what = f"version {number} of {bundle.name}" if one else f"{bundle.name}, all of it"
        users = await self.core.removal.users(self.whose, bundle.kind, bundle.name, number)
        if users:
            raise Conflict(
                f"{what.capitalize()} cannot be deleted: {', '.join(users[:20])}"
                f"{' and others' if len(users) > 20 else ''} would lack it. Delete them, or give"
                " them another version, first."
            )
        kept = "Its other versions stay." if one else f"Versions: {bundle.versions}."
        self.ask(
            f"Delete {what}?",
            f"{kept} Its files are deleted for good. Notebooks, trainings and models stay as they"
            " are, and so does what other bundles have in common with it.",
            "Delete",
            self.at(f"{here}/delete"),
            self.at(here),
        )


class DeleteHandler(BundlePage):
    """The deletion of a bundle, or of a version of it."""

    route_name = "/bundles/{kind}/{name}/delete"
    right = Right.MANAGE

    async def post(self, kind: str, name: str, version: str | None = None) -> None:
        """Delete it, and redirect to what is left.

        The XSRF token was checked when the caller was identified.
        """
        of = kind_of(kind)
        number = None if version is None else (await self.version(kind, name, version)).version
        await self.core.removal.delete(self.whose, of, name, number)
        left = await self.core.versions.list(self.whose, of, name, 1)
        # 303: reloading what follows does not do it again.
        self.redirect(self.at(f"bundles/{kind}/{name}" if left else "bundles"), status=303)


def bundle_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for the pages of bundles below ``prefix``."""
    one, given = prefix + _BUNDLE, {"prefix": prefix}
    version, path = f"{one}/{_VERSION}", "(?P<path>.+)"
    return [
        (f"{prefix}bundles", BundlesPage, given),
        (one, BundleVersionsPage, given),
        (f"{one}/confirm/delete", ConfirmDelete, given),
        (f"{one}/delete", DeleteHandler, given),
        (version, FolderPage, given),
        (f"{version}/tree/{path}", FolderPage, given),
        (f"{version}/file/{path}", FileDownload, given),
        (f"{version}/image/{path}", ImageFile, given),
        (f"{version}/archive", ArchiveDownload, given),
        (f"{version}/changes", ChangesPage, given),
        (f"{version}/changes/{path}", DifferencePage, given),
        (f"{version}/confirm/delete", ConfirmDelete, given),
        (f"{version}/delete", DeleteHandler, given),
    ]
