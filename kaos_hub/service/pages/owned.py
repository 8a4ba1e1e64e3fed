"""Pages of things that a group may own as well: the owner they show, and links that keep it."""

from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode

from kaos_hub.schemas import Model, parse_request
from kaos_hub.service.auth.auth import KAOS, Caller
from kaos_hub.service.pages.base import PageHandler

AnyModel = TypeVar("AnyModel", bound=Model)


class OwnedPage(PageHandler):
    """Base of pages that show what the calling user or a group of theirs owns.

    Args:
        prefix: the path below which they are, with slashes at both ends.
    """

    owner: str | None = None
    back: ClassVar[tuple[str, str]]
    """The path that an error leads back to, and the label of the link."""

    def initialize(self, prefix: str) -> None:
        self.prefix = prefix

    @property
    def asker(self) -> Caller:
        """The calling user."""
        assert self.caller is not None, "prepare lets nobody else in"
        return self.caller

    @property
    def whose(self) -> str:
        """The owner whose things are shown: the caller, or a group of theirs."""
        return self.owner or self.asker.owner

    @property
    def shown(self) -> str:
        """The same owner as people and addresses name it: with its present name."""
        return self.core.identities.shown(self.whose)

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            await self.find_owner()

    async def find_owner(self) -> None:
        """Find the owner whose things are meant.

        Raises:
            NotFound: it is neither the caller nor a group of theirs.
        """
        said = self.get_query_argument("owner", "")
        fresh = self.request.method != "GET"
        self.owner = await self.core.owners.meant(self.asker, said, fresh=fresh)

    def at(self, path: str = "", **query: Any) -> str:
        """Return a link below our prefix that keeps the owner whose things are shown."""
        given = {name: value for name, value in query.items() if value not in (None, "", [])}
        if self.caller and self.whose != self.caller.owner:
            given["owner"] = self.shown
        return self.prefix + quote(path) + (f"?{urlencode(given, doseq=True)}" if given else "")

    def asked(self, model: type[AnyModel]) -> AnyModel:
        """Return the address's query, as a model."""
        given: dict[str, Any] = {}
        for name in self.request.query_arguments.keys() - {"owner"}:
            field = model.model_fields.get(name)
            several = field is not None and field.annotation == list[str]
            get = self.get_query_arguments if several else self.get_query_argument
            given[name] = get(name)
        return parse_request(model, {name: value for name, value in given.items() if value})

    async def workspaces(self) -> list[str]:
        """Return the owners whose things may be shown here."""
        groups = await self.core.owners.groups(self.asker.owner)
        return [f"user:{self.asker.user}", *(f"group:{name}" for name in sorted(groups))]

    def show(self, template: str, **more: Any) -> None:
        caller = self.caller
        common = {
            "train": self.prefix,
            "at": self.at,
            "owner": self.shown if self.owner else None,
            "may_host": caller is not None and KAOS in caller.services,
            "mine": caller is not None and self.whose == caller.owner,
        }
        super().show(template, **{**common, **more})

    def way_back(self) -> dict[str, str]:
        path, label = self.back
        return {"back": self.at(path), "back_label": label}

    def ask(self, question: str, does: str, label: str, to: str, back: str, **form: Any) -> None:
        """Show a question before what cannot be undone."""
        self.show(
            "kaos_ask.html",
            question=question,
            does=does,
            label=label,
            to=to,
            back=back,
            form=list(form.items()),
        )
