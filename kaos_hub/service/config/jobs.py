"""Settings of the service for the resources of builds and ingests."""

from traitlets import Float, Unicode
from traitlets.config import Configurable

from kaos_hub.schemas import JobKind, Resources
from kaos_hub.service.config.trainings import checked
from kaos_hub.util.quantities import parse_memory


class JobConfig(Configurable):
    """The resources of jobs that name none themselves."""

    build_cpu = Float(
        2.0,
        min=0.1,
        help="""Cores that a build may use, where builds have limits (docker, kubernetes).

        They count in the limits of its owner; where less is left, but a quarter, it gets what is
        left. Default: 2.""",
    ).tag(config=True)

    build_memory = Unicode(
        "4Gi",
        help="""Bytes of memory that a build may use, in the same way.

        Default: 4Gi, enough to compile most packages.""",
    ).tag(config=True)

    ingest_cpu = Float(
        1.0,
        min=0.1,
        help="""Cores that fetching the data of a manifest may use, in the same way.

        Default: 1; it mostly waits for the network.""",
    ).tag(config=True)

    ingest_memory = Unicode(
        "1Gi",
        help="""Bytes of memory that fetching the data of a manifest may use, in the same way.

        Default: 1Gi.""",
    ).tag(config=True)

    def job_shares(self) -> dict[JobKind, Resources]:
        """Return the resources of builds and ingests.

        Raises:
            TraitError: one is not a quantity.
        """
        build = checked("build_memory", lambda: parse_memory(self.build_memory))
        ingest = checked("ingest_memory", lambda: parse_memory(self.ingest_memory))
        return {
            JobKind.BUILD: Resources(cpu=self.build_cpu, memory=build),
            JobKind.INGEST: Resources(cpu=self.ingest_cpu, memory=ingest),
        }
