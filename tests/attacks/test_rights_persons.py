"""Owners are persons: names change and are given again, what somebody has stays theirs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from kaos_hub.client import Client
from kaos_hub.errors import Conflict, Forbidden
from kaos_hub.schemas import Notebook
from kaos_hub.service.db.tables import NotebookRow, OwnerRow
from tests import databases
from tests.hub import RunningHub, request, running_hub, wait_until

CONFIG = "c.KaosHubAuth.cache_max_age = 1\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=CONFIG) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with data."""
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "text.txt").write_text("dear diary")
    return tmp_path / "diary"


def person(hub: RunningHub, name: str) -> Client:
    """A client of a user, who is made if there is none."""
    return Client(hub.url, hub.token(name))


def with_notebook(hub: RunningHub, name: str, data: Path) -> Notebook:
    """A user with a running notebook and a bundle."""
    return person(hub, name).notebooks.deploy(name="nb", data=data).wait()


def stop(client: Client) -> None:
    """Stop the notebook and wait for it."""
    client.notebooks.stop("nb")
    wait_until(lambda: client.notebooks.get("nb").state == "STOPPED", what="the stop")


def rename(hub: RunningHub, old: str, new: str) -> None:
    """Rename by the Hub's own API."""
    answer = hub.hub_api("PATCH", f"/users/{old}", {"name": new})
    assert answer.status == 200, answer.text


def has_nothing(client: Client) -> bool:
    """Whether a user has neither notebooks nor bundles, nor holds anything."""
    usage = client.whoami().usage
    return not (client.notebooks.list() or client.bundles.list() or usage.storage)


def test_a_renamed_user_keeps_everything(hub: RunningHub, data: Path) -> None:
    """Rename a user, then take the old name (faults 6)."""
    with_notebook(hub, "ada", data)
    stop(person(hub, "ada"))
    rename(hub, "ada", "ada-lovelace")
    renamed, namesake = person(hub, "ada-lovelace"), person(hub, "ada")
    assert has_nothing(namesake)
    assert namesake.whoami().owner == "user:ada"
    renamed.notebooks.start("nb")
    # The service hears of a new name when it next asks the Hub.
    wait_until(lambda: renamed.whoami().owner == "user:ada-lovelace", what="the new name")
    assert renamed.notebooks.get("nb").owner == "user:ada-lovelace"
    assert renamed.notebooks.wait("nb").url.endswith("/user/ada-lovelace/nb")
    (bundle,) = renamed.bundles.list()
    assert (bundle.owner, bundle.author) == ("user:ada-lovelace", "ada-lovelace")
    # The namesake's of the same name is another one.
    other = namesake.notebooks.deploy(name="nb").wait()
    assert other.data is None and other.url.endswith("/user/ada/nb")
    namesake.notebooks.delete("nb")
    assert renamed.notebooks.get("nb").state == "RUNNING"
    renamed.notebooks.delete("nb")


def test_renamed_while_a_notebook_runs(hub: RunningHub, data: Path) -> None:
    """Rename the user of a running notebook, and take the old name at once (faults 6)."""
    before = with_notebook(hub, "bea", data)
    assert before.url.endswith("/user/bea/nb")
    rename(hub, "bea", "beatrice")
    namesake = person(hub, "bea")
    assert has_nothing(namesake)
    renamed = person(hub, "beatrice")
    listed = renamed.notebooks.list()
    assert [n.name for n in listed] == ["nb"]

    token = hub.token("beatrice")
    at_new, at_old = (f"{hub.url}/user/{name}/nb/api/status" for name in ("beatrice", "bea"))
    wait_until(lambda: request("GET", at_new, token).status == 200, 90, "the new address")
    # Nothing of hers is at the old one, at which the namesake's of the same name would be.
    assert b"started" not in request("GET", at_old, token).body
    assert namesake.notebooks.deploy(name="nb").wait().data is None
    assert request("GET", at_old, token).status in (403, 404)
    assert request("GET", at_old, hub.token("bea")).status == 200
    assert request("GET", at_new, hub.token("bea")).status in (403, 404)
    namesake.notebooks.delete("nb")
    assert renamed.notebooks.get("nb").state == "RUNNING"
    assert renamed.whoami().usage.notebooks == 1
    renamed.notebooks.delete("nb")
    assert renamed.whoami().usage.notebooks == 0


def test_a_removed_users_things_fall_to_no_namesake(hub: RunningHub, data: Path) -> None:
    """Delete a user and make one of the same name (faults 6)."""
    with_notebook(hub, "cleo", data)
    stop(person(hub, "cleo"))
    assert hub.hub_api("DELETE", "/users/cleo").status == 204
    assert has_nothing(person(hub, "cleo"))


def test_a_user_is_deleted_while_a_notebook_runs(hub: RunningHub, data: Path) -> None:
    """Delete the user of a running notebook: JupyterHub alone answers 500 (faults 6)."""
    with_notebook(hub, "dora", data)
    answer = hub.hub_api("DELETE", "/users/dora")
    assert answer.status == 204, answer.text
    assert hub.hub_api("GET", "/users/dora").status == 404

    engine = create_engine(databases.url_of(hub.data))

    def stopped() -> bool:
        held = select(NotebookRow.id).join(OwnerRow, OwnerRow.owner == NotebookRow.owner)
        with Session(engine) as session:
            return session.scalar(held.where(OwnerRow.name == "dora", NotebookRow.held)) is None

    wait_until(stopped, 60, "the books being right")
    engine.dispose()
    assert has_nothing(person(hub, "dora"))
    assert person(hub, "dora").notebooks.deploy(name="nb").wait().state == "RUNNING"
    person(hub, "dora").notebooks.delete("nb")


def test_a_group_of_the_same_name_is_another(hub: RunningHub, data: Path) -> None:
    """Delete a group and make one of the same name for others (faults 6)."""
    hub.put_into("choir", "eva")
    eva = Client(hub.url, hub.token("eva"), workspace="choir")
    eva.bundles.submit(data, "data")
    assert len(eva.bundles.list()) == 1
    assert hub.hub_api("DELETE", "/groups/choir").status == 204
    hub.put_into("choir", "flo")
    flo = Client(hub.url, hub.token("flo"), workspace="choir")
    assert flo.bundles.list() == []
    # An admin who writes other properties does not make it another group.
    flo.bundles.submit(data, "data")
    assert hub.hub_api("PUT", "/groups/choir/properties", {"desk": 3}).status == 200
    (kept,) = flo.bundles.list()
    assert kept.owner == "group:choir" and kept.author == "flo"


def test_an_admin_lists_gives_and_deletes_what_is_left(hub: RunningHub, data: Path) -> None:
    """What a removed user left: only admins see it, and whose it becomes is said (faults 6)."""
    with_notebook(hub, "gil", data)
    stop(person(hub, "gil"))
    with_notebook(hub, "hew", data)
    stop(person(hub, "hew"))
    root, ivo = Client(hub.url, hub.token("root")), person(hub, "ivo")
    ivo.notebooks.deploy(name="nb", data=data).wait()
    for ask in (ivo.owners.list, lambda: ivo.owners.delete("user:gil")):
        with pytest.raises(Forbidden):
            ask()
    with pytest.raises(Conflict, match="still has"):
        root.owners.hand_over("user:gil", "user:ivo")
    for name in ("gil", "hew"):
        assert hub.hub_api("DELETE", f"/users/{name}").status == 204
    left = {each.name: each for each in root.owners.list(gone=True)}
    assert left["gil"].state == "GONE" and left["gil"].notebooks == left["gil"].versions == 1
    root.owners.hand_over(left["gil"].id, "user:ivo")
    assert sorted(n.name for n in ivo.notebooks.list()) == ["nb", "nb-2"]
    assert sorted(b.name for b in ivo.bundles.list()) == ["diary", "diary-2"]
    assert ivo.notebooks.start("nb-2").data is not None
    assert ivo.notebooks.wait("nb-2").state == "RUNNING"
    homes = len(list((hub.data / "homes").iterdir()))
    root.owners.delete(left["hew"].id)
    assert len(list((hub.data / "homes").iterdir())) == homes - 1
    again = {each.id: each for each in root.owners.list(gone=True)}[left["hew"].id]
    assert again.notebooks == again.versions == again.storage == 0
