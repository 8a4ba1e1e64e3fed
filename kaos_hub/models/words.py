"""Names, addresses and states."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from kaos_hub.errors import InvalidName

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
    MANIFEST = "manifest"
    """A list of what to fetch to get a data bundle."""
    PARAMS = "params"
    """Hyperparameters: one file of JSON."""
    CONTEXT = "context"
    """Plain files for a notebook's working copy."""


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
