"""The whole service on PostgreSQL: as on SQLite, also through a moment without its database."""

import time
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import Unavailable
from tests import postgres
from tests.hub import running_hub

needs_postgresql = pytest.mark.skipif(
    postgres.binaries() is None, reason="PostgreSQL's server is not installed"
)


@needs_postgresql
def test_a_notebook_lives_on_postgresql_and_through_its_restart(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("1")
    with postgres.server() as database:
        config = f"c.KaosService.database_url = {database.url!r}\n"
        with running_hub(tmp_path / "hub", config=config) as hub:
            kaos = Client(hub.url, hub.token("ada"))
            notebook = kaos.notebooks.deploy(name="one", data=tmp_path / "data").wait()
            assert notebook.state == "RUNNING"
            assert not (hub.data / "kaos.sqlite").exists()
            database.stop()
            with pytest.raises(Unavailable, match="database"):
                kaos.notebooks.get("one")
            time.sleep(3)  # its loops, too, find nothing there
            database.start()
            assert kaos.notebooks.get("one").state == "RUNNING"
            kaos.notebooks.stop("one")
            assert kaos.notebooks.wait("one").state == "STOPPED"
