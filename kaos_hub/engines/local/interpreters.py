"""The Python of this machine that stands in for the one a Dockerfile begins from."""

import contextlib
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
_OLDEST = (3, 8)
"""Older ones cannot be kernels."""
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
    """Return what to tell the user about the choice."""
    wanted = asked(image)
    if wanted is None and not image:
        return f"Python {found.version} ({found.path})"
    if wanted is None:
        return f"{image} names no Python: this is Python {found.version}"
    return mismatch(image, found.version) or f"Python {found.version} ({found.path})"


def mismatch(image: str, version: str) -> str:
    """Return a note if a Python is of another minor version than the image's; else nothing."""
    wanted = asked(image)
    if wanted is None or "." not in wanted or version.split(".")[:2] == wanted.split(".")[:2]:
        return ""
    return (
        f"Python {wanted} is not on this machine: this is Python {version}."
        f" Install it (uv python install {wanted}), or use the docker engine"
    )


def _same(wanted: str, have: str) -> bool:
    return have == wanted or have.startswith(wanted + ".")


def _wider(version: str) -> Iterator[str]:
    """``3.13.1``, then ``3.13``."""
    yield version
    if version.count(".") == 2:
        yield version.rpartition(".")[0]


def _search(version: str) -> Interpreter | None:
    """The Python of a version: one that uv finds, else the newest that a version manager has."""
    return _found_by_uv(version) or _installed(version)


def _installed(version: str) -> Interpreter | None:
    minor = ".".join(version.split(".")[:2])
    if "." in minor and tuple(map(int, minor.split("."))) < _OLDEST:
        return None
    names = (f"python{minor}", "python3", "python")
    found: list[Interpreter] = []
    for place in _places():
        path = next((p for name in names if os.access(p := place / name, os.X_OK)), None)
        answer = _output([str(path), "-I", "-c", _ASK], dict(os.environ)) if path else ""
        if len(answer.split()) == 2:
            python = Interpreter(str(path), *answer.split())
            if python.implementation == "cpython" and _same(version, python.version):
                found.append(python)
    return max(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.version)], default=None)


def _places() -> Iterator[Path]:
    """Yield folders where version managers, conda and systems keep Pythons off the path."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    for root in (
        pyenv / "versions",
        Path(os.environ.get("ASDF_DATA_DIR") or home / ".asdf") / "installs/python",
        Path(os.environ.get("MISE_DATA_DIR") or home / ".local/share/mise") / "installs/python",
        Path("/opt/python"),
    ):
        yield from sorted(root.glob("*/bin"))
    with contextlib.suppress(OSError):
        for line in (home / ".conda/environments.txt").read_text().splitlines():
            yield Path(line.strip(), "bin")
    for name in ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba"):
        yield home / name / "bin"
        yield from sorted((home / name / "envs").glob("*/bin"))
    yield from map(Path, ("/usr/local/bin", "/usr/bin", "/opt/conda/bin", "/opt/homebrew/bin"))


def _found_by_uv(version: str) -> Interpreter | None:
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
    """Return what a command prints; nothing if it fails."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
