"""Trainings through client and command line, where the other side makes trouble."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from kaos_hub.cli.root import kaos
from kaos_hub.client import Client, save_credentials
from kaos_hub.errors import InvalidBundle, InvalidRequest, KaosError
from tests.troubled import Trouble, serving

ID = "1f3a5c7e9b2d4f60"
WHEN = "2026-01-31T12:00:00Z"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("KAOS_URL", "KAOS_WORKSPACE", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def training(state: str) -> dict[str, Any]:
    """A training as the service shows it."""
    return {"id": ID, "name": "mnist", "owner": "user:ada", "author": "ada", "state": state,
            "deadline": 60, "created": WHEN, "reason": "all of it failed" * (state == "FAILED"),
            "trials": {"total": 2}}  # fmt: skip


def bundle(kind: str, version: int, author: str) -> dict[str, Any]:
    """A version of a bundle as the service shows it."""
    return {"kind": kind, "name": kind, "version": version, "digest": f"blake3:{version:064x}",
            "owner": "group:vision", "author": author, "created": WHEN, "size": 1, "files": 1,
            "current": True}  # fmt: skip


class ServiceWhereSomebodyIsQuicker(Trouble):
    """Between looking at the inputs and training with them, Bob sends other data."""

    moved: ClassVar[bool] = False
    owners: ClassVar[list[str | None]] = []
    expected: ClassVar[dict[str, Any]] = {}

    def trouble(self) -> None:
        cls = type(self)
        cls.owners.append(self.headers.get("X-Kaos-Owner"))
        status, answer = 200, {"source": bundle("source", 1, "ada")}
        answer["data"] = bundle("data", 2, "bob") if cls.moved else bundle("data", 1, "ada")
        if self.command == "POST":
            cls.expected, cls.moved = json.loads(self.body)["expected"], True
            status, answer = 409, {"code": "conflict", "message": "moved", "details": {}}
        self.answer(status, json.dumps(answer).encode())


def test_what_was_shown_is_what_is_used_or_nothing() -> None:
    """The inputs shown are sent along; refused, it says what became of them, and by whom."""
    with serving(ServiceWhereSomebodyIsQuicker) as transport:
        save_credentials(transport.service, "t")
        done = CliRunner().invoke(kaos, ["--workspace", "vision", "train", "deploy", "--cpu", "1"])
    assert (done.exit_code, done.stdout) == (5, "")
    rows = [line.split()[:2] for line in done.stderr.splitlines()]
    assert rows[1:4] == [["source", "source@v1"], ["data", "data@v1"], ["params", "-"]]
    assert "the data shown was data@v1; now it is data@v2 (by bob, " in done.stderr
    assert "the source shown" not in done.stderr
    shown = {"source": f"blake3:{1:064x}", "data": f"blake3:{1:064x}"}
    assert ServiceWhereSomebodyIsQuicker.expected == shown
    assert set(ServiceWhereSomebodyIsQuicker.owners) == {"group:vision"}


class ServiceThatKeepsTheEndToItself(Trouble):
    """Its events break off, then only say that it lives; the end must be asked for."""

    streams: ClassVar[int] = 0
    ends: ClassVar[str] = "SUCCEEDED"

    def trouble(self) -> None:
        cls = type(self)
        if not self.path.endswith("/events"):
            state = cls.ends if cls.streams > 1 else "TRAINING"
            self.answer(200, json.dumps(training(state)).encode())
            return
        cls.streams += 1
        event = {"id": 1, "training": ID, "at": WHEN, "state": "TRAINING", "progress": 50}
        first = f"id: 1\nevent: training\ndata: {json.dumps(event)}\n\n"
        self.answer(200, (first if cls.streams == 1 else ": keep-alive\n\n").encode())


@pytest.mark.parametrize("ends", ["SUCCEEDED", "FAILED"])
def test_a_training_is_followed_to_its_end_whatever_the_stream_does(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off and silent: the state counts, not the event."""
    monkeypatch.setattr(ServiceThatKeepsTheEndToItself, "streams", 0)
    monkeypatch.setattr(ServiceThatKeepsTheEndToItself, "ends", ends)
    seen: list[int] = []
    with serving(ServiceThatKeepsTheEndToItself) as transport:
        trainings = Client(transport.service, "t").trainings
        if ends == "FAILED":
            with pytest.raises(KaosError, match="all of it failed"):
                trainings.wait(ID, 30, lambda event: seen.append(event.progress))
        else:
            done = trainings.wait(ID, 30, lambda event: seen.append(event.progress))
            assert done.state == "SUCCEEDED"
    assert seen == [50]


class ServiceWithABrokenArchive(Trouble):
    """Sends half of a tar."""

    def trouble(self) -> None:
        self.answer(200, b"code/Dockerfile" + bytes(1000))


def test_half_an_archive_is_no_folder(tmp_path: Path) -> None:
    """Nothing is left of what broke off, and nothing that was there is touched."""
    with serving(ServiceWithABrokenArchive) as transport:
        trainings = Client(transport.service, "t").trainings
        with pytest.raises(InvalidBundle):
            trainings.archive(ID, "run", ["code"])
        assert not Path("run").exists()
        Path("mine").mkdir()
        Path("mine/file").write_text("kept")
        with pytest.raises(InvalidRequest, match="already"):
            trainings.archive(ID, "mine")
        with pytest.raises(InvalidRequest, match="'models' is none of code, data"):
            trainings.archive(ID, "run", ["models"])
    assert Path("mine/file").read_text() == "kept"
    assert len(ServiceWithABrokenArchive.asked) == 1


class ServiceWithManyTrials(Trouble):
    """Gives out trials a thousand at a time."""

    def trouble(self) -> None:
        query = dict(part.split("=") for part in self.path.partition("?")[2].split("&"))
        after, limit = int(query["after"]), min(int(query["limit"]), 1000)
        numbers = range(after + 1, min(after + limit, 2500) + 1)
        rows = [{"training": ID, "number": n, "state": "QUEUED", "created": WHEN} for n in numbers]
        self.answer(200, json.dumps(rows).encode())


def test_trials_come_in_pages() -> None:
    """All of them, or as many as wanted; a bare name is a metric's, min is smallest first."""
    with serving(ServiceWithManyTrials) as transport:
        trainings = Client(transport.service, "t").trainings
        assert [t.number for t in trainings.trials(ID)] == [*range(1, 2501)]
        assert len(ServiceWithManyTrials.asked) == 3
        page = trainings.trials(ID, "loss", "min", limit=10, after=20)
        assert [t.number for t in page] == [*range(21, 31)]
        assert "sort=metrics.loss&order=asc" in ServiceWithManyTrials.asked[-1]
        trainings.trials(ID, "params.degree", limit=1)
        trainings.trials(ID, "duration", "max", limit=1)
    assert "sort=params.degree&limit" in ServiceWithManyTrials.asked[-2]
    assert "sort=duration&order=desc" in ServiceWithManyTrials.asked[-1]


class ServiceThatGoesAway(Trouble):
    """Answers, tells of a training that runs, and is gone for good in the middle of its events."""

    gone: ClassVar[bool] = False

    def trouble(self) -> None:
        cls = type(self)
        if cls.gone:
            self.close_connection = True
        elif self.path.endswith("/reproduce"):
            answer = {"training": training("TRAINING"), "inputs": {}, "actions": [], "trials": 2}
            self.answer(200, json.dumps(answer).encode())
        elif self.path.endswith("/events"):
            cls.gone = True
            self.answer(200, b": keep-alive\n\n")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_hub_that_is_gone_does_not_end_what_was_followed(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, and it is said how to come back; nothing is taken for its end."""
    monkeypatch.setattr(ServiceThatGoesAway, "gone", False)
    monkeypatch.setattr("kaos_hub.transport.http._RECONNECTS", 1)
    with serving(ServiceThatGoesAway) as transport:
        save_credentials(transport.service, "t")
        done = CliRunner().invoke(kaos, [*flags, "train", "reproduce", "-j", ID])
    assert done.exit_code == 7, done.stderr
    assert f"Training {ID} goes on meanwhile; later: kaos train info -j {ID}" in done.stderr
    if flags:
        assert json.loads(done.stdout)["code"] == "unavailable"
    else:
        assert done.stdout == ""
