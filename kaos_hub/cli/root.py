"""``kaos`` itself."""

import click

from kaos_hub import __version__
from kaos_hub.cli.base import RootGroup, Session

_COMMANDS = {
    "up": ("admin.up:up", "Start everything on this machine."),
    "doctor": ("admin.doctor:doctor", "Say what is wrong with a set-up, and what to do."),
    "login": ("account:login", "Log in to a Hub."),
    "logout": ("account:logout", "Forget the login."),
    "whoami": ("account:whoami", "Show the user, limits and use."),
    "token": ("account:token", "Print the token in use."),
    "template": ("template:template", "Folders to begin with."),
    "notebook": ("notebook.commands:notebook", "Deploy notebooks and look after them."),
    "bundle": ("bundle:bundle", "See and fetch what was submitted."),
    "train": ("train.commands:train", "Train models and look after trainings."),
    "model": ("model:model", "See, fetch and name what trainings left."),
    "volume": ("volume:volume", "See and delete files that outlive notebooks."),
    "workspace": ("workspace:workspace", "Work on the things of a group."),
    "admin": ("admin.owners:admin", "Look after what others have (admins of the Hub)."),
    "completion": ("completion:completion", "Let Tab complete commands and names."),
}


@click.group(
    cls=RootGroup,
    lazy=_COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="kaos")
@click.pass_context
def kaos(ctx: click.Context) -> None:
    """A folder becomes a hosted notebook, or a trained model.

    \b
    Example:
        kaos up
        kaos notebook deploy -s notebook/example -d mnist/data
        kaos train deploy -s mnist/model-train -d mnist/data
    """
    if ctx.invoked_subcommand is None:
        from kaos_hub.cli.welcome import welcome

        welcome(ctx.ensure_object(Session))
