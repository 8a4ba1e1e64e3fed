"""Talking to a Docker Engine: what engine and build client share. Everything here blocks."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.errors import EngineUnavailable, NotFound
from kaos_hub.schemas import Capacity

if TYPE_CHECKING:
    from docker import DockerClient

SCRATCH = "scratch"
"""The name that stands for no image at all."""
_LOADERS = {
    "amd64": "x86_64", "arm64": "aarch64", "arm": "armhf", "386": "i386",
    "ppc64le": "powerpc64le", "s390x": "s390x", "riscv64": "riscv64",
}  # fmt: skip


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn "it does not answer" into our error; what the Engine answers passes through.

    Raises:
        EngineUnavailable: says what to look at.
    """
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError:
        raise
    except (docker.errors.DockerException, requests.RequestException, OSError) as e:
        raise EngineUnavailable(
            f"No Docker Engine answers ({_core(e)}). Is it running, and may this user reach its"
            " socket? DOCKER_HOST says where to look."
        ) from None


def _core(error: BaseException) -> str:
    """The innermost reason: docker wraps requests wraps urllib3 wraps the system."""
    for inner in error.args:
        if isinstance(inner, BaseException):
            return _core(inner)
    return str(error)


def connect(timeout: int = 60) -> "DockerClient":
    """A client for the Engine that ``DOCKER_HOST`` names, else for this machine's.

    Raises:
        EngineUnavailable: it does not answer.
    """
    import docker

    with answering():
        client = docker.from_env(timeout=timeout)
        client.ping()
    return client


def has_buildx() -> bool:
    """Return whether the docker command is here and can drive BuildKit."""
    if not shutil.which("docker"):
        return False
    asked = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return asked.returncode == 0


def keeps_whole_images(info: Mapping[str, Any]) -> bool:
    """Return whether the Engine keeps images in containerd's store.

    That store wants each image with all its layers.

    Args:
        info: what the Engine tells of itself.
    """
    return any(
        "io.containerd.snapshotter" in str(value)
        for _, value in (pair for pair in info.get("DriverStatus") or [] if len(pair) == 2)
    )


def split(reference: str) -> tuple[str, str]:
    """A reference's repository and tag (or digest)."""
    if "@" in reference:
        repository, _, digest = reference.partition("@")
        return repository, digest
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "latest")


def image_id(client: "DockerClient", reference: str) -> str | None:
    """The id of an image that is on this machine; None if it is not."""
    import docker.errors

    try:
        return str(_inspect(client.api, reference)["Id"])
    except docker.errors.ImageNotFound:
        return None


def capacity(info: dict[str, Any]) -> Capacity:
    """Cores and memory, from what the Engine says of itself."""
    return Capacity(cpu=info.get("NCPU") or None, memory=info.get("MemTotal") or None)


def gpus(client: "DockerClient") -> int:
    """Count the GPUs of this machine; 0 if the Engine cannot hand them on."""
    info = client.info()
    if "nvidia" not in (info.get("Runtimes") or {}) and not info.get("CDISpecDirs"):
        return 0
    return sum(1 for _ in Path("/proc/driver/nvidia/gpus").glob("*"))


def _inspect(api: Any, reference: str) -> dict[str, Any]:
    return dict(api.inspect_image(reference))


def pull(client: "DockerClient", reference: str) -> Iterator[str]:
    """Fetch an image; yields what there is to tell.

    Raises:
        NotFound: there is no such image, or we may not have it.
    """
    import docker.errors

    repository, tag = split(reference)
    try:
        for event in client.api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise NotFound(_not_found(reference, str(event["error"])))
            if "progressDetail" not in event or not event["progressDetail"]:
                yield " ".join(str(event[k]) for k in ("id", "status") if k in event)
    except docker.errors.APIError as e:
        raise NotFound(_not_found(reference, e.explanation or str(e))) from None


def _not_found(reference: str, why: str) -> str:
    where = split(reference)[0].partition("/")[0]
    registry = where if "." in where or ":" in where else "Docker Hub"
    return (
        f"There is no image {reference}: it is not on this machine, and {registry} did not give it"
        f" ({why.strip()})"
    )


def describe(client: "DockerClient", image: str) -> dict[str, Any]:
    """Return what the service must know of an image: id, C library, working directory, PATH.

    Raises:
        NotFound: it is not on this machine.
    """
    import docker.errors

    try:
        found = _inspect(client.api, image)
    except docker.errors.ImageNotFound:
        raise NotFound(f"There is no image {image} on this machine") from None
    config: Mapping[str, Any] = found.get("Config") or {}
    variables = dict(v.partition("=")[::2] for v in config.get("Env") or [])
    return {
        "image": found["Id"],
        "libc": _libc(client, found["Id"], found.get("Architecture", "")),
        "workdir": config.get("WorkingDir") or "/",
        "path": variables.get("PATH", ""),
    }


def _libc(client: "DockerClient", image: str, architecture: str) -> str:
    """``musl`` or ``glibc`` (also where there is none: the runtime brings its own)."""
    machine = _LOADERS.get(architecture, architecture)
    # Never started: its file system is only looked at.
    looked_at = client.api.create_container(image, ["/kaos"], entrypoint=["/kaos"])["Id"]
    try:
        musl = _has(client, looked_at, f"/lib/ld-musl-{machine}.so.1")
        # Debian, too, can install musl beside its own.
        return "musl" if musl and not _has(client, looked_at, "/etc/debian_version") else "glibc"
    finally:
        client.api.remove_container(looked_at, v=True, force=True)


def _has(client: "DockerClient", container: str, path: str) -> bool:
    import docker.errors

    try:
        stream, _ = client.api.get_archive(container, path)
    except docker.errors.NotFound:
        return False
    stream.close()
    return True


def weaknesses(info: Mapping[str, Any], isolated: bool) -> list[str]:
    """List what an Engine does not enforce or cannot give.

    Args:
        info: what the Engine tells of itself.
        isolated: whether each build runs in a container of its own.
    """
    found = ["The Docker Engine sets no disk quota: a job may fill the disk."]
    if not isolated:
        found.append(
            "DockerEngine.builder is 'engine': builds of all users share the Engine's images,"
            " caches and network, and their memory, cpu, processes and disk are not limited."
        )
    for flag, what in (
        ("MemoryLimit", "memory limits"),
        ("SwapLimit", "swap limits"),
        ("CpuCfsQuota", "cpu limits"),
        ("PidsLimit", "limits of the number of processes"),
    ):
        if not info.get(flag):
            found.append(f"The machine's kernel enforces no {what} (cgroups).")
    if "nvidia" not in (info.get("Runtimes") or {}):
        found.append("The Docker Engine has no GPU runtime: no GPU can be given out.")
    return found
