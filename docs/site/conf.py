"""How Sphinx makes a site of these pages: `make docs` writes it into build/docs.

The pages are the same that one reads in the repository, links between them included; so the
repository is the source, and what belongs to the site is listed here. What a reader's browser loads
is all in the site itself.
"""

import re
from pathlib import Path
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
    "examples/**.md",
    "helm/**.md",
    "images/*.md",
]
exclude_patterns = [".*", "build", "test-output", "**/node_modules"]
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
    "Project": ["README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
    "Details": [
        "examples/README",
        "examples/mnist/README",
        "images/README",
        "helm/kaos-hub/README",
    ],
}


def _prepare(app: Sphinx, name: str, source: list[str]) -> None:
    """Called with the text of each page."""
    here = (Path(app.srcdir) / name).parent

    def shown(link: re.Match[str]) -> str:
        # A folder is something to see in the repository, and nothing on the site.
        return link[1] if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#:\s]+)\)", shown, source[0])
    if name == _CONTENTS:
        source[0] += _contents(source[0])


def _contents(text: str) -> str:
    """The site's contents, with the sections of the page that lists all others."""
    sections: dict[str, list[str]] = {"Begin": []}
    section = "Begin"
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            sections[section] = []
        sections[section] += re.findall(r"\]\(([^)#:]+)\.md\)", line)
    trees = [_tree(title, pages) for title, pages in sections.items() if pages]
    others = [_tree(title, [f"/{page}" for page in pages]) for title, pages in _ALSO.items()]
    return "\n\n" + "\n\n".join([*trees, *others]) + "\n"


def _tree(title: str, pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _prepare)
    return {"parallel_read_safe": True}
