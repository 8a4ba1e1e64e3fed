"""Signs that a person uses this server, as far as the server itself sees them.

Use is a page that is opened, a file that is written, a kernel or terminal that is started, stopped
or given input, and a kernel that computes, however silent. What an open tab asks for by itself,
again and again, is no use.
"""

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from tornado.web import RequestHandler

from kaos_hub.schemas import Activity, KernelEvidence, TerminalEvidence
from kaos_hub.workload.memory_watch import MemoryWatch

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

_PAGES = re.compile(
    r"(lab|doc|tree|notebooks|edit|view|consoles|terminals|files|nbconvert)"
    r"(/(?!api/|extensions/).*)?"
)
_WRITTEN = re.compile(r"api/(contents|kernels|sessions|terminals|nbconvert)(/.*)?|files(/.*)?")
_WRITES = ("POST", "PUT", "PATCH", "DELETE")


def is_use(method: str, path: str, status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether a request shows that a person is there.

    Args:
        path: below the server's base URL, without a slash at the beginning.
        headers: of the request; browsers tell what they fetch a thing for.
    """
    if status >= 300 and status != 304:
        return False  # a refusal, or the way to a login
    if method in _WRITES:
        return _WRITTEN.fullmatch(path) is not None
    if method != "GET" or not _PAGES.fullmatch(path):
        return False
    return headers.get("Sec-Fetch-Dest", "document") in ("document", "iframe", "frame")


def used_since(before: Activity, now: Activity) -> bool:
    """Tell whether something has happened between two looks, or happens now."""
    return (
        now.last_use > before.last_use
        or any(kernel.execution_state == "busy" for kernel in now.kernels)
        or _open(now) != _open(before)
    )


def _open(seen: Activity) -> tuple[int, int, int]:
    return len(seen.kernels), len(seen.terminals), sum(k.connections for k in seen.kernels)


class IdleWatch:
    """Watches one server."""

    def __init__(self, serverapp: "ServerApp") -> None:
        self._app = serverapp
        self._base = str(serverapp.base_url)
        self._last_use = datetime.now(UTC)
        self._observed: WeakSet[Any] = WeakSet()
        # On the local engine the number would be the machine's, not the notebook's.
        self._memory = None if os.environ.get("KAOS_PYTHON") else MemoryWatch()

    def watch_requests(self, on_use: Callable[[], None]) -> None:
        """See each request when it ends, through tornado's hook for that, which is chained; and
        each kernel as it begins and ends to compute, which needs no request: a websocket is open.

        Args:
            on_use: called, after each that is use.
        """
        settings = self._app.web_app.settings
        log: Callable[[RequestHandler], None] | None = settings.get("log_function")

        def see(handler: RequestHandler) -> None:
            if log is not None:
                log(handler)
            request = handler.request
            self._observe_kernels(on_use)  # the request may have started one
            path = request.path.removeprefix(self._base)
            if is_use(request.method or "", path, handler.get_status(), request.headers):
                self._used(datetime.now(UTC))
                on_use()

        settings["log_function"] = see

    def _observe_kernels(self, on_use: Callable[[], None]) -> None:
        def changed(change: Mapping[str, Any]) -> None:
            if "busy" in (change["old"], change["new"]):
                self._used(datetime.now(UTC))
                on_use()

        manager = self._app.kernel_manager
        for kernel_id in manager.list_kernel_ids():
            kernel = manager.get_kernel(kernel_id)
            if kernel not in self._observed and hasattr(kernel, "observe"):
                self._observed.add(kernel)
                kernel.observe(changed, "execution_state")

    def _used(self, at: datetime) -> None:
        self._last_use = max(self._last_use, at)

    def last_use(self) -> datetime:
        """Return when a person last used the server, as far as can be seen."""
        for kernel in self._kernels():
            busy = kernel["execution_state"] == "busy"
            self._used(datetime.now(UTC) if busy else _instant(kernel["last_activity"]))
        for last_input in self._terminal_inputs():
            self._used(last_input)
        return self._last_use

    def activity(self, source: str | None) -> Activity:
        """The evidence, as the service wants it."""
        return Activity(
            kernels=[
                KernelEvidence(
                    execution_state=kernel["execution_state"],
                    connections=kernel["connections"],
                    last_activity=_instant(kernel["last_activity"]),
                )
                for kernel in self._kernels()[:1000]
            ],
            terminals=[
                TerminalEvidence(last_activity=_instant(terminal["last_activity"]))
                for terminal in self._terminals()[:1000]
            ],
            last_use=self.last_use(),
            at=datetime.now(UTC),
            source=source,
            out_of_memory=self._memory.last_end() if self._memory else None,
        )

    def _kernels(self) -> list[dict[str, Any]]:
        # A kernel's `last_activity` moves with executions and completions, not with connections,
        # heartbeats or questions about itself: the manager leaves those out.
        return list(self._app.kernel_manager.list_kernels())

    @property
    def _terminal_manager(self) -> Any:
        return self._app.web_app.settings.get("terminal_manager")

    def _terminals(self) -> list[dict[str, Any]]:
        return list(self._terminal_manager.list()) if self._terminal_manager else []

    def _terminal_inputs(self) -> list[datetime]:
        """Return when each terminal was last typed into.

        The server's own `last_activity` moves with output, too, and a clock in a terminal is no
        use. The terminal device knows better: it is read when there was input, to within 8 s.
        """
        found = []
        terminals = self._terminal_manager.terminals if self._terminal_manager else {}
        for terminal in terminals.values():
            try:
                read = Path(f"/proc/{terminal.ptyproc.pid}/fd/0").stat().st_atime
            except OSError:
                found.append(terminal.last_activity)
            else:
                found.append(datetime.fromtimestamp(read, UTC))
        return found


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
