"""The default kernel of a notebook: which Python it runs in, and what it is called.

Where the runtime is mounted over an image this is the image's own Python, found on the ``PATH`` or
named by ``KAOS_PYTHON``. A kernel needs packages; a set of them per version of CPython lies in
``KAOS_KERNELS`` and is lent to that one process by ``launch.py``. Where there is no Python, or one
that no set fits, the kernel runs in the runtime's own Python, and says so. Standard library only:
this runs before every kernel.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from kaos_hub.workload.notebook import packages

RUNTIME = Path("/opt/kaos")
TITLE = "Python 3 (this image)"
NAME = "python3"

_NAMED = re.compile(r"python(\d)\.(\d+)")
_ASK = (
    "import sys, sysconfig; n = getattr(sys, 'implementation', None);"
    "print(n and n.name or 'CPython', sys.version_info[0], sys.version_info[1],"
    " sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
)


@dataclass(frozen=True)
class Choice:
    """The Python of a kernel; without ``python`` the runtime's own, for the reason given."""

    python: str | None
    reason: str = ""

    @property
    def title(self) -> str:
        """The name of the kernel in the launcher of JupyterLab."""
        if self.python:
            return TITLE
        return f"Python {sys.version_info[0]}.{sys.version_info[1]} (of kaos: {self.reason})"


def kernels_directory(environ: Mapping[str, str]) -> Path:
    """Return the folder in which the sets of kernel packages lie."""
    return Path(environ.get("KAOS_KERNELS") or RUNTIME / "kernel")


def choose(environ: Mapping[str, str]) -> Choice:
    """Find the Python for the default kernel: the first on the path that a set of packages fits."""
    kernels = kernels_directory(environ)
    reason = "this image has no Python"
    for number, python in enumerate(_candidates(environ)):
        problem = _problem(python, kernels)
        if not problem:
            return Choice(python)
        if number == 0:
            reason = problem
    return Choice(None, reason)


def _candidates(environ: Mapping[str, str]) -> Iterable[str]:
    named = environ.get("KAOS_PYTHON")
    # an empty PATH means the default one, as it does to the system; pip's own Python is not meant
    installed = environ.get("KAOS_PACKAGES")
    places = (environ.get("PATH") or os.defpath).split(":")
    if installed:
        places = [p for p in places if p != str(Path(installed, "bin"))]
    for name in [*([named] if named else []), "python", "python3"]:
        found = shutil.which(name, path=":".join(places))
        if found:
            yield found


def _problem(python: str, kernels: Path) -> str:
    """Return why this Python cannot be the kernel's; empty if it can."""
    if is_musl():
        return "this image's Python has another C library (musl)"
    # Most are called python3.X in the end: no need to start one to learn its version.
    named = _NAMED.fullmatch(Path(python).resolve().name)
    version = (int(named[1]), int(named[2])) if named else _ask(python)
    if version is None:
        return f"{python} is no CPython that works"
    if not (kernels / f"cp{version[0]}{version[1]}").is_dir():
        return f"Python {version[0]}.{version[1]} of this image is not supported"
    return ""


def is_musl() -> bool:
    """Tell whether programs of this image use musl, with which ours do not work."""
    loaders = [p.name for d in ("/lib", "/lib64") for p in Path(d).glob("ld-*.so.*")]
    return bool(loaders) and all(name.startswith("ld-musl") for name in loaders)


def _ask(python: str) -> tuple[int, int] | None:
    """The version of a CPython with its lock, as it says itself; none for anything else."""
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=20, check=True
        )
        name, major, minor, free_threaded = asked.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if name.lower() != "cpython" or free_threaded != "0":
        return None
    return int(major), int(minor)


def run(arguments: list[str]) -> None:
    """Become the default kernel. What it is instead is said on stderr, for the notebook's log."""
    environ = dict(os.environ)
    choice = choose(environ)
    launcher = str(kernels_directory(environ) / "launch.py")
    if choice.python:
        command = [choice.python, launcher, *arguments]
    else:
        print(
            f"kaos: {choice.reason}; the kernel is Python {sys.version.split()[0]} of kaos",
            file=sys.stderr,
            flush=True,
        )
        # `python` and `pip` of a cell's shell commands are then the runtime's, too
        environ["PATH"] = f"{RUNTIME}/own:{environ.get('PATH') or os.defpath}"
        command = [sys.executable, "-I", launcher, *arguments]
    os.execve(command[0], command, environ)  # noqa: S606


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make ``environ``, a server's, such that what it starts installs into the notebook's home."""
    python = choose(environ).python or sys.executable
    environ.update(packages.environment(environ.get("KAOS_PACKAGES"), python, environ))


def write_kernelspec(directory: Path, python: Path, launcher: Path, kernels_dir: Path) -> Path:
    """Describe a kernel in ``python`` below ``directory``, which then belongs on ``JUPYTER_PATH``.

    For the engine without containers, which knows its Python beforehand. Returns the kernel's
    directory.
    """
    target = directory / "kernels" / NAME
    target.mkdir(parents=True, exist_ok=True)
    description = {
        "argv": [str(python), str(launcher), "-f", "{connection_file}"],
        "display_name": "Python 3 (this environment)",
        "language": "python",
        "metadata": {"debugger": True},
        "env": {"KAOS_KERNELS": str(kernels_dir), "KAOS_PYTHON": str(python)},
    }
    (target / "kernel.json").write_text(json.dumps(description, indent=1))
    return target
