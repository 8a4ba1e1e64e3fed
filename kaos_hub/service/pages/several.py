"""Actions on several notebooks at once, from the list: a question, then all of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from kaos_hub.errors import Conflict, InvalidRequest, KaosError
from kaos_hub.schemas import Model, NotebookName, parse_request
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.pages.base import PageHandler
from kaos_hub.util.quantities import plural

_MOST = 200
_ACTIONS = {
    "stop": "Their kernels and terminals end. Files stay, and they can be started again.",
    "delete": "They end, and their home directories with all files are deleted for good, edits of"
    " their code too. The bundles they were deployed from stay.",
}


class _Chosen(Model):
    """The notebooks that were ticked."""

    name: list[NotebookName] = Field(min_length=1, max_length=_MOST)


class SeveralPage(PageHandler):
    """An action on several notebooks, with a question before it."""

    route_name = "/several"
    right = Right.MANAGE

    def _asked(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """Return the action, and the names of the notebooks.

        Raises:
            InvalidRequest: nothing was ticked, or there is no such action.
        """
        action = self.get_argument("action", "")
        if action not in _ACTIONS:
            raise InvalidRequest(f"Choose one of: {', '.join(_ACTIONS)}.")
        if not names:
            raise InvalidRequest("Tick the notebooks in the list first.")
        return action, parse_request(_Chosen, {"name": list(dict.fromkeys(names))}).name

    async def get(self) -> None:
        """Ask the question."""
        action, names = self._asked(self.get_query_arguments("name"))
        self.show(
            "kaos_ask.html",
            question=f"{action.capitalize()} {plural(len(names), 'notebook')}?",
            does=f"{', '.join(names)}.\n{_ACTIONS[action]}",
            label=action.capitalize(),
            to=f"{self.hub_auth.base_url}several",
            back=self.hub_auth.base_url,
            form=[("action", action), *(("name", name) for name in names)],
        )

    async def post(self) -> None:
        """Do it. A notebook for which it fails keeps none of the others from it.

        Raises:
            Conflict: it failed for some; the message names them, and says why.
        """
        assert self.caller is not None
        action, names = self._asked(self.get_body_arguments("name"))
        do: Any = getattr(self.core.notebooks, action)
        answers = await asyncio.gather(
            *(do(self.caller.owner, name) for name in names), return_exceptions=True
        )
        failed = [(n, a) for n, a in zip(names, answers, strict=True) if isinstance(a, KaosError)]
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, KaosError):
                raise answer
        if failed:
            told = "\n".join(f"{name}: {error.message}" for name, error in failed)
            raise Conflict(
                f"{plural(len(names) - len(failed), 'notebook')} done, {len(failed)} not:\n{told}"
            )
        self.redirect(f"{self.hub_auth.base_url}?done={action}&count={len(names)}", status=303)


def several_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for it below ``prefix``."""
    return [(f"{prefix}several", SeveralPage)]
