"""Trainings, their trials, and the models that they leave."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.bundles import BundleVersion
from kaos_hub.schemas.notebooks import BundleLink, Stage
from kaos_hub.schemas.resources import Cpu, Duration, Gpu, Memory, Resources
from kaos_hub.schemas.words import BundleName, Digest, Owner

MetricName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Metrics = dict[MetricName, float]
"""Last value of each metric. What is no number (a class report, say) stays in the output."""

TrainingId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
ModelId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}\.[0-9]{1,7}$")]
"""A training's id, a dot, and the number of the trial that left the model."""


class TrainingState(StrEnum):
    """The state of a training."""

    WAITING = "WAITING"
    """For an input that its owner has not given yet."""
    QUEUED = "QUEUED"
    INGESTING = "INGESTING"
    BUILDING = "BUILDING"
    TRAINING = "TRAINING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self in (
            TrainingState.SUCCEEDED,
            TrainingState.FAILED,
            TrainingState.CANCELLED,
        )


class TrialState(StrEnum):
    """The state of a trial."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self in (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)


class Direction(StrEnum):
    """The direction in which scores are better."""

    MIN = "min"
    MAX = "max"


class Goal(Model):
    """The metric that makes one trial better than another."""

    metric: MetricName
    direction: Direction


class Shown(Model):
    """The inputs that a person was shown before saying yes; None is: there was none."""

    source: Digest | None = None
    data: Digest | None = None
    params: Digest | None = None


class TrainingRequest(Model):
    """Train. What is not given is what the source was trained with last; all that is given is used
    together."""

    name: BundleName | None = Field(None, description="none: the source bundle's name")
    source: str | None = Field(None, description="digest, name, or name@v2 of a source bundle")
    data: str | None = Field(None, description="digest, name, or name@v2 of a data bundle")
    manifest: str | None = Field(
        None, description="the same of a manifest bundle, whose files are fetched; not with `data`"
    )
    params: str | None = Field(None, description="the same of a params bundle")
    without_params: bool = Field(False, description="leave out the params used last, now and later")
    expected: Shown | None = Field(
        None, description="refuse (409) if the inputs not given are no longer these"
    )
    slots: int = Field(1, ge=1, le=1000, description="trials that run at once")
    goal: Goal | None = None
    stop_on_failure: bool = Field(False, description="a failed trial cancels the rest")
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu = 0
    deadline: Duration | None = Field(None, description="seconds that one trial may take")
    pull: bool = Field(False, description="look up the base image again")
    dry_run: bool = Field(False, description="say what would happen, do nothing")


class Inputs(Model):
    """The inputs that a training of a source would use now, where nothing else is said."""

    source: BundleVersion | None = None
    data: BundleVersion | None = None
    manifest: BundleVersion | None = Field(None, description="that `data` was fetched by")
    params: BundleVersion | None = None


class TrialCounts(Model):
    """The number of trials in each state."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class Best(Model):
    """The best trial so far."""

    trial: int
    score: float


class Training(Model):
    """Source × data × params: its stages, and a summary of its trials."""

    id: TrainingId
    name: str
    owner: Owner
    author: str
    notebook: str | None = Field(None, description="from inside which it was asked for")
    state: TrainingState
    reason: str = Field("", description="why it is in this state, for people")
    progress: int = Field(0, ge=0, le=100, description="per cent of the present stage")
    source: BundleLink | None = None
    data: BundleLink | None = None
    manifest: BundleLink | None = None
    params: BundleLink | None = None
    reused: list[str] = Field(
        [], description="which of these were not given, but were there from before"
    )
    slots: int = 1
    goal: Goal | None = None
    stop_on_failure: bool = False
    resources: Resources = Resources()
    deadline: int = Field(description="seconds that one trial may take")
    trials: TrialCounts = TrialCounts()
    best: Best | None = None
    metrics: list[str] = Field([], description="names of all metrics that trials reported")
    stages: list[Stage] = Field([], description="ingest (where there is one), build, train")
    reproduces: TrainingId | None = None
    created: datetime
    started: datetime | None = Field(None, description="when the first trial began")
    finished: datetime | None = None


class Output(Model):
    """The content that a trial left in its output directory, whatever that is."""

    digest: Digest
    size: int = Field(description="bytes of all files")
    files: int
    partial: bool = Field(False, description="the trial did not end well; this is what there was")
    skipped: list[str] = Field([], description="what could not be kept, and why; at most 100")


class Trial(Model):
    """One run of `train` with one set of parameters."""

    training: TrainingId
    number: int = Field(ge=1)
    state: TrialState
    reason: str = Field("", description="why it is in this state, for people")
    params: dict[str, Any] | None = Field(None, description="None: a run without any")
    metrics: Metrics = {}
    attempt: int = 1
    exit_code: int | None = None
    output: Output | None = None
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def model(self) -> str:
        """The id of the model that it leaves."""
        return f"{self.training}.{self.number}"


class TrainingAnswer(Model):
    """The result of a request to train: what it did, or (dry run) would do."""

    training: Training | None = Field(None, description="none: a dry run")
    inputs: Inputs = Field(description="what is used")
    actions: list[str] = Field(description="what is done, in order, for people")
    trials: int = Field(description="how many there are, or would be")


class MetricPoint(Model):
    """The metrics that a trial reported at one moment."""

    trial: int
    at: datetime
    step: float | None = None
    values: Metrics


class TrainedModel(Model):
    """A model that a trial left, and where it comes from."""

    id: ModelId
    name: str | None = Field(None, description="as it was named, with its version: mnist@v3")
    owner: Owner
    author: str
    training: TrainingId
    trial: int
    source: BundleLink | None = None
    data: BundleLink | None = None
    params: dict[str, Any] | None = None
    metrics: Metrics = {}
    output: Output
    created: datetime


class Workspace(Model):
    """An owner whose things one may see and use: oneself, or a group that one is in."""

    owner: Owner
    name: str = Field(description="of the user or the group")


class NameRequest(Model):
    """Give a model a name; the same name again makes a new version."""

    name: BundleName


class Provenance(Model):
    """All that made a model."""

    model: TrainedModel
    source: BundleVersion
    data: BundleVersion
    manifest: BundleVersion | None = None
    params: BundleVersion | None = None
    engine: str
    image: str | None = Field(None, description="by digest or image id; none without images")
    environment: str = Field(description="the key of all that its build depends on")
    packages: list[str] = Field(
        [], description="what was installed, on engines without images: numpy==2.3.1, ..."
    )
    build_job: str | None = None
    resources: Resources
    reproduces: ModelId | None = None


class MetricComparison(Model):
    """One metric of a trial and of its repetition."""

    metric: str
    before: float | None
    after: float | None


class TrialComparison(Model):
    """A trial and its repetition."""

    trial: int
    state: TrialState
    same_output: bool = Field(description="the very same files")
    metrics: list[MetricComparison] = []


class TrainingEvent(Model):
    """Something that happened to a training. Ids grow; a stream can be resumed after one."""

    id: int
    training: TrainingId
    at: datetime
    state: TrainingState
    reason: str = ""
    progress: int = 0
    trials: TrialCounts = TrialCounts()
