"""The idle rule: each type, in words, from real evidence only."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kaos_hub.schemas import Activity, IdleType, KernelEvidence, TerminalEvidence
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks import idle
from kaos_hub.workload.memory_watch import MemoryWatch

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def running(type: IdleType, timeout: int = 600) -> NotebookRow:
    return NotebookRow(
        idle_type=type, idle_timeout=timeout, started=START, admitted=START, active_at=None,
        reported_at=None, idle_reason="",
    )  # fmt: skip


def report(
    *, use: datetime = START, kernels: Sequence[tuple[str, int]] = (), terminals: int = 0
) -> Activity:
    return Activity(
        last_use=use,
        kernels=[
            KernelEvidence(execution_state=state, connections=n, last_activity=START)
            for state, n in kernels
        ],
        terminals=[TerminalEvidence(last_activity=START)] * terminals,
    )


@pytest.mark.parametrize("type", IdleType)
def test_a_silent_busy_kernel_is_use_under_every_type(type: IdleType) -> None:
    row = running(type)
    for minutes in range(0, 600, 10):
        at = START + minutes * MINUTE
        idle.judge(row, report(kernels=[("busy", 0)]), at)
        assert not idle.overdue(row, at)
    assert idle.verdict(row, at).reason == "in use: 1 kernel busy"


@pytest.mark.parametrize("type", IdleType)
def test_fresh_use_is_not_called_no_use(type: IdleType) -> None:
    row = running(type)
    idle.judge(row, report(use=START), START)
    assert idle.verdict(row, START).reason == "in use just now"


@pytest.mark.parametrize("type", IdleType)
def test_an_unused_notebook_goes_with_its_reason(type: IdleType) -> None:
    row = running(type)
    for minutes in range(10):
        at = START + minutes * MINUTE
        idle.judge(row, report(), at)
        assert not idle.overdue(row, at)
    at = START + 10 * MINUTE
    idle.judge(row, report(), at)
    why = idle.overdue(row, at)
    assert why.startswith("idle for 10 min (")
    assert "since 12:00 UTC" in why


@pytest.mark.parametrize(
    ("type", "evidence", "kept"),
    [
        (IdleType.KERNELS_OR_TERMINALS, {"kernels": [("idle", 0)]}, True),
        (IdleType.KERNELS_OR_TERMINALS, {"terminals": 1}, True),
        (IdleType.KERNEL_CONNECTIONS, {"kernels": [("idle", 0)]}, False),
        (IdleType.KERNEL_CONNECTIONS, {"kernels": [("idle", 1)]}, True),
        (IdleType.KERNEL_CONNECTIONS, {"terminals": 1}, False),
        (IdleType.ACTIVITY, {"kernels": [("idle", 5)], "terminals": 2}, False),
    ],
)
def test_what_keeps_a_notebook_depends_on_its_type(
    type: IdleType, evidence: dict[str, object], kept: bool
) -> None:
    row = running(type)
    at = START + 60 * MINUTE
    idle.judge(row, report(**evidence), at)  # type: ignore[arg-type]
    assert bool(idle.overdue(row, at)) != kept


@pytest.mark.parametrize("type", IdleType)
def test_a_write_is_use(type: IdleType) -> None:
    row = running(type)
    at = START + 60 * MINUTE
    idle.judge(row, report(use=at - 5 * MINUTE), at)
    assert not idle.overdue(row, at)
    verdict = idle.verdict(row, at)
    assert verdict.idle
    assert verdict.stops_at == at + 5 * MINUTE
    assert verdict.reason.startswith("stops in 5 min: ")


def test_a_clock_ahead_promises_nothing() -> None:
    row = running(IdleType.ACTIVITY)
    idle.judge(row, report(use=START + 1000 * MINUTE), START)
    at = START + 11 * MINUTE
    idle.judge(row, report(use=START), at)
    assert idle.overdue(row, at)


@pytest.mark.parametrize("minutes", [-300, -1, 0, 1, 300])
def test_a_wrong_clock_stops_nothing_sooner(minutes: int) -> None:
    """How long ago the last use was counts, by the clock that saw it."""
    row, wrong = running(IdleType.ACTIVITY), minutes * MINUTE
    at = START + 60 * MINUTE
    seen = report(use=at - 5 * MINUTE + wrong).model_copy(update={"at": at + wrong})
    idle.judge(row, seen, at)
    assert not idle.overdue(row, at)
    assert idle.until_overdue(row, at) == 300
    assert idle.overdue(row, at + 5 * MINUTE)


def test_no_timeout_never_stops() -> None:
    row = running(IdleType.ACTIVITY, timeout=0)
    at = START + 10000 * MINUTE
    idle.judge(row, report(), at)
    assert not idle.overdue(row, at)
    assert idle.verdict(row, at).reason.endswith("it may stay so")


def test_what_the_kernel_ends_for_want_of_memory_is_seen(tmp_path: Path) -> None:
    """In a file of cgroup v1 or v2, whichever is there; what was before our start is not ours."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\n")
    watch = MemoryWatch([tmp_path / "absent", events])
    assert watch.last_end() is None
    events.write_text("low 0\noom 4\noom_kill 3\n")
    first = watch.last_end()
    assert first is not None
    assert watch.last_end() == first
    events.unlink()
    assert watch.last_end() == first
