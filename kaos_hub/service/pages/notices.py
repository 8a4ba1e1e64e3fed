"""The notice with which a page reports the action that was just done."""

from pydantic import Field
from tornado.web import RequestHandler

from kaos_hub.errors import KaosError
from kaos_hub.schemas import Model, NotebookName, parse_request
from kaos_hub.util.quantities import plural

_DONE = {"stop": "being stopped", "kill": "ended", "delete": "deleted"}


class _Done(Model):
    """An action that was just done, as an address carries it."""

    done: str = Field("", pattern=f"^({'|'.join(_DONE)}|)$")
    to: NotebookName | None = None
    """The notebook, if it was one."""
    count: int = Field(1, ge=1, le=1000)


def notice(handler: RequestHandler) -> str:
    """Return the words on the action that was just done; empty if the address names none."""
    names = [name for name in _Done.model_fields if handler.get_query_argument(name, "")]
    try:
        told = parse_request(_Done, {name: handler.get_query_argument(name) for name in names})
    except KaosError:
        return ""
    if not told.done:
        return ""
    what = f"Notebook {told.to}" if told.to else plural(told.count, "notebook")
    one = told.count == 1
    be = ("is" if one else "are") if told.done == "stop" else ("was" if one else "were")
    return f"{what} {be} {_DONE[told.done]}."
