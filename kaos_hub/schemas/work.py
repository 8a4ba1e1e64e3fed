"""Between a workload of ours and the service, with a ticket instead of a login."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.trainings import MetricPoint, Metrics, Output
from kaos_hub.schemas.words import Digest


class EndedBy(StrEnum):
    """The cause of a trial's end."""

    ITSELF = "itself"
    """It ended; the exit code says how."""
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE = "deadline"
    STORAGE = "storage"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"
    """There is no `train`, or it cannot be executed."""


class TrialEnd(Model):
    """A worker tells how a trial ended. Told twice, it counts once."""

    trial: int
    attempt: int
    by: EndedBy = EndedBy.ITSELF
    exit_code: int | None = None
    reason: str = Field("", max_length=2000, description="for people; empty if all went well")
    metrics: Metrics = {}
    output: Output | None = Field(None, description="all of its objects have been sent before")
    started: datetime
    finished: datetime


class Lease(Model):
    """A trial for a worker to run."""

    trial: int
    attempt: int
    params: dict[str, Any] | None
    deadline: int = Field(description="seconds that it may take")


class LeaseRequest(Model):
    """A worker tells how its trial ended, and asks for the next."""

    ended: TrialEnd | None = None


class LeaseAnswer(Model):
    """The next trial; none: nothing is left for this worker, and it ends.

    A worker that asks while it holds a lease gets the same one again: its answer was lost.
    """

    lease: Lease | None = None


class Beat(Model):
    """A worker lives, and tells what its trial has said of itself since."""

    trial: int
    attempt: int
    points: list[MetricPoint] = Field([], max_length=1000)


class BeatAnswer(Model):
    """An answer that tells whether the trial is still wanted."""

    cancel: bool = False


class LogAnswer(Model):
    """The number of bytes of a trial's log that the service has."""

    size: int


class Fetched(Model):
    """A file that an earlier ingest fetched."""

    path: str
    url: str
    digest: Digest
    size: int
    sha256: str | None = None


class IngestOrder(Model):
    """An order for an ingest, which says what to fetch."""

    manifest: Digest
    index: Digest | None = Field(
        None, description="object with what the last one fetched: JSON lines of Fetched"
    )
    allow: list[str] = Field([], description="networks (CIDR) that may be reached though private")
    schemes: list[str] = ["http", "https"]
    parallel: int = 8
    max_size: int = Field(description="bytes that may be fetched; those held already do not count")


class IngestPart(Model):
    """The files that an ingest has fetched up to now.

    It sends this with POST ``work/v1/fetched``, now and then and before it fails. It can be the
    index of the next order for the same manifest, or a corrected one.
    """

    index: Digest = Field(description="JSON lines of Fetched; all of its objects have been sent")


class IngestEnd(Model):
    """The files that an ingest has fetched; all of its objects have been sent before."""

    root: Digest
    index: Digest
    files: int
    size: int
    fetched: int = Field(description="files that were fetched now")
