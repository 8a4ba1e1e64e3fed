"""The packages that make a kernel of a user's Python on the local engine: a set per version.

They are appended to ``sys.path`` of the kernel's process alone by the program ``launch.py``, which
reads ``kaos-manifest.json`` to see which of the user's packages are too old to be mixed with them.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import kaos_hub
from kaos_hub.engines.local.interpreters import Interpreter

_SDK_SINCE = (3, 11)


def ensure(
    kernels: Path, interpreter: Interpreter, install: Callable[[Path, list[str]], None]
) -> Path:
    """The set for this Python, made if it is missing or of another release of kaos_hub.

    Args:
        kernels: the directory of all sets.
        interpreter: the Python it is for.
        install: installs requirements into a directory, for that Python.
    """
    kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (kernels / f".{interpreter.tag}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure(kernels / interpreter.tag, interpreter, install)


def _ensure(
    target: Path, interpreter: Interpreter, install: Callable[[Path, list[str]], None]
) -> Path:
    wanted = ["ipykernel", *sdk_requirements(interpreter)]
    stamp = {"kaos_hub": kaos_hub.__version__, "from": str(_package()), "wanted": wanted}
    if _stamp(target) == stamp:
        return target
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        install(draft, wanted)
        if len(wanted) > 1:
            (draft / "kaos_hub").symlink_to(_package())
        manifest = describe(draft, interpreter, wanted[1:]) | {"stamp": stamp}
        (draft / "kaos-manifest.json").write_text(json.dumps(manifest, indent=1))
        _swap(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def keep_launcher(kernels: Path) -> None:
    """Have a copy of the kernels' launcher beside the sets.

    A notebook that runs starts kernels by its path, also after an upgrade of kaos_hub, whose
    package may look different then.

    Args:
        kernels: the directory of all sets.

    Raises:
        OSError: it cannot be written.
    """
    kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = (_package() / "workload/notebook/launch.py").read_bytes()
    kept = kernels / "launch.py"
    if not kept.is_file() or kept.read_bytes() != text:
        draft = kernels / f".launch.{secrets.token_hex(4)}"
        draft.write_bytes(text)
        draft.replace(kept)


def sdk_requirements(interpreter: Interpreter) -> list[str]:
    """List what ``import kaos_hub`` needs in a notebook; nothing if Python is too old for it."""
    if tuple(map(int, interpreter.minor.split("."))) < _SDK_SINCE:
        return []
    try:
        needed = requires("kaos-hub") or []
    except PackageNotFoundError:
        return []
    return sorted(line for line in needed if "extra ==" not in line)


def describe(directory: Path, interpreter: Interpreter, sdk: Iterable[str]) -> dict[str, Any]:
    """Describe what the packages of a set need of each other, for kernel and SDK apart."""
    installed = {_canonical(d.metadata["Name"]): d for d in _distributions(directory)}
    environment = {
        "python_version": interpreter.minor,
        "python_full_version": interpreter.version,
        "extra": "",
    }

    def applying(lines: Iterable[str]) -> list[Requirement]:
        wanted = [Requirement(line) for line in lines]
        return [r for r in wanted if r.marker is None or r.marker.evaluate(environment)]

    def part(roots: list[Requirement]) -> dict[str, Any]:
        needs: dict[str, set[tuple[str, str]]] = {}
        queue = list(roots)
        while queue:
            requirement = queue.pop()
            name = _canonical(requirement.name)
            if name not in installed:
                continue
            if name not in needs:
                queue += applying(installed[name].requires or [])
            specifiers = {(s.operator, s.version) for s in requirement.specifier}
            needs.setdefault(name, set()).update(specifiers)
        return {name: _package_entry(installed[name], n) for name, n in sorted(needs.items())}

    return {"kernel": part([Requirement("ipykernel")]), "sdk": part(applying(sdk))}


def _package_entry(distribution: Distribution, needs: set[tuple[str, str]]) -> dict[str, Any]:
    tops = {f.parts[0] for f in distribution.files or [] if f.suffix in (".py", ".so")}
    modules = {t.split(".")[0] for t in tops if not t.endswith((".dist-info", ".data", ".."))}
    return {
        "version": distribution.version,
        "modules": sorted(m for m in modules if m),
        "needs": sorted(needs),
    }


def _distributions(directory: Path) -> Iterable[Distribution]:
    return [Distribution.at(path) for path in sorted(directory.glob("*.dist-info"))]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _package() -> Path:
    return Path(kaos_hub.__file__).parent


def _stamp(target: Path) -> object:
    try:
        return json.loads((target / "kaos-manifest.json").read_bytes())["stamp"]
    except (OSError, ValueError, KeyError):
        return None


def _swap(draft: Path, target: Path) -> None:
    """Put the new set in place. Running kernels have loaded nearly all they need of the old."""
    old = target.with_name(f".{target.name}.old.{secrets.token_hex(4)}")
    if target.exists():
        target.rename(old)
    os.rename(draft, target)  # noqa: PTH104  two names, one meaning
    shutil.rmtree(old, ignore_errors=True)
