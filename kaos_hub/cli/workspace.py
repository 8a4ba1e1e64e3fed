"""``kaos workspace …``: whose bundles, trainings and models are meant."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.terminal.output import show, show_json, show_table
from kaos_hub.errors import NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import Workspace


@click.group(cls=Group)
def workspace() -> None:
    """Work on the things of a group of the Hub: bundles, trainings and models.

    Members see and use them, others see nothing. Notebooks are always your own.
    """


@workspace.command("list")
@pass_session
def list_workspaces(session: Session) -> None:
    """List your workspaces: your own, and one per group you are in. A star marks the one in use.

    \b
    Example:
        kaos workspace list
    """
    found = session.client.workspaces.list()
    if session.json:
        show_json(found)
        return
    current = session.client.workspaces.current
    show_table(
        ("", "workspace", "whose"),
        [
            ("*" if _is(each, current) else "", each.name, "a group" if _group(each) else "yours")
            for each in found
        ],
    )


def _group(each: "Workspace") -> bool:
    return each.owner.startswith("group:")


def _is(each: "Workspace", current: str | None) -> bool:
    return each.owner == f"group:{current}" if current else not _group(each)


@workspace.command("set")
@click.argument("name", metavar="[GROUP]", required=False, shell_complete=completion.workspaces)
@pass_session
def set_workspace(session: Session, name: str | None) -> None:
    """Work on the things of a group from now on; without GROUP, on your own again.

    \b
    Example:
        kaos workspace set vision
        kaos workspace set
    """
    from kaos_hub.client import save_workspace

    found = session.client.workspaces.list()
    own = next(each for each in found if not _group(each))
    groups = {each.name: each for each in found if _group(each)}
    if name is None or (name == own.name and name not in groups):
        chosen = own
    elif name in groups:
        chosen = groups[name]
    else:
        raise NotFound(_unknown(name, list(groups)))
    save_workspace(session.client.credentials.url, chosen.name if _group(chosen) else None)
    if session.json:
        show_json(chosen)
    else:
        whose = f"group {chosen.name}" if _group(chosen) else f"{own.name}, your own"
        session.note(f"Bundles, trainings and models are those of {whose} from now on.")


def _unknown(name: str, groups: list[str]) -> str:
    near = get_close_matches(name, groups, 1)
    if near:
        return f"you are in no group called {name!r}; is {near[0]!r} meant?"
    others = f"; you are in {', '.join(groups)}" if groups else "; you are in no group"
    return f"you are in no group called {name!r}{others}. An admin makes groups on the Hub's page"


@workspace.command()
@pass_session
def current(session: Session) -> None:
    """Print the workspace in use.

    \b
    Example:
        kaos workspace current
    """
    name = session.client.workspaces.current
    for each in session.client.workspaces.list():
        if _is(each, name):
            show_json(each) if session.json else show(each.name)
            return
    raise NotFound(
        f"the workspace in use is {name!r}, and you are not in that group any more; choose another"
        " one: kaos workspace set"
    )
