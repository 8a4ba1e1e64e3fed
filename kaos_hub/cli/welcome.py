"""The output of ``kaos`` alone: the three commands that a user needs at this point."""

from importlib.util import find_spec

from kaos_hub import __version__
from kaos_hub.cli.base import Session
from kaos_hub.cli.terminal.output import show, show_json
from kaos_hub.errors import KaosError

_DEPLOY = ("kaos notebook deploy -s DIR -d DIR", "a folder and its data become a notebook")
_TRAIN = ("kaos train deploy -s DIR -d DIR", "or a trained model")


def welcome(session: Session) -> None:
    """Print the three commands, by whether one is logged in, and where all the others are."""
    place, user = _login(session)
    steps = _steps(place)
    if session.json:
        commands = [command for command, _ in steps]
        show_json({"version": __version__, "url": place, "user": user, "commands": commands})
        return
    show("kaos: a folder becomes a hosted notebook, or a trained model.\n")
    if place:
        show(f"You are logged in to {place}{f' as {user}' if user else ''}.\n")
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        show(f"  {command:<{width}}   {what}")
    show("\nAll commands: kaos --help")


def _login(session: Session) -> tuple[str | None, str | None]:
    """Return the Hub in use and the user there, as far as known here: no Hub is asked."""
    from kaos_hub.client import find_credentials

    try:
        known = find_credentials(session.url)
    except KaosError:
        return None, None
    return known.url, known.user


def _steps(place: str | None) -> list[tuple[str, str]]:
    if place:
        return [_DEPLOY, _TRAIN, ("kaos notebook open", "go on where you were")]
    # Without the Hub's own libraries `kaos up` could only say what to install.
    if find_spec("jupyterhub"):
        up = "start everything on this machine (or use another: kaos login URL)"
        return [("kaos up", up), _DEPLOY, _TRAIN]
    return [("kaos login URL", "log in to your Hub"), _DEPLOY, _TRAIN]
