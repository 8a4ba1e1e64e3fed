"""Markdown, as the generated pages need it."""

from collections.abc import Iterable, Sequence

_NOTE = "<!-- Written by docs/generate.py. Change the code, then run: python docs/generate.py -->"


def page(title: str, *parts: str) -> str:
    """A whole page from its title and paragraphs."""
    return "\n\n".join([f"# {title}", _NOTE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells may hold anything."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def code(text: str) -> str:
    """Inline code."""
    return f"`{text}`"
