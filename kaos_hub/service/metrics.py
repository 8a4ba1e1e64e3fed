"""The metrics for Prometheus. They are served on the private listener only."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kaos_hub.schemas import JobState, NotebookState
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow, NotebookRow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The service's counters, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "kaos_request_duration_seconds",
            "Time from request to end of answer; streams last as long as they are open",
            ["method", "route", "status"],
            buckets=(0.005, 0.025, 0.1, 0.5, 2, 10, 60),
            registry=self._registry,
        )
        self.uploaded = Counter(
            "kaos_upload_bytes", "Bytes of objects received", registry=self._registry
        )
        self._jobs = Gauge("kaos_jobs", "Jobs by state", ["state"], registry=self._registry)
        self._notebooks = Gauge(
            "kaos_notebooks", "Notebooks by state", ["state"], registry=self._registry
        )
        self._streams = Gauge(
            "kaos_open_streams", "Answers being streamed", registry=self._registry
        )

    def watch_streams(self, streams: Collection[object]) -> None:
        """Report the number of open streams whenever the metrics are read."""
        self._streams.set_function(lambda: len(streams))

    def observe(self, method: str | None, route: str, status: int, seconds: float) -> None:
        """Count a request. ``route`` must be a pattern, not a path: there is no end of paths."""
        self._requests.labels(method or "?", route, str(status)).observe(seconds)

    async def render(self, db: Database) -> bytes:
        """Return the present values, as text. States are counted now, in one transaction.

        Raises:
            Unavailable: the database does not answer.
        """
        jobs, notebooks = await db.run(_counts)
        for job_state in JobState:
            self._jobs.labels(job_state).set(jobs.get(job_state, 0))
        for state in NotebookState:
            self._notebooks.labels(state).set(notebooks.get(state, 0))
        return generate_latest(self._registry)


def _counts(session: Session) -> tuple[dict[str, int], dict[str, int]]:
    jobs = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    notebooks = session.execute(select(NotebookRow.state, func.count()).group_by(NotebookRow.state))
    return dict(jobs.tuples().all()), dict(notebooks.tuples().all())
