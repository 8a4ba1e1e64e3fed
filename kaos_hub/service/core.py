"""The parts of the service that the handlers work on, put together once at its start."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kaos_hub.installation.logins import Served
from kaos_hub.schemas import Info
from kaos_hub.service.auth.auth import Caller
from kaos_hub.service.handed import Handed

if TYPE_CHECKING:
    from kaos_hub.engines.base import Engine
    from kaos_hub.service.auth.owners import Owners
    from kaos_hub.service.bundles.archives import Deposits
    from kaos_hub.service.bundles.browse import Catalogue
    from kaos_hub.service.bundles.deletion import Removal
    from kaos_hub.service.bundles.likeness import Likenesses
    from kaos_hub.service.bundles.versions import Versions
    from kaos_hub.service.db.database import Database
    from kaos_hub.service.handover import Handover
    from kaos_hub.service.jobs.jobs import Jobs
    from kaos_hub.service.notebooks.errands import Errands
    from kaos_hub.service.notebooks.gate import Gate
    from kaos_hub.service.notebooks.notebooks import Notebooks
    from kaos_hub.service.notebooks.volumes import Volumes
    from kaos_hub.service.quota import Ledger
    from kaos_hub.service.trainings.trainings import Trainings
    from kaos_hub.service.users.identities import Identities
    from kaos_hub.transport.tickets import Tickets


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
