"""All rows of a database as lines, and back; of SQLite as of PostgreSQL."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any, TextIO

from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table as AnyTable,
    insert,
    inspect,
    select,
    text,
)

from kaos_hub.service.db.database import MIGRATIONS
from kaos_hub.service.db.tables import Table

_AT_ONCE = 500
VERSION_TABLE = "alembic_version"

Row = tuple[str, dict[str, Any]]
"""The table, and what is in it."""


def write(connection: Connection, file: TextIO) -> dict[str, int]:
    """Write all rows; how many there are of each table."""
    counts = {}
    for table in Table.metadata.sorted_tables:
        rows = connection.execution_options(yield_per=_AT_ONCE).execute(select(table))
        counts[table.name] = 0
        for row in rows.mappings():
            said = {name: _plain(value) for name, value in row.items()}
            file.write(json.dumps([table.name, said], separators=(",", ":")) + "\n")
            counts[table.name] += 1
    return counts


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def revision(connection: Connection) -> str:
    """Return the revision of the tables; empty if there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) or "")  # noqa: S608


def newest() -> str:
    """The revision that this version of kaos_hub works with."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


def are_there(connection: Connection) -> list[str]:
    """The tables that have rows."""
    there = set(inspect(connection).get_table_names())

    def has_rows(table: str) -> bool:
        return connection.execute(text(f"SELECT 1 FROM {table} LIMIT 1")).first() is not None  # noqa: S608

    return [name for name in Table.metadata.tables if name in there and has_rows(name)]


def drop(connection: Connection) -> None:
    """Drop all tables of ours."""
    there = MetaData()
    ours = {*Table.metadata.tables, VERSION_TABLE}
    there.reflect(connection, only=lambda name, _: name in ours)
    there.drop_all(connection)


def read(file: Iterable[str]) -> Iterator[Row]:
    """The lines as rows."""
    for line in file:
        table, said = json.loads(line)
        yield table, said


def fill(connection: Connection, rows: Iterable[Row]) -> None:
    """Insert rows into tables of the revision that they are of."""
    there = MetaData()
    there.reflect(connection)
    for name, of_one in groupby(rows, key=lambda row: row[0]):
        table = there.tables[name]
        for column in table.columns:
            if isinstance(column.type, JSON) and column.nullable:
                column.type = JSON(none_as_null=True)
        values = (_values(table, said, connection.dialect.name) for _, said in of_one)
        while batch := list(islice(values, _AT_ONCE)):
            connection.execute(insert(table), batch)


def _values(table: AnyTable, said: dict[str, Any], dialect: str) -> dict[str, Any]:
    return {name: _typed(table.columns[name], value, dialect) for name, value in said.items()}


def _typed(column: "Column[Any]", value: Any, dialect: str) -> Any:
    if value is None:
        return None
    if isinstance(column.type, DateTime):
        at = datetime.fromisoformat(value).astimezone(UTC)
        return at.replace(tzinfo=None) if dialect == "sqlite" else at
    if isinstance(column.type, LargeBinary):
        return bytes.fromhex(value.removeprefix("blake3:"))
    return value


# --- the numbers that are given next ---


def _numbered() -> Iterator[tuple[str, str]]:
    """Tables whose rows are numbered, with the column."""
    for table in Table.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            yield table.name, column.name


def last_numbers(connection: Connection) -> dict[str, int]:
    """The last number that was given in each table, also to a row that is gone: none is given
    twice."""
    found = {}
    for table, column in _numbered():
        last = connection.scalar(text(f"SELECT max({column}) FROM {table}")) or 0  # noqa: S608
        found[table] = max(last, _given(connection, table, column))
    return found


def _given(connection: Connection, table: str, column: str) -> int:
    if connection.dialect.name == "sqlite":
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
        return int(connection.scalar(query, {"table": table}) or 0)
    sequence = _sequence(connection, table, column)
    query = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
    return int(connection.scalar(query) or 0)


def _sequence(connection: Connection, table: str, column: str) -> str:
    query = text("SELECT pg_get_serial_sequence(:table, :column)")
    return str(connection.scalar(query, {"table": table, "column": column}))


def go_on_after(connection: Connection, last: dict[str, int]) -> None:
    """Give higher numbers from now on."""
    for table, column in _numbered():
        number = last.get(table, 0)
        if not number:
            continue
        said = {"table": table, "number": number}
        if connection.dialect.name == "postgresql":
            sequence = _sequence(connection, table, column)
            connection.execute(text("SELECT setval(:s, :number)"), {"s": sequence, **said})
            continue
        known = text("UPDATE sqlite_sequence SET seq = :number WHERE name = :table")
        if not connection.execute(known, said).rowcount and _counts(connection, table):
            new = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)")
            connection.execute(new, said)


def _counts(connection: Connection, table: str) -> bool:
    """Return whether SQLite remembers the numbers of a table beyond its rows."""
    made = text("SELECT sql FROM sqlite_master WHERE name = :table")
    return "AUTOINCREMENT" in str(connection.scalar(made, {"table": table})).upper()
