"""Jobs and notebooks."""

from datetime import datetime

from pydantic import Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.errands import ErrandOrder
from kaos_hub.schemas.git import Clone, CloneOrder, GitCredentials, GitWish
from kaos_hub.schemas.options import BindMount, BindMounts, Variables, VolumeMount, VolumeMounts
from kaos_hub.schemas.resources import Cpu, Duration, Gpu, IdlePolicy, Memory, Resources
from kaos_hub.schemas.words import (
    Digest,
    IdleType,
    JobKind,
    JobState,
    NotebookName,
    NotebookState,
    Owner,
    ShownText,
)


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
    display_name: ShownText | None = Field(
        None, max_length=120, description="free text that says what it is for"
    )
    source: str | None = Field(None, description="digest, name, or name@v2 of a source bundle")
    data: str | None = Field(None, description="digest, name, or name@v2 of a data bundle")
    context: str | None = Field(
        None,
        description="digest, name, or name@v2 of a context bundle, whose files are laid over the"
        " source's; `-` is none again",
    )
    run: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{16}\.[0-9]{1,7}$",
        description="id of a model: its source, data, params and itself are what it works on",
    )
    size: str | None = Field(None, description="one of the sizes the admin offers")
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu | None = Field(None, description="whole devices; 0 is none, whatever the size has")
    pool: str | None = Field(
        None, max_length=64, description="Kubernetes: the nodes to run on; `-` is any again"
    )
    idle_timeout: Duration | None = Field(None, description="seconds; 0 is never")
    idle_type: IdleType | None = None
    environment: Variables | None = Field(
        None,
        description="variables of kernels and terminals; those not named stay as they are, one with"
        " an empty value is taken away",
    )
    bind_mounts: BindMounts | None = Field(
        None, description="folders of the machine, of those that the admin allows; [] is none again"
    )
    image: str | None = Field(
        None,
        max_length=512,
        description="a ready-made environment of those that the admin offers, or an image if any"
        " may be named: nothing is built, a source is only worked on; `-` is none again",
    )
    volumes: VolumeMounts | None = Field(
        None, description="named volumes, made where there is none yet; [] is none again"
    )
    git: GitWish | None = Field(
        None,
        description="URL[@REF] of a repository that is cloned into the working directory, once; REF"
        " is a branch, tag or commit; `-` is none again, and leaves what was cloned",
    )
    git_credentials: GitCredentials | None = Field(
        None,
        repr=False,
        description="for a private repository: handed to the notebook once, never shown again",
    )
    pull: bool = Field(False, description="look up the base image again")
    restart: bool = Field(False, description="restart a running notebook if the change needs it")
    dry_run: bool = Field(False, description="say what would happen, do nothing")


class IdleVerdict(Model):
    """The verdict of the idle rule on a running notebook, and the evidence."""

    idle: bool
    reason: str = Field(description="the evidence, for people")
    since: datetime | None = Field(None, description="idle since")
    stops_at: datetime | None = None


class BundleLink(Model):
    """The version of a bundle that a notebook or training uses."""

    name: str
    version: int
    digest: Digest


class Notebook(Model):
    """A notebook: a named server of a user, with its two stages."""

    name: str
    display_name: str = Field("", description="free text that says what it is for")
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
    context: BundleLink | None = Field(None, description="files laid over the source's")
    run: str | None = Field(None, description="id of the model that it works on")
    resources: Resources = Resources()
    pool: str | None = Field(None, description="Kubernetes: the nodes it runs on")
    environment: list[str] = Field(
        default=[], description="names of the variables it was given; values are not shown"
    )
    bind_mounts: list[BindMount] = Field(default=[], description="folders of the machine")
    volumes: list[VolumeMount] = Field(default=[], description="named volumes")
    image: str | None = Field(None, description="the ready-made environment that it runs in")
    git: Clone | None = Field(None, description="the repository that it begins with")
    idle: IdlePolicy = IdlePolicy()
    verdict: IdleVerdict | None = None
    build: Stage
    host: Stage
    created: datetime
    started: datetime | None = None
    stopped: datetime | None = None


class DeployAnswer(Model):
    """The result of a deploy: what it did, or (dry run) would do."""

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
    """The report of the server extension on its own server."""

    kernels: list[KernelEvidence] = Field(default=[], max_length=1000)
    terminals: list[TerminalEvidence] = Field(default=[], max_length=1000)
    last_use: datetime = Field(description="last write, execution or page load by a person")
    at: datetime | None = Field(
        None, description="now, by the same clock as last_use: that clock may be wrong"
    )
    source: Digest | None = Field(None, description="the source the working copy follows")
    out_of_memory: datetime | None = Field(
        None, description="when a process of the notebook was last ended for want of memory"
    )


class ActivityAnswer(Model):
    """The answer to a report of the server extension."""

    verdict: IdleVerdict
    stop: str = Field(
        "",
        description="why the server is to end itself, unless it has been used since it gathered"
        " what it reported; only it can know",
    )
    report_in: float | None = Field(
        None, ge=0, description="seconds until the idle timeout passes, when it is to report again"
    )
    source: Digest | None = Field(None, description="the source the working copy should follow")
    errands: list[ErrandOrder] = Field(default=[], description="what the server should do now")
    git: CloneOrder | None = Field(None, description="the repository to clone now")
