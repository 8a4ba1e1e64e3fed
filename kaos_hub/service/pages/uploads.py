"""The page on which people without a command line hand over an archive or a folder."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

from tornado.web import HTTPError

from kaos_hub.bundles.unpack import ENDINGS
from kaos_hub.errors import Conflict, Forbidden, InvalidRequest, MissingObjects, StorageFull
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    CommitRequest,
    Model,
    NotebookName,
    bundle_name,
    parse_request,
)
from kaos_hub.service.bundles.archives import KINDS, Undecided, plain_name
from kaos_hub.service.pages.bundles import BundlePage, place
from kaos_hub.service.pages.forms import Form, FormReader
from kaos_hub.service.quota import Reservation
from kaos_hub.service.web.bodies import BodyHandler
from kaos_hub.util.quantities import show_memory

_MOST_NAMED = 200
"""The number of entries left out that the page names."""


class UploadQuery(Model):
    """The purpose of an upload."""

    kind: Literal["source", "data"] = "data"
    notebook: NotebookName | None = None
    """The notebook that the upload is for: the user comes from its form, and goes back to it."""


class _Uploads(BundlePage):
    """Base of pages that make versions."""

    def hand_over(self, notebook: str | None, version: BundleVersion) -> str | None:
        """Have the form that it was sent for choose the version. Return the form's address."""
        if notebook and self.whose == self.asker.owner:
            bundle = f"{version.name}@v{version.version}"
            self.core.handed.note(self.whose, notebook, version.kind, bundle)
        return self.form_of(notebook)

    def form_of(self, notebook: str | None) -> str | None:
        """Return the address of the Hub's form that starts a notebook of the caller's."""
        return self.pages.spawn_url(self.asker.user, notebook) if notebook else None

    def way_back(self) -> dict[str, str]:
        same = {name: self.get_query_argument(name, "") for name in UploadQuery.model_fields}
        return {"back": self.at("bundles/upload", **same), "back_label": "Try again"}


class UploadPage(_Uploads, BodyHandler):
    """The page that takes an archive from a form, and streams it to the disk."""

    route_name = "/bundles/upload"

    def initialize(self, prefix: str) -> None:
        super().initialize(prefix)
        self._stack = AsyncExitStack()
        self._archive: Path | None = None
        self._held_storage: Reservation | None = None
        self._defer_xsrf = False
        self._taken = False

    async def prepare(self) -> None:
        if self.request.method == "POST":
            await BodyHandler.prepare(self)
        else:
            await BundlePage.prepare(self)

    async def let_in(self) -> FormReader:
        """Check that the caller may send so much, and reserve the storage.

        The form's XSRF token comes with its fields, so it is checked later.
        """
        self._defer_xsrf = True
        await BundlePage.prepare(self)
        if not self.announced:
            raise InvalidRequest("Say how long the form is (Content-Length).")
        free = await self.core.deposits.free()
        if self.announced > free:
            raise StorageFull(
                f"The archive has more than the {show_memory(free)} there is room for."
            )
        held = self.core.deposits.held(self.whose, self.announced)
        self._held_storage = await self._stack.enter_async_context(held)
        folder = await self._stack.enter_async_context(self.core.deposits.place())
        self._archive = folder / "archive"
        kind = self.request.headers.get("Content-Type", "")
        return FormReader(kind, self._archive, self.announced, self._check_form)

    def check_xsrf_cookie(self) -> None:
        """Check the XSRF token, except while the fields of the form have not come."""
        if not self._defer_xsrf:
            super().check_xsrf_cookie()

    async def _check_form(self, form: Form) -> None:
        """Look at the form before its file is taken.

        Raises:
            Forbidden: it is not from one of our pages.
            InvalidRequest, InvalidName: it is not filled in as it must be.
        """
        self._defer_xsrf = False
        self.request.arguments["_xsrf"] = [form.fields.get("_xsrf", "").encode()]
        try:
            self.check_xsrf_cookie()
        except HTTPError:
            raise Forbidden(
                "The request lacks the page's XSRF token. Reload the page and try again."
            ) from None
        if form.fields.get("kind") not in KINDS:
            raise InvalidRequest("Say whether it is code (source) or data.")
        if name := form.fields.get("name", "").strip():
            bundle_name(name)

    async def get(self) -> None:
        """Show the form."""
        query = self.asked(UploadQuery)
        self.show(
            "kaos_bundle_upload.html",
            query=query,
            form_of=self.form_of(query.notebook),
            endings=",".join(ENDINGS),
            info=self.core.info,
            workspaces=await self.workspaces(),
        )

    async def post(self) -> None:
        """Make a version. Redirect to it, or back to the form that it was sent for."""
        query = self.asked(UploadQuery)
        # From here on it is carried through, even if the client no longer waits for the answer.
        self._taken = True
        async with self._stack:
            form: Form = await self.content()
            assert self._archive is not None and self._held_storage is not None, "it was let in"
            if not form.size:
                raise InvalidRequest(f"Choose an archive: {', '.join(ENDINGS)}.")
            name = form.fields.get("name", "").strip() or bundle_name(plain_name(form.file))
            done = await self.core.deposits.take(
                self.whose,
                self.asker.author,
                BundleKind(form.fields["kind"]),
                name,
                self._archive,
                form.file,
                self._held_storage,
            )
        if isinstance(done, Undecided):
            self.show("kaos_bundle_alike.html", found=done, notebook=query.notebook)
            return
        back = self.hand_over(query.notebook, done.version)
        if not done.skipped and not done.version.notes:
            # 303: reloading what follows does not send it again.
            self.redirect(back or self.at(place(done.version)), status=303)
            return
        self.show(
            "kaos_bundle_uploaded.html",
            version=done.version,
            skipped=done.skipped[:_MOST_NAMED],
            more=max(len(done.skipped) - _MOST_NAMED, 0) + done.more,
            place=place,
            form_of=back,
        )

    def on_finish(self) -> None:
        self._let_go()
        super().on_finish()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if not self._taken:
            self._let_go()

    def _let_go(self) -> None:
        """Release the storage and the file of an upload that is over, was refused or broke off."""
        stack, self._stack = self._stack, AsyncExitStack()
        self.keep(stack.aclose())


class DecidedHandler(_Uploads):
    """The making of a version of what was sent, under the name that was decided on."""

    route_name = "/bundles/upload/decided"

    async def post(self) -> None:
        """Make the version. Redirect to it, or back to the form that it was sent for.

        The XSRF token was checked when the caller was identified.
        """
        query = self.asked(UploadQuery)
        given = {name: self.get_body_argument(name, "") for name in ("kind", "name", "root")}
        wanted = parse_request(CommitRequest, given)
        if wanted.kind not in KINDS:
            raise InvalidRequest("Say whether it is code (source) or data.")
        try:
            done = await self.core.versions.commit(self.whose, self.asker.author, wanted)
        except MissingObjects:
            raise Conflict("What was sent is kept for a while only. Send it again.") from None
        self.redirect(self.hand_over(query.notebook, done) or self.at(place(done)), status=303)


def upload_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for uploads below ``prefix``."""
    return [
        (f"{prefix}bundles/upload", UploadPage, {"prefix": prefix}),
        (f"{prefix}bundles/upload/decided", DecidedHandler, {"prefix": prefix}),
    ]
