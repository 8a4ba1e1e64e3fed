"""Following a notebook from its deploy until it can be used: both stages, folded on a terminal."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.account import open_browser
from kaos_hub.cli.base import Session
from kaos_hub.cli.output import clean, clean_line, on_terminal, say, show, show_json
from kaos_hub.errors import KaosError, NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kaos_hub.models import Event, Notebook

_RING_AFTER = 20.0
_FOLDED = 6
"""Lines of the build log that stay visible on a terminal."""
_TAIL = 30
"""Lines of the Host log that are shown when the server fails."""

Happening = "Event | str | KaosError | None"
"""A change of state, a line of the build log, the end by an error, the good end."""


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
        KaosError: its server did not start; the end of its log was shown.
    """
    begun = time.monotonic()
    try:
        for action in actions:
            session.note(f"- {action}")
        if not detach and (found.pending or not found.state.settled):
            found = _follow(session, found)
    except KeyboardInterrupt:
        say(f"Notebook {found.name} goes on without you: kaos notebook info -n {found.name}")
        raise click.exceptions.Exit(0) from None
    if on_terminal() and time.monotonic() - begun > _RING_AFTER:
        click.echo("\a", nl=False, err=True)
    _finish(session, found, detach, browser)


def _finish(session: Session, found: "Notebook", detach: bool, browser: bool) -> None:
    from kaos_hub.client.notebooks import failure

    error = None if detach else failure(found)
    if error:
        raise error
    if session.json:
        show_json(found)
    else:
        show(found.url)
    if found.state == "RUNNING":
        if browser and not detach and on_terminal():
            open_browser(found.url)
    else:
        session.note(
            f"Notebook {found.name} is {found.state}{f': {found.reason}' if found.reason else ''}."
            f" See: kaos notebook info -n {found.name}"
        )


def _follow(session: Session, found: "Notebook") -> "Notebook":
    from kaos_hub.client.notebooks import failure

    display: _Display
    if session.quiet:
        display = _Display()
    elif on_terminal():
        display = _Folded(found.name)
    else:
        display = _Plain()
    with display:
        for happening in _happenings(session, found.name):
            if isinstance(happening, str):
                display.line(happening)
            else:
                display.event(happening)
    found = session.client.notebooks.get(found.name)
    if failure(found):
        _explain(session, found, display.log_shown)
    return found


def _happenings(session: Session, name: str) -> "Iterator[Event | str]":
    """What happens to a notebook and the lines of its build log, as they come, until it settles."""
    inbox: queue.SimpleQueue[Event | str | KaosError | None] = queue.SimpleQueue()

    def watch() -> None:
        try:
            session.client.notebooks.follow(name, on_event=inbox.put)
            inbox.put(None)
        except KaosError as e:
            inbox.put(e)

    def read_log() -> None:
        try:
            for line in session.client.notebooks.build_logs(name, follow=True):
                inbox.put(line)
        except KaosError:
            # The events say how the build went; without its log we can still go on.
            return

    threading.Thread(target=watch, daemon=True).start()
    log = threading.Thread(target=read_log, daemon=True)
    building = False
    while True:
        happening = inbox.get()
        if isinstance(happening, KaosError):
            raise happening
        if happening is None:
            break
        if not isinstance(happening, str) and happening.state == "BUILDING" and not building:
            building = True
            log.start()
        yield happening
    if building:
        log.join(2.0)
    while not inbox.empty():
        rest = inbox.get()
        if isinstance(rest, str):
            yield rest


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


class _Display:
    """Shows nothing: the base of those that do.

    Attributes:
        log_shown: every line of the build log was shown, and stays.
    """

    log_shown = False

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def event(self, event: "Event") -> None:
        """Show a change of state."""

    def line(self, line: str) -> None:
        """Show a line of the build log."""


class _Plain(_Display):
    """For files and pipes: each line once, nothing redrawn."""

    def __init__(self) -> None:
        self._last = ""

    def event(self, event: "Event") -> None:
        text = f"{event.state}{f': {event.reason}' if event.reason else ''}"
        if text != self._last:
            say(text)
        self._last = text

    def line(self, line: str) -> None:
        say(line, raw=True)
        self.log_shown = True


class _Folded(_Display):
    """For terminals: one bar over both stages, the last lines of the build log under it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._name = name
        self._lines: deque[str] = deque(maxlen=_FOLDED)
        self._event: Event | None = None
        self._begun = time.monotonic()
        self._live = Live(
            get_renderable=self._picture,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> "_Display":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def event(self, event: "Event") -> None:
        self._event = event

    def line(self, line: str) -> None:
        self._lines.append(clean_line(line).partition(" ")[2])

    def _picture(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        state = str(self._event.state) if self._event else "…"
        reason = clean(self._event.reason) if self._event else ""
        done = self._event.progress if self._event else 0
        seconds = f"{time.monotonic() - self._begun:.0f} s"
        head.add_row(
            Text(f"{self._name} {state}", style="bold"), ProgressBar(100, done, width=30),
            Text(seconds), Text(reason, overflow="ellipsis", no_wrap=True),
        )  # fmt: skip
        building = state == "BUILDING"
        folded = [
            Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self._lines
        ]
        return Group(head, *(folded if building else []))
