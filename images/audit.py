"""Ask pip-audit whether a pinned package is known to be vulnerable.

    python images/audit.py

Reads the exact pins of the images and the versions installed here. Exit code 1: something is known.
If no database of advisories answers that is said, and is no failure: nothing is known then.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")
_TIMEOUT = 300
"""Seconds for all answers."""


def pins() -> dict[str, set[str]]:
    """Return the pinned versions of each package, and those that are installed here."""
    found: dict[str, set[str]] = {}
    for path in sorted(HERE.glob("*/constraints.txt")):
        for line in path.read_text("utf-8").splitlines():
            if match := _PIN.match(line):
                found.setdefault(match[1].lower(), set()).add(match[2])
    for distribution in metadata.distributions():
        name = str(distribution.metadata["Name"]).lower()
        if name != "kaos-hub":
            found.setdefault(name, set()).add(distribution.version)
    return found


def ask(lines: list[str]) -> list[dict[str, Any]]:
    """Return what pip-audit says of each pin.

    Raises:
        OSError: no database answers; says why.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip"]
        command += ["--progress-spinner=off", "--format=json", "--requirement", file.name]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise OSError((done.stderr.strip() or "no answer").splitlines()[-1]) from None
    return found


def main() -> int:
    """Ask, and say what is known."""
    asked = pins()
    # One version of a package in each question: pip-audit takes no two.
    rounds = max(len(versions) for versions in asked.values())
    known, skipped = 0, 0
    for number in range(rounds):
        lines = [
            f"{name}=={sorted(versions)[number]}"
            for name, versions in sorted(asked.items())
            if len(versions) > number
        ]
        try:
            answers = ask(lines)
        except (OSError, subprocess.TimeoutExpired) as e:
            print(f"NOT AUDITED: no database of advisories answers ({e})")
            return 0
        skipped += sum(1 for answer in answers if "skip_reason" in answer)
        for answer in answers:
            for advisory in answer.get("vulns", []):
                known += 1
                print(f"{answer['name']} {answer['version']}: {advisory['id']}")
    total = sum(len(versions) for versions in asked.values())
    if skipped == total:
        print("NOT AUDITED: the database of advisories knows none of the packages")
        return 0
    print(f"{total - skipped} of {total} pinned packages audited: {known} advisories")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
