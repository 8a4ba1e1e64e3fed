"""``kaos login``, ``logout``, ``whoami`` and ``token``."""

import os
import sys
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.terminal.output import on_terminal, show, show_fields, show_json
from kaos_hub.errors import InvalidRequest

if TYPE_CHECKING:
    from kaos_hub.schemas import LoginStarted, Whoami

_KINDS = {"kaos": "notebooks", "kaos-train": "trainings"}


@click.command(cls=Command)
@click.argument("hub", metavar="[URL]", required=False)
@click.option("--token-stdin", is_flag=True, help="Read a Hub token from standard input instead.")
@click.option("--no-browser", is_flag=True, help="Only print the page to open.")
@pass_session
def login(session: Session, hub: str | None, token_stdin: bool, no_browser: bool) -> None:
    """Log in to the Hub at URL: confirm in the browser that this is you.

    Without URL it is the Hub logged in to last. Without a browser, make a token on the Hub's page
    /hub/token and hand it over:

    \b
    Example:
        kaos login https://hub.example.org
        kaos login --token-stdin https://hub.example.org < token.txt
    """
    from kaos_hub.client import login as browser_login, login_with_token

    hub = hub or session.url or _last()
    if token_stdin:
        credentials = login_with_token(hub, _token_from_stdin(hub))
    else:
        open_page = None if no_browser or not on_terminal() else open_browser
        credentials = browser_login(hub, open_page, lambda started: _explain(session, started))
    session.note(f"Logged in to {credentials.url} as {credentials.user}.")
    if session.json:
        show_json({"url": credentials.url, "user": credentials.user})


def _last() -> str:
    from kaos_hub.client import load_credentials

    known = load_credentials()
    if known is None:
        raise click.UsageError(
            "Which Hub? Say its address, as in: kaos login https://hub.example.org"
            " (kaos up starts one on this machine)"
        )
    return known.url


def _token_from_stdin(hub: str) -> str:
    token = sys.stdin.readline().strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequest(
            "standard input holds no token; a token is one word on the first line. Make one on the"
            f" Hub's page /hub/token, then: kaos login --token-stdin {hub} < token.txt"
        )
    return token


def _explain(session: Session, started: "LoginStarted") -> None:
    # Not a remark that -q may hide: without it the user cannot go on.
    from kaos_hub.cli.terminal.output import say

    say(f"Open this page and confirm that it shows the code {started.user_code}:")
    say(f"  {started.url}")
    if started.other_url:
        say(f"If it says that you have no permission, open this one:\n  {started.other_url}")


def open_browser(url: str) -> bool:
    """Open a page in a browser with a window; a text browser in this terminal is never started."""
    import webbrowser

    windows = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, windows)):
        return False
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False


@click.command(cls=Command)
@pass_session
def logout(session: Session) -> None:
    """Forget the login to the Hub in use. The Hub's page /hub/token revokes tokens for good."""
    from kaos_hub.client import forget_credentials

    known = forget_credentials(session.url)
    session.note(f"Logged out of {known.url}." if known else "There was no login.")
    if session.json:
        show_json({"url": known.url if known else None})


@click.command(cls=Command)
@pass_session
def whoami(session: Session) -> None:
    """Show the user, the Hub, and what is in use of what is allowed."""
    answer = session.client.whoami()
    if session.json:
        show_json(answer)
        return
    show_fields(
        [
            ("user", answer.user + (" (admin)" if answer.admin else "")),
            ("hub", session.client.credentials.url),
            ("may have", " and ".join(_KINDS.get(each, each) for each in answer.services)),
            *_limits(answer),
            *_machine(answer),
        ]
    )


def _limits(answer: "Whoami") -> "list[tuple[str, str]]":
    from kaos_hub.util.quantities import show_memory

    lines = []
    for field in type(answer.usage).model_fields:
        used, allowed = getattr(answer.usage, field), getattr(answer.limits, field)
        if field in ("memory", "storage"):
            text = f"{show_memory(used)} of {show_memory(allowed)}"
        else:
            text = f"{used:g} of {'no limit' if allowed is None else format(allowed, 'g')}"
        lines.append((field, text))
    return lines


def _machine(answer: "Whoami") -> "list[tuple[str, str]]":
    from kaos_hub.util.quantities import show_memory

    there = answer.capacity
    cores = [f"{there.cpu:g} cores"] if there.cpu is not None else []
    memory = [f"{show_memory(there.memory)} of memory"] if there.memory is not None else []
    text = " and ".join(cores + memory)
    return [("machine", f"{text}: the most that one notebook or trial can have")] if text else []


@click.command(cls=Command)
@pass_session
def token(session: Session) -> None:
    """Print the token in use, and nothing else.

    \b
    Example:
        curl -H "Authorization: token $(kaos token)" http://127.0.0.1:8000/hub/api/user
    """
    from kaos_hub.client import find_credentials

    credentials = find_credentials(session.url)
    if session.json:
        show_json({"url": credentials.url, "token": credentials.token})
    else:
        show(credentials.token)
