"""Bundles, and how they are sent."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.words import BundleKind, BundleName, Digest, Owner

Origin = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{64}$", description="a digest of where the folder is: machine, path"),
]


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
    notes: list[str] = Field(
        default=[],
        description="what its folder may lack, as the one who sends it finds: content that is"
        " elsewhere, names that cannot be kept",
    )


class MissingRequest(Model):
    """Which of these does the owner not hold? Sizes (bytes) are checked against limits first."""

    objects: dict[Digest, Annotated[int, Field(ge=0, lt=2**60)]] = Field(
        description="digest → size in bytes", max_length=50_000
    )


class MissingAnswer(Model):
    """The digests to send."""

    missing: list[Digest]


class CommitRequest(Model):
    """Make a version of a tree, all of whose objects the owner holds."""

    kind: BundleKind
    name: BundleName
    root: Digest
    origin: Origin | None = None


class LikenessRequest(Model):
    """A folder, before it is sent: is it another version of the bundle of its name?"""

    kind: BundleKind
    name: BundleName
    root: Digest
    origin: Origin | None = None
    files: dict[str, Digest] = Field(
        {},
        max_length=5000,
        description="path → digest of files that are not empty; not all of them",
    )


class Likeness(Model):
    """The bundle that a folder belongs to."""

    alike: bool = Field(description="whether it is a version of a bundle that is there, or new")
    name: str = Field(description="the bundle's name; if it is something else, one that is free")
    before: str = Field("", description="the version that it has nothing in common with")


class EntryKind(StrEnum):
    """The kind of an entry of a tree."""

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


class NamedBundle(Model):
    """All versions of one bundle, in short."""

    kind: BundleKind
    name: BundleName
    versions: int = Field(description="how many there are")
    newest: int = Field(description="number of the latest version")
    current: BundleVersion = Field(description="the version that is used when none is named")


class ChangeKind(StrEnum):
    """The kind of a difference between two versions."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class BundleChange(Model):
    """One entry that is not the same in two versions. Folders are told only where one is empty, or
    where something else has become of one."""

    change: ChangeKind
    path: str
    before: TreeEntry | None = None
    after: TreeEntry | None = None


class BundleComparison(Model):
    """The differences between two versions of a bundle."""

    before: BundleVersion
    after: BundleVersion
    added: int
    removed: int
    changed: int
    changes: list[BundleChange] = Field(description="in the order of paths, as many as asked for")


class SiftRequest(Model):
    """Which files of a folder belong to a bundle? For browsers, which cannot tell."""

    kind: BundleKind
    paths: list[Annotated[str, Field(max_length=4096)]] = Field(
        max_length=50_000, description="of files, within the folder"
    )
    ignores: dict[str, str] = Field(
        default={}, max_length=1000, description="path → content of the files .kaosignore"
    )


class Skipped(Model):
    """A file or folder that is left out of a bundle, and why."""

    path: str = Field(description="of a folder, with a slash at the end")
    reason: str


class SiftAnswer(Model):
    """The files and folders that are left out of a bundle."""

    skipped: list[Skipped]


class DeletedBundle(Model):
    """The versions that were deleted, and the storage that this freed."""

    versions: list[int]
    freed: int = Field(description="bytes that count against the owner's storage no longer")
