"""The whole service on PostgreSQL: as on SQLite, also through ten seconds without its database."""

import time
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import Unavailable
from tests import postgres
from tests.hub import request, running_hub, wait_until

needs_postgresql = pytest.mark.skipif(
    postgres.binaries() is None, reason="PostgreSQL's server is not installed"
)
AWAY = 10.0


def source(path: Path, go: Path) -> Path:
    """A bundle whose trials last until a file is there."""
    (path / "model").mkdir(parents=True)
    (path / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . /opt/program\n")
    train = path / "model" / "train"
    train.write_text(f'#!/bin/sh\nmkdir -p "$1"\nwhile [ ! -e {go} ]; do sleep 0.2; done\n'
                     'echo "$KAOS_TRIAL" > "$1/weights"\n')  # fmt: skip
    train.chmod(0o755)
    return path


@needs_postgresql
def test_notebooks_and_trainings_outlive_ten_seconds_without_the_database(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("1")
    (tmp_path / "params.json").write_text('{"a": [1, 2, 3]}')
    go = tmp_path / "go"
    with postgres.server() as database:
        config = f"c.KaosService.database_url = {database.url!r}\n"
        with running_hub(tmp_path / "hub", config=config) as hub:
            kaos = Client(hub.url, hub.token("ada"))
            notebook = kaos.notebooks.deploy(name="one", data=tmp_path / "data").wait()
            training = kaos.trainings.deploy(
                source=source(tmp_path / "code", go), data=tmp_path / "data",
                params=tmp_path / "params.json",
            )  # fmt: skip
            wait_until(lambda: kaos.trainings.get(training.id).trials.running == 1)
            assert not (hub.data / "kaos.sqlite").exists()
            events = len(hub.log.read_text())
            database.stop()
            until = time.monotonic() + AWAY
            answers = []
            go.touch()  # what ends now cannot be told at once
            while time.monotonic() < until:
                begun = time.monotonic()
                with pytest.raises(Unavailable, match="database"):
                    kaos.notebooks.get("one")
                answers.append(request("GET", f"{hub.kaos}/health", timeout=10).status)
                assert time.monotonic() - begun < 9
                time.sleep(1)
            # it looks at the database every few seconds, and says until then what it saw
            assert answers[-1] == 503 and set(answers) <= {200, 503}
            database.start()
            assert kaos.notebooks.get("one").state == "RUNNING"
            assert kaos.notebooks.get("one").started == notebook.started
            ended = training.wait()
            assert (ended.state, ended.trials.succeeded) == ("SUCCEEDED", 3)
            kaos.notebooks.stop("one")
            assert kaos.notebooks.wait("one").state == "STOPPED"
            assert "Traceback" not in hub.log.read_text()[events:]
