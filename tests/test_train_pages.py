"""The pages of trainings and models as they are without JavaScript."""

import csv
import io
import re
from urllib.parse import unquote

import pytest

from tests.history import write
from tests.hub import Answer, Browser, RunningHub, wait_until
from tests.test_service_pages import words
from tests.training_history import NASTY, bundles, inputs, training, trials_of
from tests.wire import digest, frame, tree

GRID, NASTY_ID, ONGOING, REPEAT = (f"{number:016x}" for number in (0x71, 0x72, 0x73, 0x74))
KEPT, DOOMED = f"{0x75:016x}", f"{0x76:016x}"


@pytest.fixture(scope="module")
def tess(hub: RunningHub) -> Browser:
    """A browser of a user with some trainings."""
    owner, of = "user:tess", inputs(47100)
    goal = {"goal_metric": "accuracy", "goal_direction": "max", "best_trial": 120}
    grid = training(0x71, owner, 120, author="tess", slots=4, best_score=120.0, **goal, **of)
    nasty = training(0x72, owner, 1, name=NASTY, reason=NASTY, metrics=[NASTY], **of)
    nasty_trial = {"params": {NASTY: NASTY}, "metrics": {NASTY: 1.5}, "reason": NASTY}
    ongoing = training(
        0x73, owner, state="WAITING", reason="waits for data", source_id=47100, started=None,
        finished=None, environment={},
    )  # fmt: skip
    repeat = training(0x74, owner, 1, reproduces=GRID, **of)
    rows = [grid, nasty, ongoing, repeat, training(0x75, owner, 1, **of), training(0x76, owner)]
    write(hub.data, bundles(owner, 47100))
    write(hub.data, rows)
    write(hub.data, trials_of(nasty, **nasty_trial))
    write(hub.data, trials_of(rows[4], output=sent(hub, "tess")))
    write(hub.data, [trial for row in (grid, repeat) for trial in trials_of(row)])
    return Browser(hub, "tess")


def sent(hub: RunningHub, user: str) -> str:
    """The digest of a tree that the user holds."""
    node = tree("weights", b"1 2 3")
    objects = frame(node) + frame(b"1 2 3")
    assert hub.ask("POST", "/objects", hub.token(user), objects).status == 200
    return digest(node)


def numbers(page: Answer) -> list[int]:
    """The trials that a page lists, in its order."""
    return [int(number) for number in re.findall(r'id="trial-(\d+)"', page.text)]


def link(page: Answer, label: str) -> str:
    """Where the link of that text leads."""
    found = re.search(rf'href="([^"]*)"[^>]*>\s*{re.escape(label)}\s*</a>', page.text)
    assert found is not None, f"no link {label!r}"
    return found[1].replace("&amp;", "&").partition("#")[0]


# --- the list ---


def test_a_stranger_is_sent_to_the_hub(hub: RunningHub) -> None:
    for path in ("", "trainings", f"trainings/{GRID}", "models"):
        page = Browser(hub).get(f"{hub.train}/{path}")
        assert "username" in page.text and "tess" not in page.text


def test_the_list_shows_all_at_a_glance(hub: RunningHub, tess: Browser) -> None:
    for path in ("/", "/trainings"):
        page = tess.get(hub.train + path)
        text = words(page.text)
        for said in ("120 of 120", "120 accuracy", "digits v1", "grid v1", "tess", "WAITING"):
            assert said in text, said
        assert "waits for data" in text and "30 min" in text
        assert page.headers["Cache-Control"] == "no-store"
    menu = page.text.split("</nav>")[0]
    assert 'href="/services/kaos-train/">Trainings</a>' in menu


def test_whoever_has_nothing_is_told_the_first_step(hub: RunningHub) -> None:
    browser = Browser(hub, "trainee")
    page = browser.get(f"{hub.train}/models")
    lead = '<a class="btn btn-primary" href="/services/kaos-train/trainings">Trainings</a>'
    assert "No models yet" in page.text and lead in page.text
    page = browser.get(f"{hub.train}/trainings")
    assert f"kaos login {hub.url}" in page.text and "kaos train deploy -s" in page.text
    assert link(page, "Upload code or data") == "/services/kaos-train/bundles/upload"


def test_long_lists_come_in_pages_that_links_lead_through(hub: RunningHub) -> None:
    states = ("SUCCEEDED", "FAILED", "CANCELLED")
    rows = [training(0x9000 + i, "user:many", state=states[i % 3]) for i in range(120)]
    write(hub.data, rows)
    browser, seen, url = Browser(hub, "many"), list[str](), "/services/kaos-train/trainings"
    for size in (50, 50, 20):
        page = browser.get(hub.url + url)
        shown = re.findall(r'data-training="([0-9a-f]+)"', page.text)
        assert len(shown) == size
        seen += shown
        url = link(page, "Older") if size == 50 else ""
    assert seen == [row.id for row in reversed(rows)]
    assert ">Older</span>" in page.text and link(page, "Newest").endswith("/trainings")
    page = browser.get(f"{hub.train}/trainings?show=failed")
    assert page.text.count("data-training=") == 50 and "SUCCEEDED" not in page.text
    assert "show=failed" in link(page, "Older")
    assert "None of these" in browser.get(f"{hub.train}/trainings?show=active").text
    assert browser.get(f"{hub.train}/trainings?show=all").status == 400


# --- one training ---


def test_a_training_shows_what_it_is_made_of(hub: RunningHub, tess: Browser) -> None:
    page = tess.get(f"{hub.train}/trainings/{GRID}")
    text = words(page.text)
    for said in (
        "digits v1", "images v1", "grid v1", "max accuracy", "120 of 120 ended", "4 at a time",
        "1 core · 2Gi", "took 30 min", "Open a notebook on the best trial", "1–50 of 120",
    ):  # fmt: skip
        assert said in text, said
    for part in ("code", "data", "params", "model"):
        assert f"/api/v1/trainings/{GRID}/archive?parts={part}" in page.text


def test_trials_are_paged_and_sorted_by_links(hub: RunningHub, tess: Browser) -> None:
    here = f"/services/kaos-train/trainings/{GRID}"
    page = tess.get(hub.url + here)
    assert numbers(page) == list(range(1, 51))
    page = tess.get(hub.url + link(page, "Next"))
    assert numbers(page) == list(range(51, 101))
    page = tess.get(hub.url + link(page, "Last"))
    assert numbers(page) == list(range(101, 121)) and "101–120 of 120" in words(page.text)
    # the goal's best stands first at once; then the other way round
    page = tess.get(hub.url + link(page, "accuracy"))
    assert numbers(page)[:3] == [120, 119, 118]
    assert 'aria-sort="descending"' in page.text
    assert numbers(tess.get(hub.url + link(page, "Next")))[0] == 70
    assert numbers(tess.get(hub.url + link(page, "accuracy")))[:3] == [1, 2, 3]
    for query, first in (
        ("sort=metrics.loss&order=asc", [120, 119]),
        ("sort=metrics.loss&order=desc", [1, 2]),
        ("sort=params.rate&order=desc", [120, 119]),
        ("sort=params.kind&order=asc", [2, 4]),
        ("sort=duration&order=desc", [120, 119]),
        ("sort=score", [120, 119]),
        ("sort=metrics.unknown", [1, 2]),
    ):
        assert numbers(tess.get(f"{hub.url}{here}?{query}"))[:2] == first, query
    assert "None of these" in tess.get(f"{hub.url}{here}?state=FAILED").text
    for query in ("sort=nonsense", "order=up", "state=LOST", "after=-1", "unknown=1"):
        assert tess.get(f"{hub.url}{here}?{query}").status == 400, query


def test_a_trial_shows_all_of_itself(hub: RunningHub, tess: Browser) -> None:
    (hub.data / "logs").mkdir(exist_ok=True)
    log = "2026-01-31T12:00:00.123456Z epoch 1\n"
    (hub.data / "logs" / f"trial-{GRID}-7.log").write_text(log)
    told = '{"trial":7,"at":"2026-01-31T12:00:00Z","step":%d,"values":{"loss":%f}}\n'
    points = [told % (n, 1 / (n + 1)) for n in range(50)]
    (hub.data / "logs" / f"metrics-{GRID}.log").write_text("".join(points))
    page = tess.get(f"{hub.train}/trainings/{GRID}/trials/7")
    assert 'aria-label="loss: 50 values from 0.02 to 1, the last 0.02"' in page.text
    assert '<polyline points="0.0,2.0 ' in page.text and "step 49" in page.text
    text = words(page.text)
    for said in ("Trial 7", "rate 0.7", "accuracy 7", "0.142857", "1 min 7 s", "Open a notebook"):
        assert said in text, said
    assert tess.get(hub.url + link(page, "Whole log as text")).text == log
    assert link(page, "Previous trial").endswith("/6") and link(page, "Next trial").endswith("/8")
    assert link(page, "Model").endswith(f"/models/{GRID}.7")
    for number in ("121", "0", "x"):
        assert tess.get(f"{hub.train}/trainings/{GRID}/trials/{number}").status == 404


def test_all_trials_as_a_file(hub: RunningHub, tess: Browser) -> None:
    page = tess.get(f"{hub.train}/trainings/{GRID}/trials.csv")
    assert page.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(page.text)))
    assert [int(row["trial"]) for row in rows] == list(range(1, 121))
    assert rows[6]["params.kind"] == "b" and float(rows[6]["metrics.accuracy"]) == 7
    assert float(rows[6]["seconds"]) == 67


def test_a_repetition_stands_beside_what_it_repeats(hub: RunningHub, tess: Browser) -> None:
    page = tess.get(f"{hub.train}/trainings/{REPEAT}")
    assert re.search(r"accuracy 1 1 none", words(page.text))
    assert f"/trainings/{GRID}" in link(page, GRID)


def test_nothing_a_user_named_becomes_markup(hub: RunningHub, tess: Browser) -> None:
    here = f"trainings/{NASTY_ID}"
    for path in (
        "trainings", here, f"{here}/trials/1", f"{here}/confirm/delete", "models",
        f"models/{NASTY_ID}.1", "trainings?show=%3Cscript%3E", "models/%3Cscript%3E",
    ):  # fmt: skip
        page = tess.get(f"{hub.train}/{path}").text
        assert "<script>alert" not in page and "<script>'" not in page, path
    assert NASTY in words(tess.get(f"{hub.train}/{here}").text)


# --- what can be done ---


def test_forms_need_the_pages_token(hub: RunningHub, tess: Browser) -> None:
    for path in (f"trainings/{DOOMED}/delete", f"trainings/{DOOMED}/reproduce", "models/x/delete"):
        page = tess.post(f"{hub.train}/{path}", {"_xsrf": "wrong"})
        assert page.status == 403 and "Reload the page" in words(page.text)


def test_deleting_asks_first_and_works_without_scripts(hub: RunningHub, tess: Browser) -> None:
    page = tess.get(f"{hub.train}/trainings/{DOOMED}/confirm/delete")
    assert "deleted for good" in words(page.text)
    form = {"_xsrf": tess.xsrf("/services/kaos-train/")}
    page = tess.post(f"{hub.train}/trainings/{DOOMED}/delete", form)
    assert page.status == 200 and DOOMED not in page.text and GRID in page.text
    page = tess.get(f"{hub.train}/trainings/{DOOMED}")
    assert page.status == 404 and "Your trainings" in words(page.text)
    page = tess.post(f"{hub.train}/trainings/{ONGOING}/delete", form)
    assert page.status == 409, "it has not ended"


def test_killing_asks_first(hub: RunningHub, tess: Browser) -> None:
    page = tess.get(f"{hub.train}/trainings/{ONGOING}")
    assert "Kill…" in page.text and "Delete…" not in page.text
    assert "ends within seconds" in tess.get(hub.url + link(page, "Kill…")).text
    form = {"_xsrf": tess.xsrf("/services/kaos-train/")}
    assert tess.post(f"{hub.train}/trainings/{ONGOING}/kill", form).status == 200
    here = f"{hub.train}/trainings/{ONGOING}"
    wait_until(lambda: "CANCELLED" in words(tess.get(here).text), 10, "the training's end")
    question = tess.get(f"{hub.train}/trainings/{GRID}/confirm/kill?trial=7")
    assert "Kill trial 7 of digits?" in question.text and 'value="7"' in question.text
    page = tess.post(f"{hub.train}/trainings/{GRID}/kill", {**form, "trial": "7"})
    assert "Trial 7" in words(page.text) and "SUCCEEDED" in page.text, "what has ended stays so"
    assert tess.post(f"{hub.train}/trainings/{GRID}/kill", {**form, "trial": "x"}).status == 404


def test_what_is_not_there_leads_back(hub: RunningHub, tess: Browser) -> None:
    for path in ("nowhere", f"trainings/{'f' * 16}", "trainings/1", f"models/{GRID}.999"):
        page = tess.get(f"{hub.train}/{path}")
        assert page.status == 404 and "Your trainings" in words(page.text), path


def test_a_model_says_what_made_it_and_takes_a_name(hub: RunningHub, tess: Browser) -> None:
    here = f"{hub.train}/models/{KEPT}.1"
    page = tess.get(here)
    text = words(page.text)
    for said in ("Source digits v1", "Data images v1", "Params grid v1", "Environment local"):
        assert said in text, said
    assert "cd" * 32 in page.text and "rate 0.1" in text
    assert tess.get(hub.url + link(page, "as JSON")).json["model"]["trial"] == 1
    graph = tess.get(hub.url + link(page, "as a graph (DOT)"))
    assert graph.text.startswith("digraph") and "text/vnd.graphviz" in graph.headers["Content-Type"]
    form = {"_xsrf": tess.xsrf("/services/kaos-train/"), "name": " best one "}
    page = tess.post(f"{here}/name", form)
    assert page.status == 200 and "<h1>best one@v1" in page.text
    for path in ("best%20one@v1", "best%20one"):
        assert "<h1>best one@v1" in tess.get(f"{hub.train}/models/{path}").text
    named = words(tess.get(f"{hub.train}/models?named=true").text)
    assert "best one@v1" in named and f"{GRID}.7" not in named
    wrong = tess.post(f"{here}/name", {**form, "name": "../x"})
    assert wrong.status == 400 and "cannot name a bundle" in words(wrong.text)
    question = link(tess.get(here), "Delete…")
    assert unquote(question).endswith("/best one@v1/confirm/delete")
    page = tess.post(hub.url + question.replace("confirm/", ""), form)
    assert page.status == 200 and f"<h1>{KEPT}.1" in page.text
    assert "best one" not in page.text


# --- whose they are ---


def test_others_learn_nothing(hub: RunningHub, tess: Browser) -> None:
    other = Browser(hub, "nosy")
    form = {"_xsrf": other.get(f"{hub.train}/trainings") and other.xsrf("/services/kaos-train/")}
    one = f"trainings/{GRID}"
    for path in (one, f"{one}/trials/1", f"{one}/trials.csv", f"{one}/confirm/kill", "models/x"):
        page = other.get(f"{hub.train}/{path}")
        assert page.status == 404 and "tess" not in page.text
    for path in (f"{one}/kill", f"{one}/delete", f"{one}/reproduce", f"models/{GRID}.1/delete"):
        assert other.post(f"{hub.train}/{path}", form).status == 404
    assert other.get(f"{hub.train}/trainings?owner=user:tess").status == 404
    assert tess.get(f"{hub.train}/{one}").status == 200


def test_members_see_what_their_group_has(hub: RunningHub) -> None:
    hub.put_into("vision", "vera")
    row = training(0x7A, "group:vision", 1, **inputs(47200))
    write(hub.data, bundles("group:vision", 47200))
    write(hub.data, [row])
    write(hub.data, trials_of(row))
    vera = Browser(hub, "vera")
    mine = vera.get(f"{hub.train}/trainings")
    assert "No trainings yet" in mine.text and 'value="group:vision"' in mine.text
    page = vera.get(f"{hub.train}/trainings?owner=group:vision")
    # every link stays in the group
    for label, said in (("digits", "1 of 1 ended"), ("1", "Trial 1"), ("Model", "What made it")):
        page = vera.get(hub.url + link(page, label))
        assert said in words(page.text), page.text
    assert "owner=group%3Avision" in link(page, "Download")
    stranger = Browser(hub, "nosy")
    assert stranger.get(f"{hub.train}/trainings?owner=group:vision").status == 404
