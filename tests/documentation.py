"""The pages of the documentation, and how to read them."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *(
            ROOT / f"{name}.md"
            for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY")
        ),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        *(ROOT / "helm").rglob("*.md"),
        *(ROOT / "kaos_hub" / "templates").rglob("*.md"),
        ROOT / "images/README.md",
    ]
)
FENCE = re.compile(r"(?ms)^ *```(\w*)\n(.*?)^ *```$")
"""A fenced block: its language and content."""


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ +(.+)$", prose(page)):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        base = anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


@cache
def generator() -> Any:
    """``docs/generate.py`` as a module."""
    sys.path.append(str(ROOT / "docs"))  # where it finds its other half, as when it is run
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
