"""What the handlers work on: the service's parts, put together once at its start."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kaos_hub.errors import Forbidden
from kaos_hub.models import Info
from kaos_hub.service.auth import Caller
from kaos_hub.service.handed import Handed

if TYPE_CHECKING:
    from kaos_hub.catalogue import Catalogue
    from kaos_hub.database import Database
    from kaos_hub.depositing import Deposits
    from kaos_hub.engines.base import Engine
    from kaos_hub.jobs import Jobs
    from kaos_hub.ledger import Ledger
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
    """The Hub as a browser reaches it, without a slash at the end."""
    only_user: str | None
    """Set where builds and notebooks run as the service's own OS user: nobody else may use them."""
    db: "Database"
    engine: "Engine"
    ledger: "Ledger"
    versions: "Versions"
    catalogue: "Catalogue"
    removal: "Removal"
    deposits: "Deposits"
    jobs: "Jobs"
    notebooks: "Notebooks"
    gate: "Gate"
    errands: "Errands"
    trainings: "Trainings"
    volumes: "Volumes"
    owners: "Owners"
    tickets: "Tickets"
    handed: Handed = field(default_factory=Handed)

    def admit(self, caller: Caller) -> None:
        """Refuse whoever this installation does not serve.

        Raises:
            Forbidden: says how to serve more than one user.
        """
        if self.only_user is not None and caller.user != self.only_user:
            raise Forbidden(
                f"The engine `local` runs everything as OS user {self.only_user!r} and so serves"
                " only that user. Use the engine `docker`, or start it with --trust-all-users."
            )
