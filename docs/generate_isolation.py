"""The page of what is kept apart, and of what a review found, from ``docs/isolation.toml``."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generate_markdown import code, page, table

ENGINES = ("local", "docker", "kubernetes")
SOURCE = Path(__file__).parent / "isolation.toml"
TESTS = Path(__file__).parent.parent / "tests"


def read() -> dict[str, Any]:
    """Return the rows and findings as they stand in the file."""
    return tomllib.loads(SOURCE.read_text("utf-8"))


def claims(row: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each engine's answer of a row, and the tests that try it."""
    for engine in ENGINES:
        yield engine, row[engine], row.get("tried", {}).get(engine, [])


def defined(reference: str) -> bool:
    """Return whether a test of the form ``FILE::NAME`` (FILE below ``tests/``) exists."""
    file, _, name = reference.partition("::")
    path = TESTS / file
    if not path.is_file():
        return False
    return bool(re.search(rf"(?m)^\s*(?:async )?def {re.escape(name)}\(", path.read_text("utf-8")))


def _tests(references: list[str]) -> str:
    return "<br>".join(code(reference) for reference in references) or "–"


def isolation() -> str:
    """Return the page."""
    found = read()
    numbers: dict[str, int] = {}
    rows = []
    for row in found["row"]:
        cells = [row["can"] + (" (tried on a local hub)" if row.get("shared") else "")]
        for _, answer, tests in claims(row):
            marks = [str(numbers.setdefault(test, len(numbers) + 1)) for test in tests]
            cells.append(answer + (f" [{', '.join(marks)}]" if marks else ""))
        rows.append(cells)
    by_number = [(str(number), code(test)) for test, number in numbers.items()]
    findings = [
        [str(f["cause"]), f["found"], f["now"], _tests(f["tests"])] for f in found["finding"]
    ]
    return page(
        "What is kept apart",
        f"As of {found['reviewed']}. Can a user's code (a notebook, a Dockerfile's `RUN`, a"
        " training) … A number in brackets is a test that tries to get through; without one there"
        ' is no "no".',
        table(["", *(code(engine) for engine in ENGINES)], rows),
        "## Tests that try",
        table(["", "test"], by_number),
        "## What a review found",
        f"702 attacks were tried before {found['reviewed']}; 61 got through, from these causes.",
        table(["cause", "what got through", "now", "tests"], findings),
    )
