"""How Sphinx makes a site of these pages: `make docs` writes it into build/docs.

The pages are the same that one reads in the repository, links between them included; so the
repository is the source, and what belongs to the site is listed here. What a reader's browser loads
is all in the site itself.
"""

import re
from typing import Any

from sphinx.application import Sphinx

from kaos_hub import __version__

project = "kaos_hub"
author = "the contributors of kaos_hub"
project_copyright = author
release = version = __version__

extensions = ["myst_parser"]
root_doc = "docs/README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "examples/*.md",
    "helm/**.md",
    "images/*.md",
    "kaos_hub/templates/**.md",
]
# Each heading has the anchor that GitHub gives it, so that links hold in both places.
myst_heading_anchors = 6
nitpicky = True

html_theme = "furo"
html_title = "kaos_hub"
html_extra_path = ["index.html"]
html_copy_source = False
html_show_sphinx = False

_CONTENTS = "docs/README"
_ALSO = {
    "Project": ["README", "examples/README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"],
    "Details": ["images/README", "helm/plain/README"],
}


def _with_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """The page that lists all others becomes the site's contents, with its own sections."""
    if name != _CONTENTS:
        return
    sections: dict[str, list[str]] = {"Begin": []}
    section = "Begin"
    for line in source[0].splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            sections[section] = []
        sections[section] += re.findall(r"\]\(([^)#:]+)\.md\)", line)
    trees = [_tree(title, pages) for title, pages in sections.items() if pages]
    others = [_tree(title, [f"/{page}" for page in pages]) for title, pages in _ALSO.items()]
    source[0] += "\n\n" + "\n\n".join([*trees, *others]) + "\n"


def _tree(title: str, pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _with_contents)
    return {"parallel_read_safe": True}
