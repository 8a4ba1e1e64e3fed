"""The disk use of a build in a container, measured from outside of it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kaos_hub.engines.docker import client as engine
from kaos_hub.engines.docker.leftovers import kill, measuring
from kaos_hub.util.quantities import show_memory

if TYPE_CHECKING:
    from docker import DockerClient

_MEASURE = (
    "while sleep 3; do"
    " echo $(du -skc /storage /cache /out | tail -n 1) $(du --inodes -sc /storage /cache /out |"
    " tail -n 1); done"
)
_MEMORY = 256 << 20
_LONG = 24 * 3600


class Disk:
    """The disk of one build, which is ended for too much of it.

    It is looked at from another container: one that the commands of the build neither see nor can
    end.

    Args:
        client: of the Engine.
        image: the builder.
        name: the build's container.
        limit: bytes that the build may fill.
        labels: of the container.
    """

    def __init__(
        self, client: "DockerClient", image: str, name: str, limit: int, labels: dict[str, str]
    ) -> None:
        self._client, self._image, self._name, self._limit = client, image, name, limit
        self._labels = labels
        self.full = ""
        """The reason why the build was ended; empty if it was not."""

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, the disk is looked at every few seconds."""
        name = measuring(self._name)
        self._client.containers.create(
            self._image,
            ["/bin/sh", "-c", _MEASURE],
            name=name,
            user="0:0",
            init=True,
            volumes_from=[f"{self._name}:ro"],
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=["DAC_READ_SEARCH"],
            security_opt=["no-new-privileges"],
            mem_limit=_MEMORY,
            pids_limit=64,
            labels=self._labels,
        )
        self._client.api.start(name)
        done = threading.Event()
        watching = threading.Thread(target=self._follow, args=(name, done), daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            self._end(name)
            watching.join(10)

    def _end(self, name: str) -> None:
        import docker.errors

        with contextlib.suppress(docker.errors.NotFound):
            self._client.api.remove_container(name, force=True)

    def _follow(self, name: str, done: threading.Event) -> None:
        import docker.errors
        import requests

        client = engine.connect(_LONG)
        try:
            # On standard error, du names files that went away meanwhile: that is no trouble.
            for line in client.api.logs(name, stderr=False, stream=True, follow=True):
                words = line.split()
                # Each file takes something, too, however short it is.
                used = (int(words[0]) + int(words[2])) << 10
                if used > self._limit:
                    self.full = f"{show_memory(used)} of {show_memory(self._limit)}"
                    break
        except (docker.errors.DockerException, requests.RequestException, OSError):
            pass
        except (ValueError, IndexError):  # du has given no number: it was ended
            pass
        if not done.is_set():
            # What cannot be measured cannot go on.
            self.full = self.full or "it cannot be measured any more"
            kill(client, self._name)
        client.close()
