"""The idle rule over random schedules: cells, other use, late and lost reports, wrong clocks.

Time is simulated; what judges is what runs: :mod:`kaos_hub.service.notebooks.idle` on the service's
side, :func:`kaos_hub.workload.notebook.idle_watch.used_since` on the notebook's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings, strategies as st

from kaos_hub.schemas import Activity, IdleType, KernelEvidence
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks import idle
from kaos_hub.workload.notebook.idle_watch import used_since

EPOCH = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
TIMEOUT, INTERVAL = 60, 30
END = 2000.0


def instant(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Trip:
    """What the network does with one report and its answer."""

    there: float = 0.0
    back: float = 0.0
    lost: bool = False
    """Either of them: nothing comes of it."""


@dataclass
class Schedule:
    """What happens in a notebook: cells with their lengths in seconds, and moments of other use."""

    cells: Sequence[tuple[float, float]]
    uses: Sequence[float] = ()
    trips: Sequence[Trip] = ()
    """Of each report in turn; those that follow are on time."""
    wrong: float = 0.0
    """Seconds by which the notebook's clock is ahead."""
    row: NotebookRow = field(
        default_factory=lambda: NotebookRow(
            idle_type=IdleType.ACTIVITY, idle_timeout=TIMEOUT, started=EPOCH, admitted=EPOCH,
            active_at=None, reported_at=None, idle_reason="",
        )
    )  # fmt: skip

    def busy(self, at: float) -> bool:
        return any(begin <= at < begin + length for begin, length in self.cells)

    def last_use(self, at: float) -> float:
        """When the notebook was last in use, at that moment."""
        if self.busy(at):
            return at
        ends = [begin + length for begin, length in self.cells if begin + length <= at]
        return max([0.0, *ends, *(use for use in self.uses if use <= at)])

    def evidence(self, at: float) -> Activity:
        """What the notebook reports."""
        state = "busy" if self.busy(at) else "idle"
        last = instant(self.last_use(at) + self.wrong)
        kernel = KernelEvidence(execution_state=state, last_activity=last)
        return Activity(kernels=[kernel], last_use=last, at=instant(at + self.wrong))

    def stopped(self) -> float | None:
        """When the notebook ends itself; None if it still runs when all is over."""
        now, trips = 0.0, iter(self.trips)
        while now < END:
            trip = next(trips, Trip())
            told = self.evidence(now)
            if trip.lost:
                now += INTERVAL
                continue
            arrived = instant(now + trip.there)
            idle.judge(self.row, told, arrived)
            may = idle.overdue(self.row, arrived)
            due = idle.until_overdue(self.row, arrived)
            now += trip.there + trip.back
            if may and not used_since(told, self.evidence(now)):
                return now
            now += 1.0 if may else max(1.0, min(INTERVAL, (due or 0.0) + 1))
        return None


moments = st.floats(0, 900, allow_nan=False)
delays = st.floats(0, 120, allow_nan=False)
schedules = st.builds(
    Schedule,
    cells=st.lists(st.tuples(moments, st.floats(0.1, 300)), max_size=6),
    uses=st.lists(moments, max_size=6),
    trips=st.lists(st.builds(Trip, delays, delays, st.booleans()), max_size=30),
    wrong=st.sampled_from([0.0, -3600.0, -45.0, 45.0, 3600.0]),
)


@settings(max_examples=300, deadline=None)
@given(schedules)
@example(Schedule(cells=[(0, 1), (61.5, 30)]))
@example(Schedule(cells=[(0, 1), (62.5, 30)], trips=[Trip()] * 3 + [Trip(1.0, 1.0)]))
@example(Schedule(cells=[(90, 30)], trips=[Trip(lost=True)] * 2 + [Trip(60.0)]))
def test_no_cell_that_runs_is_ended_and_no_use_is_forgotten(schedule: Schedule) -> None:
    at = schedule.stopped()
    assert at is not None, "an unused notebook is stopped some day"
    assert not schedule.busy(at)
    assert at - schedule.last_use(at) >= TIMEOUT - 0.001


@given(st.floats(0, 900), st.sampled_from([0.0, -3600.0, 3600.0]))
def test_an_unused_notebook_ends_when_its_time_has_passed(use: float, wrong: float) -> None:
    schedule = Schedule(cells=[], uses=[use], wrong=wrong)
    at = schedule.stopped()
    assert at is not None
    assert TIMEOUT <= at - schedule.last_use(at) + 0.001 <= TIMEOUT + 3


def test_a_notebook_that_is_not_heard_runs_on() -> None:
    assert Schedule(cells=[], trips=[Trip(lost=True)] * 1000).stopped() is None
