"""The contract of an engine: where work runs.

An engine knows workloads by name (``kaos-<kind>-<id>``). Every verb may be repeated: submitting
what is already there adopts it, cancelling or removing what is gone succeeds. So a process that
drives an engine may die at any moment and simply begin again.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from kaos_hub.engines.places import Places
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Capacity, JobKind, Mount, NotebookSpec, Pool, Resources


class Phase(StrEnum):
    """The state of a workload, as an engine sees it."""

    ABSENT = "absent"
    """No such workload, and none that ended."""
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    """It vanished without an ending of its own: machine restarted, supervisor killed."""

    @property
    def ended(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.LOST)

    @property
    def going(self) -> bool:
        return self in (Phase.PENDING, Phase.RUNNING)


class Cause(StrEnum):
    """The reason why a workload ended as it did."""

    NONE = ""
    ERROR = "error"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    MISSING_IMAGE = "missing_image"
    STORAGE = "storage"
    """It used more disk than it may."""
    EVICTED = "evicted"
    """It had to make room for others, or its machine was short of something."""
    TRANSFER = "transfer"
    """Its inputs could not be fetched, or its results could not be sent."""
    CONFIGURATION = "configuration"
    """The engine is set up in a way that cannot work; its admin has to do something."""
    LOST = "lost"

    @property
    def infrastructure(self) -> bool:
        """Not the user's fault: worth trying again."""
        return self in (Cause.MISSING_IMAGE, Cause.EVICTED, Cause.TRANSFER, Cause.LOST)


@dataclass(frozen=True)
class Observation:
    """A workload at one moment."""

    phase: Phase
    cause: Cause = Cause.NONE
    message: str = ""
    """The reason why it ended so, or what it waits for."""
    exit_code: int | None = None
    started: datetime | None = None
    finished: datetime | None = None
    result: dict[str, Any] = field(default_factory=dict)
    """The result of the work, e.g. ``{"image": "sha256:…"}`` or ``{"python": "/…/bin/python"}``."""


@dataclass(frozen=True)
class Build:
    """Make the environment that a source bundle asks for.

    ``source`` is the digest of the bundle's tree, laid out (empty: there is no bundle):
    ``Dockerfile`` beside ``context`` (a folder in it, ``"."`` for the whole). ``key`` names the
    environment: two builds of one key are the same. ``bases`` maps each base image the Dockerfile
    names to what it was resolved to.
    """

    source: str
    key: str
    image: str
    """The name of the result: a repository and tag, private to the owner."""
    context: str = "model"
    bases: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    """Versions to install, as ``name==version``, of what is asked for; without images only."""


@dataclass(frozen=True)
class Materialise:
    """Lay the tree ``digest`` out where the engine has its trees, from the store at ``store``."""

    digest: str
    store: str
    """URL of the store, for engines that can reach it; ``http…``: of the service, which gives what
    is in a store of which only it has the key."""


@dataclass(frozen=True)
class Run:
    """Run a command of the user's, or a program of ours in an image of the user's."""

    command: tuple[str, ...]
    image: str | None = None
    """Image reference; ignored on the local engine."""
    environment: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    """A mount may lie within another, or within a scratch directory."""
    workdir: str | None = None
    module: str = ""
    """Module of ours that the runtime's own Python runs; ``command`` is then its arguments."""
    scratch: tuple[str, ...] = ()
    """Paths at which it sees empty, writable directories. They are deleted with the workload."""
    storage: int = 0
    """Bytes that these may hold, all together; 0: as the engine is set. Not all engines see to it;
    those that do end the workload for more, so it had better end some way before by itself."""
    ticket: bool = False
    """True if the workload finds its own ticket in the file :data:`TICKET` when it starts.

    :data:`IDENTITY` lies beside it. Its program reads and deletes both before it runs anything of a
    user's."""
    pool: Pool | None = None
    """Kubernetes: the nodes it may run on; None: those of other jobs."""


Work = Build | Materialise | Run

TICKET = "/kaos/ticket"
"""File with a workload's ticket; below ``$KAOS_ROOT``, if that is set."""
IDENTITY = "/kaos/identity.pem"
"""File with the certificate of a workload that has a ticket, where the hub's parts speak TLS."""
ROOT = "KAOS_ROOT"
"""Variable that an engine sets which cannot show a workload its mounts and scratch directories at
their places: they are all below the directory that it names."""


def to_json(work: Work) -> dict[str, Any]:
    """Work as a database keeps it."""
    said = {f.name: getattr(work, f.name) for f in fields(work)}
    if isinstance(work, Run):
        said["mounts"] = [mount.model_dump() for mount in work.mounts]
        said["pool"] = work.pool.model_dump() if work.pool else None
        said["command"], said["scratch"] = list(work.command), list(work.scratch)
    return said


def from_json(kind: str, work: dict[str, Any]) -> Work:
    """Restore the work of a job of that kind from what :func:`to_json` made of it."""
    if kind == JobKind.BUILD:
        return Build(**work)
    if kind == JobKind.MATERIALISE:
        return Materialise(**work)
    mounts = tuple(Mount.model_validate(mount) for mount in work["mounts"])
    pool = Pool.model_validate(work["pool"]) if work["pool"] else None
    lists = {name: tuple(work[name]) for name in ("command", "scratch")}
    return Run(**{**work, **lists, "mounts": mounts, "pool": pool})


@dataclass(frozen=True)
class JobSpec:
    """A workload to be run once."""

    name: str
    owner: str
    work: Work
    resources: Resources = field(default_factory=Resources)
    deadline: int = 3600
    """Seconds after which the work is ended with cause ``deadline``."""


class Engine(ABC):
    """A place where work runs."""

    name: ClassVar[str]
    lacks: str = ""
    """A sentence on what bundles may count on and workloads will not find; empty if nothing."""
    uid: int | None = None
    """User and group id that workloads run as; None where they run as the service's own user."""
    images: ClassVar[bool] = True
    """True if builds leave images; else they leave an environment of Python packages."""

    async def start(self) -> None:  # noqa: B027 - most have nothing to do
        """Make ready; called once.

        Raises:
            EngineUnavailable: says what is missing and how to get it.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of connections. Work goes on."""

    @property
    @abstractmethod
    def places(self) -> Places:
        """The places where trees and homes lie."""

    async def admitted(self, spec: NotebookSpec) -> None:  # noqa: B027 - most have nothing to do
        """Make ready what a notebook needs that is about to be started by the Hub; repeatable.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    async def submit(self, spec: JobSpec) -> None:
        """Start the work, or adopt it if a workload of that name is there, running or ended.

        Raises:
            EngineUnavailable: the engine does not answer; nothing is known.
            Unsupported: this engine can never do that; says why, with file and line where there is
                one.
        """

    @abstractmethod
    async def observe(self, name: str) -> Observation:
        """Return the present state of the workload. A missing one is no error, but ``ABSENT``.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    def watch(self, name: str) -> AsyncIterator[Observation]:
        """The present observation, then each change, until an ended (or absent) one, inclusive."""

    @abstractmethod
    async def cancel(self, name: str) -> None:
        """End the work and everything it started. Returns when it is really gone."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Forget an ended workload and its logs here; ends it first if it still runs."""

    @abstractmethod
    def logs(self, name: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The workload's output from ``offset`` on, followed until it ends.

        The output is one stream of stamped lines (``2026-01-31T12:00:00.123456Z text\\n``); an
        offset counts bytes of that stream, which never changes once seen. Invalid UTF-8 is
        replaced, very long lines are broken. A workload that is not there (any more) has an empty
        stream.
        """

    @abstractmethod
    async def resolve(self, image: str, pull: bool = False) -> str:
        """Return what an image reference means now, as something that never changes its meaning.

        Raises:
            NotFound: no such image, says where it was looked for.
        """

    @abstractmethod
    async def has(self, result: dict[str, Any]) -> bool:
        """Return whether what a build left (its ``result``) is still usable."""

    async def libc(self, image: str) -> str:
        """The C library of an image, as it was resolved: ``musl``, ``glibc``, or nothing where
        that is seen only once something runs in it."""
        return ""

    def substitution(self, image: str, resolved: str) -> str:
        """Return a note for the user if ``resolved`` is not what ``image`` names; else nothing."""
        return ""

    async def is_built(self, image: str) -> bool:
        """Return whether a resolved image says of itself that a build of kaos_hub left it."""
        return False

    async def triggers(self, image: str) -> list[str]:
        """The ONBUILD instructions of an image, as it was resolved."""
        return []

    def owns(self, image: Reference) -> bool:
        """Return whether the name of an image is one that builds of kaos_hub give."""
        return False

    @property
    def classic_builder(self) -> bool:
        """Return whether the Docker Engine's classic builder, which lacks much, builds images."""
        return False

    @property
    def buildah(self) -> bool:
        """Return whether buildah builds the images."""
        return self.images

    @property
    @abstractmethod
    def platform(self) -> str:
        """Operating system and architecture that builds are for; part of every environment key."""

    @abstractmethod
    def problems(self) -> list[str]:
        """List what is weaker here than promised, in plain words, for ``kaos doctor``."""

    async def gpus(self) -> int:
        """Return the number of GPUs that can be given out."""
        return 0

    async def capacity(self) -> Capacity:
        """The most that one workload can have; a cluster whose nodes come and go does not know."""
        return Capacity()
