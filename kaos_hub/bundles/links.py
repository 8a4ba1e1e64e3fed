"""Symbolic links and their ends, worked out on names alone: nothing on disk is followed."""

from collections.abc import Mapping

from kaos_hub.bundles.limits import refuse
from kaos_hub.errors import InvalidBundle

MAX_FOLLOWED = 40
"""Links followed on one way; Linux gives up at the same number."""
MAX_STEPS = 10_000_000
"""Names looked at for all links of a tree: some ten seconds, where a hostile tree takes hours."""


def check_links(links: Mapping[str, str]) -> None:
    """Refuse links that leave the tree. ``links`` maps each link's path to its target.

    A link may dangle. What it passes on its way may be a link too, and what is not there is taken
    for a folder: one may be made there later.

    Raises:
        InvalidBundle: names the link.
    """
    steps = 0
    for path, target in links.items():
        steps += _follow(path, target, links)[0]
        if steps > MAX_STEPS:
            raise refuse(path, "and the links before it take too long to follow")


def ends(links: Mapping[str, str]) -> dict[str, str]:
    """Return where each link leads in the end, of links that :func:`check_links` has passed."""
    return {path: _follow(path, target, links)[1] for path, target in links.items()}


def leaving(links: Mapping[str, str]) -> dict[str, str]:
    """The links that :func:`check_links` refuses, each with the reason.

    One that is left out can change where others lead, so the rest is looked at again.
    """
    left, steps = dict(links), 0
    refused: dict[str, str] = {}
    while True:
        now: dict[str, str] = {}
        for path, target in left.items():
            try:
                steps += _follow(path, target, left)[0]
                if steps > MAX_STEPS:
                    raise refuse(path, "and the links before it take too long to follow")
            except InvalidBundle as e:
                now[path] = e.message
        if not now:
            return refused
        refused |= now
        for path in now:
            del left[path]


def _follow(path: str, target: str, links: Mapping[str, str]) -> tuple[int, str]:
    """Go where a link leads. Returns the effort it took, and that place."""
    here = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    followed, steps = 1, 0
    while ahead:
        name = ahead.pop()
        steps += 1 + len(here) // 10
        if name in ("", "."):
            continue
        if name == "..":
            if not here:
                raise refuse(
                    path,
                    f"is a link to {target!r}, which is outside the bundle;"
                    " list it in .kaosignore to leave it out",
                )
            here.pop()
            continue
        inner = links.get("/".join([*here, name]))
        if inner is None:
            here.append(name)
            continue
        followed += 1
        if followed > MAX_FOLLOWED:
            raise refuse(path, f"is a link to {target!r}, which leads round in circles")
        ahead.extend(inner.split("/")[::-1])
    return steps, "/".join(here)
