"""Fixtures that many tests share."""

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import databases, s3
from tests.hub import RunningHub, running_hub
from tests.networks import dismiss_all_below


@pytest.fixture(scope="session", autouse=True)
def networks_go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Owners' networks, their guards and rules are gone in the end, whatever a test left."""
    yield
    if shutil.which("docker"):
        dismiss_all_below(tmp_path_factory.getbasetemp())


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


@pytest_asyncio.fixture(params=databases.chosen_kinds())
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[object]:
    """An empty, migrated database: SQLite and PostgreSQL in turn."""
    kinds = {
        "sqlite": lambda: databases.sqlite_url(tmp_path),
        "postgresql": databases.postgresql_url,
    }
    async with _opened(kinds[request.param]()) as database:
        yield database


@pytest_asyncio.fixture
async def usual_db(tmp_path: Path) -> AsyncIterator[object]:
    """An empty, migrated database of the usual kind, for what does not depend on it."""
    async with _opened(databases.usual_url(tmp_path)) as database:
        yield database


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[object]:
    from kaos_hub.service.db.database import Database

    database = Database(url)
    await database.migrate()
    yield database
    database.close()
    databases.drop(url)


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
