"""The first page and the page of limits, as they are without JavaScript."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest

from kaos_hub.schemas import Limits, Usage
from kaos_hub.service.db.tables import now
from kaos_hub.service.pages.home import held
from tests.history import notebook, version, write
from tests.hub import Browser, RunningHub, request, running_hub
from tests.test_service_pages import words
from tests.test_train_pages import link
from tests.training_history import NASTY, training
from tests.wire import frame

LIMITS = """
c.KaosService.limits = {
    "default": {"notebooks": 2, "cpu": 4, "memory": "8Gi", "storage": "1Mi", "idle_timeout": "8h"},
    "group:vision": {"storage": "200Gi"},
}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), config=LIMITS) as hub:
        yield hub


@pytest.fixture(scope="module")
def hugo(hub: RunningHub) -> Browser:
    """A user whose things have ended, each for its reason."""
    owner, hour = "user:hugo", timedelta(hours=1)
    write(hub.data, [version(61000, "source", "code", 1, owner)])
    idle = "stopped 02:14, idle 1 h: no kernel has run since 01:14"
    write(
        hub.data,
        [
            notebook("idled", owner=owner, source_id=61000, reason=idle),
            notebook("failed", "FAILED", owner, reason=NASTY, stopped=now() - hour / 2),
            notebook("old", owner=owner, reason="long ago", stopped=now() - 200 * hour),
            training(0x61, owner, state="FAILED", reason="1 of 2 trials failed", name="run"),
            training(0x62, owner, state="WAITING", started=None, finished=None, name="waits",
                     reason="waits for data"),
        ],
    )  # fmt: skip
    hub.put_into("vision", "hugo")
    return Browser(hub, "hugo")


def test_strangers_are_sent_to_the_hub(hub: RunningHub, hugo: Browser) -> None:
    for path in ("home", "quota"):
        assert "username" in Browser(hub).get(f"{hub.kaos}/{path}").text


def test_all_at_a_glance(hub: RunningHub, hugo: Browser) -> None:
    page = hugo.get(f"{hub.kaos}/home")
    text = words(page.text)
    assert re.search(r"waits training · 0+62 WAITING waits for data", text), text
    assert "Notebooks 0 of 2" in text and "Builds 0 · no limit" in text
    lately = text.partition("Ended lately")[2]
    names = [lately.index(f" {name} ") for name in ("failed", "idled", "run")]
    assert names == sorted(names) and "long ago" not in lately
    assert "idle 1 h: no kernel has run" in lately and NASTY in lately
    assert "<script>alert" not in page.text
    assert "Begin here" not in text
    assert link(page, "waits").startswith("/services/kaos-train/trainings/")
    assert link(page, "idled") == "/services/kaos/notebooks/idled"
    assert 'action="/services/kaos/new"' in page.text


def test_the_menu_leads_to_all_of_it(hub: RunningHub, hugo: Browser) -> None:
    menu = hugo.get(f"{hub.kaos}/quota").text.split("</nav>")[0]
    entries = re.findall(r'href="(/services/[^"]+)">(\w+)</a>', menu)
    assert entries == [
        ("/services/kaos/home", "Home"), ("/services/kaos/", "Notebooks"),
        ("/services/kaos/bundles", "Bundles"), ("/services/kaos-train/", "Trainings"),
        ("/services/kaos-train/models", "Models"), ("/services/kaos/quota", "Quota"),
    ]  # fmt: skip
    assert 'aria-current="page" href="/services/kaos/quota"' in menu
    # there is one home; the Hub's own list of servers is a click from there, and leads back
    assert '"/hub/home"' not in menu
    home = hugo.get(f"{hub.kaos}/home")
    assert 'aria-current="page" href="/services/kaos/home">Home' in home.text
    assert link(home, "The Hub's own list of servers") == "/hub/home"
    assert 'href="/services/kaos/home">overview</a>' in hugo.get(f"{hub.url}/hub/home").text


def test_whoever_has_nothing_is_told_the_first_step(hub: RunningHub) -> None:
    browser = Browser(hub, "newcomer")
    page = browser.get(f"{hub.kaos}/home")
    assert "Begin here" in page.text and f"kaos login {hub.url}" in page.text
    assert link(page, "Upload a folder") == "/services/kaos/bundles/upload"
    train = browser.get(f"{hub.train}/home")
    assert link(train, "Upload a folder") == "/services/kaos-train/bundles/upload"


def test_who_may_only_train_has_pages_of_their_own(hub: RunningHub) -> None:
    scopes = ["access:services!service=kaos-train", "read:users:name!user"]
    token = hub.token("trainee", scopes)
    page = request("GET", f"{hub.train}/home", token)
    assert page.status == 200 and "kaos train deploy" in page.text
    assert "New notebook" not in page.text
    menu = page.text.split("</nav>")[0]
    entries = re.findall(r'href="(/services/[^"]+)">(\w+)</a>', menu)
    assert [label for _, label in entries] == [
        "Home", "Bundles", "Trainings", "Models", "Quota",
    ]  # fmt: skip
    assert all(to.startswith("/services/kaos-train/") for to, _ in entries)
    for to, _ in entries:
        assert request("GET", hub.url + to, token).status == 200
    assert request("GET", f"{hub.kaos}/home", token).status == 403


def test_events_of_the_other_half_need_the_right_to_it(hub: RunningHub) -> None:
    kaos, train = (f"access:services!service={name}" for name in ("kaos", "kaos-train"))
    for url, scope, lacks in (
        (f"{hub.api}/trainings/events", kaos, train),
        (f"{hub.train}/api/v1/notebooks/events", train, kaos),
    ):
        refused = request("GET", url, hub.token("half", [scope, "read:users:name!user"]))
        assert (refused.status, refused.json["details"]["scope"]) == (403, lacks)
        assert request("GET", url).status == 401


def test_limits_and_use_of_oneself_and_ones_groups(hub: RunningHub, hugo: Browser) -> None:
    content = frame(b"x" * 900_000)
    assert hub.ask("POST", "/objects", hub.token("hugo"), content).status == 200
    page = hugo.get(f"{hub.kaos}/quota")
    text = words(page.text)
    own, _, group = text.partition("Group vision")
    assert re.search(r"Storage 878.91Ki of 1Mi", own), own
    assert "Cores 0 of 4" in own and "Memory 0 of 8Gi" in own
    assert "kept idle for 8 h at most" in own
    assert re.search(r"Storage 0 of 200Gi", group)
    assert "counts for the member" in group
    assert 'class="progress-bar bg-warning kaos-at-85"' in page.text
    assert "Group" not in words(Browser(hub, "loner").get(f"{hub.kaos}/quota").text)


def test_bars_show_how_much_is_used() -> None:
    limits = Limits(notebooks=4, cpu=0, memory="1Gi", gpu=2)
    usage = Usage(notebooks=1, cpu=0, memory=1 << 20, gpu=2)
    bars = {one.label: one for one in held(limits, usage)}
    assert (bars["Notebooks"].percent, bars["Notebooks"].tone) == (25, "")
    assert bars["Memory"].percent == 5, "what is used at all is seen"
    assert (bars["GPUs"].percent, bars["GPUs"].tone) == (100, "bg-danger")
    assert bars["Cores"].percent == 0 and bars["Cores"].allowed == "0"
    assert bars["Trials"].allowed == ""


def test_a_thousand_notebooks_come_in_pages(hub: RunningHub) -> None:
    write(hub.data, [notebook(f"many-{i}", owner="user:mia") for i in range(1000)])
    browser = Browser(hub, "mia")
    seen, url = list[str](), "/services/kaos/"
    for _ in range(10):
        page = browser.get(hub.url + url)
        seen += re.findall(r'<tr data-notebook="([^"]+)"', page.text)
        url = link(page, "Older") if len(seen) < 1000 else ""
    assert len(set(seen)) == 1000 and ">Older</span>" in page.text
    assert link(page, "Newer").endswith("?after=800")
    assert browser.get(f"{hub.kaos}/?after=nonsense").status == 400
    assert "There is no more" in browser.get(f"{hub.kaos}/?after=5000").text
    assert len(hub.ask("GET", "/notebooks", hub.token("mia")).json) == 1000
