"""Where a user's own ``pip install`` goes: into the notebook's home, one directory per environment.

It persists there, and never meets a new environment. Standard library only.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

_MINOR = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", re.MULTILINE)
_SYSTEM = re.compile(r"^include-system-site-packages\s*=\s*true", re.MULTILINE | re.IGNORECASE)


def environment(
    packages_dir: str | Path | None,
    python: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables that make ``pip install`` of ``python`` put its packages into ``packages_dir``.

    For kernels, terminals and what they start; a server of ours should not have them. ``python`` is the
    user's, found on the path if not given. An ordinary Python gets them as user packages. A virtual
    environment refuses those, so there it is a prefix, and the path of modules leads to it.
    """
    environ = os.environ if environ is None else environ
    if not packages_dir:
        return {}
    python = python or environ.get("KAOS_PYTHON") or _which(environ)
    packages = Path(packages_dir)
    found = {
        "KAOS_PACKAGES": str(packages),
        "PYTHONUSERBASE": str(packages),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Debian and others forbid even user packages, to protect their own tools; none of those are here
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
    }
    minor = _virtual(Path(python)) if python else None
    if minor is None:
        found["PIP_USER"] = "1"
    else:
        found |= {"PIP_PREFIX": str(packages), "PIP_NO_WARN_SCRIPT_LOCATION": "1"}
        modules = str(packages / "lib" / f"python{minor}" / "site-packages")
        found["PYTHONPATH"] = ":".join([*_without(environ.get("PYTHONPATH", ""), modules), modules])
    programs = str(packages / "bin")
    found["PATH"] = ":".join([programs, *_without(environ.get("PATH") or os.defpath, programs)])
    return found


def _which(environ: Mapping[str, str]) -> str | None:
    path = environ.get("PATH") or os.defpath
    return shutil.which("python", path=path) or shutil.which("python3", path=path)


def _virtual(python: Path) -> str | None:
    """The version (``3.11``) of the virtual environment that a Python belongs to, if it refuses user packages."""
    for directory in (python.parent.parent, python.parent):
        try:
            text = (directory / "pyvenv.cfg").read_text()
        except OSError:
            continue
        minor = _MINOR.search(text)
        return minor[1] if minor and not _SYSTEM.search(text) else None
    return None


def _without(path: str, entry: str) -> list[str]:
    """The entries of a path list but this one."""
    return [p for p in path.split(":") if p and p != entry]
