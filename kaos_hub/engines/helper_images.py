"""Images of ours that a Docker Engine makes itself, from files that come with kaos_hub.

Each is a folder below ``images/``. Its tag has a hash of everything that goes in, so a change is a
new image beside the old one, and making one twice, or at the same time, is harmless.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_hub import __version__
from kaos_hub.errors import BuildFailed, EngineUnavailable, NotFound

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "kaos_hub.helper"
_ROOT = Path(__file__).parents[2]
_TAIL = 10
"""Lines of a build that failed which are told."""


def folder(name: str) -> Path:
    """Find the files of an image: in a checkout, or where an installation puts its data.

    Raises:
        NotFound: they are not installed.
    """
    checkout = _ROOT / "images" / name
    if (checkout / "Dockerfile").exists():
        return checkout
    try:
        installed = metadata.files("kaos-hub") or []
    except metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if str(file).endswith(f"share/kaos_hub/images/{name}/Dockerfile"):
            return Path(str(file.locate())).resolve().parent
    raise NotFound(
        f"share/kaos_hub/images/{name} is not installed with kaos_hub; the Docker engine needs it:"
        " install kaos-hub again, from a wheel or its repository"
    )


def reference(name: str, arguments: Mapping[str, str] | None = None) -> str:
    """Return the reference of an image.

    Args:
        name: of its folder below ``images/``.
        arguments: of the build.

    Raises:
        NotFound: its files are not installed.
    """
    return _reference(name, _files(name), arguments or {})


def ensure(
    client: "DockerClient",
    name: str,
    arguments: Mapping[str, str] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> str:
    """Build an image if it is not there; returns its reference. Blocks.

    Args:
        client: of the Engine; its timeout must be some minutes.
        name: of its folder below ``images/``.
        arguments: of the build.
        log: told each line of the build's output.

    Raises:
        BuildFailed: with the last lines of the build's output.
        EngineUnavailable: the Docker Engine does not answer, or refuses.
        NotFound: its files are not installed.
    """
    from docker.errors import DockerException

    files = _files(name)
    called = _reference(name, files, arguments or {})
    try:
        if not client.images.list(name=called):
            given = {**(arguments or {}), "VERSION": __version__}
            build(client, f"the image {name}", archive(files), called, given, {LABEL: name}, log)
    except DockerException as e:
        raise EngineUnavailable(f"the Docker Engine cannot make the image {name}: {e}") from e
    return called


def archive(files: Sequence[tuple[str, bytes]]) -> bytes:
    """The context of a build, as a compressed tar; scripts in it may be executed.

    Args:
        files: name and content of each.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def build(
    client: "DockerClient",
    what: str,
    context: bytes,
    called: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    log: Callable[[str], None],
) -> None:
    """Build an image of ours with whichever builder the Engine's API has.

    Args:
        client: of the Engine.
        what: the image, as messages name it.
        context: from :func:`archive`.
        called: what to tag the result with.
        arguments: of the build.
        labels: of the result.
        log: told each line of the build's output.

    Raises:
        BuildFailed: with the last lines of the build's output.
        docker.errors.DockerException: the Engine does not answer, or refuses.
    """
    tail: list[str] = []
    stream = client.api.build(
        fileobj=io.BytesIO(context),
        custom_context=True,
        encoding="gzip",
        tag=called,
        buildargs=dict(arguments),
        labels=dict(labels),
        rm=True,
        forcerm=True,
        decode=True,
    )
    for event in stream:
        for line in str(event.get("stream") or event.get("status") or "").splitlines():
            if line.strip():
                log(line)
                tail = [*tail[1 - _TAIL :], line]
        if event.get("error"):
            raise BuildFailed(f"{what} could not be built: {event['error']}\n" + "\n".join(tail))


def _files(name: str) -> list[tuple[str, bytes]]:
    """Name and content of each file of the context, always in the same order."""
    return [(p.name, p.read_bytes()) for p in sorted(folder(name).iterdir()) if p.is_file()]


def _reference(name: str, files: Sequence[tuple[str, bytes]], arguments: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    given = [(key, value.encode()) for key, value in sorted(arguments.items())]
    for key, content in [*given, *files]:
        digest.update(f"{key}\0{len(content)}\0".encode())
        digest.update(content)
    return f"kaos-hub/{name}:{__version__}-{digest.hexdigest()[:12]}"
