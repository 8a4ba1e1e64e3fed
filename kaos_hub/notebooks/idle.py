"""The idle rule: from evidence to a verdict in words.

A notebook is idle when nobody uses it *and* the condition of its idle type does not hold. Under
every type a write or an execution is use and a busy kernel is use, however silent; background
polling never is. Missing evidence stops nothing.
"""

from datetime import datetime, timedelta

from kaos_hub.models import Activity, IdleType, IdleVerdict
from kaos_hub.quantities import about, duration
from kaos_hub.tables import NotebookRow


def in_use(type: IdleType, seen: Activity) -> str | None:
    """What keeps the notebook in use at this moment, in words; None if nothing does."""
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
    last_use = min(seen.last_use, at)  # a clock of its own cannot promise use to come
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
    """What the rule says now."""
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


def overdue(row: NotebookRow, at: datetime, silence: timedelta) -> str | None:
    """Why the notebook is to be stopped now, or None.

    Args:
        row: a running notebook.
        at: the present.
        silence: a notebook that has not reported for this long is not judged.
    """
    if not row.idle_timeout or row.active_at is None or row.reported_at is None:
        return None
    if at - row.reported_at > silence:
        return None
    if at - row.active_at < timedelta(seconds=row.idle_timeout):
        return None
    return (
        f"idle for {duration(row.idle_timeout)} ({row.idle_reason});"
        " your files are saved; start it again when you like"
    )
