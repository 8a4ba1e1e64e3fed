"""Fixtures that many tests share."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import postgres, s3
from tests.hub import RunningHub, running_hub


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL's server is not installed")
    with postgres.server() as server:
        yield server.url


@pytest.fixture(scope="session")
def s3_server() -> Iterator["s3.Server"]:
    """An S3 server of our own."""
    if not s3.available():
        pytest.skip(s3.WHY_NOT)
    with s3.server() as server:
        yield server


@pytest.fixture(scope="session")
def cluster_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One hub on the cluster for all tests of the whole there, which are next to each other."""
    from tests.cluster import hub_on_cluster

    with hub_on_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[object]:
    """An empty, migrated database: SQLite and PostgreSQL in turn."""
    from sqlalchemy import create_engine, text

    from kaos_hub.database import Database

    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/kaos.sqlite"
    else:
        url = request.getfixturevalue("postgres_url")
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        engine.dispose()
    database = Database(url)
    await database.migrate()
    yield database
    database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = tmp_path / "small-disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"no small file system can be mounted: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A real Hub with the kaos service on the local engine, shared by tests that leave it whole."""
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running
