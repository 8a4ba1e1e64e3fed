"""The page of volumes: the list, the notebooks that use each, and the deletion of one."""

from typing import Any

from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import Volume, VolumeRequest, parse_request
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.pages.base import Searched
from kaos_hub.service.pages.owned import OwnedPage

_VOLUME = r"(?P<name>[a-z][a-z0-9-]*)"


class _VolumePage(OwnedPage):
    back = ("volumes", "Your volumes")

    async def volumes(self, search: str = "") -> list[Volume]:
        """Return the caller's volumes."""
        return await self.core.volumes.list(self.asker.owner, search)


class VolumesPage(_VolumePage):
    """The page of all volumes."""

    route_name = "/volumes"

    async def get(self) -> None:
        """Show them by name."""
        query = self.asked(Searched)
        self.show("kaos_volumes.html", volumes=await self.volumes(query.search), query=query)

    async def post(self) -> None:
        """Make one, and redirect to the list.

        The XSRF token was checked when the caller was identified.
        """
        wanted = parse_request(VolumeRequest, {"name": self.get_body_argument("name", "").strip()})
        await self.core.volumes.create(self.asker.owner, wanted.name)
        # 303: reloading what follows does not do it again.
        self.redirect(self.at("volumes"), status=303)


class ConfirmVolume(_VolumePage):
    """A question before a volume is deleted."""

    route_name = "/volumes/{name}/confirm/delete"

    async def get(self, name: str) -> None:
        """Ask the question, or refuse with the names of the notebooks that would lack it."""
        found = next((one for one in await self.volumes() if one.name == name), None)
        if found is None:
            raise NotFound(f"You have no volume {name!r}.")
        if found.notebooks:
            raise Conflict(
                f"The volume {name} cannot be deleted: {', '.join(found.notebooks[:20])} would lack"
                " it. Delete these notebooks, or deploy them without it, first."
            )
        self.ask(
            f"Delete the volume {name}?",
            "All files in it are deleted for good. Notebooks, bundles and other volumes stay.",
            "Delete",
            self.at(f"volumes/{name}/delete"),
            self.at("volumes"),
        )


class DeleteVolume(_VolumePage):
    """The deletion of a volume."""

    route_name = "/volumes/{name}/delete"
    right = Right.MANAGE

    async def post(self, name: str) -> None:
        """Delete it, and redirect to the others.

        The XSRF token was checked when the caller was identified.
        """
        await self.core.volumes.delete(self.asker.owner, name)
        # 303: reloading what follows does not do it again.
        self.redirect(self.at("volumes"), status=303)


def volume_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for the pages of volumes below ``prefix``."""
    given = {"prefix": prefix}
    return [
        (f"{prefix}volumes", VolumesPage, given),
        (f"{prefix}volumes/{_VOLUME}/confirm/delete", ConfirmVolume, given),
        (f"{prefix}volumes/{_VOLUME}/delete", DeleteVolume, given),
    ]
