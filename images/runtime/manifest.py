"""Write kaos-manifest.json into each kernel set: what its packages ask of each other.

The launcher in the user's Python reads it to see which packages of the user's are too old for the
kernel. The needs of the SDK are kept apart: no package of the user's is ever replaced for its sake.

Usage: manifest.py KERNEL_DIRECTORY SDK_REQUIREMENTS
"""

import json
import re
import sys
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules(distribution: Distribution) -> list[str]:
    """The names that importing the distribution's packages begins with."""
    tops = {
        f.parts[0] for f in distribution.files or () if f.suffix == ".py" and ".." not in f.parts
    }
    return sorted(t.removesuffix(".py") for t in tops if not t.endswith((".dist-info", ".data")))


def requirements(lines: list[str], version: str) -> list[Requirement]:
    """Those that count for this version of CPython on Linux."""
    machine = {
        "python_version": version,
        "python_full_version": version + ".0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "extra": "",
    }
    wanted = [Requirement(line) for line in lines if line.strip()]
    return [r for r in wanted if r.marker is None or r.marker.evaluate(machine)]


def closure(
    roots: list[Requirement], needs: dict[str, list[Requirement]]
) -> dict[str, list[Requirement]]:
    """Package → all that is asked of it by the roots and by what they pull in."""
    asked: dict[str, list[Requirement]] = {}
    waiting, seen = list(roots), set()
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        asked.setdefault(name, []).append(requirement)
        if name not in seen:
            seen.add(name)
            waiting += needs.get(name, [])
    return asked


def describe(directory: Path, sdk: list[str]) -> dict[str, object]:
    digits = directory.name.removeprefix("cp")
    version = f"{digits[0]}.{digits[1:]}"
    found = [Distribution.at(info) for info in directory.glob("*.dist-info")]
    installed = {canonical(d.metadata["Name"]): d for d in found}
    needs = {name: requirements(d.requires or [], version) for name, d in installed.items()}

    def part(roots: list[Requirement]) -> dict[str, object]:
        return {
            name: {
                "version": installed[name].version,
                "modules": modules(installed[name]),
                "needs": sorted({(s.operator, s.version) for r in asked for s in r.specifier}),
            }
            for name, asked in sorted(closure(roots, needs).items())
            if name in installed
        }

    roots = requirements(sdk, version) if "pydantic" in installed else []
    return {"kernel": part([Requirement("ipykernel")]), "sdk": part(roots)}


def main(kernel: Path, sdk: Path) -> None:
    for directory in sorted(kernel.glob("cp*")):
        manifest = describe(directory, sdk.read_text().splitlines())
        (directory / "kaos-manifest.json").write_text(json.dumps(manifest, indent=1))
        print(directory.name, *(len(v) for v in manifest.values()))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
