"""Named volumes: they outlive notebooks, belong to one owner, and go only when asked to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from kaos_hub.client import Client
from kaos_hub.engines.kubernetes.places import ClusterPlaces
from kaos_hub.engines.places import MachinePlaces, Places
from kaos_hub.errors import Conflict, InvalidName, InvalidRequest, LimitExceeded, NotFound
from kaos_hub.schemas import IdlePolicy, NotebookRequest, VolumeMount, parse_request
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.volumes import Volumes, mounted
from kaos_hub.service.notebooks.wishes import Offer, Wishes
from kaos_hub.service.quota import Ledger
from tests.engines import ENGINES
from tests.hub import RunningHub, running_hub
from tests.kernels import Kernel
from tests.shell import Shell

ADA = "user:ada"


async def nobody(_: object) -> None:
    """A cluster that does whatever it is asked."""


def machine(tmp_path: Path) -> MachinePlaces:
    for name in ("trees", "homes", "volumes"):
        (tmp_path / name).mkdir(exist_ok=True)
    return MachinePlaces(tmp_path / "trees", tmp_path / "homes", tmp_path / "volumes")


def cluster(tmp_path: Path, shares: bool = False) -> ClusterPlaces:
    return ClusterPlaces("", tmp_path, nobody, shares)


async def deploy(
    db: Database, places: Places, name: str, *volumes: str, owner: str = ADA, most: int = 3,
    running: bool = False, stopping: bool = False,
) -> None:  # fmt: skip
    """Deploy a notebook with volumes; ``running`` holds them, ``stopping`` not for long."""
    wishes = Wishes(Ledger(db, {}), [], "", IdlePolicy(), 0, Offer("x", (), places, most))
    wish = NotebookRequest(volumes=[VolumeMount(volume=v, path=f"/mnt/{v}") for v in volumes])

    def write(session: Session) -> None:
        row, _ = wishes.apply(session, owner, wish, name)
        session.add(row)
        session.flush()
        wishes.check_fits(session, row)
        wishes.claim(session, row)
        row.held = running or stopping
        row.held_options = row.options if row.held else {}
        row.wanted = "RUNNING" if running else "STOPPED"

    await db.run(write)


async def test_a_deploy_makes_what_it_names_and_the_next_finds_it(
    db: Database, tmp_path: Path
) -> None:
    places = machine(tmp_path)
    await deploy(db, places, "one", "data", "more")
    await deploy(db, places, "two", "data")
    volumes = Volumes(db, places, 3)
    found = await volumes.list(ADA)
    assert [(v.name, v.notebooks) for v in found] == [("data", ["one", "two"]), ("more", ["one"])]

    def sources(session: Session) -> list[str]:
        rows = session.query(NotebookRow).order_by(NotebookRow.name)
        return [mounted(session, row, places)[0].source for row in rows]

    first, second = await db.run(sources)
    assert first == second
    assert await volumes.list("user:bob") == []
    await deploy(db, places, "three", "data", owner="user:bob")
    assert len(set(await db.run(sources))) == 2, "a volume is its owner's"


async def test_one_in_use_is_not_deleted(db: Database, tmp_path: Path) -> None:
    places = machine(tmp_path)
    volumes = Volumes(db, places, 3)
    await deploy(db, places, "one", "data", running=True)
    with pytest.raises(Conflict, match="used by one"):
        await volumes.delete(ADA, "data")

    def only_wish(session: Session) -> None:
        session.query(NotebookRow).one().options = {}

    await db.run(only_wish)
    with pytest.raises(Conflict, match="used by one"):
        await volumes.delete(ADA, "data")  # it is mounted until that stops
    await deploy(db, places, "one")
    with pytest.raises(NotFound):
        await volumes.delete("user:bob", "data")
    await volumes.delete(ADA, "data")
    assert await volumes.list(ADA) == []
    with pytest.raises(NotFound):
        await volumes.delete(ADA, "data")


async def test_no_more_than_there_may_be(db: Database, tmp_path: Path) -> None:
    places = machine(tmp_path)
    await deploy(db, places, "one", "a", "b", "c")
    with pytest.raises(LimitExceeded, match="3 volumes"):
        await deploy(db, places, "two", "d")
    await deploy(db, places, "two", "a")


async def test_where_one_at_a_time_can_have_it_the_second_is_refused(
    db: Database, tmp_path: Path
) -> None:
    places = cluster(tmp_path)
    await deploy(db, places, "one", "data", running=True)
    with pytest.raises(LimitExceeded, match="kaos notebook stop -n one"):
        await deploy(db, places, "two", "data")
    await deploy(db, places, "two", "other")
    await deploy(db, places, "one", "data", stopping=True)
    await deploy(db, places, "two", "data")
    await deploy(db, cluster(tmp_path, shares=True), "three", "data")


async def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    places = machine(tmp_path)
    folder = Path(places.volume("abc", "/x", False).source)
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("x")
    await places.remove_volume("abc")
    await places.remove_volume("abc")
    assert list((tmp_path / "volumes").iterdir()) == []


@pytest.mark.parametrize("name", ["Data", "a b", "../x", "", "a--b", "x" * 31, "1a", "a/b", "a\n"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_request(NotebookRequest, {"volumes": [{"volume": name, "path": "/x"}]})


async def test_one_is_made_by_itself(db: Database, tmp_path: Path) -> None:
    """Without a notebook that names it; a name once, and no more than may be."""
    volumes = Volumes(db, machine(tmp_path), 3)
    made = await volumes.create(ADA, "data")
    assert (made.name, made.notebooks) == ("data", [])
    with pytest.raises(Conflict, match="'data' already"):
        await volumes.create(ADA, "data")
    await volumes.create("user:bob", "data")
    for name in ("b", "c"):
        await volumes.create(ADA, name)
    with pytest.raises(LimitExceeded, match="3 volumes"):
        await volumes.create(ADA, "d")
    assert [each.name for each in await volumes.list(ADA)] == ["b", "c", "data"]


async def test_a_folder_and_a_volume_need_two_places(db: Database, tmp_path: Path) -> None:
    wishes = Wishes(Ledger(db, {}), [], "", IdlePolicy())
    both = {
        "volumes": [{"volume": "a", "path": "/x"}],
        "bind_mounts": [{"host_path": "/a", "container_path": "/x/"}],
    }
    wish = parse_request(NotebookRequest, both)
    with pytest.raises(InvalidRequest, match="two things"):
        await db.run(lambda session: wishes.apply(session, ADA, wish, "one"))


# --- on a Hub ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"volumes-{request.param}")
    with running_hub(directory, engine=request.param) as running:
        yield running


def test_files_outlive_notebooks_and_two_see_them(hub: RunningHub, tmp_path: Path) -> None:
    token = hub.token("vera")
    kaos = Client(hub.url, token)
    mount = VolumeMount(volume="scratch", path="/scratch")
    first = kaos.notebooks.deploy(name="first", volumes=[mount]).wait()
    second = kaos.notebooks.deploy(name="second", volumes=[mount]).wait()
    place = "import os; p = os.environ['KAOS_HOME'] + '/mounts/scratch/x.txt'"
    one, two = Kernel(first.url, token), Kernel(second.url, token)
    one.run(f"{place}; open(p, 'w').write('kept')")
    assert two.run(f"{place}; open(p).read()") == "'kept'"
    kaos.notebooks.delete("first")
    kaos.notebooks.delete("second")
    third = kaos.notebooks.deploy(name="third", volumes=[mount]).wait()
    assert Kernel(third.url, token).run(f"{place}; open(p).read()") == "'kept'"

    shell = Shell(tmp_path, hub, "vera")
    shell.log_in()
    assert [v["notebooks"] for v in shell.json("volume", "list")] == [["third"]]
    assert shell.json("volume", "create", "alone")["name"] == "alone"
    again = shell.run("volume", "create", "alone")
    assert again.returncode == 5 and "'alone' already" in again.stderr
    assert shell.run("volume", "create", "A b").returncode == 2
    kaos.volumes.delete("alone")
    refused = shell.run("volume", "delete", "scratch", "-y")
    assert refused.returncode != 0
    assert "third" in refused.stderr
    only_read = VolumeMount(volume="fresh", path="/fresh", read_only=True)
    fourth = kaos.notebooks.deploy(name="fourth", volumes=[only_read]).wait()
    assert fourth.state == "RUNNING", "there is nothing to read yet, but it is a place"
    kaos.notebooks.delete("fourth")
    kaos.volumes.delete("fresh")
    kaos.notebooks.delete("third")
    assert list((hub.data / "volumes").iterdir())
    assert shell.run("volume", "delete", "scratch", "-y").returncode == 0
    assert kaos.volumes.list() == []
    assert not list((hub.data / "volumes").iterdir())
