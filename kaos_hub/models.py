"""Everything that crosses the wire: the one schema of REST, SDK, command line and admission.

All models are frozen. The service forbids fields it does not know (a typo is an error), the client
ignores them (an old client survives a new service): both use the same classes, see
:func:`parse_request`.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from kaos_hub.errors import InvalidName, InvalidRequest
from kaos_hub.quantities import parse_cpu, parse_duration, parse_gpu, parse_memory


class Model(BaseModel):
    """Base of all models: frozen, and tolerant of unknown fields unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_enum_values=False)


AnyModel = TypeVar("AnyModel", bound=Model)


def parse_request(model: type[AnyModel], data: object) -> AnyModel:
    """Validate what a client sent, refusing unknown fields.

    Raises:
        InvalidRequest: names each wrong field and what would be right. A field whose own
            validator raises a :class:`~kaos_hub.errors.KaosError` raises that error instead.
    """
    try:
        return model.model_validate(data, extra="forbid")
    except ValidationError as e:
        problems = [
            f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg'].removeprefix('Value error, ')}"
            for p in e.errors(include_url=False)
        ]
        raise InvalidRequest("; ".join(problems)) from None


# --- words ---

Digest = Annotated[str, StringConstraints(pattern=r"^blake3:[0-9a-f]{64}$")]
"""The address of content: a file's bytes or a tree's listing."""

_SERVER_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,29}")
_BUNDLE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,62}[A-Za-z0-9._-])?")

DEFAULT_SERVER = "default"
"""How the Hub's default server (whose own name is empty) is called as a notebook."""


def notebook_name(value: str) -> str:
    """Check a notebook's name against JupyterHub's rule for server names.

    Raises:
        InvalidName: says the rule.
    """
    if not _SERVER_NAME.fullmatch(value):
        raise InvalidName(
            f"{value!r} cannot name a notebook: 1 to 30 lower-case letters, digits and single"
            " hyphens, beginning with a letter and not ending with a hyphen"
        )
    return value


def bundle_name(value: str) -> str:
    """Check a bundle's name.

    Raises:
        InvalidName: says the rule.
    """
    if not _BUNDLE_NAME.fullmatch(value):
        raise InvalidName(
            f"{value!r} cannot name a bundle: up to 64 letters, digits, spaces, '.', '_' and '-',"
            " beginning with a letter or digit"
        )
    return value


NotebookName = Annotated[str, AfterValidator(notebook_name)]
BundleName = Annotated[str, AfterValidator(bundle_name)]
Owner = Annotated[str, StringConstraints(pattern=r"^(user|group):.+$")]
"""Who owns a thing: ``user:ada`` or ``group:vision``."""


class BundleKind(StrEnum):
    """What a bundle is for."""

    SOURCE = "source"
    DATA = "data"
    ARTIFACT = "artifact"


class JobKind(StrEnum):
    """What a job does."""

    BUILD = "build"
    MATERIALISE = "materialise"
    INGEST = "ingest"
    TRAIN = "train"


class JobState(StrEnum):
    """Where a job stands: ``QUEUED → SUBMITTED → RUNNING → SUCCEEDED | FAILED | CANCELLED``."""

    QUEUED = "QUEUED"
    SUBMITTED = "SUBMITTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class NotebookState(StrEnum):
    """Where a notebook stands."""

    QUEUED = "QUEUED"
    BUILDING = "BUILDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    @property
    def settled(self) -> bool:
        """Nothing more happens by itself."""
        return self in (NotebookState.RUNNING, NotebookState.STOPPED, NotebookState.FAILED)


class IdleType(StrEnum):
    """What, besides use, keeps a notebook from being idle. The words are Determined's."""

    KERNELS_OR_TERMINALS = "kernels_or_terminals"
    KERNEL_CONNECTIONS = "kernel_connections"
    ACTIVITY = "activity"


# --- quantities ---

Cpu = Annotated[float, BeforeValidator(parse_cpu)]
Memory = Annotated[int, BeforeValidator(parse_memory)]
Gpu = Annotated[int, BeforeValidator(parse_gpu)]
Duration = Annotated[int, BeforeValidator(parse_duration)]


class Resources(Model):
    """What a workload asks for. ``None`` is: whatever the default size says."""

    cpu: Cpu | None = Field(None, description="cores")
    memory: Memory | None = Field(None, description="bytes")
    gpu: Gpu = Field(0, description="whole devices")


class Limits(Model):
    """What an owner may hold at once. ``None`` is no limit."""

    notebooks: int | None = Field(None, ge=0, description="running notebooks")
    builds: int | None = Field(None, ge=0, description="running builds")
    cpu: float | None = Field(None, ge=0, description="cores, summed over running notebooks")
    memory: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_memory(v))
    ] = Field(None, description="bytes, summed over running notebooks")
    gpu: int | None = Field(None, ge=0, description="devices, summed over running notebooks")
    storage: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_memory(v))
    ] = Field(None, description="bytes of bundles, each content counted once")
    idle_timeout: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_duration(v))
    ] = Field(None, description="longest idle timeout one may choose, in seconds")


class Usage(Model):
    """What an owner holds now, in the units of :class:`Limits`."""

    notebooks: int = 0
    builds: int = 0
    cpu: float = 0
    memory: int = 0
    gpu: int = 0
    storage: int = 0


class Size(Model):
    """A named size that the admin offers."""

    name: str
    description: str = ""
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu = 0
    pool: str | None = Field(None, description="the pool it runs in; on Kubernetes only")


class IdlePolicy(Model):
    """When a notebook counts as idle and is stopped. A timeout of 0 is never."""

    timeout: Duration = Field(0, description="seconds; 0 is never")
    type: IdleType = IdleType.KERNELS_OR_TERMINALS


# --- bundles ---


class BundleVersion(Model):
    """One version of a named bundle: an immutable tree."""

    kind: BundleKind
    name: BundleName
    version: int
    digest: Digest
    owner: Owner
    author: str
    created: datetime
    size: int = Field(description="bytes of all files")
    files: int
    current: bool = Field(description="the version that is used when none is named")


class MissingRequest(Model):
    """Which of these does the owner not hold? Sizes (bytes) are checked against limits first."""

    objects: dict[Digest, int] = Field(description="digest → size in bytes", max_length=1_000_000)


class MissingAnswer(Model):
    """The digests to send."""

    missing: list[Digest]


class CommitRequest(Model):
    """Make a version of a tree, all of whose objects the owner holds."""

    kind: BundleKind
    name: BundleName
    root: Digest


class EntryKind(StrEnum):
    """What stands in a tree."""

    FILE = "file"
    EXECUTABLE = "executable"
    LINK = "link"
    DIRECTORY = "directory"


class TreeEntry(Model):
    """One entry of a directory of a bundle."""

    kind: EntryKind
    digest: Digest
    size: int = Field(description="bytes; of a directory, those of all files below")
    name: str


# --- jobs and notebooks ---


class Job(Model):
    """A unit of work and how it went."""

    id: str
    kind: JobKind
    owner: Owner
    state: JobState
    reason: str = Field("", description="why it is in this state, for people")
    progress: int = Field(0, ge=0, le=100, description="per cent")
    attempt: int = 1
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None


class Stage(Model):
    """One of a notebook's two stages."""

    name: str = Field(description="build or host")
    state: str = Field(description="a JobState, or SKIPPED where nothing had to be done")
    reason: str = ""
    progress: int = Field(0, ge=0, le=100, description="per cent")
    started: datetime | None = None
    finished: datetime | None = None
    job: str | None = None


class NotebookRequest(Model):
    """Deploy a notebook, or deploy it again. What is not given stays, or takes its default."""

    name: NotebookName | None = Field(None, description="none: a name is found")
    display_name: str | None = Field(None, max_length=120)
    source: str | None = Field(None, description="digest, name, or name@v2 of a source bundle")
    data: str | None = Field(None, description="digest, name, or name@v2 of a data bundle")
    size: str | None = Field(None, description="one of the sizes the admin offers")
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu | None = None
    idle_timeout: Duration | None = Field(None, description="seconds; 0 is never")
    idle_type: IdleType | None = None
    pull: bool = Field(False, description="look up the base image again")
    restart: bool = Field(False, description="restart a running notebook if the change needs it")
    dry_run: bool = Field(False, description="say what would happen, do nothing")


class IdleVerdict(Model):
    """What the idle rule says of a running notebook, and from what."""

    idle: bool
    reason: str = Field(description="the evidence, for people")
    since: datetime | None = Field(None, description="idle since")
    stops_at: datetime | None = None


class BundleLink(Model):
    """Which bundle a notebook uses."""

    name: str
    version: int
    digest: Digest


class Notebook(Model):
    """A notebook: a named server of a user, with its two stages."""

    name: str
    display_name: str = ""
    owner: Owner
    state: NotebookState
    reason: str = Field("", description="why it is in this state, for people")
    progress: int = Field(0, ge=0, le=100, description="per cent of both stages")
    pending: bool = Field(
        False, description="it runs, and will restart by itself once a new version is built"
    )
    url: str = Field(description="where it answers, without a slash at the end")
    source: BundleLink | None = None
    data: BundleLink | None = None
    resources: Resources = Resources()
    idle: IdlePolicy = IdlePolicy()
    verdict: IdleVerdict | None = None
    build: Stage
    host: Stage
    created: datetime
    started: datetime | None = None
    stopped: datetime | None = None


class DeployAnswer(Model):
    """What a deploy did, or (dry run) would do."""

    notebook: Notebook
    actions: list[str] = Field(description="what is done, in order, for people")


class Event(Model):
    """Something that happened to a notebook. Ids grow; a stream can be resumed after one."""

    id: int
    notebook: str
    at: datetime
    state: NotebookState
    reason: str = ""
    progress: int = 0


class KernelEvidence(Model):
    """One kernel, as its own server sees it."""

    execution_state: str = Field(description="busy, idle, starting… as Jupyter says it")
    connections: int = Field(0, ge=0)
    last_activity: datetime


class TerminalEvidence(Model):
    """One terminal, as its own server sees it."""

    last_activity: datetime


class Activity(Model):
    """What the server extension reports of its own server."""

    kernels: list[KernelEvidence] = Field(default=[], max_length=1000)
    terminals: list[TerminalEvidence] = Field(default=[], max_length=1000)
    last_use: datetime = Field(description="last write, execution or page load by a person")
    source: Digest | None = Field(None, description="the source the working copy follows")
    out_of_memory: datetime | None = Field(
        None, description="when a process of the notebook was last ended for want of memory"
    )


class ActivityAnswer(Model):
    """What the server extension is told back."""

    verdict: IdleVerdict
    source: Digest | None = Field(None, description="the source the working copy should follow")


class Whoami(Model):
    """The asking user, with limits and use."""

    user: str
    owner: Owner
    admin: bool = False
    limits: Limits
    usage: Usage


class Info(Model):
    """What this service is and offers. Needs no login."""

    version: str
    engine: str
    sizes: list[Size]
    default_size: str = ""
    gpu: bool = Field(description="whether the engine has GPUs to give")
    idle: IdlePolicy
    max_file_size: int
    max_files: int


class ErrorBody(Model):
    """How the API reports an error."""

    code: str
    message: str
    details: dict[str, Any] = {}


class LoginRequest(Model):
    """A command line asks to be let in by a person in a browser (RFC 8628 in spirit).

    ``challenge`` is the SHA-256, in hex, of a secret that the command line keeps.
    """

    challenge: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    client: str = Field(max_length=100, description="host name shown to the person")


class LoginStarted(Model):
    """Where the person confirms, and the code they compare."""

    url: str
    user_code: str
    expires_in: int


class LoginPoll(Model):
    """Ask for the token; ``verifier`` is the secret behind the challenge."""

    verifier: Annotated[str, StringConstraints(min_length=20, max_length=200)]


class LoginAnswer(Model):
    """The token, once the person has confirmed."""

    token: str | None = None


# --- admission: between spawner and service, never through the proxy ---


class Mount(Model):
    """Something on disk that a workload sees."""

    source: str = Field(description="path on the machine, or below the root of volume or tree")
    target: str
    read_only: bool = True
    volume: str | None = Field(None, description="Kubernetes: name of the claim that holds it")
    digest: Digest | None = Field(
        None, description="Kubernetes: tree that is fetched into the pod before it starts"
    )


class Pool(Model):
    """Nodes of a cluster that belong together, as the admin names them."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = Field([], description="as in a pod's specification")
    gpu_resource: str = Field("nvidia.com/gpu", description="what these nodes call a GPU")


class NotebookSpec(Model):
    """Everything a spawner needs to start a notebook. The service makes it, the spawner obeys."""

    notebook: str
    workload: str = Field(description="of process or container: kaos-notebook-<id>-<start>")
    owner: Owner
    image: str | None = Field(None, description="image reference; none on the local engine")
    python: str | None = Field(None, description="the kernel's interpreter on the local engine")
    mounts: list[Mount] = []
    environment: dict[str, str] = {}
    resources: Resources
    labels: dict[str, str] = {}
    uid: int | None = Field(None, description="user the container runs as")
    pool: Pool | None = Field(None, description="Kubernetes: the nodes it may run on; None is any")


class AdmissionRequest(Model):
    """The spawner asks whether a server may start, and as what."""

    user: str
    server: str = Field(description="the Hub's server name; empty is the default server")
    options: dict[str, Any] = {}


class ReleaseRequest(Model):
    """The spawner tells that a server is gone."""

    user: str
    server: str
    workload: str
    exit_code: int | None = None
    stopped_by_hub: bool = Field(description="somebody asked for it; else it died by itself")
    reason: str = ""
