"""Names, addresses and states."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from kaos_hub.errors import InvalidName

Digest = Annotated[str, StringConstraints(pattern=r"^blake3:[0-9a-f]{64}$")]
"""The address of content: a file's bytes or a tree's listing."""

NOTEBOOK_NAME = r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,29}"
"""Names that a notebook may have, as a regular expression that browsers know, too."""
_SERVER_NAME = re.compile(NOTEBOOK_NAME)
_BUNDLE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,62}[A-Za-z0-9._-])?")

DEFAULT_SERVER = "default"
"""The name, as a notebook, of the Hub's default server, whose own name is empty."""


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


UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that no name may have: they are not seen, and some turn the direction of writing, so
that people read something else than what is there."""


def shown_text(value: str) -> str:
    """Check a line of text that others are shown, such as a description.

    Raises:
        ValueError: it has a character that is not seen.
    """
    if found := UNSEEN.search(value):
        raise ValueError(f"has the character U+{ord(found[0]):04X}, which cannot be shown")
    return value


ShownText = Annotated[str, AfterValidator(shown_text)]
NotebookName = Annotated[str, AfterValidator(notebook_name)]
BundleName = Annotated[str, AfterValidator(bundle_name)]
Owner = Annotated[str, StringConstraints(pattern=r"^(user|group):.+$")]
"""The owner of a thing: ``user:ada`` or ``group:vision``."""


class BundleKind(StrEnum):
    """The purpose of a bundle."""

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
    """The kind of work that a job does."""

    BUILD = "build"
    MATERIALISE = "materialise"
    INGEST = "ingest"
    TRAIN = "train"


class JobState(StrEnum):
    """The state of a job: ``QUEUED → SUBMITTED → RUNNING → SUCCEEDED | FAILED | CANCELLED``."""

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
    """The state of a notebook."""

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
    """The rule, besides use, that keeps a notebook from being idle. The words are Determined's."""

    KERNELS_OR_TERMINALS = "kernels_or_terminals"
    KERNEL_CONNECTIONS = "kernel_connections"
    ACTIVITY = "activity"
