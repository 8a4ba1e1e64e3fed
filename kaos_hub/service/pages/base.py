"""The pages: the list of notebooks, one notebook, a question before what cannot be undone, login.

All of them work without JavaScript; with it they keep themselves up to date.
"""

from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field
from tornado.web import HTTPError, StaticFileHandler

from kaos_hub.errors import InvalidRequest, KaosError, NotAuthenticated, NotFound
from kaos_hub.schemas import (
    BundleKind,
    Model,
    Notebook,
    NotebookState,
    notebook_name,
    parse_request,
)
from kaos_hub.service.api import login
from kaos_hub.service.api.bundles import number_of
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.pages.notices import notice
from kaos_hub.service.pages.templating import STATIC, Pages
from kaos_hub.service.web import resending
from kaos_hub.service.web.base import Handler
from kaos_hub.util.random_names import find_name

PAGE = 100
"""Notebooks of one page."""
ACTIONS = ("start", "stop", "retry", "kill", "delete")

NOTEBOOK = r"(?P<name>[a-z][a-z0-9-]*)"


class PageHandler(Handler):
    """Base of the pages: a browser that is not logged in is sent to the Hub."""

    route_name: ClassVar[str] = "/"
    right: ClassVar[Right] = Right.USE
    resends: ClassVar[bool] = True
    """True if a form that came with an old login may be sent again, as it was."""

    @property
    def pages(self) -> Pages:
        """The renderer of pages."""
        pages: Pages = self.settings["pages"]
        return pages

    async def prepare(self) -> None:
        caller = await self.identify()
        if caller is None:
            if self.request.method == "GET":
                self.redirect(self.get_login_url())
                return
            raise NotAuthenticated(
                "Your session has ended. Reload the page to log in again.", stale=True
            )
        self.core.admit(caller)
        caller.require(self.right)

    def show(self, template: str, **more: Any) -> None:
        """Answer with a page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        caller = self.caller
        page = self.pages.render(
            template,
            user=caller.user if caller else None,
            admin=bool(caller and caller.admin),
            services=caller.services if caller else (),
            xsrf=self.xsrf_token.decode(),
            **more,
        )
        self.set_header("Content-Security-Policy", page.policy)
        self.finish(page.html)

    def write_error_body(self, error: KaosError) -> None:
        """Show an error as a page with a way back.

        For a form that came with an old login, show a page that sends it again.
        """
        if self.resends and resending.possible(self.request, error):
            more = resending.page_of(self.request, error, self.settings["login_url"])
            self.show("kaos_again.html", **more)
        else:
            self.show("kaos_error.html", error=error, status=self.get_status(), **self.way_back())

    def way_back(self) -> dict[str, str]:
        """Return the link back from the page of errors, and its label."""
        return {}


class Searched(Model):
    """The text that the names in a list must contain."""

    search: str = Field("", max_length=64)
    """A part of the names, in upper or lower case; empty shows all."""


SHOWN: dict[str, tuple[NotebookState, ...]] = {
    "": (),
    "active": tuple(
        state
        for state in NotebookState
        if state not in (NotebookState.STOPPED, NotebookState.FAILED)
    ),
    "stopped": (NotebookState.STOPPED,),
    "failed": (NotebookState.FAILED,),
}
"""The filters of the list of notebooks, with the states that each one shows."""


class ListQuery(Searched):
    """The notebooks that a list shows, and their order."""

    show: str = Field("", pattern=f"^({'|'.join(SHOWN)})$")
    sort: str = Field("", pattern="^(name|state|)$")
    after: int = Field(0, ge=0, le=10**9)


class ListPage(PageHandler):
    """The page of all notebooks."""

    async def get(self) -> None:
        """Show the list, newest first unless it is sorted otherwise, a page at a time."""
        assert self.caller is not None
        asked = {name: self.get_query_argument(name, "") for name in ListQuery.model_fields}
        query = parse_request(ListQuery, {name: value for name, value in asked.items() if value})
        found = await self.core.notebooks.list(
            self.caller.owner, SHOWN[query.show], PAGE + 1, query.after, query.search, query.sort
        )

        def narrowed(**changed: Any) -> str:
            given = {**query.model_dump(), **changed}
            return self._at({name: value for name, value in given.items() if value})

        self.show(
            "kaos_notebooks.html",
            notebooks=found[:PAGE],
            query=query,
            narrowed=narrowed,
            newer=narrowed(after=max(query.after - PAGE, 0)) if query.after else None,
            older=narrowed(after=query.after + PAGE) if len(found) > PAGE else None,
            hub_url=self.core.public_url,
            notice=notice(self),
        )

    def _at(self, given: dict[str, Any]) -> str:
        return f"{self.hub_auth.base_url}{'?' if given else ''}{urlencode(given)}"


_CHOSEN = (BundleKind.SOURCE, BundleKind.DATA, BundleKind.CONTEXT)
"""The kinds of bundles that a link to the page of a new notebook may choose."""


class NewPage(PageHandler):
    """The beginning of a new notebook: it leads to the Hub's form, under a name that is free."""

    route_name = "/new"

    async def get(self) -> None:
        """Redirect to the form, or to the notebook that has the name already.

        Nothing is made: bundles that the link chooses are shown in the form, where Start has to be
        pressed.
        """
        assert self.caller is not None
        owner = self.caller.owner
        taken = await self.core.notebooks.names(owner)
        name = notebook_name(self.get_query_argument("name", "") or find_name(taken))
        if name in taken:
            self.redirect(f"{self.hub_auth.base_url}notebooks/{name}")
            return
        self.core.handed.forget(owner, name)
        for kind in _CHOSEN:
            if said := self.get_query_argument(kind.value, ""):
                bundle, _, number = said.rpartition("@v")
                version = await self.core.versions.get(
                    owner, kind, bundle or said, number_of(number) if bundle else None
                )
                self.core.handed.note(owner, name, kind, f"{version.name}@v{version.version}")
        self.redirect(self.pages.spawn_url(self.caller.user, name))


class OfNotebook(PageHandler):
    """Base of the pages of one notebook."""

    async def notebook(self, name: str) -> Notebook:
        """Return the notebook of that name.

        Raises:
            NotFound: the user has none.
        """
        assert self.caller is not None
        return await self.core.notebooks.get(self.caller.owner, name)


class NotebookPage(OfNotebook):
    """The page of one notebook."""

    route_name = "/notebooks/{name}"

    async def get(self, name: str) -> None:
        """Show both stages, logs, facts and the possible actions."""
        self.show(
            "kaos_notebook.html",
            notebook=await self.notebook(name),
            opens=self.get_query_argument("open", "") == "1",
            notice=notice(self),
        )


class ConfirmPage(OfNotebook):
    """A question before what cannot be undone."""

    route_name = "/notebooks/{name}/confirm/{action}"

    async def get(self, name: str, action: str) -> None:
        """Ask the question."""
        self.show("kaos_confirm.html", notebook=await self.notebook(name), action=action)


class ActionHandler(OfNotebook):
    """A form's action on a notebook."""

    route_name = "/notebooks/{name}/{action}"
    right = Right.MANAGE

    async def post(self, name: str, action: str) -> None:
        """Do the action, then show the notebook or the list.

        The XSRF token was checked when the caller was identified.
        """
        assert self.caller is not None
        notebooks, owner = self.core.notebooks, self.caller.owner
        match action:
            case "start":
                await notebooks.start(owner, name)
            case "stop":
                await notebooks.stop(owner, name)
            case "retry":
                await notebooks.retry(owner, name)
            case "kill":
                await notebooks.kill(owner, name)
            case _:
                await notebooks.delete(owner, name)
        where = self.hub_auth.base_url
        listed = action == "delete" or self.get_body_argument("back", "") == "list"
        done = f"?done={action}&to={name}" if action in ("stop", "kill", "delete") else ""
        # 303: reloading what follows does not do it again.
        self.redirect((where if listed else f"{where}notebooks/{name}") + done, status=303)


class LoginPage(PageHandler):
    """The page on which a person lets a command line in, or not."""

    route_name = "/login"
    right = Right.MANAGE
    resends = False

    @property
    def logins(self) -> login.Logins:
        """The logins that wait."""
        logins: login.Logins = self.settings["logins"]
        return logins

    async def get(self) -> None:
        """Ask whether that machine may log in."""
        self._require_browser()
        pending = self.logins.by_code(self.get_query_argument("code", ""))
        self.show("kaos_login.html", pending=pending)

    async def post(self) -> None:
        """Allow or deny the login."""
        self._require_browser()
        pending = self.logins.by_code(self.get_body_argument("code", ""))
        answer = self.get_body_argument("answer", "")
        if answer not in ("allow", "deny"):
            raise InvalidRequest("Press Allow or Deny.")
        allowed = answer == "allow"
        login.decide(pending, self.kaos_auth.page_token(self) if allowed else None)
        self.show("kaos_login_done.html", pending=pending, allowed=allowed)

    def _require_browser(self) -> None:
        # A token must not be able to hand itself on: only a person in a browser lets others in.
        if self.caller is None or not self.caller.cookie:
            raise NotAuthenticated("Only a person in a browser can allow a login.")


_FOR_GOOD = "public, max-age=31536000, immutable"


class UnknownPage(PageHandler):
    """Any other address."""

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            raise NotFound("There is no such page.")


class OwnStatic(StaticFileHandler):
    """Our static files, which are small and public.

    Under the address with their version browsers keep them for good; under the plain one they ask
    each time whether there is a newer file.
    """

    route_name = "/static"

    def set_extra_headers(self, path: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        version = self.settings["pages"].static_version
        lasts = f"/static/{version}/" in self.request.path
        self.set_header("Cache-Control", _FOR_GOOD if lasts else "no-cache")

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log exceptions other than HTTP errors: a missing file is not an incident."""
        if not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)


def page_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for the pages below ``prefix`` (with slashes at both ends)."""
    actions = "|".join(ACTIONS)
    return [
        (prefix, ListPage),
        (f"{prefix}new", NewPage),
        (f"{prefix}notebooks/{NOTEBOOK}", NotebookPage),
        (f"{prefix}notebooks/{NOTEBOOK}/confirm/(?P<action>stop|kill|delete)", ConfirmPage),
        (f"{prefix}notebooks/{NOTEBOOK}/(?P<action>{actions})", ActionHandler),
        *common_rules(prefix),
    ]


def common_rules(prefix: str) -> list[Any]:
    """Return the rules that both services have; the last one is for any other address."""
    return [
        (f"{prefix}login", LoginPage),
        (f"{prefix}static/(?:[0-9a-f]{{12}}/)?(.*)", OwnStatic, {"path": str(STATIC)}),
        (f"{prefix}.*", UnknownPage),
    ]
