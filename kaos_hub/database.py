"""The service's tables, and the one thread that touches them.

The service is one process and the only writer. All transactions run, one after the other, in a
single thread of their own: the event loop never waits for the database, and a transaction that
reads and then writes cannot be overtaken, on SQLite and PostgreSQL alike. That is what makes
admission exact.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
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
    create_engine,
    event,
    func,
    make_url,
    or_,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from kaos_hub.errors import InvalidRequest, KaosError, NotFound, Unavailable

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
_NOTICE_LOSS = {
    "connect_timeout": 3, "tcp_user_timeout": 8000,
    "keepalives_idle": 3, "keepalives_interval": 2, "keepalives_count": 3,
}  # fmt: skip
"""Seconds (milliseconds of the second) after which PostgreSQL counts as away, if its machine or the
way to it is silently gone. Else the one thread would wait for minutes, and everybody with it."""
_MIGRATING = 6_018_203_944_151
"""The number of our lock; a database may have locks of others."""
_PATIENCE = 600
"""Seconds for which one waits while another changes the tables."""


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


class HoldingRow(Table):
    """An owner holds an object: has sent it, and may name it in a tree. Sizes add up to storage."""

    __tablename__ = "holdings"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestBytes(), primary_key=True)
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


class ImageRow(Table):
    """What a build left, by owner and key; ``inputs`` is what the key was made of."""

    __tablename__ = "images"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    engine: Mapped[str] = mapped_column(String(32))
    result: Mapped[dict[str, Any]]
    inputs: Mapped[dict[str, Any]]
    job: Mapped[str | None] = mapped_column(String(32))
    created: Mapped[datetime]


class BaseRow(Table):
    """What an image reference was resolved to, once; ``--pull`` looks again."""

    __tablename__ = "bases"
    engine: Mapped[str] = mapped_column(String(32), primary_key=True)
    reference: Mapped[str] = mapped_column(String(512), primary_key=True)
    resolved: Mapped[str] = mapped_column(String(512))
    at: Mapped[datetime]


ACTIVE_JOBS = ("QUEUED", "SUBMITTED", "RUNNING")


class JobRow(Table):
    """A unit of work. Only :mod:`kaos_hub.jobs` changes its state."""

    __tablename__ = "jobs"
    __table_args__ = (
        # one active job per owner, kind and key: whoever asks for the same joins it
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
    # the wish
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
    held_options: Mapped[dict[str, Any]] = mapped_column(JSON(), default=dict)
    admitted: Mapped[datetime | None]
    # the idle rule
    active_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    idle_reason: Mapped[str] = mapped_column(Text, default="")


class ChoiceRow(Table):
    """What an owner chose for the notebook that was accepted last."""

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
    """What happened to a notebook; streams resume from its ids."""

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
    # who wants its end, if anybody
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
    """What an owner trains with where nothing else is said, by kind of bundle."""

    __tablename__ = "inputs"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    author: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]


class IngestRow(Table):
    """What was fetched by a manifest: a data bundle, and an index of which file came from where."""

    __tablename__ = "ingests"
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    manifest: Mapped[str] = mapped_column(DigestBytes(), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    index: Mapped[str] = mapped_column(DigestBytes())
    # none: not all of it was fetched (yet)
    data_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    at: Mapped[datetime]


class TrainingEventRow(Table):
    """What happened to a training; streams resume from its ids."""

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


class Database:
    """A SQLite file or a PostgreSQL database, used from one thread.

    Args:
        url: an SQLAlchemy URL, e.g. ``sqlite:////data/kaos.sqlite`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        self.url = url = _with_driver(url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        # one connection, tested before use: a database that was away is simply found again
        sqlite = url.startswith("sqlite")
        self._engine = create_engine(
            url, pool_size=1, max_overflow=0, pool_pre_ping=True,
            connect_args={} if sqlite else _NOTICE_LOSS,
        )  # fmt: skip
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)

    @property
    def shown(self) -> str:
        """Its URL without the password."""
        return self._engine.url.render_as_string(hide_password=True)

    async def probe(self) -> None:
        """See whether it answers.

        Raises:
            Unavailable: it does not; says what to look at.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._probe)

    def _probe(self) -> None:
        with self._explaining(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    async def run(self, transaction: Callable[[Session], T]) -> T:
        """Run a function in one transaction, alone. What it returns must not be a live row.

        Raises:
            Unavailable: the database is full, read-only, locked or away; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, transaction)

    def _run(self, transaction: Callable[[Session], T]) -> T:
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                return transaction(session)
        except KaosError:
            raise
        except DBAPIError as e:
            if e.connection_invalidated or isinstance(e, OperationalError | InternalError):
                cause = str(e.orig).strip().split("\n")[0]
                raise Unavailable(
                    f"The database cannot do that now ({cause}). Nothing was changed; try again."
                ) from e
            raise

    async def migrate(self, revision: str = "head") -> None:
        """Bring the tables up to date with this version of kaos_hub, or to another revision.

        All of it is one transaction: whoever is killed leaves the tables as they were. Of several
        at once, one does it; the others wait, and find it done.

        Raises:
            Unavailable: the database cannot be used.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._migrate, revision)

    def _migrate(self, revision: str) -> None:
        self._remake(lambda _, upgrade: upgrade(revision))

    async def remake(self, change: Callable[[Connection, Callable[[str], None]], None]) -> None:
        """Change the tables themselves, alone, in one transaction.

        Args:
            change: is given the connection, and what brings the tables to a revision (and raises
                NotFound if it knows none such).

        Raises:
            Unavailable: the database cannot be used.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._remake, change)

    def _remake(self, change: Callable[[Connection, Callable[[str], None]], None]) -> None:
        alone = _alone_on_sqlite if self._engine.dialect.name == "sqlite" else _alone_on_postgresql
        with self._explaining(), self._engine.connect() as connection, alone(connection):
            change(connection, lambda revision: _upgrade(connection, revision))

    async def look(self, look: Callable[[Connection], T]) -> T:
        """Read what there is at one moment, however long it takes. Others go on writing.

        Raises:
            Unavailable: the database cannot be used.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, look)

    def _look(self, look: Callable[[Connection], T]) -> T:
        with self._explaining(), self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            return look(connection)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as e:
            cause = str(e.orig).strip().split("\n")[0]
            raise Unavailable(
                f"The database {self.shown} cannot be used: {cause}. Is it there, and is"
                " c.KaosService.database_url right?"
            ) from e

    def close(self) -> None:
        """Finish what runs, then let go of the database."""
        self._thread.shutdown(wait=True)
        self._engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as e:
        raise NotFound(f"The database is of a newer kaos_hub: {e}. Install that.") from e


@contextlib.contextmanager
def _alone_on_postgresql(connection: Connection) -> Iterator[None]:
    """A transaction that no other of ours accompanies: the lock ends with it, however it ends."""
    with connection.begin():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
        yield


@contextlib.contextmanager
def _alone_on_sqlite(connection: Connection) -> Iterator[None]:
    """The same. SQLite's own driver begins a transaction only with the first row that is written,
    and tables can only be made anew while nobody looks at what refers to them.
    """
    # Before the transaction: within one it would change nothing.
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_PATIENCE * 1000}")
    connection.commit()
    try:
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield
    finally:
        _prepare_sqlite(connection.connection.dbapi_connection, None)


def _with_driver(url: str) -> str:
    """The URL with the driver that comes with kaos_hub, where it names none.

    Raises:
        InvalidRequest: it is none. It is not shown: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidRequest(
            "The URL of the database (c.KaosService.database_url) cannot be read. One looks like"
            " postgresql://kaos:password@db.example.org/kaos; in a password, characters like / and"
            " @ are written %2F and %40."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return str(parsed.render_as_string(hide_password=False))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # WAL and NORMAL: a crash of the process loses nothing, a power cut at most the last moment,
    # and the file is never torn.
    pragmas = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    # Its own knows no letters but those of ASCII.
    connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
