"""Start a kernel in the user's own Python. Runs there: CPython 3.8 or newer, standard library only.

The kernel's packages come after everything of the user's on ``sys.path``, in this process alone, so
what the user has is what the user gets, and ``pip freeze`` shows nothing of ours. Only a package
that the user has in a version with which the kernel cannot run is taken from the kernel's set; that
is said on stderr (the notebook's log) and in ``KAOS_KERNEL_REPLACED``.

    KAOS_KERNELS    the directory of the sets (cp38, cp39, …); this file's own by default
    KAOS_PACKAGES   where the user's own ``pip install`` goes
"""

from __future__ import annotations

import json
import os
import re
import site
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


class FromSet:
    """Finds the replaced packages in the kernel's set, before anything else is asked."""

    def __init__(self, directory: str, modules: set[str]) -> None:
        self.directory = directory
        self.modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if path is None and name in self.modules:
            return PathFinder.find_spec(name, [self.directory])
        return None

    def invalidate_caches(self) -> None:
        """Do nothing: there is no cache here."""


class NoSdk:
    """Says why ``import kaos_hub`` cannot work in this Python."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if name == "kaos_hub":
            raise ImportError(self.reason + "; the command `kaos` works all the same")
        return None

    def invalidate_caches(self) -> None:
        """Do nothing: there is no cache here."""


def numbers(text: str) -> list[int]:
    """The release numbers of a version, without trailing zeros."""
    match = re.match(r"\d+(\.\d+)*", text)
    parts = [int(n) for n in match.group().split(".")] if match else [0]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def fits(have: str, operator: str, wanted: str) -> bool:
    """Tell whether a version meets one need of the kernel. What is not understood is met."""
    mine, other = numbers(have), numbers(wanted)
    if operator in (">=", "~="):
        return mine >= other
    if operator == ">":
        return mine > other
    if operator == "<":
        return mine < other
    if operator == "<=":
        return mine <= other
    if operator == "!=" and "*" not in wanted:
        return mine != other
    return True


def installed(name: str) -> str | None:
    """The version of a package of the user's, none if it is not there."""
    try:
        return str(version(name))
    except PackageNotFoundError:
        return None
    except Exception:  # broken metadata of any kind: as good as too old
        return "0"


def misfits(packages: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The user's packages that the set cannot live with: name → (version, the set's own)."""
    found = {}
    for name, package in packages.items():
        have = installed(name)
        if have is not None and not all(fits(have, op, v) for op, v in package["needs"]):
            found[name] = (have, package)
    return found


def read_manifest(directory: str) -> dict[str, Any]:
    """Return what the packages of a set need of each other; empty if no manifest says it."""
    try:
        text = Path(directory, "kaos-manifest.json").read_text(encoding="utf-8")
        return dict(json.loads(text))
    except (OSError, ValueError):
        return {}


def lend(directory: str) -> None:
    """Lend the packages of the kernel's set to this process."""
    manifest = read_manifest(directory)
    # a user with a kernel of their own has chosen what goes with it
    bad = misfits(manifest.get("kernel", {})) if installed("ipykernel") is None else {}
    if bad:
        modules = {m for _, package in bad.values() for m in package["modules"]}
        sys.meta_path.insert(0, FromSet(directory, modules))
        said = "; ".join(
            f"{name} {package['version']} instead of {have}"
            for name, (have, package) in sorted(bad.items())
        )
        os.environ["KAOS_KERNEL_REPLACED"] = said
        say("too old for a kernel, so replaced in its process only: " + said)
    check_sdk(directory, manifest)
    sys.path.append(directory)


def check_sdk(directory: str, manifest: dict[str, Any]) -> None:
    """Say why where the SDK does not fit the user's packages. It never replaces any of them."""
    if installed("kaos-hub") is not None or not manifest:
        return
    if not manifest.get("sdk"):
        sys.meta_path.append(NoSdk("the SDK of kaos_hub needs Python 3.11, this is " + MINOR))
        return
    bad = misfits(manifest["sdk"])
    if bad:
        theirs = ", ".join(f"{name} {have}" for name, (have, _) in sorted(bad.items()))
        sys.meta_path.insert(0, NoSdk("the SDK of kaos_hub cannot work with " + theirs))


def add_packages(root: str) -> None:
    """Let the kernel see what the user installs while it runs, before the image's own packages."""
    directory = str(Path(root, "lib", f"python{MINOR}", "site-packages"))
    try:
        # an absent directory would be remembered as absent
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        say(f"packages cannot be installed into {directory}: {e}")
        return
    sys.path_importer_cache.pop(directory, None)
    if directory in sys.path:
        return
    before = list(sys.path)
    site.addsitedir(directory)
    added = [p for p in sys.path if p not in before]
    theirs = set(site.getsitepackages())
    place = next((i for i, p in enumerate(before) if p in theirs), len(before))
    sys.path[:] = before[:place] + added + before[place:]


def check_ipython() -> None:
    """Make ``IPYTHONDIR``, or unset it if it cannot be written: IPython would not start at all."""
    directory = os.environ.get("IPYTHONDIR")
    if not directory:
        return
    with suppress(OSError):
        Path(directory).mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        say(f"IPYTHONDIR={directory} cannot be written; IPython keeps its files in ~/.ipython")
        del os.environ["IPYTHONDIR"]


def say(text: str) -> None:
    """Tell the notebook's log."""
    sys.stderr.write("kaos: " + text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Become the kernel."""
    here = Path(__file__).resolve().parent
    # Python puts the directory of its script first; nothing of ours may be there
    if not sys.flags.isolated and sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]
    if os.environ.get("KAOS_PACKAGES"):
        add_packages(os.environ["KAOS_PACKAGES"])
    directory = Path(os.environ.get("KAOS_KERNELS") or here, "cp" + MINOR.replace(".", ""))
    if directory.is_dir():
        lend(str(directory))
    check_ipython()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
