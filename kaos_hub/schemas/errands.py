"""Errands: what a notebook's own server is asked to do with the files in its home.

Nothing else can reach those. Saving makes the working copy a version of a bundle, attaching brings
a data bundle in.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.bundles import BundleVersion
from kaos_hub.schemas.words import BundleName, Digest

Line = Annotated[str, StringConstraints(max_length=1000)]


class ErrandKind(StrEnum):
    """The kind of an errand."""

    SAVE = "save"
    ATTACH = "attach"


class ErrandState(StrEnum):
    """The state of an errand."""

    ASKED = "ASKED"
    """The notebook's server has not yet heard of it."""
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        return self in (ErrandState.DONE, ErrandState.FAILED)


class SaveRequest(Model):
    """Make a notebook's working copy the next version of a source bundle."""

    bundle: BundleName | None = Field(
        None, description="its name; none: that of the notebook's source, else the notebook's"
    )
    requirements: bool = Field(
        False, description="first add what was pip-installed to model/requirements.txt"
    )
    dry_run: bool = Field(False, description="say what would be saved, change nothing")


class AttachRequest(Model):
    """Bring a data bundle into a running notebook."""

    data: str = Field(description="digest, name, or name@v2 of a data bundle")


class Contents(Model):
    """The content of the working copy, as the notebook's server found it."""

    root: Digest
    size: int = Field(ge=0, description="bytes of all files")
    files: int = Field(ge=0)
    skipped: list[Line] = Field(default=[], max_length=101, description="what is left out")
    made: list[Line] = Field(
        default=[], max_length=10, description="made, so that it is a source bundle"
    )
    installed: list[Line] = Field(
        default=[],
        max_length=500,
        description="requirements for what was pip-installed and is not in requirements.txt",
    )
    added: bool = Field(False, description="whether those were added to requirements.txt")
    notes: list[Line] = Field(default=[], max_length=100, description="what else to know")


class Errand(Model):
    """Something a notebook's server was asked to do, and how it went."""

    id: str
    notebook: str
    kind: ErrandKind
    state: ErrandState
    note: str = Field("", description="what is being done, or why it failed, for people")
    code: str = Field("", description="of the error, if it failed")
    progress: int = Field(0, ge=0, le=100, description="per cent")
    bundle: BundleName
    dry_run: bool = False
    changed: bool = Field(True, description="of a save: whether it differs from its source")
    contents: Contents | None = Field(None, description="of a save")
    version: BundleVersion | None = Field(None, description="what was saved, or is attached")
    place: str = Field("", description="of attached data: the folder, below the home")


class ErrandOrder(Model):
    """An errand as the notebook's server is told it."""

    id: str
    kind: ErrandKind
    requirements: bool = False
    dry_run: bool = False
    base: str = Field("", description="image of a Dockerfile to be made where there is none")
    bundle: BundleName
    digest: Digest | None = Field(None, description="of a tree to fetch")
    ticket: str = Field("", description="what lets one fetch it", repr=False)


class ErrandReport(Model):
    """A report of the notebook's server on an errand: how far it is, or how it ended."""

    note: str = Field("", max_length=2000)
    progress: int = Field(0, ge=0, le=100)
    code: str = Field("", max_length=64, description="of an error that ended it")
    contents: Contents | None = Field(None, description="the whole of it was sent: commit it")
    done: bool = Field(False, description="nothing is left to be done")


class Wait(Model):
    """The time to wait for the end of what goes on by itself."""

    wait: int = Field(0, ge=0, le=60, description="seconds to wait at most for it to end")
