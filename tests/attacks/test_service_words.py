"""Words and numbers that mean something else than they say (cause 17 of the review)."""

import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kaos_hub.bundles.scan import scan
from kaos_hub.errors import InvalidBundle, InvalidRequest, InvalidResources
from kaos_hub.schemas import LoginRequest, NotebookRequest, parse_request
from kaos_hub.util.quantities import parse_cpu, parse_duration, parse_gpu, parse_memory
from tests.history import notebook, write
from tests.hub import Browser, RunningHub


@given(st.decimals(min_value="0.000000001", max_value=1000, allow_nan=False, places=9))
def test_cores_are_never_less_than_asked_for(cores: object) -> None:
    """Attack of cause 17: 0.0001 cores were none at all, which an engine takes for no limit."""
    found = parse_cpu(f"{cores:f}")  # type: ignore[str-format]
    assert found >= float(str(cores)) and found >= 0.001
    assert found * 1000 == pytest.approx(round(found * 1000))
    assert parse_cpu(found) == found


@pytest.mark.parametrize("parse", [parse_cpu, parse_memory, parse_gpu, parse_duration])
@pytest.mark.parametrize(
    "text", ["1" + " " * 200_000 + "!", " " * 200_000, "1" * 200_000, "a" * 200_000, "1." * 100_000]
)
def test_a_quantity_is_short(parse: object, text: str) -> None:
    """Attack of cause 3: our own patterns on a text of strangers, in time squared."""
    began = time.process_time()
    with pytest.raises(InvalidResources) as error:
        parse(text)  # type: ignore[operator]
    assert time.process_time() - began < 1
    assert len(error.value.message) < 300


@pytest.mark.parametrize("name", ["a\u202egnp.exe", "\u2066a", "a\x85", "a\x1b[31m"])
def test_names_say_what_they_are(tmp_path: Path, name: str) -> None:
    """Attack of cause 17: names that turn the direction of writing."""
    (tmp_path / name).touch()
    with pytest.raises(InvalidBundle) as error:
        scan(tmp_path)
    assert "control character" in error.value.message and name not in error.value.message


def asking(text: str) -> list[dict[str, object]]:
    """Requests with a text of a stranger that others are shown, in each place that takes one."""
    login = {"challenge": "0" * 64, "client": text}
    return [
        parse_request(NotebookRequest, {"display_name": text}).model_dump(),
        parse_request(LoginRequest, login).model_dump(),
    ]


@pytest.mark.parametrize(
    "text", ["a\u202egnp.exe", "\u2066a", "a\x85", "a\x1b[31m", "a\nb", "a\0", "\x7f"]
)
def test_texts_that_others_are_shown_keep_to_the_rule_of_names(text: str) -> None:
    """Attack of cause 17: a description, or the machine of a login, that reads otherwise."""
    for model, values in (
        (NotebookRequest, {"display_name": text}),
        (LoginRequest, {"challenge": "0" * 64, "client": text}),
    ):
        with pytest.raises(InvalidRequest, match=r"U\+[0-9A-F]{4}, which cannot be shown"):
            parse_request(model, values)


@pytest.mark.parametrize("text", ["größe 3½ 🧑‍🔬", "שלום \u200f world", "مرحبا", "日本", ""])
def test_other_writing_is_taken(text: str) -> None:
    assert asking(text)[0]["display_name"] == text


def test_a_description_of_before_is_shown_harmlessly(hub: RunningHub) -> None:
    """Attack of cause 17: rows that were written before there was the rule."""
    row = notebook("old", owner="user:walt", display_name="a\u202egnp.exe \x1b[31mb")
    write(hub.data, [row])
    walt = Browser(hub, "walt")
    for page in (f"{hub.kaos}/", f"{hub.kaos}/notebooks/old"):
        text = walt.get(page).text
        assert "gnp.exe" in text and "\u202e" not in text and "\x1b" not in text
