"""The Docker Engine's events."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kaos_hub.engines.docker.client import answering
from kaos_hub.engines.listening import Listening

if TYPE_CHECKING:
    from docker import DockerClient


class Events(Listening):
    """One connection to the Engine's events of our containers.

    Args:
        connect: makes a connection to the Engine; blocks.
        label: which containers.
    """

    def __init__(self, connect: Callable[[], "DockerClient"], label: str) -> None:
        super().__init__("events of the Docker Engine")
        self._connect, self._label = connect, label

    def _follow(self) -> None:
        with answering():
            client = self._connect()
            filters = {"type": "container", "label": self._label}
            self._stream = client.api.events(decode=True, filters=filters)
            self._wake_all()
            for event in self._stream:
                self._wake(str(event.get("Actor", {}).get("Attributes", {}).get("name", "")))

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
