"""A progress bar that shows itself only when something takes long and a person looks."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from kaos_hub.cli.terminal.output import on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 1.0


class Bar:
    """A bar on standard error for something counted in bytes.

    Args:
        label: what is being done.
        wanted: False hides it whatever happens.

    Call it with ``(done, total)``; a total of 0 is not known yet.
    """

    def __init__(self, label: str, wanted: bool = True) -> None:
        self._label = label
        self._wanted = wanted and on_terminal(sys.stderr)
        self._begun = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar[0].stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if not self._wanted:
            return
        if self._bar is None:
            if time.monotonic() - self._begun < _PATIENCE:
                return
            self._bar = self._show()
        self._bar[0].update(self._bar[1], completed=done, total=total or None)

    def _show(self) -> "tuple[Progress, TaskID]":
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.start()
        return bar, bar.add_task(self._label, total=None)
