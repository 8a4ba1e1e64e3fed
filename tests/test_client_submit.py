"""Submitting folders: only what lacks is sent, what breaks off goes on, what changes is noticed."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from blake3 import blake3

from kaos_hub.client.bundles import Bundles
from kaos_hub.client.notebooks import folder_in, notebook_name_from
from kaos_hub.errors import InvalidBundle, InvalidRequest, StorageFull, TooLarge
from tests.troubled import Trouble, serving


class ServiceWithATinyDisk(Trouble):
    """Keeps objects until its disk is full; then says so until it is emptied."""

    held: ClassVar[dict[str, bytes]] = {}
    room: ClassVar[int] = 1 << 40
    max_file_size: ClassVar[int] = 1 << 30

    def trouble(self) -> None:
        answers = {
            "info": self.info, "bundles": self.commit, "missing": self.missing,
            "objects": self.objects, "likeness": self.likeness,
        }  # fmt: skip
        status, body = answers[self.path.rpartition("/")[2]]()
        self.answer(status, json.dumps(body).encode())

    def info(self) -> tuple[int, Any]:
        limits = {"max_file_size": self.max_file_size, "max_files": 1000}
        return 200, {
            "version": "1",
            "engine": "local",
            "sizes": [],
            "gpu": False,
            "idle": {},
        } | limits

    def likeness(self) -> tuple[int, Any]:
        """Every folder's name is its own here."""
        return 200, {"alike": True, "name": json.loads(self.body)["name"]}

    def missing(self) -> tuple[int, Any]:
        asked = json.loads(self.body)["objects"]
        return 200, {"missing": [d for d in asked if d not in self.held]}

    def objects(self) -> tuple[int, Any]:
        rest, count = self.body, 0
        while rest:
            head, _, rest = rest.partition(b"\n")
            name, size = head.decode().split()
            content, rest = rest[: int(size)], rest[int(size) :]
            assert blake3(content).hexdigest() == name
            if sum(map(len, self.held.values())) + len(content) > self.room:
                return 507, {"code": "storage_full", "message": "no room"}
            self.held[f"blake3:{name}"] = content
            count += 1
        return 200, {"received": count}

    def commit(self) -> tuple[int, Any]:
        asked = json.loads(self.body)
        if asked["root"] not in self.held:
            return 409, {"code": "missing_objects", "message": "send it", "details": {}}
        return 201, {
            "kind": asked["kind"], "name": asked["name"], "version": 1, "digest": asked["root"],
            "owner": "user:ada", "author": "ada", "created": "2026-01-31T12:00:00Z", "size": 1,
            "files": 1, "current": True,
        }  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServiceWithATinyDisk, "held", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data bundle with small, large, equal and empty files."""
    place = tmp_path / "My Data"
    (place / "sub").mkdir(parents=True)
    for number in range(50):
        (place / "sub" / f"{number}.txt").write_text(f"file {number % 40}")
    (place / "large.bin").write_bytes(os.urandom(9 << 20))
    (place / "empty").touch()
    return place


def uploads() -> int:
    """Requests with objects so far."""
    return sum(asked.endswith("/objects") for asked in ServiceWithATinyDisk.asked)


def test_only_what_lacks_is_sent(folder: Path) -> None:
    """All the first time, in few requests; one request when nothing changed; then the rest."""
    seen: list[tuple[int, int]] = []
    with serving(ServiceWithATinyDisk) as transport:
        bundles = Bundles(transport)
        ready = bundles.prepare(folder, "data")
        version = bundles.submit(ready, progress=lambda done, total: seen.append((done, total)))
        assert version.digest == ready.scan.root
        assert version.name == "My Data"
        assert set(ServiceWithATinyDisk.held) == set(ready.scan.objects)
        assert uploads() == 2  # the large file alone, the others together
        assert seen[-1] == (sum(ready.scan.objects.values()),) * 2
        assert seen == sorted(seen)
        ServiceWithATinyDisk.asked.clear()
        bundles.submit(ready)
        assert ServiceWithATinyDisk.asked == ["POST /services/kaos/api/v1/bundles"]
        (folder / "new").write_text("new")
        before = set(ServiceWithATinyDisk.held)
        bundles.submit(folder, "data")
        assert len(set(ServiceWithATinyDisk.held) - before) == 2  # the file and the root's listing


def test_a_failed_upload_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: its own error comes out, and what has arrived is not sent again."""
    with serving(ServiceWithATinyDisk) as transport:
        bundles = Bundles(transport)
        ready = bundles.prepare(folder, "data")
        monkeypatch.setattr(ServiceWithATinyDisk, "room", 1 << 20)
        with pytest.raises(StorageFull, match="no room"):
            bundles.submit(ready)
        monkeypatch.setattr(ServiceWithATinyDisk, "room", 1 << 40)
        arrived = set(ServiceWithATinyDisk.held)
        assert set(bundles.missing(ready)) == set(ready.scan.objects) - arrived
        assert bundles.submit(ready).digest == ready.scan.root


@pytest.mark.parametrize("trouble", ["grows", "changes", "vanishes"])
def test_a_file_that_changes_between_reading_and_sending_is_named(
    folder: Path, trouble: str
) -> None:
    """What is sent is what was scanned, or nothing is committed."""
    with serving(ServiceWithATinyDisk) as transport:
        bundles = Bundles(transport)
        ready = bundles.prepare(folder, "data")
        large = folder / "large.bin"
        if trouble == "grows":
            large.write_bytes(large.read_bytes() + b"x")
        elif trouble == "changes":
            large.write_bytes(os.urandom(9 << 20))
        else:
            large.unlink()
        with pytest.raises(InvalidBundle, match=r"large\.bin"):
            bundles.submit(ready)
        (digest,) = (d for d, (path, _) in ready.scan.files.items() if path == "large.bin")
        assert digest not in ServiceWithATinyDisk.held


def test_limits_are_checked_before_anything_is_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service says how large a file may be; the file that is larger is named."""
    monkeypatch.setattr(ServiceWithATinyDisk, "max_file_size", 1 << 20)
    with serving(ServiceWithATinyDisk) as transport:
        with pytest.raises((InvalidBundle, TooLarge), match=r"large\.bin"):
            Bundles(transport).submit(folder, "data")
        assert uploads() == 0


def test_kinds_are_checked(folder: Path) -> None:
    """A wrong word is refused with the right ones."""
    with serving(ServiceWithATinyDisk) as transport:
        with pytest.raises(InvalidRequest, match="source, data, artifact, manifest, params"):
            Bundles(transport).submit(folder, "dataset")
        assert ServiceWithATinyDisk.asked == []


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [
        ("example", "example"),
        ("My_Model (v2)", "my-model-v2"),
        ("2024-report", "report"),
        ("größe-ü", "grosse-u"),
        ("Łódź Ærø", "lodz-aero"),
        ("--", None),
        ("日本", None),
        ("a" * 29 + "-b", "a" * 29),
    ],
)
def test_a_folders_name_becomes_a_notebooks_name(
    tmp_path: Path, folder_name: str, name: str | None
) -> None:
    """Always one the Hub takes, or none at all."""
    assert notebook_name_from(tmp_path / folder_name) == name


def test_folders_and_references_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slash or a folder of that name makes it a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert folder_in("here") == Path("here")
    assert folder_in("./nowhere") == Path("nowhere")
    assert folder_in("nowhere") is None
    assert folder_in("here@v2") is None
