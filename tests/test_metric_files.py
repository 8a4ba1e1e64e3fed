"""Files of metrics as programs write them: what can be used is used, the rest is said."""

import json
from pathlib import Path

import pytest

from kaos_hub.workload.trial.metric_files import from_files


def read(out: Path, text: str | bytes) -> tuple[dict[str, float], list[str]]:
    (out / "metrics").mkdir()
    content = text.encode() if isinstance(text, str) else text
    (out / "metrics/metrics.json").write_bytes(content)
    notes: list[str] = []
    return from_files(out, notes.append), notes


@pytest.mark.parametrize(
    ("text", "numbers", "said"),
    [
        ('{"a": 1, "b": "0.5"}', {"a": 1, "b": 0.5}, []),
        ('{"a": 1, "loss": NaN}', {"a": 1}, ["'loss' is nan"]),
        ('{"a": 1, "loss": -Infinity}', {"a": 1}, ["'loss' is -inf"]),
        ('{"a": 1, "loss": 1e999}', {"a": 1}, ["'loss' is inf"]),
        ('{"a": 1, "ok": true, "x": null}', {"a": 1}, ["'ok' is true", "'x' is null"]),
        ('{"a": 1, "val": {"b": 2}, "c": [3]}', {"a": 1}, ["is an object", "is a list"]),
        ('[{"a": 1}, {"a": 2, "b": 3}]', {"a": 2, "b": 3}, []),
        ('{"a": 1}\n{"a": 2}\n', {"a": 2}, []),
        ("[1, 2]", {}, ["is a list of other things than objects"]),
        ('[{"a": 1}, 2]', {"a": 1}, ["is a list of other things than objects"]),
        ("[]", {}, ["is a list"]),
        ("3", {}, ["an object with numbers is wanted"]),
        ('{"a": 1,', {}, ["metrics/metrics.json is no JSON: line 1: "]),
        ("", {}, ["is no JSON: line 1"]),
        ('{"a": 1, "a": 2}', {"a": 2}, ["'a' stands there twice; the last counts"]),
        ("[" * 100_000, {}, ["is nested too deeply"]),
        ('{"a": 1, "n": ' + "9" * 400 + "}", {"a": 1}, ["'n' is a number too large"]),
        ('{"": 1, "a": 2}', {"a": 2}, ["a name has 0 characters"]),
        ('{"a": 1}'.encode("utf-8-sig"), {"a": 1}, []),
        ('{"a": 1}'.encode("utf-16"), {"a": 1}, []),
        (b'{"a\xff": 1}', {}, ["is no JSON"]),
        (" " * (1 << 20) + "{}", {}, ["is larger than 1 MiB"]),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, text: str | bytes, numbers: dict[str, float], said: list[str]
) -> None:
    found, notes = read(tmp_path, text)
    assert found == numbers
    assert len(notes) == len(said)
    for note, wanted in zip(notes, said, strict=True):
        assert wanted in note
        assert note.startswith("metrics/metrics.json")


def test_notes_are_few(tmp_path: Path) -> None:
    _, notes = read(tmp_path, json.dumps({f"n{n}": None for n in range(1000)}))
    assert len(notes) == 21
    assert "more" in notes[-1]


def test_more_metrics_than_are_kept(tmp_path: Path) -> None:
    found, notes = read(tmp_path, json.dumps({f"n{n}": n for n in range(1001)}))
    assert len(found) == 1000
    assert "more than 1000 metrics; 'n1000' is not kept" in notes[0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/metrics.json").symlink_to("/proc/version")
    notes: list[str] = []
    assert from_files(tmp_path, notes.append) == {}
    assert notes == ["metrics/metrics.json is not read: it is a link"]
