"""The page of a running notebook's files, for saving, attaching data and cloning a repository.

The notebook's own server does it. The page of its answer reloads itself until the answer is there.
"""

from typing import Any

from kaos_hub.schemas import AttachRequest, BundleKind, NotebookRequest, SaveRequest, parse_request
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.pages.base import NOTEBOOK, OfNotebook

_PATIENCE = 5
"""Seconds that a page waits for an answer before it shows that there is none yet."""
_OFFERED = 200
"""Versions of data that can be chosen."""


class FilesPage(OfNotebook):
    """The page that asks what is to be saved, attached or cloned."""

    route_name = "/notebooks/{name}/files"

    async def get(self, name: str) -> None:
        """Show the three forms."""
        assert self.caller is not None
        notebook = await self.notebook(name)
        data = await self.core.versions.list(self.caller.owner, BundleKind.DATA, None, _OFFERED)
        self.show("kaos_files.html", notebook=notebook, data=data)


class FilesHandler(OfNotebook):
    """A form's request to save or attach."""

    route_name = "/notebooks/{name}/files/{action}"
    right = Right.MANAGE

    async def post(self, name: str, action: str) -> None:
        """Begin to save or attach, and redirect to the page of the answer.

        The XSRF token was checked when the caller was identified.
        """
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
    """A form's request to clone a repository, perhaps with a login."""

    route_name = "/notebooks/{name}/files/clone"

    async def post(self, name: str) -> None:
        """Deploy the notebook with the repository, and redirect to its page.

        That page shows the progress. The XSRF token was checked when the caller was identified.
        """
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
        await self.core.notebooks.deploy(caller.owner, caller.author, wish)
        self.redirect(f"{self.hub_auth.base_url}notebooks/{name}", status=303)


class FilesAnswerPage(OfNotebook):
    """The page of the progress, or the result, of saving or attaching."""

    route_name = "/notebooks/{name}/files/{errand}"

    async def get(self, name: str, errand: str) -> None:
        """Wait a little for the answer. Without one by then, the page reloads itself."""
        assert self.caller is not None
        notebook = await self.notebook(name)
        found = await self.core.errands.get(self.caller.owner, name, errand, _PATIENCE)
        if not found.state.ended:
            self.set_header("Refresh", "1")
        self.show("kaos_files_answer.html", notebook=notebook, errand=found)


def file_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for these pages below ``prefix`` (with slashes at both ends)."""
    place = f"{prefix}notebooks/{NOTEBOOK}/files"
    return [
        (place, FilesPage),
        (f"{place}/(?P<action>save|attach)", FilesHandler),
        (f"{place}/clone", CloneHandler),
        (f"{place}/(?P<errand>[0-9a-f]{{16}})", FilesAnswerPage),
    ]
