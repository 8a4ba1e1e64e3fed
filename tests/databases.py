"""The databases that tests run on: SQLite files, or those of a PostgreSQL server of our own.

With ``KAOS_TEST_DATABASE=postgresql`` every Hub of the tests and every world has a PostgreSQL
database of its own. Each is a copy of one that was migrated once, which takes milliseconds.
"""

import asyncio
import atexit
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.db.database import Database
from tests import postgres

CHOSEN = os.environ.get("KAOS_TEST_DATABASE") or ""
KINDS = ["sqlite", "postgresql"]
"""Of tests that look at the database itself."""

_numbers = count(1)
_TEMPLATE = "kaos_template"


def chosen_kinds() -> list[str]:
    """The kinds that tests of the database run on."""
    return [CHOSEN] if CHOSEN else KINDS


def sqlite_url(directory: Path) -> str:
    """A new SQLite file."""
    return f"sqlite:///{directory}/kaos.sqlite"


def usual_url(directory: Path) -> str:
    """A database of the kind that was chosen, for one test: migrated, or a SQLite file to be."""
    return postgresql_url() if CHOSEN == "postgresql" else sqlite_url(directory)


def postgresql_url(template: bool = True) -> str:
    """A PostgreSQL database that nobody uses: migrated, or empty."""
    name = f"test_{next(_numbers)}"
    _admin(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if template else 'template0'}")
    return _url(name)


def drop(url: str) -> None:
    """Give up a database that :func:`postgresql_url` made; of a SQLite file, nothing."""
    name = make_url(url).database or ""
    if name.startswith("test_"):
        _admin(f"DROP DATABASE {name} WITH (FORCE)")


def prepare(data: Path) -> None:
    """Have what is in a data directory use a database of the kind that was chosen."""
    secret = DataDir(data).secrets / "database-url"
    if CHOSEN == "postgresql" and not secret.exists():
        secret.touch(0o600)
        secret.write_text(postgresql_url())


def url_of(data: Path) -> str:
    """The URL of the database that a data directory uses."""
    known = DataDir(data, create=False)
    there = known.has_secret("database-url")
    return known.secret("database-url") if there else f"sqlite:///{known.database}"


@cache
def _server() -> postgres.Server:
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL's server is not installed")
    server = postgres.Server()
    atexit.register(server.remove)
    atexit.register(server.stop)
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {_TEMPLATE}"))
    engine.dispose()
    # In a thread of its own: whoever calls may be in the middle of an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _migrate(_named(server, _TEMPLATE))).result()
    return server


async def _migrate(url: str) -> None:
    template = Database(url)
    await template.migrate()
    template.close()


def _named(server: postgres.Server, name: str) -> str:
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)


def _url(name: str) -> str:
    return _named(_server(), name)


def _admin(statement: str) -> None:
    engine = create_engine(_server().url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
