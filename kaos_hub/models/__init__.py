"""Everything that crosses the wire: the one schema of REST, SDK, command line and admission.

All models are frozen. The service forbids fields it does not know (a typo is an error), the client
ignores them (an old client survives a new service): both use the same classes, see
:func:`parse_request`.
"""

from kaos_hub.models.account import (
    ErrorBody as ErrorBody,
    Info as Info,
    LoginAnswer as LoginAnswer,
    LoginPoll as LoginPoll,
    LoginRequest as LoginRequest,
    LoginStarted as LoginStarted,
    Whoami as Whoami,
)
from kaos_hub.models.admission import (
    AdmissionRequest as AdmissionRequest,
    Mount as Mount,
    NotebookSpec as NotebookSpec,
    Pool as Pool,
    ReleaseRequest as ReleaseRequest,
)
from kaos_hub.models.base import (
    AnyModel as AnyModel,
    Model as Model,
    parse_request as parse_request,
)
from kaos_hub.models.bundles import (
    BundleChange as BundleChange,
    BundleComparison as BundleComparison,
    BundleVersion as BundleVersion,
    ChangeKind as ChangeKind,
    CommitRequest as CommitRequest,
    DeletedBundle as DeletedBundle,
    EntryKind as EntryKind,
    MissingAnswer as MissingAnswer,
    MissingRequest as MissingRequest,
    NamedBundle as NamedBundle,
    SiftAnswer as SiftAnswer,
    SiftRequest as SiftRequest,
    Skipped as Skipped,
    TreeEntry as TreeEntry,
)
from kaos_hub.models.choices import Choices as Choices
from kaos_hub.models.errands import (
    AttachRequest as AttachRequest,
    Contents as Contents,
    Errand as Errand,
    ErrandKind as ErrandKind,
    ErrandOrder as ErrandOrder,
    ErrandReport as ErrandReport,
    ErrandState as ErrandState,
    SaveRequest as SaveRequest,
    WaitForErrand as WaitForErrand,
)
from kaos_hub.models.git import (
    GIT_SCHEMES as GIT_SCHEMES,
    Clone as Clone,
    CloneLogin as CloneLogin,
    CloneOrder as CloneOrder,
    CloneQuestion as CloneQuestion,
    CloneReport as CloneReport,
    GitCredentials as GitCredentials,
    GitState as GitState,
    Repository as Repository,
    parse_repository as parse_repository,
)
from kaos_hub.models.notebooks import (
    Activity as Activity,
    ActivityAnswer as ActivityAnswer,
    BundleLink as BundleLink,
    DeployAnswer as DeployAnswer,
    Event as Event,
    IdleVerdict as IdleVerdict,
    Job as Job,
    KernelEvidence as KernelEvidence,
    Notebook as Notebook,
    NotebookRequest as NotebookRequest,
    Stage as Stage,
    TerminalEvidence as TerminalEvidence,
)
from kaos_hub.models.options import (
    NOTHING as NOTHING,
    AllowedMount as AllowedMount,
    BindMount as BindMount,
    BindMounts as BindMounts,
    NotebookOptions as NotebookOptions,
    Variables as Variables,
    Volume as Volume,
    VolumeMount as VolumeMount,
    VolumeMounts as VolumeMounts,
    check_apart as check_apart,
    variable_name as variable_name,
)
from kaos_hub.models.resources import (
    Cpu as Cpu,
    Duration as Duration,
    Gpu as Gpu,
    IdlePolicy as IdlePolicy,
    Image as Image,
    Limits as Limits,
    Memory as Memory,
    Resources as Resources,
    Size as Size,
    Usage as Usage,
)
from kaos_hub.models.trainings import (
    Best as Best,
    Direction as Direction,
    Goal as Goal,
    Inputs as Inputs,
    MetricComparison as MetricComparison,
    MetricName as MetricName,
    MetricPoint as MetricPoint,
    Metrics as Metrics,
    ModelId as ModelId,
    NameRequest as NameRequest,
    Output as Output,
    Provenance as Provenance,
    Shown as Shown,
    TrainedModel as TrainedModel,
    Training as Training,
    TrainingAnswer as TrainingAnswer,
    TrainingEvent as TrainingEvent,
    TrainingId as TrainingId,
    TrainingRequest as TrainingRequest,
    TrainingState as TrainingState,
    Trial as Trial,
    TrialComparison as TrialComparison,
    TrialCounts as TrialCounts,
    TrialState as TrialState,
    Workspace as Workspace,
)
from kaos_hub.models.words import (
    DEFAULT_SERVER as DEFAULT_SERVER,
    BundleKind as BundleKind,
    BundleName as BundleName,
    Digest as Digest,
    IdleType as IdleType,
    JobKind as JobKind,
    JobState as JobState,
    NotebookName as NotebookName,
    NotebookState as NotebookState,
    Owner as Owner,
    bundle_name as bundle_name,
    notebook_name as notebook_name,
)
from kaos_hub.models.work import (
    Beat as Beat,
    BeatAnswer as BeatAnswer,
    EndedBy as EndedBy,
    Fetched as Fetched,
    IngestEnd as IngestEnd,
    IngestOrder as IngestOrder,
    IngestPart as IngestPart,
    Lease as Lease,
    LeaseAnswer as LeaseAnswer,
    LeaseRequest as LeaseRequest,
    LogAnswer as LogAnswer,
    TrialEnd as TrialEnd,
)
