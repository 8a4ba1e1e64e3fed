"""``kaos notebook deploy``: check everything, ask, send, follow."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.notebook.options import Wanted, deploy_options, read
from kaos_hub.cli.submitting import prepare, reference_to, submit, submitted_as, would_send
from kaos_hub.cli.terminal.output import say, show, show_json
from kaos_hub.errors import InvalidName, RestartRequired
from kaos_hub.util.quantities import plural

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Folder
    from kaos_hub.schemas import DeployAnswer, NotebookRequest


@dataclass
class _Plan:
    """A deploy that is about to be asked for."""

    request: "NotebookRequest"
    folders: dict[str, "Folder"] = field(default_factory=dict)
    """``source``, ``data`` and ``context``, those that are folders to submit."""


@click.command(cls=Command)
@deploy_options
@click.option(
    "-n", "--name", help="Its name; else the folder's.", shell_complete=completion.notebooks
)
@click.option("--detach", is_flag=True, help="Do not wait for it.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@pass_session
def deploy(session: Session, /, **options: Any) -> None:
    """Turn a folder and its data into a notebook, and open it.

    Neither is needed: without a source it is an empty notebook. Deploying a folder again brings its
    changes into the notebook of that name; what you have edited there is kept. Ctrl-C lets it go on
    without you.

    \b
    Example:
        kaos notebook deploy -s notebook/example -d mnist/data
        kaos notebook deploy -n scratch --cpu 0.5 --memory 512Mi
        kaos notebook deploy --run 1f3a5c7e9b2d4f60.2
        kaos notebook deploy --git https://example.org/group/repository.git@main
    """
    carry_out(session, read(options))


def carry_out(session: Session, wanted: Wanted, new: bool = False) -> None:
    """Deploy what is wanted, and follow it to its end.

    Args:
        session: the run of the command line.
        wanted: what was asked for.
        new: never deploy to a notebook that is there, if no name was given.
    """
    from kaos_hub.cli.follow import follow_to_the_end

    plan = _plan(session, wanted)
    if new and "name" not in wanted.fields:
        _make_new(session, plan)
    if wanted.dry_run:
        _show_plan(session, plan)
        return
    if plan.folders:
        # Whether the notebook could be had at all is asked before anything is sent.
        session.client.notebooks.request(plan.request.model_copy(update={"dry_run": True}))
    for role, folder in plan.folders.items():
        version = submit(session, session.client.notebooks.bundles, folder)
        plan.request = plan.request.model_copy(update={role: version.digest})
    answer = _deploy(session, plan.request, wanted.yes)
    follow_to_the_end(
        session, answer.notebook, wanted.detach, not wanted.no_browser, answer.actions
    )


def _plan(session: Session, wanted: Wanted) -> _Plan:
    """Everything that can be checked without sending: options, folders, rules, limits of size."""
    from kaos_hub.schemas import NOTHING, BundleKind, NotebookRequest, parse_request

    fields = dict(wanted.fields)
    if wanted.run is not None:
        fields |= _run(session, wanted.run, fields.get("name"))
    plan = _Plan(parse_request(NotebookRequest, fields))
    for role, argument in wanted.bundles.items():
        kind, path = BundleKind(role), Path(argument)
        if argument == NOTHING and kind is BundleKind.CONTEXT:
            plan.request = plan.request.model_copy(update={role: NOTHING})
        elif path.is_dir() or (kind is BundleKind.CONTEXT and path.is_file()):
            bundles = session.client.notebooks.bundles
            plan.folders[role] = prepare(session, bundles, path, kind, plan.request.name)
        else:
            reference = reference_to(argument)
            plan.request = plan.request.model_copy(update={role: reference})
    if plan.request.name is None:
        plan.request = plan.request.model_copy(update={"name": _free_name(session, plan)})
    return plan


def _free_name(session: Session, plan: _Plan) -> str | None:
    """The name that the source gives, unless a notebook on something else has it."""
    from kaos_hub.client import name_beside

    name, folder = _name(plan), plan.folders.get("source")
    source = folder.name if folder else str(plan.request.source or "").partition("@")[0]
    if name is None or not source or source.startswith("blake3:"):
        return name
    found = name_beside(session.client.notebooks, name, source)
    if found != name:
        say(f"Notebook {name} has another source; this one is {found}. To replace it: -n {name}")
    return found


def _run(session: Session, text: str, name: str | None) -> dict[str, Any]:
    """Return the fields of a notebook on a trial: which trial, and a name that finds it again."""
    from kaos_hub.cli.selection import training_of
    from kaos_hub.cli.train.get import only_trial
    from kaos_hub.client import notebook_name_from

    training, number = training_of(session, text)
    found = session.client.trainings.look(training)
    number = number or only_trial(session, found)
    # The same trial is the same notebook, and no other trial's.
    short = notebook_name_from(Path(found.name[:18])) or "run"
    return {"run": f"{training}.{number}", "name": name or f"{short}-{training[:6]}-{number}"[:30]}


def _name(plan: _Plan) -> str | None:
    from kaos_hub.client import notebook_name_from
    from kaos_hub.schemas import NOTHING, parse_repository

    for role in ("source", "context", "data"):
        folder = plan.folders.get(role)
        reference = getattr(plan.request, role)
        path = Path(str(reference or "").partition("@")[0])
        if folder is not None:
            # Of a single file the folder is one that was made for it.
            renamed = folder.asked_name not in ("", folder.name)
            path = Path(folder.name) if folder.keeps is not None or renamed else folder.path
        elif reference in (None, NOTHING) or reference.startswith("blake3:"):
            continue
        name = notebook_name_from(path)
        if name is None:
            raise InvalidName(f"no notebook's name can be made of {path.name!r}; say one: -n NAME")
        return name
    git = plan.request.git
    if git not in (None, NOTHING):
        return notebook_name_from(Path(parse_repository(str(git)).name))
    return None


def _make_new(session: Session, plan: _Plan) -> None:
    """Give the plan a name that no notebook has, and say how to start one that is there."""
    found = session.client.notebooks.list()
    name, taken = plan.request.name, {each.name for each in found}
    if name in taken:
        numbered = (f"{name[:26]}-{number}" for number in count(2))
        name = next(each for each in numbered if each not in taken)
        plan.request = plan.request.model_copy(update={"name": name})
    stopped = [each.name for each in found if each.state in ("STOPPED", "FAILED")]
    if stopped:
        session.note(
            f"This is a new notebook. {plural(len(stopped), 'notebook')} of yours stopped; to start"
            f" one again: kaos notebook start -n {stopped[0]}"
        )


def _deploy(session: Session, request: "NotebookRequest", yes: bool) -> "DeployAnswer":
    try:
        return session.client.notebooks.request(request)
    except RestartRequired as e:
        message = e.message.removesuffix(" Confirm with -y.")
        session.confirm(f"{message} Restart it?", yes, "deploy again with -y")
        return session.client.notebooks.request(request.model_copy(update={"restart": True}))


def _show_plan(session: Session, plan: _Plan) -> None:
    """Print what a deploy would do: what would be sent, then what the service would do with it."""
    request = plan.request.model_copy(update={"dry_run": True})
    actions, new = [], False
    for role, folder in plan.folders.items():
        bundles = session.client.notebooks.bundles
        if submitted_as(bundles, folder):
            request = request.model_copy(update={role: folder.scan.root})
            actions.append(f"use {role} bundle {folder.name} as it was submitted before")
        else:
            actions.append(would_send(bundles, folder))
            new = True
    answer = session.client.notebooks.request(request)
    # Of a bundle it does not have the service cannot say what it asks for.
    later = [f"deploy notebook {answer.notebook.name} with it, building what it asks for"]
    actions += later if new else answer.actions
    if session.json:
        show_json(answer.model_copy(update={"actions": actions}))
        return
    show(f"Notebook {answer.notebook.name} would be deployed:")
    for action in actions:
        show(f"- {action}")
