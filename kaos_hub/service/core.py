"""The parts of the service that the handlers work on, put together once at its start."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kaos_hub.logins import Served
from kaos_hub.models import Info
from kaos_hub.service.auth import Caller
from kaos_hub.service.handed import Handed

if TYPE_CHECKING:
    from kaos_hub.catalogue import Catalogue
    from kaos_hub.database import Database
    from kaos_hub.depositing import Deposits
    from kaos_hub.engines.base import Engine
    from kaos_hub.handover import Handover
    from kaos_hub.identities import Identities
    from kaos_hub.jobs import Jobs
    from kaos_hub.ledger import Ledger
    from kaos_hub.likeness import Likenesses
    from kaos_hub.notebooks import Errands, Gate, Notebooks
    from kaos_hub.notebooks.volumes import Volumes
    from kaos_hub.removal import Removal
    from kaos_hub.service.owners import Owners
    from kaos_hub.tickets import Tickets
    from kaos_hub.trainings import Trainings
    from kaos_hub.versions import Versions


@dataclass(frozen=True)
class Core:
    """The parts of a running service."""

    info: Info
    public_url: str
    """The URL of the Hub as a browser reaches it, without a slash at the end."""
    served: Served | None
    """The only user who may use the service, or None if all may.

    It is set where builds and notebooks run as the service's own OS user, or share the Docker
    Engine's builder.
    """
    db: "Database"
    engine: "Engine"
    ledger: "Ledger"
    versions: "Versions"
    catalogue: "Catalogue"
    likenesses: "Likenesses"
    removal: "Removal"
    deposits: "Deposits"
    jobs: "Jobs"
    notebooks: "Notebooks"
    gate: "Gate"
    errands: "Errands"
    trainings: "Trainings"
    volumes: "Volumes"
    owners: "Owners"
    identities: "Identities"
    handover: "Handover"
    tickets: "Tickets"
    handed: Handed = field(default_factory=Handed)

    async def known(self, caller: Caller) -> Caller:
        """Return the caller with the owner that belongs to its identity, and its present name.

        The Hub's answer about a token may be some seconds old, so its name is not trusted.
        """
        if not caller.identity:
            return caller
        owner = await self.identities.bind("user", caller.identity, caller.user, current=False)
        return replace(caller, user=self.identities.name(owner), known_as=owner)

    def admit(self, caller: Caller) -> None:
        """Refuse a user whom this installation does not serve.

        Raises:
            Forbidden: it does not; the message says how to serve more than one user.
        """
        if self.served is not None:
            self.served.check(caller.user)
