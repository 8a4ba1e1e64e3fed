"""The idle rule: from evidence to a verdict in words.

A notebook is idle when it is not used *and* the condition of its idle type does not hold. Under
every type a write or an execution is use and a busy kernel is use, however silent; background
polling never is. Missing evidence stops nothing.

A report is old when it arrives, and a cell may have begun since. So the service stops nothing by
itself: it answers the report of an overdue notebook that the server may end, and the server does
so only if it has not been used since.
"""

from datetime import datetime, timedelta

from kaos_hub.schemas import Activity, IdleType, IdleVerdict
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.util.quantities import about, duration


def in_use(type: IdleType, seen: Activity) -> str | None:
    """Return what keeps the notebook in use at this moment, in words; None if nothing does."""
    busy = sum(k.execution_state == "busy" for k in seen.kernels)
    if busy:
        return f"{busy} kernel{'s' * (busy > 1)} busy"
    if type is IdleType.KERNELS_OR_TERMINALS and (seen.kernels or seen.terminals):
        return f"{len(seen.kernels)} kernels and {len(seen.terminals)} terminals are open"
    connections = sum(k.connections for k in seen.kernels)
    if type is IdleType.KERNEL_CONNECTIONS and connections:
        return f"{connections} connections to kernels"
    return None


def judge(row: NotebookRow, seen: Activity, at: datetime) -> None:
    """Take evidence into the row: when the notebook was last in use, and by what."""
    keeps = in_use(IdleType(row.idle_type), seen)
    # Clocks differ: how long ago it was counts, which a late report makes shorter than it is.
    last_use = min(at - ((seen.at or at) - seen.last_use), at)
    known = [t for t in (row.active_at, row.started, row.admitted, last_use) if t is not None]
    row.active_at = at if keeps else max(known)
    row.idle_reason = keeps or _unused(IdleType(row.idle_type), row.active_at)
    row.reported_at = at


def _unused(type: IdleType, since: datetime) -> str:
    nothing = {
        IdleType.KERNELS_OR_TERMINALS: "no kernel or terminal is open and nobody has used it",
        IdleType.KERNEL_CONNECTIONS: "nothing is connected to a kernel and nobody has used it",
        IdleType.ACTIVITY: "nobody has written or run anything",
    }[type]
    return f"{nothing} since {since:%H:%M} UTC"


def verdict(row: NotebookRow, at: datetime) -> IdleVerdict:
    """Return what the idle rule says now."""
    if row.reported_at is None or row.active_at is None:
        return IdleVerdict(idle=False, reason="the notebook has not reported yet")
    since = row.active_at
    idle = at - since > timedelta(seconds=1) and row.reported_at > since
    if not idle:
        just_now = row.idle_reason == _unused(IdleType(row.idle_type), since)
        return IdleVerdict(
            idle=False, reason="in use just now" if just_now else f"in use: {row.idle_reason}"
        )
    if not row.idle_timeout:
        return IdleVerdict(idle=True, since=since, reason=f"{row.idle_reason}; it may stay so")
    stops = since + timedelta(seconds=row.idle_timeout)
    left = max(0, int((stops - at).total_seconds()))
    reason = f"stops in {about(left)}: {row.idle_reason}"
    return IdleVerdict(idle=True, since=since, stops_at=stops, reason=reason)


def overdue(row: NotebookRow, at: datetime) -> str:
    """Return why a notebook whose report was just taken may end; empty if it may not.

    Args:
        row: a running notebook.
        at: the present.
    """
    left = until_overdue(row, at)
    if left is None or left > 0:
        return ""
    return (
        f"idle for {duration(row.idle_timeout)} ({row.idle_reason});"
        " your files are saved; start it again when you like"
    )


def until_overdue(row: NotebookRow, at: datetime) -> float | None:
    """Seconds until the idle timeout passes, if nothing is used; None: it never does."""
    if not row.idle_timeout or row.active_at is None:
        return None
    passes = row.active_at + timedelta(seconds=row.idle_timeout)
    return max(0.0, (passes - at).total_seconds())
