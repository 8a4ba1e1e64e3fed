"""Inputs besides folders: hyperparameters, a manifest, one file for a notebook to work on.

All are bundles like any other. A single file is laid into a folder of its own for that, and what
stands in it is checked here, so that a mistake is told with its line before anything is sent.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos_hub.bundles.source import default_name
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import BundleKind

PARAMS_FILE = "params.json"
"""The one file of a bundle of hyperparameters."""
_MAX_FILE = 256 << 20
"""Bytes of a single file; more is not what was meant."""

Params = str | os.PathLike[str] | Mapping[str, Any]
"""A file of hyperparameters, a reference to a submitted one, or the parameters themselves."""


@dataclass(frozen=True)
class Laid:
    """A folder to be scanned."""

    folder: Path
    content: Path
    """The folder, or the one file in it."""
    shown: str
    """The name by which errors call it."""
    name: str
    """The name of the bundle, unless told otherwise."""
    keeps: object = None
    """Whatever must live as long as the folder is needed."""


def lay_out(path: Path, kind: BundleKind) -> Laid:
    """The folder that holds a file of params or a manifest; a folder is one already.

    Raises:
        InvalidBundle: there is no such file.
    """
    if path.is_dir() and kind is BundleKind.PARAMS and (path / PARAMS_FILE).is_file():
        path = path / PARAMS_FILE  # as they were fetched
    if path.is_dir():
        if kind is BundleKind.PARAMS:
            raise InvalidBundle(
                f"{path} is a folder; hyperparameters are one file of JSON: -h FILE"
            )
        return Laid(path, path, str(path), default_name(path))
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise InvalidBundle(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise InvalidBundle(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise InvalidBundle(f"{path} has more than {_MAX_FILE >> 20} MiB")
    name = default_name(Path(path.stem))
    inside = PARAMS_FILE if kind is BundleKind.PARAMS else path.name
    if inside.startswith(".") or path.suffix == ".md":
        inside = f"{name}.mf"  # in a folder such files are no manifests
    return _alone(content, inside, str(path), name)


def lay_out_file(path: Path) -> Laid:
    """A folder that holds a copy of one file, whatever its size.

    Raises:
        InvalidBundle: it cannot be read.
    """
    folder = tempfile.TemporaryDirectory(prefix="kaos-")
    file = Path(folder.name, path.name)
    try:
        shutil.copy(path, file)
    except OSError as error:
        raise InvalidBundle(f"{path} cannot be read: {error.strerror}") from None
    return Laid(file.parent, file, str(path), default_name(Path(path.stem)), folder)


def lay_out_params(params: Mapping[str, Any]) -> Laid:
    """A folder with these hyperparameters.

    Raises:
        InvalidBundle: they are no JSON.
    """
    try:
        text = json.dumps(params, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidBundle(f"the hyperparameters are no JSON: {error}") from None
    return _alone(text.encode() + b"\n", PARAMS_FILE, "the hyperparameters", "params")


def _alone(content: bytes, inside: str, shown: str, name: str) -> Laid:
    folder = tempfile.TemporaryDirectory(prefix="kaos-")
    file = Path(folder.name, inside)
    file.write_bytes(content)
    return Laid(file.parent, file, shown, name, folder)


def check_params(laid: Laid) -> int:
    """Check hyperparameters. Returns how many trials they make.

    Raises:
        InvalidRequest: names the line and the key.
    """
    from kaos_hub.formats import grid

    return len(grid.parse(laid.content.read_bytes(), laid.shown))


def check_manifest(laid: Laid) -> int:
    """Check a manifest. Returns how many files it names.

    Raises:
        InvalidRequest: names the file and the line.
    """
    from kaos_hub.formats import manifest

    try:
        return sum(1 for _ in manifest.read(laid.content))
    except OSError as error:
        raise InvalidBundle(f"{laid.shown} cannot be read: {error.strerror}") from None
