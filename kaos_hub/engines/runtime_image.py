"""The runtime: image and volume that make a notebook of any other image; see ``images/README.md``.

Its tag is the version of kaos_hub and a hash of everything that goes in, so a change is a new
runtime beside the old one, and running notebooks keep theirs. Building twice, or at the same time,
is harmless.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_hub import __version__
from kaos_hub.engines import helper_images
from kaos_hub.errors import EngineUnavailable, NotFound

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "kaos-hub/runtime"
LABEL = "kaos.runtime"
ROOT = "/opt/kaos"
"""The path at which the volume has to be mounted, read-only."""
COMMAND = f"{ROOT}/bin/kaos-notebook"
"""The command of a notebook's container."""

_PACKAGE = Path(__file__).parent.parent
# What notebooks and workers need of kaos_hub: the SDK, the command line and what runs inside. A
# change of the service is no new runtime.
_PARTS = (
    "__init__.py",
    "py.typed",
    "errors.py",
    "live.py",
    "bundles",
    "cli",
    "client",
    "formats",
    "installation",
    "registry",
    "schemas",
    "transport",
    "util",
    "workload",
)


@dataclass(frozen=True)
class Runtime:
    """One state of the runtime: what it is built from, and how that is called."""

    files: tuple[tuple[str, bytes], ...]
    hub: str
    """The release series of JupyterHub, like ``6.1``."""

    @cached_property
    def tag(self) -> str:
        digest = hashlib.sha256(f"{self.hub}\n".encode())
        for name, content in self.files:
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return f"{__version__}-{digest.hexdigest()[:12]}"

    @property
    def image(self) -> str:
        return f"{REPOSITORY}:{self.tag}"

    @property
    def volume(self) -> str:
        return f"kaos-runtime-{self.tag}"


def current() -> Runtime:
    """The runtime as this installation would build it now.

    Raises:
        NotFound: the files to build from are not installed, or JupyterHub is not.
    """
    return Runtime(tuple(_context()), _hub_series())


def tag() -> str:
    """Version and hash of all that goes into the runtime; see :func:`current` for errors."""
    return current().tag


def reference() -> str:
    """The image's reference; see :func:`current` for errors."""
    return current().image


def volume() -> str:
    """The name of the volume to mount at :data:`ROOT`.

    ``KAOS_RUNTIME_VOLUME`` names it for processes whose parent has called :func:`ensure`, so that
    all mean the same one even while the sources are edited. See :func:`current` for errors.
    """
    return os.environ.get("KAOS_RUNTIME_VOLUME") or current().volume


def ensure(
    client: "DockerClient", log: Callable[[str], None], runtime: Runtime | None = None
) -> str:
    """Build the image and fill the volume, each if it is not there; returns the volume's name.

    Takes a minute or two the first time, about a second after that. Blocks.

    Args:
        client: of the Engine; its timeout must be some minutes.
        log: told each line of the build's output.
        runtime: :func:`current` if not given.

    Raises:
        BuildFailed: with the last lines of the build's output.
        EngineUnavailable: the Docker Engine does not answer, or refuses.
        NotFound: the files to build from are not installed, or JupyterHub is not.
    """
    from docker.errors import DockerException

    runtime = runtime or current()
    ensure_image(client, log, runtime)
    try:
        _fill(client, runtime)
    except DockerException as e:
        raise EngineUnavailable(f"the Docker Engine cannot make the runtime: {e}") from e
    return runtime.volume


def ensure_image(
    client: "DockerClient", log: Callable[[str], None], runtime: Runtime | None = None
) -> str:
    """Build the image if it is not there; returns its reference. See :func:`ensure`."""
    from docker.errors import DockerException

    runtime = runtime or current()
    try:
        if not client.images.list(name=runtime.image):
            _build(client, runtime, log)
    except DockerException as e:
        raise EngineUnavailable(f"the Docker Engine cannot make the runtime: {e}") from e
    return runtime.image


def prune(client: "DockerClient", older: float = 3600) -> list[str]:
    """Remove runtimes of other versions that nothing uses; returns the names of what went.

    Args:
        client: of the Engine.
        older: seconds; what is younger stays, for another process may be about to use it.

    Raises:
        EngineUnavailable: the Docker Engine does not answer.
    """
    from docker.errors import DockerException

    runtime = current()
    before = datetime.now(UTC) - timedelta(seconds=older)
    gone: list[str] = []
    try:
        for held in client.volumes.list(filters={"label": LABEL}):
            if held.name != runtime.volume and _time(held.attrs["CreatedAt"]) < before:
                gone += _unless_used(held.name, held.remove)
        for image in client.images.list(name=REPOSITORY, filters={"label": LABEL}):
            if _time(image.attrs["Created"]) < before:
                for name in set(image.tags) - {runtime.image}:
                    gone += _unless_used(name, partial(client.images.remove, name))
    except DockerException as e:
        raise EngineUnavailable(f"the Docker Engine cannot remove old runtimes: {e}") from e
    return gone


def _unless_used(name: str, remove: Callable[[], None]) -> list[str]:
    from docker.errors import APIError

    try:
        remove()
    except APIError as e:
        if e.status_code not in (404, 409):
            raise
        return []
    return [name]


def _time(text: str) -> datetime:
    """A time as the Engine writes it, whose fractions can be too fine for Python."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text))


def _build(client: "DockerClient", runtime: Runtime, log: Callable[[str], None]) -> None:
    arguments = {"JUPYTERHUB_VERSION": runtime.hub, "VERSION": runtime.tag}
    helper_images.build(
        client,
        "the runtime",
        helper_images.archive(runtime.files),
        runtime.image,
        arguments,
        {LABEL: runtime.tag},
        log,
    )


def _fill(client: "DockerClient", runtime: Runtime) -> None:
    """Fill the volume from the image; the container sees for itself whether that is needed."""
    client.volumes.create(name=runtime.volume, labels={LABEL: runtime.tag})
    client.containers.run(
        runtime.image,
        remove=True,
        network_mode="none",
        labels={LABEL: runtime.tag},
        volumes={runtime.volume: {"bind": "/volume", "mode": "rw"}},
    )


def _hub_series() -> str:
    """The release series of the Hub that the notebooks of this machine talk to, like ``6.1``."""
    try:
        return ".".join(metadata.version("jupyterhub").split(".")[:2])
    except metadata.PackageNotFoundError:
        raise NotFound("JupyterHub is not installed; install kaos-hub[hub]") from None


def _context() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of the build's context, always in the same order."""
    files = helper_images.folder("runtime")
    for path in sorted(p for p in files.iterdir() if p.is_file()):
        yield path.name, path.read_bytes()
    yield "sdk-requirements.txt", "\n".join(_requirements()).encode() + b"\n"
    for part in _PARTS:
        top = _PACKAGE / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"package/kaos_hub/{path.relative_to(_PACKAGE)}", path.read_bytes()
    yield f"package/kaos_hub-{__version__}.dist-info/METADATA", _metadata().encode()


def _requirements() -> list[str]:
    """List the requirements of the light install of kaos_hub."""
    return sorted(r for r in metadata.requires("kaos-hub") or () if "extra ==" not in r)


def _metadata() -> str:
    needs = "".join(f"Requires-Dist: {r}\n" for r in _requirements())
    return f"Metadata-Version: 2.1\nName: kaos-hub\nVersion: {__version__}\n{needs}"
