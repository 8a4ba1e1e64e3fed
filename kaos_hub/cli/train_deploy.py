"""``kaos train deploy``: check everything, show what is used, ask, send, follow."""

import shlex
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.output import age, show, show_json, show_table
from kaos_hub.cli.submitting import (
    extent,
    is_submitted,
    prepare,
    reference_to,
    submit,
    would_send,
)
from kaos_hub.errors import Conflict, InvalidBundle, InvalidRequest, LimitExceeded, NotFound

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Folder
    from kaos_hub.models import (
        BundleKind,
        BundleLink,
        BundleVersion,
        Inputs,
        TrainingAnswer,
        TrainingRequest,
    )

ROLES = ("source", "data", "manifest", "params")
_SHOWN = ("source", "data", "params")
_NOTHING = {
    "source": "none yet: the training will wait for one (-s DIR)",
    "data": "none yet: the training will wait for some (-d DIR or -m MANIFEST)",
    "params": "none: one trial",
}
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass
class _Plan:
    """What is going to be trained."""

    request: "TrainingRequest"
    inputs: "Inputs"
    """The current ones, as they were when they were shown."""
    folders: dict[str, "Folder"] = field(default_factory=dict)
    """By role, those that are to be submitted."""

    def given(self, role: str) -> bool:
        """Whether the command names this input; a manifest is where data come from."""
        roles = ("data", "manifest") if role == "data" else (role,)
        return any(getattr(self.request, r) or r in self.folders for r in roles)

    def used(self, role: str) -> "BundleVersion | None":
        """The current input that is used because none is given."""
        if self.given(role) or (role == "params" and self.request.without_params):
            return None
        version: BundleVersion | None = getattr(self.inputs, role)
        return version


def _options(function: AnyFunction) -> AnyFunction:
    for option in reversed(
        [
            click.option("-s", "--source", metavar="DIR",
                         help="Source bundle: a folder with a Dockerfile and model/train; or"
                         " NAME@v2."),
            click.option("-d", "--data", metavar="DIR",
                         help="Data bundle: any folder; or NAME@v2."),
            click.option("-m", "--manifest", "--data-manifest", metavar="PATH",
                         help="Instead of data: a file or folder of lines {url, path} to fetch."),
            click.option("-h", "--params", "--hyperparams", metavar="FILE",
                         help="JSON with a list of values per parameter: a trial for each"
                         " combination."),
            click.option("-p", "--parallelism", "slots", type=click.IntRange(1, 1000),
                         help="Trials that run at once.  [default: 1]"),
            click.option("--notebook", metavar="NAME",
                         help="The source of this notebook, and its data."),
            click.option("--name", help="What it is called; else as its source bundle."),
            click.option("--goal", metavar="METRIC:min|max",
                         help="What makes a trial the best, as in loss:min."),
            click.option("--cpu", help="Cores of each slot: 0.5, 2 or 500m."),
            click.option("--memory", help="Bytes of each slot: 512Mi, 2G."),
            click.option("--gpu", help="Whole devices of each slot."),
            click.option("--deadline", help="How long one trial may take: 90s, 2h."),
            click.option("--without-params", is_flag=True,
                         help="Leave out the hyperparameters used last."),
            click.option("--stop-on-failure", is_flag=True,
                         help="A trial that fails ends the others."),
            click.option("--pull", is_flag=True, help="Look the base image up again."),
            click.option("--detach", is_flag=True, help="Do not wait for it."),
            click.option("--dry-run", is_flag=True, help="Say what would happen, do nothing."),
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@click.command(cls=Command, context_settings={"help_option_names": ["--help"]})
@_options
@pass_session
def deploy(
    session: Session,
    /,
    source: str | None,
    data: str | None,
    manifest: str | None,
    params: str | None,
    notebook: str | None,
    detach: bool,
    dry_run: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Train: source + data (+ hyperparameters) = model.

    What is not given is what was used last; a table shows it first. All that is given in one
    command is used together. Ctrl-C lets it go on without you.

    \b
    Example:
        kaos train deploy -s mnist/model-train -d mnist/data
        kaos train deploy -h mnist/hyperopt/params.json -p 4 --goal accuracy:max
        kaos train deploy -m mnist/data_manifest
    """
    from kaos_hub.cli.train_follow import follow_training

    _check_pairs(source, data, manifest, params, notebook, options["without_params"])
    _refuse_notebook(source, data)
    given = {"source": source, "data": data, "manifest": manifest, "params": params}
    plan = _plan(session, given, notebook, options)
    _show_inputs(session, plan)
    if dry_run:
        _show_plan(session, plan)
        return
    _confirm(session, plan, yes)
    if plan.folders:
        _ask_first(session, plan)
    for role, folder in plan.folders.items():
        digest = submit(session, session.client.bundles, folder)
        plan.request = plan.request.model_copy(update={role: digest})
    answer = _request(session, plan)
    assert answer.training is not None
    follow_training(session, answer.training, detach, answer.actions)


def _check_pairs(
    source: str | None, data: str | None, manifest: str | None, params: str | None,
    notebook: str | None, without_params: bool,
) -> None:  # fmt: skip
    if data and manifest:
        raise click.UsageError("-d DIR and -m MANIFEST are mutually exclusive: both are the data.")
    if source and notebook:
        raise click.UsageError("-s DIR and --notebook are mutually exclusive: both are the source.")
    if params and without_params:
        raise click.UsageError("-h FILE and --without-params are mutually exclusive.")


def _refuse_notebook(source: str | None, data: str | None) -> None:
    """A folder without a ``train`` is for a notebook; say with which command."""
    from kaos_hub.bundles.source import find_source_root

    if source is None or not Path(source).is_dir():
        return
    root = find_source_root(Path(source))
    if (root / "model" / "train").exists() or (root / "train").exists():
        return
    words = ["kaos", "notebook", "deploy", "-s", source, *(["-d", data] if data else [])]
    raise InvalidBundle(
        f"{source} is a notebook bundle: it has no model/train, so there is nothing to train."
        f" Deploy it as a notebook:\n\n    {shlex.join(words)}\n"
    )


def _plan(
    session: Session,
    given: dict[str, str | None],
    notebook: str | None,
    options: dict[str, Any],
) -> _Plan:
    """Everything that can be checked without sending: options, files line by line, folders."""
    from kaos_hub.client.submission import parse_goal
    from kaos_hub.models import BundleKind, Inputs, TrainingRequest, parse_request

    wanted = {name: value for name, value in options.items() if value is not None}
    if "goal" in wanted:
        wanted["goal"] = parse_goal(wanted["goal"]).model_dump(mode="json")
    plan = _Plan(parse_request(TrainingRequest, wanted), Inputs())
    # The small files first: they are where mistakes are, and reading data may take a while.
    for role in reversed(ROLES):
        argument = given[role]
        if argument is None:
            continue
        kind, path = BundleKind(role), Path(argument)
        if path.is_dir() or (path.is_file() and role in ("manifest", "params")):
            plan.folders[role] = prepare(session, session.client.bundles, path, kind)
        else:
            what = "file" if role in ("manifest", "params") else "folder"
            update = {role: reference_to(argument, what)}
            plan.request = plan.request.model_copy(update=update)
    if notebook is not None:
        _promote(session, plan, notebook)
    plan.inputs = session.client.trainings.inputs()
    _expect(plan)
    return plan


def _promote(session: Session, plan: _Plan, name: str) -> None:
    """The source that a notebook was last saved or deployed with; its data, unless others are
    given."""
    from kaos_hub.models import BundleKind

    found = session.client.notebooks.get(name)
    if found.source is None:
        raise InvalidRequest(
            f"notebook {name} has no source bundle to train with; deploy it with one:"
            f" kaos notebook deploy -n {name} -s DIR"
        )
    links = {BundleKind.SOURCE: found.source}
    if found.data is not None and not plan.given("data"):
        links[BundleKind.DATA] = found.data
    for kind, link in links.items():
        if session.client.workspaces.current:
            plan.folders[kind.value] = _carried(session, kind, link)
        else:
            update = {kind.value: link.digest}
            plan.request = plan.request.model_copy(update=update)


def _carried(session: Session, kind: "BundleKind", link: "BundleLink") -> "Folder":
    """A bundle of one's own notebook, to be submitted to the workspace: a group has its own."""
    place = tempfile.TemporaryDirectory(prefix="kaos-")
    target = Path(place.name) / "bundle"
    session.client.notebooks.bundles.get(kind, link.name, link.version, target)
    folder = session.client.bundles.prepare(target, kind, link.name)
    return replace(folder, keeps=place)


def _expect(plan: _Plan) -> None:
    """Have the service refuse if what is shown to the person is no longer so."""
    from kaos_hub.models import Shown

    digests = {role: used.digest for role in _SHOWN if (used := plan.used(role))}
    plan.request = plan.request.model_copy(update={"expected": Shown(**digests)})
    if not any(plan.given(role) or plan.used(role) for role in ("source", "data")):
        raise InvalidRequest(
            "there is nothing to train with yet; give a source and data: kaos train deploy -s DIR"
            " -d DIR"
        )


def _show_inputs(session: Session, plan: _Plan) -> None:
    if session.quiet:
        return
    rows = [row for role in _SHOWN for row in _rows(plan, role)]
    show_table(("input", "bundle", "", "who", "when"), rows, err=True)


def _rows(plan: _Plan, role: str) -> Iterator[tuple[object, ...]]:
    """How an input is shown: what is given now, or which bundle is used since nothing is."""
    given = False
    for each in ("data", "manifest") if role == "data" else (role,):
        folder, reference = plan.folders.get(each), getattr(plan.request, each)
        if folder:
            given = True
            yield each, folder.name, _size(folder), "you", "now"
        elif reference:
            given = True
            yield each, reference[:19], "as it was submitted", "", ""
    if given:
        return
    used = plan.used(role)
    if used is None:
        left_out = role == "params" and plan.request.without_params
        yield role, "-", "left out: one trial" if left_out else _NOTHING[role], "", ""
        return
    how = "used last"
    if role == "data" and (manifest := plan.inputs.manifest):
        how += f", fetched by {manifest.name}@v{manifest.version}"
    yield role, f"{used.name}@v{used.version}", how, used.author, f"{age(used.created)} ago"


def _size(folder: "Folder") -> str:
    if folder.kind == "params":
        return f"{folder.lists:,} trial{'s' * (folder.lists != 1)}"
    if folder.kind == "manifest":
        return f"{folder.lists:,} file{'s' * (folder.lists != 1)} to fetch"
    return extent(folder)


def _confirm(session: Session, plan: _Plan, yes: bool) -> None:
    """Ask whether what was used last is what is meant; in a script, what was said counts."""
    used = [role for role in _SHOWN if plan.used(role)]
    if used and session.can_ask:
        session.confirm(f"Train with the {' and '.join(used)} used last?", yes, "-y")


def _ask_first(session: Session, plan: _Plan) -> None:
    """Whether the training could be had at all, asked before anything is sent."""
    from kaos_hub.errors import InvalidResources

    if not (plan.inputs.source and plan.inputs.data):
        return
    request = plan.request.model_copy(update={"dry_run": True, "expected": None})
    try:
        session.client.trainings.request(request)
    except (LimitExceeded, InvalidResources):
        raise
    except (InvalidRequest, Conflict, NotFound):
        # The service does not know yet what is to be sent, so that this may be of the old inputs.
        return


def _request(session: Session, plan: _Plan) -> "TrainingAnswer":
    try:
        return session.client.trainings.request(plan.request)
    except Conflict as e:
        moved = [text for role in _SHOWN if (text := _moved(session, plan, role))]
        if not moved:
            raise
        raise Conflict(
            f"{'; '.join(moved)}. Nothing was started. Run the command again to see and use what is"
            " there now",
            **e.details,
        ) from None


def _moved(session: Session, plan: _Plan, role: str) -> str | None:
    """What became of an input that was shown, if it is another one now."""
    before = plan.used(role)
    now: BundleVersion | None = getattr(session.client.trainings.inputs(), role)
    if plan.given(role) or (before and before.digest) == (now and now.digest):
        return None
    was = f"{before.name}@v{before.version}" if before else "none"
    if now is None:
        return f"the {role} shown was {was}, and there is none any more"
    who = f"by {now.author}, {age(now.created)} ago"
    return f"the {role} shown was {was}; now it is {now.name}@v{now.version} ({who})"


def _show_plan(session: Session, plan: _Plan) -> None:
    """What a deploy would do: what would be sent, then what the service would do with it."""
    from kaos_hub.models import TrainingAnswer

    bundles = session.client.bundles
    request = plan.request.model_copy(update={"dry_run": True})
    actions, new = [], []
    for role, folder in plan.folders.items():
        if is_submitted(bundles, folder):
            request = request.model_copy(update={role: folder.scan.root})
            actions.append(f"use {role} bundle {folder.name} as it was submitted before")
        else:
            actions.append(would_send(bundles, folder))
            new.append(role)
    if new:
        actions += _later(plan)
        trials = plan.folders["params"].lists if "params" in plan.folders else 1
        answer = TrainingAnswer(inputs=plan.inputs, actions=actions, trials=trials)
    else:
        answer = session.client.trainings.request(request)
        answer = answer.model_copy(update={"actions": actions + answer.actions})
    if session.json:
        show_json(answer)
        return
    show("What would be done:")
    for action in answer.actions:
        show(f"- {action}")


def _later(plan: _Plan) -> Iterator[str]:
    """What follows on sending. Of bundles that it does not have the service can say no more."""
    from kaos_hub.cli.output import resources
    from kaos_hub.models import Resources

    request = plan.request
    if "manifest" in plan.folders:
        yield f"fetch the {plan.folders['manifest'].lists:,} files that the manifest names"
    if "source" in plan.folders:
        yield "build what the source asks for, unless that is there already"
    slots, params = request.slots, plan.folders.get("params")
    trials = _size(params) if params else "the trials"
    if params is None and plan.used("params") is None and not request.params:
        trials, slots = "one trial", 1
    held = Resources(cpu=request.cpu, memory=request.memory, gpu=request.gpu)
    at_once = f", {slots} at once" if slots > 1 else ""
    yield f"run {trials}{at_once}, each with {resources(held)} resources".replace(
        "default resources", "the default resources"
    )
