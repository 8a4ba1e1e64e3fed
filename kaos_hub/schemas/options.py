"""Options of a notebook that a deploy may set, besides its bundles and its size."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from kaos_hub.errors import InvalidName, InvalidRequest
from kaos_hub.schemas.base import Model
from kaos_hub.schemas.git import GitWish
from kaos_hub.schemas.words import Owner

NOTHING = "-"
"""Given for what is to be taken away again: a pool, a context, an image."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_OURS = ("KAOS_", "JUPYTERHUB_", "JPY_", "LD_")
_THE_SERVERS = frozenset(
    {"DATA_REPO", "HOME", "PATH", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONUSERBASE"}
)
_THE_USERS = frozenset({"KAOS_HOOK_TIMEOUT", "LD_LIBRARY_PATH"})
_MOST_VARIABLES = 200
_LONGEST_VALUE = 32 << 10
_LARGEST_ENVIRONMENT = 256 << 10


def variable_name(name: str) -> str:
    """Check the name of a variable that a user sets in a notebook.

    Raises:
        InvalidRequest: it is none, or the notebook's server depends on it.
    """
    if not _VARIABLE.fullmatch(name):
        raise InvalidRequest(
            f"environment: {name!r} cannot name a variable: letters, digits and '_', not beginning"
            " with a digit"
        )
    ours = name in _THE_SERVERS or name.upper().startswith(_OURS)
    if ours and name not in _THE_USERS:
        raise InvalidRequest(
            f"environment: {name} is set by the Hub or needed by the notebook's own server; choose"
            " another name, or set it in startup-hook.sh and in what you start"
        )
    return name


def _environment(values: dict[str, str]) -> dict[str, str]:
    if len(values) > _MOST_VARIABLES:
        raise InvalidRequest(f"environment: more than {_MOST_VARIABLES} variables")
    for name, value in values.items():
        variable_name(name)
        # The values are never repeated: they may be secrets.
        if "\0" in value:
            raise InvalidRequest(f"environment: the value of {name} has a character NUL in it")
        if len(value.encode()) > _LONGEST_VALUE:
            raise InvalidRequest(
                f"environment: the value of {name} has more than {_LONGEST_VALUE >> 10} KiB; put"
                " it into a file, as part of a context or of the data"
            )
    if sum(map(len, values.values())) > _LARGEST_ENVIRONMENT:
        raise InvalidRequest(f"environment: more than {_LARGEST_ENVIRONMENT >> 10} KiB in all")
    return values


Variables = Annotated[dict[str, str], AfterValidator(_environment)]
"""Variables of a notebook, by name."""


_OUR_PLACES = [
    PurePosixPath(path)
    for path in (
        "/home/kaos",
        "/kaos",
        "/kaos-runtime",
        "/kaos-trees",
        "/opt/kaos",
        "/opt/program",
        "/pfs",
    )
]
_SYSTEM_PLACES = [
    PurePosixPath(f"/{name}")
    for name in ("bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")
]
_KEPT_WHOLE = [PurePosixPath(f"/{name}") for name in ("root", "run", "tmp", "var")]
_MOST_MOUNTS = 20


def absolute_path(path: str) -> str:
    """Check a path that a mount is made of, and write it in one way.

    Raises:
        InvalidRequest: it is not absolute, or leads upwards.
    """
    if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise InvalidRequest(f"{path!r} is no path for a mount: it begins with '/', without '..'")
    if len(path.encode()) > 1000:
        raise InvalidRequest("the path of a mount has more than 1,000 bytes")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def place_inside(path: str) -> str:
    """Check where in a notebook something is to be mounted.

    Raises:
        InvalidRequest: it would hide what a notebook needs; names that.
    """
    place = PurePosixPath(absolute_path(path))
    for needed in [*_OUR_PLACES, *_SYSTEM_PLACES]:
        if needed.is_relative_to(place) or place.is_relative_to(needed):
            raise InvalidRequest(
                f"nothing can be mounted at {str(place)!r}: the notebook needs {needed}; choose"
                f" another place, such as /mnt/{place.name or 'data'}"
            )
    if place in _KEPT_WHOLE:
        raise InvalidRequest(f"nothing can be mounted at {str(place)!r}; choose a folder in it")
    return str(place)


AbsolutePath = Annotated[str, AfterValidator(absolute_path)]
PlaceInside = Annotated[str, AfterValidator(place_inside)]


class BindMount(Model):
    """A folder of the machine that a notebook sees."""

    host_path: AbsolutePath
    container_path: PlaceInside = Field(description="where in the notebook")
    read_only: bool = False


class AllowedMount(Model):
    """Folders of the machine that an admin lets notebooks see."""

    host_path: AbsolutePath = Field(description="with what is below; {username} is the user's name")
    read_only: bool = Field(False, description="only to be read")
    container_path: PlaceInside | None = Field(
        None, description="mounted there in every notebook, asked for or not"
    )
    on_nodes: bool = Field(
        False, description="Kubernetes: a folder of every node (hostPath), itself and not below"
    )


def volume_name(value: str) -> str:
    """Check a volume's name.

    Raises:
        InvalidName: says the rule.
    """
    if not re.fullmatch(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,29}", value):
        raise InvalidName(
            f"{value!r} cannot name a volume: 1 to 30 lower-case letters, digits and single"
            " hyphens, beginning with a letter and not ending with a hyphen"
        )
    return value


class VolumeRequest(Model):
    """Make a volume."""

    name: Annotated[str, AfterValidator(volume_name)] = Field(
        description="1 to 30 lower-case letters, digits and single hyphens"
    )


class VolumeMount(Model):
    """A volume, and where a notebook sees it."""

    volume: Annotated[str, AfterValidator(volume_name)] = Field(description="its name")
    path: PlaceInside = Field(description="where in the notebook")
    read_only: bool = False


class Volume(Model):
    """A named place for files, its owner's, which outlives notebooks."""

    name: str
    owner: Owner
    created: datetime
    notebooks: list[str] = Field(default=[], description="which use it")
    shared: bool = Field(True, description="whether several running notebooks can have it at once")


def _volumes(mounts: list[VolumeMount]) -> list[VolumeMount]:
    if len(mounts) > _MOST_MOUNTS:
        raise InvalidRequest(f"volumes: more than {_MOST_MOUNTS}")
    check_apart([mount.path for mount in mounts])
    return mounts


def _mounts(mounts: list[BindMount]) -> list[BindMount]:
    if len(mounts) > _MOST_MOUNTS:
        raise InvalidRequest(f"bind_mounts: more than {_MOST_MOUNTS}")
    check_apart([mount.container_path for mount in mounts])
    return mounts


def check_apart(places: Sequence[str]) -> None:
    """Refuse two mounts at one place.

    Raises:
        InvalidRequest: names the place.
    """
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        raise InvalidRequest(f"two things cannot be mounted at {min(twice)!r}")


BindMounts = Annotated[list[BindMount], AfterValidator(_mounts)]
VolumeMounts = Annotated[list[VolumeMount], AfterValidator(_volumes)]


class NotebookOptions(Model):
    """The options that a notebook's row keeps, so that a stop and a start change nothing."""

    environment: Variables = Field(default={}, description="variables of kernels and terminals")
    bind_mounts: BindMounts = Field(default=[], description="folders of the machine")
    volumes: VolumeMounts = Field(default=[], description="named volumes")
    image: str | None = Field(None, description="a ready-made environment, or an image")
    git: GitWish | None = Field(None, description="the repository that it begins with")
