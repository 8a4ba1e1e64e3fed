"""The display of something that takes its time, while it goes on.

It is folded on a terminal, plain in a pipe, and absent with ``-q``.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import click

from kaos_hub.cli.base import Session
from kaos_hub.cli.terminal.output import clean, clean_line, on_terminal, say
from kaos_hub.errors import KaosError

if TYPE_CHECKING:
    from rich.console import RenderableType

_RING_AFTER = 20.0
_FOLDED = 6
"""Lines of a log that stay visible on a terminal."""


class Moment(Protocol):
    """A change of state: of a notebook, or of a training."""

    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def progress(self) -> int: ...


Tell = Callable[[Moment], object]
Log = Callable[[], Iterator[str]]


def ring(begun: float) -> None:
    """Ring the terminal's bell if the person had to wait since ``begun`` (monotonic) for long."""
    if on_terminal() and time.monotonic() - begun > _RING_AFTER:
        click.echo("\a", nl=False, err=True)


def happenings(follow: Callable[[Tell], object], logs: Mapping[str, Log]) -> Iterator[Moment | str]:
    """Changes of state and lines of logs, as they come, until the end.

    Args:
        follow: tells each change to the function that it is given; returns at the end.
        logs: by state: the log to follow once it is reached.

    Raises:
        KaosError: following failed.
    """
    inbox: queue.SimpleQueue[Moment | str | KaosError | None] = queue.SimpleQueue()

    def watch() -> None:
        try:
            follow(inbox.put)
            inbox.put(None)
        except KaosError as e:
            inbox.put(e)

    def read(log: Log) -> None:
        try:
            for line in log():
                inbox.put(line)
        except KaosError:
            # The changes say how it went; without its log we can still go on.
            return

    threading.Thread(target=watch, daemon=True).start()
    readers: dict[str, threading.Thread] = {}
    while (happening := inbox.get()) is not None:
        if isinstance(happening, KaosError):
            raise happening
        if not isinstance(happening, str) and happening.state in logs.keys() - readers.keys():
            reader = threading.Thread(target=read, args=[logs[happening.state]], daemon=True)
            readers[happening.state] = reader
            reader.start()
        yield happening
    for reader in readers.values():
        reader.join(2.0)
    while not inbox.empty():
        rest = inbox.get()
        if isinstance(rest, str):
            yield rest


class Display:
    """Shows nothing: the base of those that do.

    Attributes:
        log_shown: every line of the logs was shown, and stays.
    """

    log_shown = False

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, happening: Moment | str) -> None:
        """Show a change of state, or a line of a log."""
        if isinstance(happening, str):
            self.line(happening)
        else:
            self.moment(happening)

    def moment(self, moment: Moment) -> None:
        """Show a change of state."""

    def line(self, line: str) -> None:
        """Show a line of a log."""


def display_for(session: Session, name: str, folding: tuple[str, ...] = ("BUILDING",)) -> Display:
    """The display that fits where standard error leads to.

    Args:
        session: the run of the command line.
        name: what is waited for.
        folding: states in which lines of the log are of interest on a terminal.
    """
    if session.quiet:
        return Display()
    return _Folded(name, folding) if on_terminal() else _Plain()


class _Plain(Display):
    """For files and pipes: each line once, nothing redrawn."""

    def __init__(self) -> None:
        self._last = ""

    def moment(self, moment: Moment) -> None:
        text = f"{moment.state}{f': {moment.reason}' if moment.reason else ''}"
        if text != self._last:
            say(text)
        self._last = text

    def line(self, line: str) -> None:
        say(line, raw=True)
        self.log_shown = True


class _Folded(Display):
    """For terminals: one bar over all stages, the last lines of the present one's log under it."""

    def __init__(self, name: str, folding: tuple[str, ...]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._name, self._folding = name, folding
        self._lines: deque[str] = deque(maxlen=_FOLDED)
        self._moment: Moment | None = None
        self._begun = time.monotonic()
        self._live = Live(
            get_renderable=self._picture,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def moment(self, moment: Moment) -> None:
        self._moment = moment

    def line(self, line: str) -> None:
        self._lines.append(clean_line(line).partition(" ")[2])

    def _picture(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        state = str(self._moment.state) if self._moment else "…"
        reason = clean(self._moment.reason) if self._moment else ""
        done = self._moment.progress if self._moment else 0
        seconds = f"{time.monotonic() - self._begun:.0f} s"
        head.add_row(
            Text(f"{self._name} {state}", style="bold"), ProgressBar(100, done, width=30),
            Text(seconds), Text(reason, overflow="ellipsis", no_wrap=True),
        )  # fmt: skip
        folded = [
            Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self._lines
        ]
        return Group(head, *(folded if state in self._folding else []))
