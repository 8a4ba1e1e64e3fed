"""The pages: the list of notebooks, one notebook, a question before what cannot be undone, login.

All of them work without JavaScript; with it they keep themselves up to date.
"""

from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field
from tornado.web import HTTPError, StaticFileHandler

from kaos_hub.errors import InvalidRequest, KaosError, NotAuthenticated, NotFound
from kaos_hub.models import Model, Notebook, notebook_name, parse_request
from kaos_hub.notebooks.names import find_name
from kaos_hub.service import login
from kaos_hub.service.auth import Right
from kaos_hub.service.templating import STATIC, Pages
from kaos_hub.service.web import Handler

PAGE = 100
"""Notebooks of one page."""
ACTIONS = ("start", "stop", "retry", "kill", "delete")

NOTEBOOK = r"(?P<name>[a-z][a-z0-9-]*)"


class PageHandler(Handler):
    """Base of the pages: a browser that is not logged in is sent to the Hub."""

    route_name: ClassVar[str] = "/"
    right: ClassVar[Right] = Right.USE

    @property
    def pages(self) -> Pages:
        """What renders."""
        pages: Pages = self.settings["pages"]
        return pages

    async def prepare(self) -> None:
        caller = await self.identify()
        if caller is None:
            if self.request.method == "GET":
                self.redirect(self.get_login_url())
                return
            raise NotAuthenticated("Your session has ended. Reload the page to log in again.")
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
        """An error, as a page with a way back."""
        self.show("kaos_error.html", error=error, status=self.get_status())


class Searched(Model):
    """What the names in a list have in common."""

    search: str = Field("", max_length=64)
    """A part of them, in whatever case; nothing shows all."""


class ListQuery(Searched):
    """Which notebooks a list shows."""

    after: int = Field(0, ge=0, le=10**9)


class ListPage(PageHandler):
    """All notebooks."""

    async def get(self) -> None:
        """The list, newest first, a page at a time."""
        assert self.caller is not None
        asked = {name: self.get_query_argument(name, "") for name in ListQuery.model_fields}
        query = parse_request(ListQuery, {name: value for name, value in asked.items() if value})
        found = await self.core.notebooks.list(
            self.caller.owner, (), PAGE + 1, query.after, query.search
        )
        before, following = max(query.after - PAGE, 0), query.after + PAGE
        self.show(
            "kaos_notebooks.html",
            notebooks=found[:PAGE],
            query=query,
            newer=self._at(before, query.search) if query.after else None,
            older=self._at(following, query.search) if len(found) > PAGE else None,
            hub_url=self.core.public_url,
        )

    def _at(self, after: int, search: str) -> str:
        given = {name: v for name, v in (("search", search), ("after", after)) if v}
        return f"{self.hub_auth.base_url}{'?' if given else ''}{urlencode(given)}"


class NewPage(PageHandler):
    """Where a new notebook begins: the Hub's form, under a name that is free."""

    route_name = "/new"

    async def get(self) -> None:
        """Leads to the form, or to the notebook that has the name. Makes nothing."""
        assert self.caller is not None
        taken = await self.core.notebooks.names(self.caller.owner)
        name = notebook_name(self.get_query_argument("name", "") or find_name(taken))
        if name in taken:
            self.redirect(f"{self.hub_auth.base_url}notebooks/{name}")
        else:
            self.redirect(self.pages.spawn_url(self.caller.user, name))


class OfNotebook(PageHandler):
    """Base of the pages of one notebook."""

    async def notebook(self, name: str) -> Notebook:
        """The notebook of that name.

        Raises:
            NotFound: the user has none.
        """
        assert self.caller is not None
        return await self.core.notebooks.get(self.caller.owner, name)


class NotebookPage(OfNotebook):
    """One notebook."""

    route_name = "/notebooks/{name}"

    async def get(self, name: str) -> None:
        """Both stages, logs, facts and what can be done."""
        self.show("kaos_notebook.html", notebook=await self.notebook(name))


class ConfirmPage(OfNotebook):
    """A question before what cannot be undone."""

    route_name = "/notebooks/{name}/confirm/{action}"

    async def get(self, name: str, action: str) -> None:
        """Asks."""
        self.show("kaos_confirm.html", notebook=await self.notebook(name), action=action)


class ActionHandler(OfNotebook):
    """Does what a form asks for, then shows the notebook again."""

    route_name = "/notebooks/{name}/{action}"
    right = Right.MANAGE

    async def post(self, name: str, action: str) -> None:
        """The XSRF token was checked when the caller was identified."""
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
        # 303: reloading what follows does not do it again.
        self.redirect(where if listed else f"{where}notebooks/{name}", status=303)


class LoginPage(PageHandler):
    """A person lets a command line in, or not."""

    route_name = "/login"
    right = Right.MANAGE

    @property
    def logins(self) -> login.Logins:
        """The logins that wait."""
        logins: login.Logins = self.settings["logins"]
        return logins

    async def get(self) -> None:
        """Asks whether that machine may come in."""
        self._require_browser()
        pending = self.logins.by_code(self.get_query_argument("code", ""))
        self.show("kaos_login.html", pending=pending)

    async def post(self) -> None:
        """Allow or deny."""
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


class UnknownPage(PageHandler):
    """Anything else."""

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            raise NotFound("There is no such page.")


class OwnStatic(StaticFileHandler):
    """Our static files: small, public, kept by browsers as long as their version holds."""

    route_name = "/static"

    def set_extra_headers(self, path: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """A missing file is no incident."""
        if not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)


def page_rules(prefix: str) -> list[Any]:
    """Tornado's rules for the pages below ``prefix`` (with slashes at both ends)."""
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
    """What all services have, and, last, anything else."""
    return [
        (f"{prefix}login", LoginPage),
        (f"{prefix}static/(.*)", OwnStatic, {"path": str(STATIC)}),
        (f"{prefix}.*", UnknownPage),
    ]
