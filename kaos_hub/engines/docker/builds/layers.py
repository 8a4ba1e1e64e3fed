"""Layers that a Docker Engine has: those of a build's bases, and of its owner's last images.

A build does not have to leave these, so a little change costs little. An image may begin with them
and with no others: what another owner's builds left is not in reach.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_hub.engines.docker import client as engine
from kaos_hub.engines.docker.leftovers import write

if TYPE_CHECKING:
    from docker import DockerClient

_MOST = 10
"""The number of an owner's last images that are looked at."""


class LayersGone(Exception):
    """An image whose layers a build did not leave has been removed meanwhile."""


class Layers:
    """The layers that a build does not have to leave.

    Args:
        client: of the Engine.
        bases: ids of the base images.
        record: file with the ids of the images that its owner's builds left on this hub, the last
            one first. Written by us alone. None: only the bases count.
    """

    def __init__(
        self, client: "DockerClient", bases: Sequence[str], record: Path | None = None
    ) -> None:
        self._client, self._record = client, record
        self.whole = engine.keeps_whole_images(client.info())
        """True if the Engine wants all layers of each image."""
        self._own: list[str] = []
        self.chains: list[list[str]] = []
        """Layers that lie over each other, by the digest of their content, from below."""
        if not self.whole:
            self.chains = [found for base in bases if (found := self._layers(base))]
            for image in self._read():
                if found := self._layers(image):
                    self._own.append(image)
                    self.chains.append(found)

    def _read(self) -> list[str]:
        if self._record is None or not self._record.exists():
            return []
        return self._record.read_text().split()[:_MOST]

    def _layers(self, image: str) -> list[str] | None:
        import docker.errors

        try:
            found = dict(self._client.images.get(image).attrs)
        except docker.errors.ImageNotFound:
            return None
        return [str(layer) for layer in (found.get("RootFS") or {}).get("Layers") or []]

    def text(self) -> str:
        """A line for each chain."""
        lines = (" ".join(d.removeprefix("sha256:") for d in chain) for chain in self.chains)
        return "\n".join(sorted(set(lines)))

    def check(self) -> None:
        """See whether the owner's images are still there.

        Raises:
            LayersGone: one is not.
        """
        if not all(engine.image_id(self._client, image) for image in self._own):
            raise LayersGone

    def remember(self, image: str) -> None:
        """Have the next build of the owner look at an image."""
        if self._record is not None:
            others = [one for one in self._read() if one != image]
            write(self._record, "\n".join([image, *others][:_MOST]))
