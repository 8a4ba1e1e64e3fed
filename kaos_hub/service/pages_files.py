"""The page on which a running notebook's files are saved, data are attached to it, and a repository
is cloned into it.

The notebook's own server does it; the page of its answer loads itself again until it is there.
"""

from typing import Any

from kaos_hub.models import (
    AttachRequest,
    BundleKind,
    NotebookRequest,
    SaveRequest,
    parse_request,
)
from kaos_hub.service.auth import Right
from kaos_hub.service.pages import NOTEBOOK, OfNotebook

_PATIENCE = 5
"""Seconds that a page waits for an answer before it shows that there is none yet."""
_OFFERED = 200
"""Versions of data that can be chosen."""


class FilesPage(OfNotebook):
    """Asks what is to be saved, attached or cloned."""

    route_name = "/notebooks/{name}/files"

    async def get(self, name: str) -> None:
        """Three forms."""
        assert self.caller is not None
        notebook = await self.notebook(name)
        data = await self.core.versions.list(self.caller.owner, BundleKind.DATA, None, _OFFERED)
        self.show("kaos_files.html", notebook=notebook, data=data)


class FilesHandler(OfNotebook):
    """Does what a form asks for."""

    route_name = "/notebooks/{name}/files/{action}"
    right = Right.MANAGE

    async def post(self, name: str, action: str) -> None:
        """The XSRF token was checked when the caller was identified."""
        assert self.caller is not None
        errands, owner = self.core.errands, self.caller.owner
        if action == "save":
            asked = {
                "bundle": self.get_body_argument("bundle", "").strip() or None,
                "requirements": bool(self.get_body_argument("requirements", "")),
            }
            begun = await errands.save(owner, name, parse_request(SaveRequest, asked))
        else:
            data = {"data": self.get_body_argument("data", "")}
            begun = await errands.attach(owner, name, parse_request(AttachRequest, data))
        where = f"{self.hub_auth.base_url}notebooks/{name}/files/{begun.id}"
        self.redirect(where, status=303)


class CloneHandler(OfNotebook):
    """Has a repository cloned, perhaps with a login; the notebook's page tells how that goes."""

    route_name = "/notebooks/{name}/files/clone"

    async def post(self, name: str) -> None:
        """The XSRF token was checked when the caller was identified."""
        assert self.caller is not None
        caller, password = self.caller, self.get_body_argument("password", "", strip=False)
        asked: dict[str, Any] = {"name": name, "git": self.get_body_argument("git", "")}
        if password:
            username = self.get_body_argument("username", "").strip()
            asked["git_credentials"] = {"password": password} | (
                {"username": username} if username else {}
            )
        wish = parse_request(NotebookRequest, asked)
        await self.notebook(name)
        await self.core.notebooks.deploy(caller.owner, caller.user, wish)
        self.redirect(f"{self.hub_auth.base_url}notebooks/{name}", status=303)


class FilesAnswerPage(OfNotebook):
    """How it stands, or went."""

    route_name = "/notebooks/{name}/files/{errand}"

    async def get(self, name: str, errand: str) -> None:
        """Waits a little; without an answer by then, it loads itself again."""
        assert self.caller is not None
        notebook = await self.notebook(name)
        found = await self.core.errands.get(self.caller.owner, name, errand, _PATIENCE)
        if not found.state.ended:
            self.set_header("Refresh", "1")
        self.show("kaos_files_answer.html", notebook=notebook, errand=found)


def file_rules(prefix: str) -> list[Any]:
    """Tornado's rules for these pages below ``prefix`` (with slashes at both ends)."""
    place = f"{prefix}notebooks/{NOTEBOOK}/files"
    return [
        (place, FilesPage),
        (f"{place}/(?P<action>save|attach)", FilesHandler),
        (f"{place}/clone", CloneHandler),
        (f"{place}/(?P<errand>[0-9a-f]{{16}})", FilesAnswerPage),
    ]
