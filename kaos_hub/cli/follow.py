"""Following a notebook from its deploy until it can be used: both stages, folded on a terminal."""

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kaos_hub.cli.account import open_browser
from kaos_hub.cli.base import Session
from kaos_hub.cli.finding import remember_here
from kaos_hub.cli.notebook.git import clone_line
from kaos_hub.cli.outcome import going_on
from kaos_hub.cli.terminal.display import display_for, happenings, ring
from kaos_hub.cli.terminal.output import clean_line, on_terminal, say, show, show_json
from kaos_hub.errors import KaosError, NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import Notebook

_TAIL = 30
"""Lines of the Host log that are shown when the server fails."""


def follow_to_the_end(
    session: Session,
    found: "Notebook",
    detach: bool,
    browser: bool,
    actions: Sequence[str] = (),
) -> None:
    """Follow a notebook until it can be used, print its address, open it. Ctrl-C lets it go on.

    Args:
        session: the run of the command line.
        found: the notebook, as the service answered to the wish.
        detach: do not wait for it.
        browser: open it in a browser, if this is a terminal.
        actions: what the service does, to be told first.

    Raises:
        BuildFailed: its build failed; its log was shown.
        Failed: its server did not start, and the end of its log was shown; or its repository was
            not cloned.
        Interrupted: Ctrl-C was pressed.
        Unavailable: the Hub is gone.
    """
    begun = time.monotonic()
    remember_here(session, found)
    with going_on(f"Notebook {found.name}", f"kaos notebook info -n {found.name}"):
        for action in actions:
            session.note(f"- {action}")
        if not detach and (found.pending or not found.state.settled):
            found = _follow(session, found)
        ring(begun)
        _finish(session, found, detach, browser)


def _finish(session: Session, found: "Notebook", detach: bool, browser: bool) -> None:
    from kaos_hub.client.notebook_handle import failure

    error = None if detach else failure(found)
    if error:
        raise error
    if not session.json:
        show(found.url)
    if found.state == "RUNNING" and not detach:
        if browser and on_terminal():
            open_browser(found.url)
        if found.git is not None:
            # The notebook can be used meanwhile; its address is told already.
            session.note(f"git: {clone_line(found.git)}")
            found = session.client.notebooks.cloned(found.name)
            session.note(f"git: {clone_line(found.git)}")
    if session.json:
        show_json(found)
    if found.state != "RUNNING":
        session.note(
            f"Notebook {found.name} is {found.state}{f': {found.reason}' if found.reason else ''}."
            f" See: kaos notebook info -n {found.name}"
        )


def _follow(session: Session, found: "Notebook") -> "Notebook":
    from kaos_hub.client.notebook_handle import failure

    notebooks, name = session.client.notebooks, found.name
    logs = {"BUILDING": lambda: notebooks.build_logs(name, follow=True)}
    with display_for(session, name) as display:
        for happening in happenings(lambda tell: notebooks.follow(name, on_event=tell), logs):
            display.show(happening)
    found = session.client.notebooks.look(found.name)
    if failure(found):
        _explain(session, found, display.log_shown)
    return found


def _explain(session: Session, found: "Notebook", shown: bool) -> None:
    """Show the log of the stage that failed; the build's unless it was ``shown`` already."""
    notebooks = session.client.notebooks
    try:
        if found.build.state != "FAILED":
            lines = list(deque(notebooks.logs(found.name), _TAIL))
        else:
            lines = [] if shown else list(notebooks.build_logs(found.name))
    except NotFound:
        return  # it failed before there was anything to log; the reason says it all
    except KaosError as e:
        say(f"The log cannot be read: {e.message}")
        return
    for line in lines:
        say(clean_line(line) if on_terminal() else line, raw=True)
