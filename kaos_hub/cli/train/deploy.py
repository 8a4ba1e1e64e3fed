"""``kaos train deploy``: check everything, show what is used, ask, send, follow."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.submitting import naming_what_is_meant, submit, submitted_as, would_send
from kaos_hub.cli.terminal.output import age, show, show_json
from kaos_hub.cli.train.inputs import SHOWN, Plan, make_plan, show_inputs, size_of
from kaos_hub.errors import Conflict, InvalidBundle, InvalidRequest, LimitExceeded, NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import BundleVersion, TrainingAnswer

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def _options(function: AnyFunction) -> AnyFunction:
    for option in reversed(
        [
            click.option("-s", "--source", metavar="DIR", shell_complete=completion.sources,
                         help="Source bundle: a folder with a Dockerfile and model/train; or"
                         " NAME@v2."),
            click.option("-d", "--data", metavar="DIR", shell_complete=completion.data,
                         help="Data bundle: any folder; or NAME@v2."),
            click.option("-m", "--manifest", "--data-manifest", metavar="PATH",
                         shell_complete=completion.files,
                         help="Instead of data: a file or folder of lines {url, path} to fetch."),
            click.option("-h", "--params", "--hyperparams", metavar="FILE",
                         shell_complete=completion.files,
                         help="JSON with a list of values per parameter: a trial for each"
                         " combination."),
            click.option("-p", "--parallelism", "slots", type=click.IntRange(1, 1000),
                         help="Trials that run at once.  [default: 1]"),
            click.option("--notebook", metavar="NAME", shell_complete=completion.notebooks,
                         help="The source of this notebook, saved first if it runs; and its data."),
            click.option("--name", help="What it is called; else as its source bundle.",
                         shell_complete=completion.training_names),
            click.option("--goal", metavar="METRIC:min|max",
                         help="What makes a trial the best, as in loss:min."),
            click.option("--cpu", help="Cores of each slot: 0.5, 2 or 500m."),
            click.option("--memory", help="Bytes of each slot: 512Mi, 2G."),
            click.option("--gpu", help="Whole devices of each slot."),
            click.option("--deadline", help="How long one trial may take: 90s, 2h."),
            click.option("--without-params", is_flag=True,
                         help="Leave out the hyperparameters used last, now and later."),
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

    What is not given is what was used last with this source; a table shows it first. All that is
    given in one command is used together. Ctrl-C lets it go on without you.

    \b
    Example:
        kaos train deploy -s mnist/model-train -d mnist/data
        kaos train deploy -h mnist/hyperopt/params.json -p 4 --goal accuracy:max
        kaos train deploy -m mnist/data_manifest
    """
    from kaos_hub.cli.notebook.files import save_first
    from kaos_hub.cli.train.follow import follow_training
    from kaos_hub.client.submission import reference

    _check_pairs(source, data, manifest, params, notebook, options["without_params"])
    _look_at_train(session, source, data)
    given = {"source": source, "data": data, "manifest": manifest, "params": params}
    if notebook is not None:
        save_first(session, notebook, yes, dry_run)
    plan = make_plan(session, given, notebook, options)
    show_inputs(session, plan)
    if dry_run:
        _show_plan(session, plan)
        return
    _confirm(session, plan, yes)
    if plan.folders:
        _ask_first(session, plan)
    for role, folder in plan.folders.items():
        version = submit(session, session.client.bundles, folder)
        plan.request = plan.request.model_copy(update={role: reference(version)})
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


def _look_at_train(session: Session, source: str | None, data: str | None) -> None:
    """A folder without a ``train`` is for a notebook; say with which command. One that does not
    say what runs it is run by a shell, which is seldom meant."""
    from kaos_hub.bundles.source import find_source_root

    if source is None or not Path(source).is_dir():
        return
    with naming_what_is_meant():
        root = find_source_root(Path(source), look_around=True)
    for file in (root / "model" / "train", root / "train"):
        if file.exists():
            if note := _first_line(file):
                session.note(note)
            return
    words = ["kaos", "notebook", "deploy", "-s", source, *(["-d", data] if data else [])]
    raise InvalidBundle(
        f"{source} is a notebook bundle: it has no model/train, so there is nothing to train."
        f" Deploy it as a notebook:\n\n    {shlex.join(words)}\n"
    )


def _first_line(file: Path) -> str:
    """Return a remark on how the file begins, if that does not say what runs it; else nothing."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4)
    except OSError:
        return ""  # it is told when the folder is read
    if not head or head.startswith((b"#!", b"\x7fELF")):
        return ""
    return (
        f"{file} does not begin with #!, so a shell runs it. If it is Python, let its first line"
        " be: #!/usr/bin/env python3"
    )


def _confirm(session: Session, plan: Plan, yes: bool) -> None:
    """Ask whether what was used last is what is meant; in a script, what was said counts."""
    used = [role for role in SHOWN if plan.used(role)]
    if used and session.can_ask:
        session.confirm(f"Train with the {' and '.join(used)} used last?", yes, "-y")


def _ask_first(session: Session, plan: Plan) -> None:
    """Ask the service whether the training could be had at all, before anything is sent."""
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


def _request(session: Session, plan: Plan) -> "TrainingAnswer":
    try:
        return session.client.trainings.request(plan.request)
    except Conflict as e:
        moved = [text for role in SHOWN if (text := _moved(session, plan, role))]
        if not moved:
            raise
        raise Conflict(
            f"{'; '.join(moved)}. Nothing was started. Run the command again to see and use what is"
            " there now",
            **e.details,
        ) from None


def _moved(session: Session, plan: Plan, role: str) -> str | None:
    """Return what became of an input that was shown, if it is another one now."""
    before = plan.used(role)
    now: BundleVersion | None = getattr(session.client.trainings.inputs(plan.source), role)
    if plan.given(role) or (before and before.digest) == (now and now.digest):
        return None
    was = f"{before.name}@v{before.version}" if before else "none"
    if now is None:
        return f"the {role} shown was {was}, and there is none any more"
    who = f"by {now.author}, {age(now.created)} ago"
    return f"the {role} shown was {was}; now it is {now.name}@v{now.version} ({who})"


def _show_plan(session: Session, plan: Plan) -> None:
    """Print what a deploy would do: what would be sent, then what the service would do with it."""
    from kaos_hub.client.submission import reference
    from kaos_hub.schemas import TrainingAnswer

    bundles = session.client.bundles
    request = plan.request.model_copy(update={"dry_run": True})
    actions, new = [], []
    for role, folder in plan.folders.items():
        known = submitted_as(bundles, folder)
        if known:
            request = request.model_copy(update={role: reference(known)})
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


def _later(plan: Plan) -> Iterator[str]:
    """Yield what follows on sending. Of bundles that it lacks the service can say no more."""
    from kaos_hub.cli.terminal.output import resources
    from kaos_hub.schemas import Resources

    request = plan.request
    if "manifest" in plan.folders:
        yield f"fetch the {plan.folders['manifest'].lists:,} files that the manifest names"
    if "source" in plan.folders:
        yield "build what the source asks for, unless that is there already"
    slots, params = request.slots, plan.folders.get("params")
    trials = size_of(params) if params else "the trials"
    if params is None and plan.used("params") is None and not request.params:
        trials, slots = "one trial", 1
    held = Resources(cpu=request.cpu, memory=request.memory, gpu=request.gpu)
    at_once = f", {slots} at once" if slots > 1 else ""
    yield f"run {trials}{at_once}, each with {resources(held)} resources".replace(
        "default resources", "the default resources"
    )
