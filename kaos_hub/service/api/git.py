"""The exchange with a notebook's own server about the repository that it clones, over REST."""

from kaos_hub.errors import Forbidden, NotFound
from kaos_hub.schemas import Clone, CloneLogin, CloneQuestion, CloneReport
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right


async def report(call: Call) -> Clone:
    """Take the server's report on the progress of the clone."""
    repositories = call.core.notebooks.repositories
    return await repositories.report(call.owner, call.path["name"], call.body)


async def credentials(call: Call) -> CloneLogin:
    """Return the credentials that the user gave for the repository."""
    question: CloneQuestion = call.body
    repositories = call.core.notebooks.repositories
    return await repositories.take(call.owner, call.path["name"], question.repository)


_ONE = "/notebooks/{name}/git"

ROUTES = [
    Route(
        "POST",
        _ONE,
        report,
        "The notebook's own server tells how far the clone of its repository is.",
        right=Right.REPORT,
        body=CloneReport,
        answer=Clone,
        errors=(NotFound, Forbidden),
    ),
    Route(
        "POST",
        _ONE + "/credentials",
        credentials,
        "The notebook's own server asks for the credentials of its repository. They are handed out"
        " once, and then held no more.",
        right=Right.REPORT,
        body=CloneQuestion,
        answer=CloneLogin,
        errors=(NotFound, Forbidden),
    ),
]
