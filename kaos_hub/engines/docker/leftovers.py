"""Containers and volumes of image builds: what they are called, and what is left of them."""

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_hub.engines.docker.client import image_id
from kaos_hub.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

BUILD = "kaos_hub.build"
"""Label of containers and volumes of builds: which hub's they are."""
BASE = "kaos_hub.base"
"""Label of a volume with a store of a base image: which."""
BUILDER = "kaos_hub.builder"
"""Label of such a volume: the builder that made it."""
_DISK, _FILLING = "-disk", "-filling"
_DAY = 86400
_LONGEST_FILLING = 900


def cache_volume(hub: str, owner: str) -> str:
    """The volume with the layers and cache mounts of an owner's builds."""
    return f"{hub}-cache-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"


def base_volume(base: str, builder: str) -> str:
    """The volume with the store of a base image: one for all hubs of an Engine."""
    return f"kaos-base-{base.removeprefix('sha256:')[:32]}-{builder.removeprefix('sha256:')[:8]}"


def made(volume: str) -> str:
    """The volume that says of another that it is whole."""
    return f"{volume}-made"


def measuring(name: str) -> str:
    """The container that looks at the disk of a build."""
    return f"{name}{_DISK}"


def filling(volume: str) -> str:
    """The container that makes a store of a base image."""
    return f"{volume}{_FILLING}"


def is_there(client: "DockerClient", volume: str) -> bool:
    """Return whether there is a volume of that name."""
    import docker.errors

    try:
        client.api.inspect_volume(volume)
    except docker.errors.NotFound:
        return False
    return True


def kill(client: "DockerClient", name: str) -> None:
    """End a container at once; nothing if it does not run."""
    import docker.errors

    with contextlib.suppress(docker.errors.APIError):
        client.api.kill(name)


def clear(client: "DockerClient", name: str) -> None:
    """Remove the containers of a build, running or not, with what they wrote.

    Raises:
        EngineUnavailable: one cannot be removed.
    """
    import docker.errors

    for container in (measuring(name), name):
        try:
            client.api.remove_container(container, v=True, force=True)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as e:
            # Another process is removing it.
            if e.status_code != 409:
                raise EngineUnavailable(f"{container} cannot be removed: {e.explanation}") from None


def wait_for_end(client: "DockerClient", name: str, hub: str) -> None:
    """Wait until a container is gone; one of the hub's, or that stays for too long, is removed."""
    import docker.errors
    import requests

    try:
        if client.api.inspect_container(name)["Config"]["Labels"].get(BUILD) == hub:
            clear(client, name)
        client.api.wait(name, timeout=_LONGEST_FILLING, condition="removed")
    except docker.errors.NotFound:
        return
    except requests.RequestException:
        clear(client, name)


def sweep(
    client: "DockerClient", hub: str, state: Path, going: Collection[str], days: int
) -> None:  # fmt: skip
    """Remove what builds left behind that are no more.

    Args:
        client: of the Engine.
        hub: what the names of this hub's containers and volumes begin with.
        state: where is kept what is known of volumes.
        going: the builds that run.
        days: for how many a cache is kept that no build uses.
    """
    mine = {"label": f"{BUILD}={hub}"}
    for container in client.api.containers(all=True, filters=mine):
        name = container["Names"][0].removeprefix("/")
        if name.removesuffix(_DISK) not in going and not name.endswith(_FILLING):
            clear(client, name)
    for volume in client.api.volumes(filters=mine)["Volumes"] or []:
        mark = state / f"{volume['Name']}.used"
        if not mark.exists() or time.time() - mark.stat().st_mtime > days * _DAY:
            _remove(client, volume["Name"])
            mark.unlink(missing_ok=True)
    for volume in client.api.volumes(filters={"label": BASE})["Volumes"] or []:
        needed = (volume["Labels"].get(label, "none") for label in (BASE, BUILDER))
        if not all(image_id(client, image) for image in needed):
            _remove(client, volume["Name"])


def _remove(client: "DockerClient", volume: str) -> None:
    import docker.errors

    # What is in use stays.
    with contextlib.suppress(docker.errors.APIError):
        client.api.remove_volume(volume)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock of a file, and hold it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
