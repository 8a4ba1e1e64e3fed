"""The SDK's volumes."""

from kaos_hub.schemas import Volume
from kaos_hub.transport.http import Transport, parse, quoted


class Volumes:
    """Named volumes of the asking user; a deploy that names one makes it, too."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> "list[Volume]":
        """All volumes, by name."""
        found = self._transport.json("GET", "/api/v1" + quoted("volumes"))
        return [parse(Volume, each) for each in found]

    def create(self, name: str) -> Volume:
        """Make a volume.

        Raises:
            Conflict: there is one of that name.
            LimitExceeded: there are as many as may be.
        """
        made = self._transport.json("POST", "/api/v1" + quoted("volumes"), {"name": name})
        return parse(Volume, made)

    def delete(self, name: str) -> None:
        """Delete a volume with all files in it.

        Raises:
            NotFound: there is none of that name.
            Conflict: a notebook uses it.
        """
        self._transport.json("DELETE", "/api/v1" + quoted("volumes", name))
