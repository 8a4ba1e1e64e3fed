"""Base images on a Docker Engine: the registries that may be asked, and what is no base."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kaos_hub.engines.docker import client as engine
from kaos_hub.errors import BuildFailed, NotFound
from kaos_hub.registry.names import DOCKER_HUB, Reference
from kaos_hub.transport.hosts import Hosts, Later, Wrong

if TYPE_CHECKING:
    from docker import DockerClient

KEY = "kaos_hub.key"
"""Label of each image that a build for a user left: the key of its environment."""
_HTTPS = 443


@dataclass(frozen=True)
class Registries:
    """The registries that may be asked for images that users name.

    The Engine asks from this machine, so a registry with an address that is not public could be
    anything that listens here or beside it.

    Args:
        allowed: registries that may be asked wherever they are, as in ``registry.local:5000``.
    """

    allowed: Sequence[str] = ()

    def judge(self, image: Reference) -> None:
        """Refuse an image of a registry that may not be asked.

        Raises:
            NotFound: says what the admin would have to set.
        """
        if image.registry == DOCKER_HUB or image.registry in self.allowed:
            return
        parts = urlsplit(f"//{image.registry}")
        try:
            Hosts((), "DockerEngine.registries").find(parts.hostname or "", parts.port or _HTTPS)
        except (Wrong, Later, ValueError) as e:
            raise NotFound(
                f"There is no image {image}: it is not on this machine, and the registry"
                f" {image.registry} is not asked ({e})"
            ) from None


def resolve(
    client: "DockerClient", image: str, again: bool, registries: Registries
) -> str:  # fmt: skip
    """The id of the image that a reference means; fetched if it is not here, or if told.

    Args:
        client: of the Engine.
        image: as a user wrote it; ids of images are no references.
        again: ask the registry even if the image is here.
        registries: which may be asked.

    Raises:
        NotFound: neither this machine nor the registry has it, or the registry is not to be asked.
    """
    if image == engine.SCRATCH:
        return engine.SCRATCH
    # In full: the Engine would take a few letters for the id of an image that it has.
    reference = Reference.parse(image)
    have = engine.image_id(client, str(reference))
    if have is not None and not again:
        return have
    try:
        for _ in fetch(client, reference, registries):
            pass
    except NotFound:
        # What it meant before will do, if it cannot be fetched again.
        if have is None:
            raise
    found = engine.image_id(client, str(reference))
    if found is None:
        raise NotFound(f"There is no image {image}, here or in a registry")
    return found


def fetch(
    client: "DockerClient", image: Reference, registries: Registries
) -> Iterator[str]:  # fmt: skip
    """Fetch an image, if its registry may be asked; yields what there is to tell.

    Raises:
        NotFound: there is no such image, or the registry is not to be asked.
    """
    registries.judge(image)
    yield from engine.pull(client, str(image))


def have(
    client: "DockerClient", bases: Iterable[tuple[str, str]], registries: Registries
) -> Iterator[str]:
    """See to it that each base image that a build was pinned to is here; yields what is told.

    Args:
        client: of the Engine.
        bases: reference and id of each.
        registries: which may be asked for one that is gone.

    Raises:
        BuildFailed: the reference means another image by now, and the one wanted is gone.
    """
    for reference, wanted in bases:
        if wanted == engine.SCRATCH or engine.image_id(client, wanted):
            continue
        yield from fetch(client, Reference.parse(reference), registries)
        if not engine.image_id(client, wanted):
            raise BuildFailed(
                f"{reference} is another image by now than the one this environment was pinned to"
                f" ({wanted}). Deploy with --pull to take the new one."
            )


def is_built(client: "DockerClient", image: str) -> bool:
    """Return whether an image has the label of what a build for a user left."""
    return KEY in (_config(client, image).get("Labels") or {})


def triggers(client: "DockerClient", image: str) -> list[str]:
    """The ONBUILD instructions of an image."""
    return [str(line) for line in _config(client, image).get("OnBuild") or []]


def _config(client: "DockerClient", image: str) -> dict[str, Any]:
    import docker.errors

    try:
        return dict(client.images.get(image).attrs.get("Config") or {})
    except (docker.errors.ImageNotFound, docker.errors.NullResource):
        return {}
