"""The page of volumes as it is without JavaScript."""

import re

import pytest

from kaos_hub.service.db.tables import VolumeRow, now
from tests.history import notebook, write
from tests.hub import Browser, RunningHub
from tests.posting import Form
from tests.test_service_pages import words
from tests.test_train_pages import link


@pytest.fixture(scope="module")
def vida(hub: RunningHub) -> Browser:
    """A browser of a user with two volumes, of which a notebook uses one."""
    owner = "user:vida"
    rows = [
        VolumeRow(id=f"{n:032x}", owner=owner, name=name, created=now())
        for n, name in enumerate(("results", "spare"), 0x5A0)
    ]
    mounts = {"volumes": [{"volume": "results", "path": "/mnt/results"}]}
    write(hub.data, [*rows, notebook("lab", owner=owner, options=mounts)])
    return Browser(hub, "vida")


def test_the_list_says_who_uses_them(hub: RunningHub, vida: Browser) -> None:
    page = vida.get(f"{hub.kaos}/volumes")
    text = words(page.text)
    assert re.search(r"results lab any number of notebooks just now .*spare none", text), text
    assert link(page, "lab") == "/services/kaos/notebooks/lab"
    assert link(vida.get(f"{hub.kaos}/home"), "Volumes") == "/services/kaos/volumes"
    assert link(vida.get(f"{hub.kaos}/notebooks/lab"), "results") == "/services/kaos/volumes"


def test_whoever_has_none_makes_one(hub: RunningHub) -> None:
    """By a form, not by a command to type."""
    newcomer = Browser(hub, "newcomer")
    page = newcomer.get(f"{hub.kaos}/volumes")
    assert "No volumes yet" in page.text and "<code>" not in page.text
    form = Form(page.text).values
    page = newcomer.post(f"{hub.kaos}/volumes", form | {"name": " results "})
    assert page.status == 200 and "results none" in words(page.text)
    assert link(page, "New notebook") == "/services/kaos/new"
    for name, status, said in (
        ("results", 409, "already"),
        ("Not_A_Name", 400, "lower-case"),
        ("", 400, "volume"),
    ):
        refused = newcomer.post(f"{hub.kaos}/volumes", form | {"name": name})
        assert refused.status == status and said in words(refused.text), name
    assert newcomer.post(f"{hub.kaos}/volumes", {"name": "x", "_xsrf": "wrong"}).status == 403


def test_deleting_asks_and_is_refused_while_used(hub: RunningHub, vida: Browser) -> None:
    used = vida.get(f"{hub.kaos}/volumes/results/confirm/delete")
    assert used.status == 409 and "lab would lack it" in words(used.text)
    form = {"_xsrf": vida.xsrf()}
    assert vida.post(f"{hub.kaos}/volumes/results/delete", form).status == 409
    asked = vida.get(f"{hub.kaos}/volumes/spare/confirm/delete")
    assert "All files in it are deleted for good" in words(asked.text)
    assert vida.post(f"{hub.kaos}/volumes/spare/delete", {"_xsrf": "wrong"}).status == 403
    page = vida.post(f"{hub.kaos}/volumes/spare/delete", form)
    assert page.status == 200 and "spare" not in page.text and "results" in page.text
    assert vida.get(f"{hub.kaos}/volumes/spare/confirm/delete").status == 404


def test_others_learn_nothing(hub: RunningHub, vida: Browser) -> None:
    nosy = Browser(hub, "nosy")
    assert "results" not in words(nosy.get(f"{hub.kaos}/volumes").text)
    form = {"_xsrf": nosy.xsrf()}
    assert nosy.get(f"{hub.kaos}/volumes/results/confirm/delete").status == 404
    assert nosy.post(f"{hub.kaos}/volumes/results/delete", form).status == 404
