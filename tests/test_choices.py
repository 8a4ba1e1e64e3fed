"""What was chosen last for a notebook: offered again, never for longer than there is its owner."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from kaos_hub.client import Client
from kaos_hub.schemas import Notebook
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ChoiceRow, OwnerRow, now
from kaos_hub.service.hub_client import Hub, HubUser
from kaos_hub.service.users.identities import Identities
from kaos_hub.service.users.last_options import forget_one_who_is_gone, recall, remember
from tests import databases
from tests.hub import Browser, RunningHub, running_hub, wait_until

STAGE = {"name": "build", "state": "SKIPPED"}
BASE = {
    "name": "lab", "owner": "user:ada", "state": "STOPPED", "url": "x", "build": STAGE,
    "host": STAGE, "created": "2026-01-31T12:00:00Z",
}  # fmt: skip
WISH = {
    "resources": {"cpu": 2, "memory": "1Gi", "gpu": 1}, "pool": "fast", "image": "science",
    "idle": {"timeout": 90, "type": "activity"}, "environment": ["SECRET_NAME"],
    "git": {"url": "https://example.org/a.git", "ref": "main"}, "display_name": "mine",
    "source": {"name": "demo", "version": 3, "digest": "blake3:" + "0" * 64},
    "volumes": [{"volume": "v", "path": "/mnt/v", "read_only": True}],
    "bind_mounts": [{"host_path": "/data", "container_path": "/mnt/d"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


async def test_the_latest_are_kept_one_per_owner(db: Database) -> None:
    for name in ("before", "lab"):
        wish = WISH if name == "lab" else {}
        notebook = Notebook.model_validate({**BASE, "name": name, **wish})
        await db.run(lambda session, notebook=notebook: remember(session, "user:ada", notebook))
    found = await recall(db, "user:ada")
    assert found is not None and found.git == "https://example.org/a.git@main"
    for name in ("resources", "pool", "image", "idle", "source", "volumes", "bind_mounts"):
        assert getattr(found, name) == getattr(notebook, name), name
    assert "SECRET_NAME" not in found.model_dump_json(), "of variables not even the names"
    assert await recall(db, "user:bob") is None


async def test_who_came_after_them_inherits_none(db: Database) -> None:
    notebook = Notebook.model_validate({**BASE, **WISH})
    await db.run(lambda session: remember(session, "user:ada", notebook))
    assert await recall(db, "user:ada", now() - timedelta(minutes=1)) is not None
    assert await recall(db, "user:ada", now() + timedelta(seconds=1)) is None


async def test_what_another_release_wrote_is_no_trouble(db: Database) -> None:
    row = ChoiceRow(owner="user:ada", chosen={"idle": {"timeout": []}}, at=now(), asked=now())
    await db.run(lambda session: session.add(row))
    assert await recall(db, "user:ada") is None


class HubWithoutUsers(Hub):
    """Knows nobody any more."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "")
        self.asked: list[str] = []

    async def owners(
        self,
        names: Collection[str] = (),
        identities: Collection[str] = (),
        groups: Collection[str] = (),
    ) -> tuple[list[HubUser], dict[str, str]]:
        self.asked += identities
        return [], {}


async def test_owners_are_looked_after_one_at_a_time(db: Database) -> None:
    hours = {"user:old": 3, "user:older": 9, "user:new": 0}
    rows = [
        ChoiceRow(owner=owner, chosen={}, at=now(), asked=now() - timedelta(hours=age))
        for owner, age in hours.items()
    ]
    await db.run(lambda session: session.add_all(rows))
    known = [
        OwnerRow(owner=owner, name=owner[5:], identity=f"user:1-{owner[5:]}", seen=now())
        for owner in hours
    ]
    await db.run(lambda session: session.add_all(known))
    hub = HubWithoutUsers()
    identities = Identities(db, hub)
    await identities.start()
    for _ in range(4):
        await forget_one_who_is_gone(db, identities)
    assert hub.asked == ["1-older", "1-old"]
    assert await recall(db, "user:older") is None and await recall(db, "user:new") is not None


# --- with a Hub ---


def offered(hub: RunningHub, user: str) -> str:
    """The form of a new notebook."""
    browser = Browser(hub, user)
    return browser.get(f"{hub.url}/hub/spawn/{user}/fresh").text


@contextmanager
def tables(hub: RunningHub) -> Iterator[Session]:
    """The tables of the service, as they are."""
    engine = create_engine(databases.url_of(hub.data))
    with Session(engine) as session, session.begin():
        yield session
    engine.dispose()


def kept(hub: RunningHub) -> list[str]:
    """Whose choices the service has."""
    with tables(hub) as session:
        return list(session.scalars(select(ChoiceRow.owner)))


def test_they_outlive_the_notebook(hub: RunningHub) -> None:
    kaos = Client(hub.url, hub.token("carol"))
    kaos.notebooks.deploy(name="first", idle_timeout="47m", environment={"KEY": "s3cret"}).wait(60)
    kaos.notebooks.deploy(name="second", dry_run=True, idle_timeout="13m")
    kaos.notebooks.delete("first")
    page = offered(hub, "carol")
    assert 'value="47m"' in page and "s3cret" not in page and "KEY" not in page
    with tables(hub) as session:
        assert "s3cret" not in str(session.scalars(select(ChoiceRow.chosen)).all())


def test_a_start_of_what_there_is_chooses_nothing(hub: RunningHub) -> None:
    kaos = Client(hub.url, hub.token("dave"))
    for name, idle in (("first", "41m"), ("second", "43m")):
        kaos.notebooks.deploy(name=name, idle_timeout=idle).wait(60)
        kaos.notebooks.stop(name)
        ended = lambda name=name: kaos.notebooks.get(name).state == "STOPPED"  # noqa: E731
        wait_until(ended, 30, f"{name} to end")
    kaos.notebooks.start("first")
    wait_until(lambda: kaos.notebooks.get("first").state == "RUNNING", 60, "first to run")
    assert 'value="43m"' in offered(hub, "dave")
    kaos.notebooks.kill("first")


def test_they_go_with_the_user(hub: RunningHub) -> None:
    kaos = Client(hub.url, hub.token("erin"))
    kaos.notebooks.deploy(name="lab", idle_timeout="37m").wait(60)
    assert 'value="37m"' in offered(hub, "erin")
    kaos.notebooks.stop("lab")
    wait_until(lambda: kaos.notebooks.get("lab").state == "STOPPED", 30, "lab to end")
    gone = lambda: hub.hub_api("DELETE", "/users/erin").status == 204  # noqa: E731
    wait_until(gone, 30, "the Hub to let go of erin")
    assert hub.hub_api("POST", "/users/erin").status == 201
    assert 'value="37m"' not in offered(hub, "erin"), "somebody else of the same name"
    assert hub.hub_api("DELETE", "/users/erin").status == 204
    with tables(hub) as session:
        session.get_one(ChoiceRow, "user:erin").asked -= timedelta(days=1)
    wait_until(lambda: "user:erin" not in kept(hub), 30, "erin's choices to be forgotten")
    assert "user:carol" in kept(hub)
