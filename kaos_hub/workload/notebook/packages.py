"""The place of a user's own ``pip install``: in the notebook's home, a directory per environment.

It persists there, and never meets a new environment. Standard library only.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PIP_SETTINGS = "/opt/kaos/etc/xdg"
"""In the runtime: its ``pip/pip.conf`` makes ``pip install`` of an ordinary Python a user's."""


def environment(
    packages_dir: str | Path | None,
    python: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables that make ``pip install`` put its packages into ``packages_dir``.

    For kernels, terminals and what they start. An ordinary Python gets them as user packages. A
    virtual environment refuses those, so another is laid over it in ``packages_dir``, for pip to
    work on.

    Args:
        packages_dir: without one, pip is left alone.
        python: the user's; found on the path if not given.
        environ: what the variables add to; this process's if not given.
    """
    environ = os.environ if environ is None else environ
    if not packages_dir:
        return {}
    packages = Path(packages_dir)
    found = {
        "KAOS_PACKAGES": str(packages),
        "PYTHONUSERBASE": str(packages),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Debian and others forbid even user packages, to protect tools that no notebook has
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        # last: nothing in it may hide a program of the image's
        "PATH": _last(environ.get("PATH") or os.defpath, str(packages / "bin")),
    }
    python = python or environ.get("KAOS_PYTHON") or _which(environ)
    virtual = _virtual(Path(python)) if python else None
    if virtual is None:
        # Not PIP_USER: `pip list` and `pip freeze` would then show nothing but user packages.
        settings = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        return found | {"XDG_CONFIG_DIRS": _last(PIP_SETTINGS, *settings.split(":"))}
    try:
        modules = virtual.lay_over(packages)
    except OSError as e:
        print(f"kaos: pip cannot install into {packages}: {e}", file=sys.stderr)
        return {}
    return found | {
        "PIP_PYTHON": str(packages),
        # pip before 22.3 does not know PIP_PYTHON
        "PIP_PREFIX": str(packages),
        "PIP_NO_WARN_SCRIPT_LOCATION": "1",
        "PYTHONPATH": _last(environ.get("PYTHONPATH", ""), str(modules)),
    }


@dataclass(frozen=True)
class Virtual:
    """A virtual environment of the user's."""

    python: Path
    prefix: Path
    settings: str
    """The content of its ``pyvenv.cfg``."""
    minor: str
    """Like ``3.11``."""

    def modules(self, prefix: Path) -> Path:
        return prefix / "lib" / f"python{self.minor}" / "site-packages"

    def lay_over(self, target: Path) -> Path:
        """Make ``target`` a virtual environment that has what this one has; returns its modules.

        Pip then adds, upgrades and removes there, and leaves alone what is below.

        Raises:
            OSError: it cannot be written.
        """
        modules = self.modules(target)
        modules.mkdir(parents=True, exist_ok=True)
        (target / "bin").mkdir(exist_ok=True)
        below = f"import site; site.addsitedir({str(self.modules(self.prefix))!r})\n"
        _write(modules / "_kaos_below.pth", below)
        _write(target / "pyvenv.cfg", self.settings)
        for name in ("python", "python3"):
            link = target / "bin" / name
            if not link.is_symlink():
                link.symlink_to(self.python.resolve())
        return modules


def _virtual(python: Path) -> Virtual | None:
    """The virtual environment that a Python belongs to, if it does."""
    prefix = python.parent.parent
    try:
        settings = (prefix / "pyvenv.cfg").read_text()
    except OSError:
        return None
    version = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", settings, re.MULTILINE)
    return Virtual(python, prefix, settings, version[1]) if version else None


def _which(environ: Mapping[str, str]) -> str | None:
    path = environ.get("PATH") or os.defpath
    return shutil.which("python", path=path) or shutil.which("python3", path=path)


def _write(path: Path, text: str) -> None:
    """Write it if it is not so already; never half of it, for another may read it right now."""
    try:
        if path.read_text() == text:
            return
    except OSError:
        pass
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def _last(path: str, *entries: str) -> str:
    """A path list with the entries at its end, each once."""
    others = [p for p in path.split(":") if p and p not in entries]
    return ":".join([*others, *dict.fromkeys(entries)])
