"""The page on which people without a command line hand over an archive or a folder."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

from tornado.web import HTTPError

from kaos_hub.bundles.unpack import ENDINGS
from kaos_hub.depositing import KINDS, plain_name
from kaos_hub.errors import Forbidden, InvalidRequest, KaosError, StorageFull
from kaos_hub.models import BundleKind, BundleVersion, Model, NotebookName, bundle_name
from kaos_hub.quantities import show_memory
from kaos_hub.service.bodies import BodyHandler
from kaos_hub.service.forms import Form, FormReader
from kaos_hub.service.pages_bundles import BundlePage, place

_MOST_NAMED = 200
"""Entries that were left out which the page names."""


class UploadQuery(Model):
    """What somebody comes to send."""

    kind: Literal["source", "data"] = "data"
    notebook: NotebookName | None = None
    """The one that it is for: its form is where one comes from, and goes back to."""


class UploadPage(BundlePage, BodyHandler):
    """Takes an archive from a form, streamed to the disk."""

    route_name = "/bundles/upload"

    def initialize(self, prefix: str) -> None:
        super().initialize(prefix)
        self._stack = AsyncExitStack()
        self._archive: Path | None = None
        self._defer_xsrf = False
        self._taken = False

    async def prepare(self) -> None:
        if self.request.method == "POST":
            await BodyHandler.prepare(self)
        else:
            await BundlePage.prepare(self)

    async def let_in(self) -> FormReader:
        """Who may send something, and how much. The form's own token comes with its fields."""
        self._defer_xsrf = True
        await BundlePage.prepare(self)
        room = await self.core.deposits.room(self.whose)
        announced = self.request.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > room:
            raise StorageFull(
                f"The archive has more than the {show_memory(room)} there is room for."
            )
        folder = await self._stack.enter_async_context(self.core.deposits.place())
        self._archive = folder / "archive"
        kind = self.request.headers.get("Content-Type", "")
        return FormReader(kind, self._archive, room, self._check_form)

    def check_xsrf_cookie(self) -> None:
        """The token of a form with a file stands in it, before the file."""
        if not self._defer_xsrf:
            super().check_xsrf_cookie()

    async def _check_form(self, form: Form) -> None:
        """Look at the form before its file is taken.

        Raises:
            Forbidden: it is not from one of our pages.
            InvalidRequest, InvalidName: it is not filled in.
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
        """The form."""
        query = self.asked(UploadQuery)
        self.show(
            "kaos_bundle_upload.html",
            query=query,
            form_of=self._form_of(query.notebook),
            endings=",".join(ENDINGS),
            info=self.core.info,
            workspaces=await self.workspaces(),
        )

    async def post(self) -> None:
        """Makes a version, and leads to it, or back to the form that it was sent for."""
        query = self.asked(UploadQuery)
        # From here on it is carried through, whether or not anybody waits for the answer.
        self._taken = True
        async with self._stack:
            self.check_taken()
            form: Form = await self.content()
            assert self._archive is not None, "there is a reader"
            if not form.size:
                raise InvalidRequest(f"Choose an archive: {', '.join(ENDINGS)}.")
            name = form.fields.get("name", "").strip() or bundle_name(plain_name(form.file))
            done = await self.core.deposits.take(
                self.whose,
                self.asker.user,
                BundleKind(form.fields["kind"]),
                name,
                self._archive,
                form.file,
            )
        back = self._hand_over(query.notebook, done.version)
        if not done.skipped:
            # 303: reloading what follows does not send it again.
            self.redirect(back or self.at(place(done.version)), status=303)
            return
        self.show(
            "kaos_bundle_uploaded.html",
            version=done.version,
            skipped=done.skipped[:_MOST_NAMED],
            more=len(done.skipped) - _MOST_NAMED,
            place=place,
            form_of=back,
        )

    def _form_of(self, notebook: str | None) -> str | None:
        """The Hub's form that starts a notebook of the asker's."""
        return self.pages.spawn_url(self.asker.user, notebook) if notebook else None

    def _hand_over(self, notebook: str | None, version: BundleVersion) -> str | None:
        """Have it chosen in the form that it was sent for; the address of that."""
        if notebook and self.whose == self.asker.owner:
            bundle = f"{version.name}@v{version.version}"
            self.core.handed.note(self.whose, notebook, version.kind, bundle)
        return self._form_of(notebook)

    def on_finish(self) -> None:
        self._let_go()
        super().on_finish()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if not self._taken:
            self._let_go()

    def _let_go(self) -> None:
        """What was refused, or broke off, leaves nothing behind."""
        stack, self._stack = self._stack, AsyncExitStack()
        self.keep(stack.aclose())

    def write_error_body(self, error: KaosError) -> None:
        same = {name: self.get_query_argument(name, "") for name in UploadQuery.model_fields}
        where = {"back": self.at("bundles/upload", **same), "back_label": "Try again"}
        self.show("kaos_error.html", error=error, status=self.get_status(), **where)


def upload_rules(prefix: str) -> list[Any]:
    """Tornado's rules for uploads below ``prefix``."""
    return [(f"{prefix}bundles/upload", UploadPage, {"prefix": prefix})]
