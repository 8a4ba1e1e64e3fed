"""Which Python of this machine stands in for the one a Dockerfile begins from."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")
_NAMED = re.compile(r"python-?(\d+\.\d+(?:\.\d+)?)")
_ASK = "import platform, sys; print(platform.python_version(), sys.implementation.name)"


@dataclass(frozen=True)
class Interpreter:
    """A Python on this machine."""

    path: str
    version: str
    implementation: str

    def __str__(self) -> str:
        return f"python-{self.version}-{self.implementation}"

    @property
    def minor(self) -> str:
        """Like ``3.13``."""
        return ".".join(self.version.split(".")[:2])

    @property
    def tag(self) -> str:
        """Like ``cp313``: the name of its set of kernel packages."""
        return "cp" + self.minor.replace(".", "")


def own() -> Interpreter:
    """The one that kaos_hub runs in, outside its virtual environment."""
    path = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(path, platform.python_version(), sys.implementation.name)


def asked(image: str) -> str | None:
    """The Python version that an image's reference names, like ``3.13``; none if it names none."""
    repository, _, tag = image.partition("@")[0].rpartition(":")
    if "/" in tag or not repository:
        return None
    if repository.rpartition("/")[2] == "python":
        match = _VERSION.match(tag)
        return match[0] if match else None
    named = _NAMED.search(tag)
    return named[1] if named else None


def find(image: str) -> Interpreter:
    """The Python to use for an image: of the version it names if there is one, else our own."""
    wanted = asked(image)
    mine = own()
    if wanted is None or _same(wanted, mine.version):
        return mine
    return next((p for v in _wider(wanted) if (p := _search(v))), mine)


def note(image: str, found: Interpreter) -> str:
    """What to tell the user about the choice."""
    wanted = asked(image)
    if wanted is None and not image:
        return f"Python {found.version} ({found.path})"
    if wanted is None:
        return f"{image} names no Python: this is Python {found.version}"
    if found.version.split(".")[:2] != wanted.split(".")[:2] and "." in wanted:
        return (
            f"Python {wanted} is not on this machine: this is Python {found.version}."
            " Install it, or use the docker engine"
        )
    return f"Python {found.version} ({found.path})"


def _same(wanted: str, have: str) -> bool:
    return have == wanted or have.startswith(wanted + ".")


def _wider(version: str) -> Iterator[str]:
    """``3.13.1``, then ``3.13``."""
    yield version
    if version.count(".") == 2:
        yield version.rpartition(".")[0]


def _search(version: str) -> Interpreter | None:
    import uv

    command = [uv.find_uv_bin(), "python", "find", "--system", "--no-project"]
    # Whatever runs this, a Python is never fetched from anywhere.
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    path = _output([*command, f"cpython@{version}"], environment)
    answer = path and _output([path, "-I", "-c", _ASK], environment)
    if not path or not answer:
        return None
    return Interpreter(str(Path(path)), *answer.split())


def _output(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints; nothing if it fails."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
