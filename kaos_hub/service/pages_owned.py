"""Pages of things that a group may own, too: whose are looked at, and links that keep it."""

from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode

from kaos_hub.errors import KaosError
from kaos_hub.models import Model, parse_request
from kaos_hub.service.auth import Caller
from kaos_hub.service.pages import PageHandler

AnyModel = TypeVar("AnyModel", bound=Model)


class OwnedPage(PageHandler):
    """Base of pages that show what the asking user or a group of theirs owns.

    Args:
        prefix: the path below which they are, with slashes at both ends.
    """

    owner: str | None = None
    back: ClassVar[tuple[str, str]]
    """Where an error leads back to, and how that is called."""

    def initialize(self, prefix: str) -> None:
        self.prefix = prefix

    @property
    def asker(self) -> Caller:
        """Who asks."""
        assert self.caller is not None, "prepare lets nobody else in"
        return self.caller

    @property
    def whose(self) -> str:
        """Whose things are looked at: the asker's, or those of a group of theirs."""
        return self.owner or self.asker.owner

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            await self.find_owner()

    async def find_owner(self) -> None:
        """Find out whose things are meant.

        Raises:
            NotFound: neither the asker's nor those of a group of theirs.
        """
        said = self.get_query_argument("owner", "")
        fresh = self.request.method != "GET"
        self.owner = await self.core.owners.meant(self.asker, said, fresh=fresh)

    def at(self, path: str = "", **query: Any) -> str:
        """A link below our prefix; whose things are looked at stays the same."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        if self.caller and self.whose != self.caller.owner:
            given["owner"] = self.whose
        return self.prefix + quote(path) + (f"?{urlencode(given)}" if given else "")

    def asked(self, model: type[AnyModel]) -> AnyModel:
        """The address's query, as a model."""
        given = {k: self.get_query_argument(k) for k in self.request.query_arguments}
        return parse_request(model, {k: v for k, v in given.items() if v and k != "owner"})

    async def workspaces(self) -> list[str]:
        """Whose things may be looked at here."""
        groups = await self.core.owners.groups(self.asker.user)
        return [self.asker.owner, *(f"group:{name}" for name in sorted(groups))]

    def show(self, template: str, **more: Any) -> None:
        super().show(template, **{"train": self.prefix, "at": self.at, "owner": self.owner, **more})

    def write_error_body(self, error: KaosError) -> None:
        path, label = self.back
        where = {"back": self.at(path), "back_label": label}
        self.show("kaos_error.html", error=error, status=self.get_status(), **where)

    def ask(self, question: str, does: str, label: str, to: str, back: str, **form: Any) -> None:
        """Show a question before what cannot be undone."""
        self.show(
            "kaos_ask.html", question=question, does=does, label=label, to=to, back=back, form=form
        )
