"""``kaos volume …``: files that outlive notebooks."""

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.terminal.output import age, show_json, show_table
from kaos_hub.errors import NotFound


@click.group(cls=Group)
def volume() -> None:
    """Make, see and delete volumes: named places for files, which outlive notebooks.

    A deploy makes what it names, too: kaos notebook deploy --volume NAME:PATH
    """


@volume.command()
@click.argument("name")
@pass_session
def create(session: Session, name: str) -> None:
    """Make a volume.

    \b
    Example:
        kaos volume create results
    """
    made = session.client.volumes.create(name)
    if session.json:
        show_json(made)
    else:
        session.note(
            f"Volume {name} is there. Into a notebook: kaos notebook deploy"
            f" --volume {name}:/mnt/{name}"
        )


@volume.command("list")
@pass_session
def list_volumes(session: Session) -> None:
    """List your volumes, and which notebooks use them.

    \b
    Example:
        kaos volume list
    """
    found = session.client.volumes.list()
    if session.json:
        show_json(found)
    elif not found:
        session.note("No volumes yet. To make one: kaos volume create NAME")
    else:
        show_table(
            ("name", "used by", "age"),
            [(each.name, ", ".join(each.notebooks) or "-", age(each.created)) for each in found],
        )


@volume.command()
@click.argument("name", shell_complete=completion.volumes)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete a volume with all files in it. One that a notebook uses is refused.

    \b
    Example:
        kaos volume delete scratch
    """
    found = next((each for each in session.client.volumes.list() if each.name == name), None)
    if found is None:
        raise NotFound(f"You have no volume {name!r}. `kaos volume list` shows yours.")
    if not found.notebooks:
        session.confirm(
            f"Delete volume {name} with every file in it?", yes, f"kaos volume delete {name} -y"
        )
    session.client.volumes.delete(name)
    if session.json:
        show_json(found)
    else:
        session.note(f"Volume {name} was deleted.")
