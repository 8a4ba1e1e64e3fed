"""From what a person gives to a training to references that the service knows."""

from collections.abc import Callable, Mapping
from pathlib import Path

from kaos_hub.client.bundles import Bundles, Folder
from kaos_hub.client.inputs import Params, lay_out_params
from kaos_hub.client.notebooks import Bundle, folder_in
from kaos_hub.errors import InvalidRequest
from kaos_hub.schemas import (
    BundleKind,
    BundleLink,
    BundleVersion,
    Direction,
    Goal,
    TrainingRequest,
    parse_request,
)


def parse_goal(text: str | Goal) -> Goal:
    """A goal from ``METRIC:min`` or ``METRIC:max``.

    Raises:
        InvalidRequest: it is neither.
    """
    if isinstance(text, Goal):
        return text
    metric, _, direction = text.rpartition(":")
    if not metric or direction not in list(Direction):
        raise InvalidRequest(
            f"{text!r} is no goal; say METRIC:min or METRIC:max, as in --goal loss:min"
        )
    return parse_request(Goal, {"metric": metric, "direction": direction})


def reference(version: BundleVersion | BundleLink) -> str:
    """Return a version's reference in a request: its name, for two names may mean one content."""
    return f"{version.name}@v{version.version}"


def prepare(
    bundles: Bundles,
    given: Bundle | Params,
    kind: BundleKind,
    progress: Callable[[int], object] | None = None,
) -> Folder | str:
    """Return what is to be submitted of an input, or the reference to what was submitted before.

    Raises:
        InvalidRequest: says what is wrong with it, with file and line.
    """
    if isinstance(given, Mapping):
        return bundles.prepare(lay_out_params(given), kind)
    if isinstance(given, BundleVersion):
        return reference(given)
    path = _file_in(given, kind)
    return str(given) if path is None else bundles.prepare(path, kind, None, progress)


def submit(
    bundles: Bundles, request: TrainingRequest, ready: Mapping[str, Folder | str]
) -> TrainingRequest:
    """The request with all of its inputs, which are submitted."""
    named = {
        role: each if isinstance(each, str) else reference(bundles.submit(each))
        for role, each in ready.items()
    }
    return request.model_copy(update=named)


def _file_in(given: Bundle | Params, kind: BundleKind) -> Path | None:
    """The file or folder that an argument means, or None if it refers to a submitted bundle."""
    assert not isinstance(given, Mapping)
    path = folder_in(given)
    if path is None and kind in (BundleKind.PARAMS, BundleKind.MANIFEST):
        file = Path(str(given)).expanduser()
        return file if file.exists() else None
    return path
