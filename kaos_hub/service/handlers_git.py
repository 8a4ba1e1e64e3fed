"""What a notebook's own server says of the repository that it clones, over REST."""

from kaos_hub.errors import Forbidden, NotFound
from kaos_hub.models import Clone, CloneLogin, CloneQuestion, CloneReport
from kaos_hub.service.auth import Right
from kaos_hub.service.routes import Call, Route


async def report(call: Call) -> Clone:
    """How far it is."""
    repositories = call.core.notebooks.repositories
    return await repositories.report(call.owner, call.path["name"], call.body)


async def credentials(call: Call) -> CloneLogin:
    """What the user gave for it."""
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
