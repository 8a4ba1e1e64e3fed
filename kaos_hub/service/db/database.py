"""The service's database, and the one thread that touches it.

The service is one process and the only writer. All transactions run, one after the other, in a
single thread of their own: the event loop never waits for the database, and a transaction that
reads and then writes cannot be overtaken, on SQLite and PostgreSQL alike. That is what makes
admission exact.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, OperationalError
from sqlalchemy.orm import Session

from kaos_hub.errors import InvalidRequest, KaosError, NotFound, Unavailable

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
_NOTICE_LOSS = {
    "connect_timeout": 3, "tcp_user_timeout": 8000,
    "keepalives_idle": 3, "keepalives_interval": 2, "keepalives_count": 3,
}  # fmt: skip
"""Seconds (milliseconds of the second) after which PostgreSQL counts as away, if its machine or the
way to it is silently gone. Else the one thread would wait for minutes, and all requests with it."""
_MIGRATING = 6_018_203_944_151
"""The number of our lock; a database may have locks of others."""
_PATIENCE = 600
"""Seconds for which one waits while another changes the tables."""


class Database:
    """A SQLite file or a PostgreSQL database, used from one thread.

    Args:
        url: an SQLAlchemy URL, e.g. ``sqlite:////data/kaos.sqlite`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        self.url = url = _with_driver(url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        # one connection, tested before use: a database that was away is simply found again
        self._engine = create_engine(
            url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=_settings(url)
        )
        if self._engine.dialect.name == "sqlite":
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

        All of it is one transaction: a process that is killed leaves the tables as they were. Of
        several at once, one does it; the others wait, and find it done.

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
    """Do the same on SQLite, where no other writes meanwhile.

    SQLite's own driver begins a transaction only with the first row that is written, and tables
    can only be made anew while foreign keys are not enforced.
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
    except (ArgumentError, ValueError):
        raise InvalidRequest(
            "The URL of the database (c.KaosService.database_url) cannot be read. One looks like"
            " postgresql://kaos:password@db.example.org/kaos; in a password, characters like / and"
            " @ are written %2F and %40."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername.partition("+")[0] not in ("sqlite", "postgresql"):
        raise InvalidRequest(
            f"The database is one of {parsed.drivername} (c.KaosService.database_url); the service"
            " works on SQLite and PostgreSQL."
        )
    if parsed.drivername == "postgresql+psycopg" and not find_spec("psycopg"):
        raise InvalidRequest("PostgreSQL needs psycopg: pip install 'kaos-hub[postgresql]'")
    return str(parsed.render_as_string(hide_password=False))


def _settings(url: str) -> dict[str, int]:
    """Of a connection, where the URL itself says nothing else."""
    parsed = make_url(url)
    if not parsed.drivername.startswith("postgresql"):
        return {}
    return {name: value for name, value in _NOTICE_LOSS.items() if name not in parsed.query}


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
