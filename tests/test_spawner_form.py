"""The spawn form: what it offers, and what it sends."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kaos_hub.errors import InvalidRequest
from kaos_hub.hub.spawners.admission import FormOptions
from kaos_hub.hub.spawners.form import FIELDS, options_from_form, render_form, show_duration
from kaos_hub.schemas import IdleType

OPTIONS = json.loads(Path(__file__).with_name("form_options.json").read_text())


def options(**changes) -> FormOptions:
    return FormOptions.model_validate(OPTIONS | changes)


def everything(**changes) -> FormOptions:
    """Where all that can be chosen is there."""
    image = {"name": "science", "description": "R and <more>", "image": "r:4"}
    more = {"gpu": True, "pools": ["fast", "slow"], "images": [image]}
    context = OPTIONS["data"][0] | {"kind": "context", "name": "notes"}
    return options(info=OPTIONS["info"] | more, contexts=[context], mounts=["/data"], **changes)


class Fields(HTMLParser):
    """The names of all fields, and the ids that labels and help texts point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.ids, self.meant = set(), set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("input", "select", "textarea"):
            # what sends folders is no part of the form
            self.names |= {found["name"]} if found.get("type") != "file" else set()
        self.ids.add(found.get("id"))
        for attribute in ("for", "aria-describedby"):
            if found.get(attribute):
                self.meant.add(found[attribute])


def test_form_offers_what_there_is():
    page = render_form(options(), "default")
    assert "demo v3 · 3 files, 2Ki" in page
    assert '<option value="digits@v1">' in page
    assert "1 of 2 notebooks" in page
    assert "0.5 of 4 cores" in page
    assert re.search(r'value="small" checked', page)
    assert 'placeholder="1h"' in page
    assert re.search(r'value="activity" selected', page)


def test_every_field_is_one_that_admission_knows_and_has_a_label():
    fields = Fields(render_form(options(), "default"))
    not_here = {"gpu", "pool", "context", "bind_mounts", "image"}
    assert fields.names == (set(FIELDS) | {"name"}) - not_here
    assert fields.meant <= fields.ids
    page = render_form(options(), "default")
    assert "Not offered here: GPUs, groups of nodes, ready-made environments and folders of" in page
    assert "Not offered here" not in render_form(everything(), "default")


def test_what_this_installation_can_do_is_offered():
    page = render_form(everything(), "default")
    fields = Fields(page)
    assert fields.names == set(FIELDS) | {"name"}
    assert fields.meant <= fields.ids


def test_a_first_glance_shows_three_choices():
    """All else is behind one click."""
    page = render_form(everything(), "default")
    first, _, more = page.partition('<details class="mb-3">')
    assert Fields(first).names == {"source", "data", "size", "fresh", "name"}
    assert Fields(more).names == set(FIELDS) - {"source", "data", "size", "fresh"}


@pytest.mark.parametrize(
    ("limits", "usage", "reason"),
    [
        ({"cpu": 2}, {}, "More than you may have: 2 cores."),
        ({"cpu": 4}, {"cpu": 1}, "3 of your 4 cores are free now; stop something first."),
        ({"memory": "8Gi"}, {"memory": 1 << 30}, "7Gi of your 8Gi memory are free now"),
        ({}, {}, ""),
    ],
)
def test_sizes_that_do_not_fit_say_why(limits, usage, reason):
    page = render_form(options(limits=limits, usage=usage), "default")
    large = page.split('value="large"')[1].split("</div>\n")[0]
    assert ("disabled" in large.split(">")[0]) == bool(reason)
    assert reason in page


def test_the_default_is_one_that_fits():
    sizes = [{"name": "small", "cpu": 8}, {"name": "tiny", "cpu": 1}]
    info = OPTIONS["info"] | {"sizes": sizes}
    page = render_form(options(info=info), "default")
    assert re.search(r'value="tiny" checked', page)
    assert re.search(r'value="small" disabled', page)


def test_a_full_house_is_said():
    page = render_form(options(usage={"notebooks": 2}), "default")
    assert "Stop one before you start another." in page


STAGE = {"name": "build", "state": "SKIPPED"}
BEFORE = {
    "name": "before", "owner": "user:ada", "state": "STOPPED", "url": "x", "build": STAGE,
    "host": STAGE, "created": "2026-01-31T12:00:00Z", "pool": "fast",
    "source": {"name": "demo", "version": 3, "digest": OPTIONS["sources"][0]["digest"]},
    "resources": {"cpu": 4, "memory": "8Gi"}, "idle": {"timeout": 90, "type": "activity"},
    "image": "science", "volumes": [{"volume": "v", "path": "/mnt/v", "read_only": True}],
    "bind_mounts": [{"host_path": "/data", "container_path": "/mnt/d"}],
}  # fmt: skip


def test_how_the_last_one_ran_is_offered_again():
    """For a new notebook; one that is there shows how it is."""
    page = render_form(everything(last=BEFORE, limits={}, usage={}), "fresh")
    assert re.search(r'value="large" checked', page)
    assert 'value="90s"' in page
    assert '<option value="fast" selected>' in page
    odd = BEFORE | {"resources": {"cpu": 0.25, "memory": "300Mi"}}
    page = render_form(everything(last=odd, limits={}, usage={}), "fresh")
    assert 'value="0.25"' in page and 'value="300Mi"' in page
    page = render_form(everything(last=odd, notebook=BEFORE, limits={}), "before")
    assert "demo v3 (as it is)" in page and " checked" not in page
    assert 'value="0.25"' not in page and "fast (as it is)" in page
    assert ">v:/mnt/v:ro</textarea>" in page and ">/data:/mnt/d</textarea>" in page


def test_a_new_notebook_is_empty_until_something_is_chosen():
    """What the last one worked on is a click away; what comes from a bundle's page is chosen."""
    last = BEFORE | {"git": "https://example.org/a.git"}
    page = render_form(everything(last=last, limits={}, usage={}), "fresh")
    assert '<option value="demo@v3">' in page and 'demo@v3" selected' not in page
    assert 'science" selected' not in page and "/mnt/v" not in page and "/mnt/d" not in page
    assert "example.org/a.git" not in page
    assert 'href="/services/kaos/new?source=demo%40v3&amp;name=fresh">take the same again' in page
    page = render_form(everything(last=BEFORE, handed={"source": "demo@v3"}), "fresh")
    assert '<option value="demo@v3" selected>' in page and "take the same again" not in page


def test_what_is_older_than_the_list_can_be_named():
    page = render_form(options(offered=1), "default")
    assert 'name="source_named"' in page and 'name="data_named"' in page
    assert "_named" not in render_form(options(), "default")
    form = {"source": ["demo@v3"], "source_named": ["old@v1"], "data_named": [" "]}
    assert options_from_form(form) == {"source": "old@v1"}


def test_only_a_new_notebook_can_be_named():
    assert re.search(r'name="fresh" value="1">', render_form(options(), "mine"))
    there = render_form(options(notebook=BEFORE), "before")
    assert 'name="fresh"' not in there and 'id="kaos-name"' not in there
    # which one is meant the form does not know after a refusal; a script does
    assert re.search(r'name="fresh" value="1" disabled>', render_form(options(), ""))


def test_form_needs_no_script_and_lets_none_in():
    hostile = OPTIONS["info"] | {
        "sizes": [{"name": "a", "description": "<script>alert(1)</script>", "cpu": 1}]
    }
    page = render_form(options(info=hostile), '"><script>')
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_form_of_somebody_with_nothing():
    page = render_form(options(sources=[], data=[], limits={}, info=OPTIONS["info"]), "x")
    assert "You have no code here yet." in page and "kaos notebook deploy" not in page
    assert "You have 1 notebook running." in page


def test_form_without_service_says_so():
    page = render_form(None, "default", problem="The service is <away>.")
    assert "The service is &lt;away&gt;." in page
    assert not Fields(page).names


def test_choices_are_ids_only():
    form = {
        "source": ["demo@v3"],
        "data": [""],
        "cpu": [" 2 "],
        "_xsrf": ["x"],
        "command": ["evil"],
    }
    assert options_from_form(form) == {"source": "demo@v3", "cpu": "2"}
    assert options_from_form({}) == {}


def test_lines_become_variables_and_mounts():
    form = {
        "environment": ["A=1\r\n\r\n B = two = 2\r\nC="],
        "bind_mounts": ["/data/x:/mnt/x:ro\n/data/y:/mnt/y"],
        "volumes": ["results:/mnt/results"],
    }
    assert options_from_form(form) == {
        "environment": {"A": "1", "B": " two = 2", "C": ""},
        "bind_mounts": [
            {"host_path": "/data/x", "container_path": "/mnt/x", "read_only": True},
            {"host_path": "/data/y", "container_path": "/mnt/y", "read_only": False},
        ],
        "volumes": [{"volume": "results", "path": "/mnt/results", "read_only": False}],
    }


def test_a_hyphen_takes_away():
    assert options_from_form({"volumes": ["-"]}) == {"volumes": []}


@pytest.mark.parametrize("line", ["results", ":/mnt", "x:", "x:/y:maybe"])
def test_what_is_no_place_is_refused(line):
    with pytest.raises(InvalidRequest, match=r"Volumes: .* is no NAME:PLACE"):
        options_from_form({"volumes": [line]})


def test_any_image_may_be_typed_where_the_admin_lets_one():
    page = render_form(options(info=OPTIONS["info"] | {"any_image": True}), "default")
    assert re.search(r'<input [^>]*name="image"', page)
    page = render_form(everything(), "default")
    assert '<option value="science">science: R and &lt;more&gt;</option>' in page


def test_a_wrong_variable_is_never_repeated():
    """It may be a secret that lacks its name."""
    with pytest.raises(InvalidRequest) as refused:
        options_from_form({"environment": ["hunter2"]})
    assert "hunter2" not in refused.value.message
    with pytest.raises(InvalidRequest, match="KAOS_URL"):
        options_from_form({"environment": ["KAOS_URL=x"]})


def test_a_repository_is_named_without_a_password():
    """The Hub keeps what its form sends."""
    form = {"git": [" https://h.org/a.git@main "]}
    assert options_from_form(form) == {"git": "https://h.org/a.git@main"}
    assert options_from_form({"git": ["-"]}) == {"git": "-"}
    with pytest.raises(InvalidRequest, match="--git-credentials") as refused:
        options_from_form({"git": ["https://ada:hunter2@h.org/a.git"]})
    assert "hunter2" not in refused.value.message
    page = render_form(options(), "default")
    assert re.search(r'<input [^>]*name="git"', page)


@pytest.mark.parametrize(
    "form", [{"cpu": ["-1"]}, {"memory": ["nan"]}, {"gpu": ["½"]}, {"idle_timeout": ["soon"]}]
)
def test_nonsense_is_refused(form):
    with pytest.raises(InvalidRequest):
        options_from_form(form)


def test_idle_type_is_one_of_three():
    with pytest.raises(InvalidRequest, match=IdleType.ACTIVITY):
        options_from_form({"idle_type": ["never"]})
    assert options_from_form({"idle_type": ["activity"]}) == {"idle_type": "activity"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "never"), (90, "90s"), (1800, "30m"), (7200, "2h"), (172800, "2d")]
)
def test_durations_read_back(seconds, text):
    assert show_duration(seconds) == text
