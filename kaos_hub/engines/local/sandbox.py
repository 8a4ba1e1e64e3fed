"""Sandboxes: the promised paths (``/kaos/source``, ``/home/kaos``, …), not made on the host.

Bubblewrap makes them where it is installed, else :mod:`.namespaces`, a program of ours that does
the same. Either needs namespaces that the user may make.

What is wrapped sees the machine as its user does, but: bundles and environments are mounted
read-only, the directories to hide are empty, it sees no process but its own, directories appear
that the host has not. For that the root is an empty file system into which the top entries of the
host are bound; ``/opt`` or ``/home`` likewise where something must appear in them.
"""

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kaos_hub.engines.local import namespaces
from kaos_hub.schemas import Mount

HOME = "/home/kaos"
_TRIAL_SECONDS = 30
_PAUSES = (0.2, 1.0)
"""Seconds before the second and the third try."""


def available() -> bool:
    """Return whether a sandbox works here, for this user: it is tried, once."""
    return not why()


def how() -> str:
    """Say in words whether bubblewrap is used here, or kaos_hub does the same."""
    return "works" if shutil.which("bwrap") else "not installed, kaos_hub does the same"


@functools.cache
def why() -> str:
    """Return what keeps it from working here; empty if it works.

    The answer is kept for the life of the process, so a busy machine gets more than one try.
    """
    for pause in _PAUSES:
        found = _trial()
        if not found:
            return ""
        time.sleep(pause)
    return _trial()


def _trial() -> str:
    """Run a command in a sandbox and return what kept it from working."""
    there = shutil.which("bwrap")
    try:
        tried = subprocess.run(
            wrap(["true"], home=Path("/"), workdir="/"),
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"a sandbox cannot be started: {e}"
    if tried.returncode == 0:
        return ""
    complaint = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if there:
        return f"bubblewrap does not work for this user ({complaint}): are namespaces turned off?"
    return (
        "bubblewrap is not installed (the package is called bubblewrap), and without it this user"
        f" may make no namespaces ({complaint})"
    )


def _program() -> list[str]:
    """Find the program that makes the sandbox, now: the PATH in there is the user's to set."""
    there = shutil.which("bwrap")
    return [there] if there else [sys.executable, "-I", "-S", namespaces.__file__]


def wrap(
    argv: Sequence[str],
    mounts: Iterable[Mount] = (),
    hide: Iterable[Path] = (),
    home: Path | None = None,
    workdir: str | None = None,
) -> list[str]:
    """The command that runs ``argv`` in a sandbox; ending its first process ends all of it.

    The environment passes through: it does not belong on a command line, which all users can read.

    Args:
        argv: what to run.
        mounts: host paths to be seen at their targets. The host needs no such target.
        hide: host directories that are empty inside, but for mounts in them.
        home: host directory to be seen, writable, at :data:`HOME`.
        workdir: where to start, as seen inside; by default the home, else ``/``.
    """
    seen = sorted([*mounts, *_home_mount(home)], key=lambda m: m.target)
    hidden = [p.resolve() for p in hide if p.is_dir()]
    targets = [Path(m.target) for m in seen]
    return [
        *_program(),
        # Its parent is a supervisor, which outlives the Hub. Without this one, what is inside would
        # outlive a killed supervisor.
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        *_less_power(),
        *_host(Path("/"), _missing(targets, hidden)),
        *("--dev-bind", "/dev", "/dev", "--proc", "/proc"),
        *(word for path in hidden for word in ("--tmpfs", str(path))),
        *(word for m in seen for word in _bind(m)),
        # What would be written there would be gone with the sandbox: better an error at once.
        *(word for path in [*hidden, Path("/")] for word in ("--remount-ro", str(path))),
        *("--chdir", workdir or (HOME if home else "/")),
        "--",
        *argv,
    ]


def _home_mount(home: Path | None) -> list[Mount]:
    return [Mount(source=str(home), target=HOME, read_only=False)] if home else []


def _bind(mount: Mount) -> tuple[str, str, str]:
    return ("--ro-bind" if mount.read_only else "--bind", mount.source, mount.target)


def _less_power() -> list[str]:
    """Root could otherwise make a read-only mount writable again."""
    return ["--cap-drop", "CAP_SYS_ADMIN"] if os.geteuid() == 0 else []


def _missing(targets: Iterable[Path], hidden: list[Path]) -> list[Path]:
    """The targets that the host has not, and that no hidden directory will hold."""
    return [
        target
        for target in targets
        if not os.path.exists(target)  # noqa: PTH110  Path.exists raises where we may not look
        and not any(target.is_relative_to(h) for h in hidden)
    ]


def _host(directory: Path, missing: list[Path]) -> list[str]:
    """Bind what is in a directory of the host, one by one, so that others can appear beside it."""
    words: list[str] = []
    for entry in _entries(directory):
        if entry in (Path("/dev"), Path("/proc")):
            continue
        if entry.is_symlink():
            words += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.is_dir() and any(entry in t.parents for t in missing):
            words += ["--dir", str(entry), *_host(entry, missing)]
        else:
            # It may vanish meanwhile.
            words += ["--bind-try", str(entry), str(entry)]
    return words


def _entries(directory: Path) -> list[Path]:
    """List a directory; if that is not allowed, at least what we surely need in it."""
    try:
        return sorted(directory.iterdir())
    except PermissionError:
        needed = {Path.home(), Path(sys.prefix), Path(sys.base_prefix)}
        return sorted({p for n in needed for p in (n, *n.parents) if p.parent == directory})
