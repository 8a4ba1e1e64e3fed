"""The inputs of a training: what the command gives, and what was used last."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.cli.base import Session
from kaos_hub.cli.submitting import extent, prepare, reference_to
from kaos_hub.cli.terminal.output import age, show_table
from kaos_hub.errors import InvalidRequest
from kaos_hub.util.quantities import plural

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Folder
    from kaos_hub.schemas import BundleKind, BundleLink, BundleVersion, Inputs, TrainingRequest

ROLES = ("source", "data", "manifest", "params")
SHOWN = ("source", "data", "params")
_NOTHING = {
    "source": "none yet: the training will wait for one (-s DIR)",
    "data": "none yet: the training will wait for some (-d DIR or -m MANIFEST)",
    "params": "none: one trial",
}


@dataclass
class Plan:
    """A training that is about to be asked for."""

    request: "TrainingRequest"
    inputs: "Inputs"
    """The current ones, as they were when they were shown."""
    folders: dict[str, "Folder"] = field(default_factory=dict)
    """By role, those that are to be submitted."""

    @property
    def source(self) -> str | None:
        """The source that the command names; it decides on what was used last."""
        folder = self.folders.get("source")
        return folder.name if folder else self.request.source

    def given(self, role: str) -> bool:
        """Return whether the command names this input; a manifest is where data come from."""
        roles = ("data", "manifest") if role == "data" else (role,)
        return any(getattr(self.request, r) or r in self.folders for r in roles)

    def used(self, role: str) -> "BundleVersion | None":
        """The current input that is used because none is given."""
        if self.given(role) or (role == "params" and self.request.without_params):
            return None
        version: BundleVersion | None = getattr(self.inputs, role)
        return version


def make_plan(
    session: Session,
    given: dict[str, str | None],
    notebook: str | None,
    options: dict[str, Any],
) -> Plan:
    """Everything that can be checked without sending: options, files line by line, folders."""
    from kaos_hub.client.submission import parse_goal
    from kaos_hub.schemas import BundleKind, Inputs, TrainingRequest, parse_request

    wanted = {name: value for name, value in options.items() if value is not None}
    if "goal" in wanted:
        wanted["goal"] = parse_goal(wanted["goal"]).model_dump(mode="json")
    plan = Plan(parse_request(TrainingRequest, wanted), Inputs())
    # The small files first: they are where mistakes are, and reading data may take a while.
    for role in reversed(ROLES):
        argument = given[role]
        if argument is None:
            continue
        kind, path = BundleKind(role), Path(argument)
        if path.is_dir() or (path.is_file() and role in ("manifest", "params")):
            named = plan.request.name
            bundles = session.client.bundles
            plan.folders[role] = prepare(session, bundles, path, kind, named, "--name NAME")
        else:
            what = "file" if role in ("manifest", "params") else "folder"
            update = {role: reference_to(argument, what)}
            plan.request = plan.request.model_copy(update=update)
    if notebook is not None:
        _promote(session, plan, notebook)
    plan.inputs = session.client.trainings.inputs(plan.source)
    _expect(plan)
    return plan


def _promote(session: Session, plan: Plan, name: str) -> None:
    """The source that a notebook was last saved or deployed with; its data, unless others are
    given."""
    from kaos_hub.client.submission import reference
    from kaos_hub.schemas import BundleKind

    found = session.client.notebooks.look(name)
    if found.source is None:
        raise InvalidRequest(
            f"notebook {name} has no source bundle to train with; save what is in it while it runs:"
            f" kaos notebook save -n {name}"
        )
    links = {BundleKind.SOURCE: found.source}
    if found.data is not None and not plan.given("data"):
        links[BundleKind.DATA] = found.data
    for kind, link in links.items():
        if session.client.workspaces.current:
            plan.folders[kind.value] = _carried(session, kind, link)
        else:
            update = {kind.value: reference(link)}
            plan.request = plan.request.model_copy(update=update)


def _carried(session: Session, kind: "BundleKind", link: "BundleLink") -> "Folder":
    """A bundle of one's own notebook, to be submitted to the workspace: a group has its own."""
    place = tempfile.TemporaryDirectory(prefix="kaos-")
    target = Path(place.name) / "bundle"
    session.client.notebooks.bundles.get(kind, link.name, link.version, target)
    folder = session.client.bundles.prepare(target, kind, link.name)
    return replace(folder, keeps=place)


def _expect(plan: Plan) -> None:
    """Have the service refuse if what is shown to the person is no longer so."""
    from kaos_hub.schemas import Shown

    digests = {role: used.digest for role in SHOWN if (used := plan.used(role))}
    plan.request = plan.request.model_copy(update={"expected": Shown(**digests)})
    if not any(plan.given(role) or plan.used(role) for role in ("source", "data")):
        raise InvalidRequest(
            "there is nothing to train with yet; give a source and data: kaos train deploy -s DIR"
            " -d DIR"
        )


def show_inputs(session: Session, plan: Plan) -> None:
    """Show what is used: the bundle of each input, whose it is and since when."""
    if session.quiet:
        return
    rows = [row for role in SHOWN for row in _rows(plan, role)]
    show_table(("input", "bundle", "", "who", "when"), rows, err=True)


def _rows(plan: Plan, role: str) -> Iterator[tuple[object, ...]]:
    """Yield the rows of an input: what is given now, or which bundle is used since nothing is."""
    given = False
    for each in ("data", "manifest") if role == "data" else (role,):
        folder, reference = plan.folders.get(each), getattr(plan.request, each)
        if folder:
            given = True
            yield each, folder.name, size_of(folder), "you", "now"
        elif reference:
            given = True
            short = reference[:19] if reference.startswith("blake3:") else reference
            yield each, short, "as it was submitted", "", ""
    if given:
        return
    used = plan.used(role)
    if used is None:
        left_out = role == "params" and plan.request.without_params
        yield role, "-", "left out: one trial" if left_out else _NOTHING[role], "", ""
        return
    how = "used last" if role == "source" else "used last with this source"
    if role == "data" and (manifest := plan.inputs.manifest):
        how += f", fetched by {manifest.name}@v{manifest.version}"
    yield role, f"{used.name}@v{used.version}", how, used.author, f"{age(used.created)} ago"


def size_of(folder: "Folder") -> str:
    """Return how much an input is, for people: trials, files to fetch, or what a folder holds."""
    if folder.kind == "params":
        return plural(folder.lists, "trial")
    if folder.kind == "manifest":
        return f"{plural(folder.lists, 'file')} to fetch"
    return extent(folder)
