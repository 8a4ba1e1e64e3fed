"""INTERIM, by the lead, so that the whole runs end to end. The owner of images.py replaces this file
(it may become a package); keep these names and signatures, environments.py calls exactly these.
"""
# Contract that kaos_hub/environments.py uses:
#   short_key(text) -> str                                  hex digest, <= 32 chars, [0-9a-f]
#   final_base(dockerfile: str) -> str                      image of the last FROM ("" if none)
#   local_key(requirements: str|None, python: str, platform: str) -> (key, inputs: dict JSON-able)
#   refusals(dockerfile: str, classic: bool) -> list[str]   "Dockerfile:4: RUN --mount needs BuildKit; …"
#   analyse(dockerfile: str, files: Mapping[path -> digest]) -> Plan
#       Plan.bases: list[str] (stages and scratch excluded); Plan.context: "model" or ".";
#       Plan.code_overlay: str | None; Plan.advice: list[str];
#       Plan.key(bases: dict[ref, resolved], platform: str) -> (key, inputs)
#   image_name(owner, key) -> str;  why_rebuilt(old_inputs, new_inputs) -> str ("" if unknown)
#   explain_failure(lines: list[str], read: Callable[[path], str|None]) -> str

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def short_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def final_base(dockerfile: str) -> str:
    found = re.findall(r"(?mi)^FROM\s+(\S+)", dockerfile)
    return found[-1] if found else ""


def local_key(
    requirements: str | None, python: str, platform: str
) -> tuple[str, dict[str, Any]]:
    inputs = {"requirements": requirements or "", "python": python, "platform": platform}
    return short_key(repr(sorted(inputs.items()))), inputs


def refusals(dockerfile: str, classic: bool) -> list[str]:
    return []


@dataclass
class Plan:
    dockerfile: str
    files: Mapping[str, str]
    bases: list[str]
    context: str = "model"
    code_overlay: str | None = None
    advice: list[str] = field(default_factory=list)

    def key(self, bases: dict[str, str], platform: str) -> tuple[str, dict[str, Any]]:
        inputs = {
            "bases": bases, "dockerfile": self.dockerfile, "files": dict(self.files),
            "platform": platform,
        }  # fmt: skip
        return short_key(repr(sorted(inputs.items()))), inputs


def analyse(dockerfile: str, files: Mapping[str, str]) -> Plan:
    return Plan(dockerfile, files, re.findall(r"(?mi)^FROM\s+(\S+)", dockerfile))


def image_name(owner: str, key: str) -> str:
    return f"kaos-hub/{short_key(owner)[:16]}:{key}"


def why_rebuilt(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [name for name in new if old.get(name) != new[name]]
    return f"changed: {', '.join(changed)}" if changed else ""


def explain_failure(lines: list[str], read: Callable[[str], str | None]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "the build failed")
