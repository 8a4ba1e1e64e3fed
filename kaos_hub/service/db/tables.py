"""The service's tables: what is remembered, and how times and digests are written down."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    or_,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The present, with time zone."""
    return datetime.now(UTC)


def contains(search: str, *columns: Any) -> ColumnElement[bool]:
    """That a text stands in one of the columns, in whatever case; its signs mean themselves."""
    wanted = search.lower()
    return or_(*(func.lower(column).contains(wanted, autoescape=True) for column in columns))


class UtcDateTime(TypeDecorator[datetime]):
    """Moments in UTC; SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class DigestBytes(TypeDecorator[str]):
    """A digest ``blake3:<hex>``, kept as its 32 bytes: there may be millions."""

    impl = LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value.removeprefix("blake3:"))

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else f"blake3:{bytes(value).hex()}"


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON(), list[str]: JSON()}


class OwnerRow(Table):
    """An owner, with its name and identity. In all tables it is a key, which outlives names."""

    __tablename__ = "owners"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    # as it is called now, or was last
    name: Mapped[str] = mapped_column(String(255))
    # kind and identity in the Hub; none: not seen since there are identities
    identity: Mapped[str | None] = mapped_column(String(255), unique=True)
    seen: Mapped[datetime]
    # since when the Hub has it no more, if it was found so
    gone: Mapped[datetime | None]


class HoldingRow(Table):
    """An owner holds an object: has sent it, and may name it in a tree. Sizes add up to storage."""

    __tablename__ = "holdings"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestBytes(), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)


class ReservationRow(Table):
    """Storage that is held for content on its way to us. The service that took it up forgets it
    when the content is there, or when it begins anew."""

    __tablename__ = "reservations"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255), index=True)
    size: Mapped[int] = mapped_column(BigInteger)


class VersionRow(Table):
    """One version of a named bundle."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("owner", "kind", "name", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(DigestBytes(), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[int]
    author: Mapped[str] = mapped_column(String(255))
    created: Mapped[datetime]
    current: Mapped[bool]
    # a digest of where its folder was, if the sender said so
    origin: Mapped[str | None] = mapped_column(String(64))


class ImageRow(Table):
    """The result of a build, by owner and key; ``inputs`` is what the key was made of."""

    __tablename__ = "images"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    engine: Mapped[str] = mapped_column(String(32))
    result: Mapped[dict[str, Any]]
    inputs: Mapped[dict[str, Any]]
    job: Mapped[str | None] = mapped_column(String(32))
    created: Mapped[datetime]


class BaseRow(Table):
    """The image that an owner's reference was resolved to, once; ``--pull`` looks again."""

    __tablename__ = "bases"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    engine: Mapped[str] = mapped_column(String(32), primary_key=True)
    reference: Mapped[str] = mapped_column(String(512), primary_key=True)
    resolved: Mapped[str] = mapped_column(String(512))
    at: Mapped[datetime]


ACTIVE_JOBS = ("QUEUED", "SUBMITTED", "RUNNING")


class JobRow(Table):
    """A unit of work. Only :mod:`kaos_hub.service.jobs.jobs` changes its state."""

    __tablename__ = "jobs"
    __table_args__ = (
        # one active job per owner, kind and key: a request for the same joins it
        Index(
            "jobs_one_active",
            "owner",
            "kind",
            "key",
            unique=True,
            sqlite_where=text("state IN ('QUEUED','SUBMITTED','RUNNING')"),
            postgresql_where=text("state IN ('QUEUED','SUBMITTED','RUNNING')"),
        ),
        Index("jobs_by_state", "state"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(String(255))
    key: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    cause: Mapped[str] = mapped_column(String(32), default="")
    progress: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    work: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    deadline: Mapped[int]
    log_base: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    removed: Mapped[bool] = mapped_column(default=False)
    # the user who asked for it, whose limits it counts against, and what it holds while it runs
    author: Mapped[str] = mapped_column(String(255), default="")
    cpu: Mapped[float | None]
    memory: Mapped[int | None] = mapped_column(BigInteger)
    gpu: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str | None] = mapped_column(String(64))


class NotebookRow(Table):
    """A notebook: what is wanted of it, how it is, and what it holds."""

    __tablename__ = "notebooks"
    __table_args__ = (UniqueConstraint("owner", "name"), Index("notebooks_by_state", "state"))
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(32))
    display_name: Mapped[str] = mapped_column(String(120), default="")
    # the wish: RUNNING, STOPPED, or DELETED until it is gone
    wanted: Mapped[str] = mapped_column(String(8), default="STOPPED")
    source_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    data_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    # plain files that are laid over the source's
    context_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    # id of the model that it works on
    run: Mapped[str | None] = mapped_column(String(32))
    # the latest source whose environment was built; what runs follows this one
    good_source_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    # source and context together, as the working copy of what runs follows them
    good_tree: Mapped[str | None] = mapped_column(DigestBytes())
    restart: Mapped[bool] = mapped_column(default=False)
    cpu: Mapped[float | None]
    memory: Mapped[int | None] = mapped_column(BigInteger)
    gpu: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str | None] = mapped_column(String(64))
    idle_timeout: Mapped[int] = mapped_column(default=0)
    idle_type: Mapped[str] = mapped_column(String(32), default="kernels_or_terminals")
    pull: Mapped[bool] = mapped_column(default=False)
    # models.NotebookOptions; never changed in place
    options: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    # what became of the repository among them: state, note, commit, place of models.Clone
    clone: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    # how it is
    state: Mapped[str] = mapped_column(String(16), default="STOPPED")
    reason: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[int] = mapped_column(default=0)
    build_job: Mapped[str | None] = mapped_column(String(32))
    build_state: Mapped[str] = mapped_column(String(16), default="SKIPPED")
    build_reason: Mapped[str] = mapped_column(Text, default="")
    starts: Mapped[int] = mapped_column(default=0)
    workload: Mapped[str] = mapped_column(String(80), default="")
    environment_key: Mapped[str] = mapped_column(String(64), default="")
    mounted_data_id: Mapped[int | None]
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    stopped: Mapped[datetime | None]
    stop_reason: Mapped[str] = mapped_column(Text, default="")
    # what it holds, from admission to release
    held: Mapped[bool] = mapped_column(default=False)
    held_cpu: Mapped[float] = mapped_column(default=0)
    held_memory: Mapped[int] = mapped_column(BigInteger, default=0)
    held_gpu: Mapped[int] = mapped_column(default=0)
    held_pool: Mapped[str | None] = mapped_column(String(64))
    # its owner's name when it was admitted: what the Hub made its address of
    held_name: Mapped[str] = mapped_column(String(255), default="")
    held_options: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    admitted: Mapped[datetime | None]
    # the idle rule
    active_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    idle_reason: Mapped[str] = mapped_column(Text, default="")


class ChoiceRow(Table):
    """The choices of an owner for the notebook that was accepted last."""

    __tablename__ = "choices"
    __table_args__ = (Index("choices_by_asked", "asked"),)
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    # models.Choices
    chosen: Mapped[dict[str, Any]]
    at: Mapped[datetime]
    # when the Hub was last asked whether it still has the owner
    asked: Mapped[datetime]


class VolumeRow(Table):
    """A named place for files, which outlives notebooks."""

    __tablename__ = "volumes"
    __table_args__ = (UniqueConstraint("owner", "name"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(32))
    created: Mapped[datetime]


class WorkloadRow(Table):
    """A notebook's process or container, from its admission until nothing of it is left."""

    __tablename__ = "workloads"
    name: Mapped[str] = mapped_column(String(80), primary_key=True)


class EventRow(Table):
    """An event of a notebook; streams resume from its id."""

    __tablename__ = "events"
    # ids are never used twice, or a resumed stream would miss events
    __table_args__ = (Index("events_by_owner", "owner", "id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    notebook: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    progress: Mapped[int]


class TrainingRow(Table):
    """A training: what it is made of, how far it is, and a summary of its trials.

    The counts are kept by the transactions that move a trial, so that a list reads no trials.
    """

    __tablename__ = "trainings"
    __table_args__ = (
        Index("trainings_by_owner", "owner", "number"),
        Index("trainings_by_state", "state"),
        {"sqlite_autoincrement": True},
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(255))
    # from inside which notebook it was asked for, if from any
    notebook: Mapped[str | None] = mapped_column(String(64))
    # what it is made of
    source_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    data_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    manifest_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    params_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    # kinds of those that the request did not give
    reused: Mapped[list[str]] = mapped_column(JSON(), default=list, server_default="[]")
    slots: Mapped[int] = mapped_column(default=1)
    goal_metric: Mapped[str | None] = mapped_column(String(100))
    goal_direction: Mapped[str | None] = mapped_column(String(8))
    stop_on_failure: Mapped[bool] = mapped_column(default=False)
    cpu: Mapped[float | None]
    memory: Mapped[int | None] = mapped_column(BigInteger)
    gpu: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str | None] = mapped_column(String(64))
    deadline: Mapped[int]
    pull: Mapped[bool] = mapped_column(default=False)
    reproduces: Mapped[str | None] = mapped_column(String(32))
    # how far it is
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[int] = mapped_column(default=0)
    ingest_job: Mapped[str | None] = mapped_column(String(32))
    build_job: Mapped[str | None] = mapped_column(String(32))
    build_reason: Mapped[str] = mapped_column(Text, default="")
    engine: Mapped[str] = mapped_column(String(32), default="")
    environment_key: Mapped[str] = mapped_column(String(64), default="")
    environment: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    # why it was asked to end; empty if it was not
    kill_reason: Mapped[str] = mapped_column(Text, default="")
    losses: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    # its trials
    total: Mapped[int] = mapped_column(default=0)
    queued: Mapped[int] = mapped_column(default=0)
    running: Mapped[int] = mapped_column(default=0)
    succeeded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)
    best_trial: Mapped[int | None]
    best_score: Mapped[float | None]
    metrics: Mapped[list[str]] = mapped_column(JSON(), default=list)


class TrialRow(Table):
    """One run of `train` with one set of parameters."""

    __tablename__ = "trials"
    __table_args__ = (
        Index("trials_by_state", "training", "state", "number"),
        Index("trials_by_score", "training", "score"),
        Index("trials_by_job", "job"),
        Index("trials_by_owner", "owner", "finished"),
    )
    training: Mapped[int] = mapped_column(ForeignKey("trainings.number"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    params: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    attempt: Mapped[int] = mapped_column(default=1)
    # the worker that holds (or held) its lease
    job: Mapped[str | None] = mapped_column(String(32))
    # bytes of its log that earlier attempts wrote
    log_base: Mapped[int] = mapped_column(BigInteger, default=0)
    cancel_reason: Mapped[str] = mapped_column(Text, default="")
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    score: Mapped[float | None]
    points: Mapped[int] = mapped_column(default=0)
    exit_code: Mapped[int | None]
    output: Mapped[str | None] = mapped_column(DigestBytes())
    output_size: Mapped[int] = mapped_column(BigInteger, default=0)
    output_files: Mapped[int] = mapped_column(default=0)
    partial: Mapped[bool] = mapped_column(default=False)
    skipped: Mapped[list[str]] = mapped_column(JSON(), default=list)
    # the version that its model was named as
    named_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class InputRow(Table):
    """The bundle, one of a kind, that an owner trains a source of that name with by default.

    The name is empty for what was given before there was a source.
    """

    __tablename__ = "inputs"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    author: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]


class IngestRow(Table):
    """Files fetched by a manifest: a data bundle, and an index of which file came from where."""

    __tablename__ = "ingests"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    manifest: Mapped[str] = mapped_column(DigestBytes(), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    index: Mapped[str] = mapped_column(DigestBytes())
    # none: not all of it was fetched (yet)
    data_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    at: Mapped[datetime]


class TrainingEventRow(Table):
    """An event of a training; streams resume from its id."""

    __tablename__ = "training_events"
    # ids are never used twice, or a resumed stream would miss events
    __table_args__ = (
        Index("training_events_by_owner", "owner", "id"),
        Index("training_events_by_training", "training", "id"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    training: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    progress: Mapped[int]
    trials: Mapped[dict[str, Any]]
