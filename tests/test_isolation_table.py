"""The table of what is kept apart is true: no "no" without a test that tries."""

import re
from typing import Any

import pytest

from tests.documentation import ROOT, generator


def isolation() -> Any:
    """Return the module that reads the table."""
    generator()
    import generate_isolation

    return generate_isolation


def answers() -> list[Any]:
    """Return each engine's answer to each question."""
    found = isolation()
    return [
        pytest.param(
            "" if row.get("shared") else engine, answer, tests, id=f"{engine}: {row['can']}"
        )
        for row in found.read()["row"]
        for engine, answer, tests in found.claims(row)
    ]


@pytest.mark.parametrize(("engine", "answer", "tests"), answers())
def test_a_no_is_tried(engine: str, answer: str, tests: list[str]) -> None:
    """A "no" names tests that exist, in files that have to do with the engine."""
    assert tests or not re.search(r"\bno\b", answer), answer
    for reference in tests:
        assert isolation().defined(reference), reference
        text = (ROOT / "tests" / reference.partition("::")[0]).read_text("utf-8")
        assert engine in ("", "local") or re.search(f"{engine}|(?i:engine)", text), reference


def test_every_cause_of_the_review_is_tried() -> None:
    """All causes are there, with what is so now and the tests that try."""
    findings = isolation().read()["finding"]
    assert [finding["cause"] for finding in findings] == list(range(1, 18))
    for finding in findings:
        assert finding["now"], finding["cause"]
        assert finding["tests"], finding["cause"]
        for reference in finding["tests"]:
            assert isolation().defined(reference), reference


def test_the_attacks_are_at_least_150() -> None:
    """Counted as pytest does, with their parameters, in tests/attacks."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/attacks"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.count("::test_") >= 150, done.stdout[-2000:]
