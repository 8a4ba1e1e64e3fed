"""The spawn form: what it offers, and what it sends."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kaos_hub.errors import InvalidRequest
from kaos_hub.models import IdleType
from kaos_hub.spawners.admission import FormOptions
from kaos_hub.spawners.form import FIELDS, options_from_form, render_form, show_duration

OPTIONS = json.loads(Path(__file__).with_name("form_options.json").read_text())


def options(**changes) -> FormOptions:
    return FormOptions.model_validate(OPTIONS | changes)


class Fields(HTMLParser):
    """The names of all fields, and the ids that labels and help texts point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.ids, self.meant = set(), set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("input", "select"):
            self.names.add(found["name"])
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
    assert fields.names == set(FIELDS) - {"gpu"}
    assert fields.meant <= fields.ids


def test_gpus_are_offered_where_there_are_some():
    page = render_form(options(info=OPTIONS["info"] | {"gpu": True}), "default")
    assert Fields(page).names == set(FIELDS)


def test_form_needs_no_script_and_lets_none_in():
    hostile = OPTIONS["info"] | {
        "sizes": [{"name": "a", "description": "<script>alert(1)</script>", "cpu": 1}]
    }
    page = render_form(options(info=hostile), '"><script>')
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_form_of_somebody_with_nothing():
    page = render_form(options(sources=[], data=[], limits={}, info=OPTIONS["info"]), "x")
    assert "kaos notebook deploy" in page
    assert " of " not in page.split("notebooks running")[0].rsplit("have", 1)[1]


def test_form_without_service_says_so():
    page = render_form(None, "default", problem="The service is <away>.")
    assert "The service is &lt;away&gt;." in page
    assert not Fields(page).names


def test_choices_are_ids_only():
    form = {"source": ["demo@v3"], "data": [""], "cpu": [" 2 "], "_xsrf": ["x"], "image": ["evil"]}
    assert options_from_form(form) == {"source": "demo@v3", "cpu": "2"}
    assert options_from_form({}) == {}


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
