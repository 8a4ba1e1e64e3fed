"""Packages that a user pip-installed in a notebook, and those that ``requirements.txt`` lacks.

Nothing is executed: the records that pip leaves are read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_MOST = 500


@dataclass(frozen=True)
class Package:
    """A package that the user asked pip for."""

    name: str
    version: str
    url: str = ""
    """The URL that it is from, if not from an index."""

    @property
    def requirement(self) -> str:
        """The line that installs it again."""
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


@dataclass
class Proposal:
    """Changes to a ``requirements.txt``."""

    add: list[str] = field(default_factory=list)
    replace: dict[int, str] = field(default_factory=dict)
    """Line (from 0) → what it should say."""
    notes: list[str] = field(default_factory=list)
    """Packages that cannot be added, each with the reason."""
    lines: list[str] = field(default_factory=list)
    """The present lines."""

    def shown(self) -> list[str]:
        """The requirements that it brings, for people."""
        changed = (f"{new} (now {self.lines[at].strip()})" for at, new in self.replace.items())
        return [*self.add, *changed][:_MOST]

    def text(self) -> str:
        """The file as it would be."""
        lines = [self.replace.get(at, line) for at, line in enumerate(self.lines)]
        return "".join(f"{line}\n" for line in [*lines, *self.add])


def installed(packages: Path) -> tuple[list[Package], list[str]]:
    """Return the packages that the user asked pip for, and notes on those no line can bring back.

    Packages that came only because others need them are left out: they come again with those.

    Args:
        packages: where the user's own packages go, see :mod:`.packages`.
    """
    places = [str(path) for path in sorted(packages.glob("lib/python3*/site-packages"))]
    found: dict[str, Distribution] = {}
    for one in distributions(path=places) if places else ():
        name = one.metadata["Name"]
        if name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            found.setdefault(canonicalize_name(name), one)
    # An old pip does not note what it was asked for.
    asked = {n: one for n, one in found.items() if one.read_text("REQUESTED") is not None} or found
    kept, notes = [], []
    for name, one in sorted(asked.items()):
        url = _origin(one)
        if url is None:
            notes.append(f"{name} was installed from a folder; no requirement can bring it back")
        else:
            kept.append(Package(name, str(one.version), url))
    return kept, notes


def _origin(one: Distribution) -> str | None:
    """The URL a package came from; empty if from an index, None if from this machine."""
    try:
        said = json.loads(one.read_text("direct_url.json") or "{}")
        url = str(said.get("url") or "")
        if not url:
            return ""
        if url.startswith("file:") or not re.fullmatch(r"https?://[!-~]+", url) or "@" in url:
            return None  # a URL with a password in it is nothing to write down either
        version_control = said.get("vcs_info")
        if version_control:
            return f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
        return url
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def propose(text: str, packages: Iterable[Package], notes: Iterable[str] = ()) -> Proposal:
    """Propose the packages that a ``requirements.txt`` lacks or has in another version.

    If it demands hashes, nothing is proposed, and a note says so.
    """
    proposal = Proposal(notes=list(notes), lines=text.splitlines())
    listed = dict(_listed(proposal.lines))
    hashes = any("--hash" in line for line in proposal.lines)
    for package in packages:
        at, requirement = listed.get(package.name, (-1, None))
        if requirement is None:
            proposal.add.append(package.requirement)
        elif not requirement.url and not requirement.specifier.contains(
            package.version, prereleases=True
        ):
            proposal.replace[at] = package.requirement
    if hashes and proposal.shown():
        proposal.notes.append(
            "model/requirements.txt demands hashes, so nothing can be added to it for you:"
            f" {', '.join(proposal.shown())}"
        )
        proposal.add, proposal.replace = [], {}
    return proposal


def _listed(lines: list[str]) -> Iterator[tuple[str, tuple[int, Requirement]]]:
    for at, line in enumerate(lines):
        plain = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        try:
            requirement = Requirement(plain.split(" --", 1)[0].rstrip("\\ "))
        except InvalidRequirement:
            continue
        yield canonicalize_name(requirement.name), (at, requirement)


def packages_dir(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of the user's own packages of this notebook; None if it has none."""
    named = environ.get("KAOS_PACKAGES")
    return Path(named) if named else None
