"""Lists narrowed to names, as the pages are without JavaScript."""

import re

import pytest

from kaos_hub.service.db.tables import VolumeRow, now
from tests.history import notebook, version, write
from tests.hub import Answer, Browser, RunningHub
from tests.test_train_pages import link
from tests.training_history import training, trials_of

ROW = r'<tr data-(?:notebook|training|bundle|model|volume)="([^"]+)"'


@pytest.fixture(scope="module")
def nora(hub: RunningHub) -> Browser:
    """A user with much of everything."""
    owner = "user:nora"
    rows = [notebook(f"many-{i}", owner=owner) for i in range(1000)]
    rows += [notebook("odd", owner=owner, display_name="Für den Übungskurs, 100% fertig")]
    rows += [notebook("many-of-another", owner="user:norbert")]
    write(hub.data, [*rows, *(version(73000 + i, "data", f"set-{i}", 1, owner) for i in range(3))])
    named = [version(73010, "artifact", "champion", 1, owner)]
    volumes = [
        VolumeRow(id=f"{n:032x}", owner=owner, name=name, created=now())
        for n, name in enumerate(("results", "spare"), 0x730)
    ]
    runs = [
        training(0x7300 + i, owner, 1, name=name, state=state)
        for i, (name, state) in enumerate(
            [("Digits", "SUCCEEDED"), ("digits", "FAILED"), ("letters", "SUCCEEDED")]
        )
    ]
    write(hub.data, [*named, *volumes, *runs])
    write(hub.data, [trial for run in runs[:2] for trial in trials_of(run)])
    write(hub.data, trials_of(runs[2], named_id=73010))
    return Browser(hub, "nora")


def found(page: Answer) -> list[str]:
    """What a page lists."""
    assert page.status == 200, page.text
    return re.findall(ROW, page.text)


def test_notebooks_are_found_by_name_and_description(hub: RunningHub, nora: Browser) -> None:
    for said, names in (
        ("many-99", ["many-99", *(f"many-99{i}" for i in range(10))]),
        ("MANY-999", ["many-999"]),
        ("%C3%BCbungs", ["odd"]),
        ("100%25", ["odd"]),
        ("many%25", []),
        ("many_9", []),
        ("'", []),
    ):
        assert sorted(found(nora.get(f"{hub.kaos}/?search={said}"))) == sorted(names), said
    page = nora.get(f"{hub.kaos}/?search=nothing-like-it")
    assert "None of these" in page.text and link(page, "Show all") == "/services/kaos/"
    assert nora.get(f"{hub.kaos}/?search={'x' * 65}").status == 400


def test_steps_through_what_was_found(hub: RunningHub, nora: Browser) -> None:
    seen, url = list[str](), "/services/kaos/?search=many-1"
    for _ in range(2):
        page = nora.get(hub.url + url)
        seen += found(page)
        url = link(page, "Older") if len(seen) < 111 else ""
    assert len(set(seen)) == 111 and all("many-1" in name for name in seen)
    assert link(page, "Newer") == "/services/kaos/?search=many-1"
    assert 'value="many-1"' in page.text, "what was searched for stays in its field"


def test_what_somebody_searches_for_is_text(hub: RunningHub, nora: Browser) -> None:
    for path in ("kaos/", "kaos/bundles", "kaos/volumes", "kaos-train/", "kaos-train/models"):
        page = nora.get(f"{hub.url}/services/{path}?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
        assert page.status == 200 and "None of these" in page.text, path
        assert "<script>alert" not in page.text


def test_trainings_are_found_among_those_that_are_shown(hub: RunningHub, nora: Browser) -> None:
    one, two, three = (f"{0x7300 + i:016x}" for i in range(3))
    assert set(found(nora.get(f"{hub.train}/trainings?search=DIGIT"))) == {one, two}
    assert found(nora.get(f"{hub.train}/trainings?search={three[-4:]}")) == [three]
    page = nora.get(f"{hub.train}/trainings?search=digit&show=failed")
    assert found(page) == [two]
    assert link(page, "All").endswith("/trainings?search=digit")
    assert '<input type="hidden" name="show" value="failed">' in page.text


def test_models_are_found_by_their_names_and_trainings(hub: RunningHub, nora: Browser) -> None:
    one, two, three = (f"{0x7300 + i:016x}.1" for i in range(3))
    assert set(found(nora.get(f"{hub.train}/models?search=digit"))) == {one, two}
    for said in ("champ", "letters"):
        assert found(nora.get(f"{hub.train}/models?search={said}")) == [three]
        assert found(nora.get(f"{hub.train}/models?search={said}&named=true")) == [three]
    assert found(nora.get(f"{hub.train}/models?search=digit&named=true")) == []


def test_volumes_and_bundles_are_found_by_name(hub: RunningHub, nora: Browser) -> None:
    assert found(nora.get(f"{hub.kaos}/volumes?search=SUL")) == ["results"]
    assert found(nora.get(f"{hub.kaos}/bundles?search=SET-1")) == ["set-1"]
    assert found(nora.get(f"{hub.kaos}/bundles?search=set&kind=source")) == []


def test_where_there_is_nothing_there_is_nothing_to_search(hub: RunningHub) -> None:
    browser = Browser(hub, "newcomer")
    for path in ("kaos/", "kaos/bundles", "kaos/volumes", "kaos-train/", "kaos-train/models"):
        assert 'role="search"' not in browser.get(f"{hub.url}/services/{path}").text, path
