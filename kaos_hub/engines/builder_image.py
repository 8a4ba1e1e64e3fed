"""The builder on a Docker Engine: where users' builds run, see ``images/README.md``."""

import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from kaos_hub.engines import helper_images
from kaos_hub.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

NAME = "builder"
DEFAULT_BASE = "debian:trixie-slim"
BASE = "KAOS_BUILDER_BASE"
"""Variable with another base; builds have to be told it, too."""
_PROFILE = "/usr/share/containers/seccomp.json"
"""The seccomp profile of the containers project, which comes with buildah. It lets user namespaces
and mounts be made, and little else beyond Docker's own."""


def _arguments() -> dict[str, str]:
    return {"BASE": os.environ.get(BASE) or DEFAULT_BASE}


def reference() -> str:
    """Return the reference of the image.

    Raises:
        NotFound: the files to build from are not installed.
    """
    return helper_images.reference(NAME, _arguments())


def ensure(client: "DockerClient", log: Callable[[str], None]) -> str:
    """Build the image if it is not there; returns its reference. Blocks, up to a minute or two.

    Args:
        client: of the Engine; its timeout must be some minutes.
        log: told each line of the build's output.

    Raises:
        BuildFailed: with the last lines of the build's output.
        EngineUnavailable: the Docker Engine does not answer, or refuses.
        NotFound: the files to build from are not installed.
    """
    return helper_images.ensure(client, NAME, _arguments(), log)


def prune(client: "DockerClient") -> None:
    """Remove builders of other versions that nothing uses.

    Raises:
        EngineUnavailable: the Docker Engine does not answer.
    """
    from docker.errors import APIError, DockerException

    current, mine = reference(), {"label": f"{helper_images.LABEL}={NAME}"}
    try:
        for image in client.images.list(filters=mine):
            for name in set(image.tags) - {current}:
                try:
                    client.images.remove(name)
                except APIError as e:
                    if e.status_code not in (404, 409):
                        raise
    except DockerException as e:
        raise EngineUnavailable(f"the Docker Engine cannot remove old builders: {e}") from e


def seccomp_profile(client: "DockerClient", image: str) -> str:
    """The seccomp profile of containers of a builder image, as JSON. Nothing runs for it."""
    made = client.api.create_container(image, ["true"])["Id"]
    try:
        stream, _ = client.api.get_archive(made, _PROFILE)
        with tarfile.open(fileobj=BytesIO(b"".join(stream))) as tar:
            file = tar.extractfile(tar.next() or "")
            profile: dict[str, Any] = json.loads(file.read()) if file else {}
    finally:
        client.api.remove_container(made, v=True, force=True)
    # Allowed there only with a capability of the container's. A build has that capability in its
    # own user namespace, and nowhere else.
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "chroot"]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    profile["syscalls"].append({"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "args": []})
    return json.dumps(profile, separators=(",", ":"))
