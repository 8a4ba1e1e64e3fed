"""``kaos admin …``: what only admins of the Hub may do."""

import click

from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.terminal.output import age, show_json, show_table
from kaos_hub.errors import NotFound
from kaos_hub.schemas import OwnerSummary
from kaos_hub.util.quantities import show_memory


@click.group(cls=Group)
def admin() -> None:
    """Look after what others have. Only admins of the Hub may."""


@admin.group(cls=Group)
def owners() -> None:
    """See whose things there are, and hand over or delete what removed users and groups left."""


@owners.command("list")
@click.option("--gone", is_flag=True, help="Only those that the Hub has no more.")
@pass_session
def list_owners(session: Session, gone: bool) -> None:
    """List users and groups with what they have.

    \b
    Example:
        kaos admin owners list --gone
    """
    found = session.client.owners.list(gone)
    if session.json:
        show_json(found)
    elif not found:
        session.note("The Hub has all owners of what there is." if gone else "Nobody yet.")
    else:
        head = ("id", "name", "state", "notebooks", "versions", "trainings", "volumes", "storage")
        show_table(
            head,
            [
                (o.id, o.name, f"gone, {age(o.since)} ago" if o.since else o.state.value.lower(),
                 str(o.notebooks), str(o.versions), str(o.trainings), str(o.volumes),
                 show_memory(o.storage))
                for o in found
            ],
        )  # fmt: skip


@owners.command("give")
@click.argument("owner")
@click.argument("to")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def give(session: Session, owner: str, to: str, yes: bool) -> None:
    """Give all that OWNER left (an id, as listed) to TO: user:NAME or group:NAME.

    \b
    Example:
        kaos admin owners give user:ada user:grace
    """
    found = _find(session, owner)
    again = f"kaos admin owners give {owner} {to} -y"
    session.confirm(f"Give {_what(found)} of {found.kind} {found.name} to {to}?", yes, again)
    done = session.client.owners.hand_over(owner, to)
    if session.json:
        show_json(done)
    else:
        session.note(f"{to} has it now. What both had of one name got a number.")


@owners.command("delete")
@click.argument("owner")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, owner: str, yes: bool) -> None:
    """Delete all that OWNER left (an id, as listed), with every file.

    \b
    Example:
        kaos admin owners delete user:ada
    """
    found = _find(session, owner)
    again = f"kaos admin owners delete {owner} -y"
    session.confirm(f"Delete {_what(found)} of {found.kind} {found.name} for good?", yes, again)
    done = session.client.owners.delete(owner)
    if session.json:
        show_json(done)
    else:
        session.note(f"Deleted: {_what(done)}.")


def _find(session: Session, owner: str) -> OwnerSummary:
    found = next((each for each in session.client.owners.list() if each.id == owner), None)
    if found is None:
        raise NotFound(f"There is no owner {owner!r}. `kaos admin owners list` shows all.")
    return found


def _what(found: OwnerSummary) -> str:
    parts = (
        (found.notebooks, "notebooks"), (found.versions, "versions of bundles"),
        (found.trainings, "trainings"), (found.volumes, "volumes"),
    )  # fmt: skip
    said = [f"{number} {what}" for number, what in parts if number]
    return f"{', '.join(said) or 'nothing'} ({show_memory(found.storage)})"
