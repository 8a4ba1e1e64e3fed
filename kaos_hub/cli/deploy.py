"""``kaos notebook deploy``: check everything, ask, send, follow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.deploy_options import Wanted, deploy_options, read
from kaos_hub.cli.output import show, show_json
from kaos_hub.cli.submitting import prepare, reference_to, submit, submitted_as, would_send
from kaos_hub.errors import InvalidName, RestartRequired

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Folder
    from kaos_hub.models import DeployAnswer, NotebookRequest


@dataclass
class _Plan:
    """What is going to be deployed."""

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


def carry_out(session: Session, wanted: Wanted) -> None:
    """Deploy what is wanted, and follow it to its end."""
    from kaos_hub.cli.follow import follow_to_the_end

    plan = _plan(session, wanted)
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
    from kaos_hub.models import NOTHING, BundleKind, NotebookRequest, parse_request

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
            plan.folders[role] = prepare(session, bundles, path, kind)
        else:
            reference = reference_to(argument)
            plan.request = plan.request.model_copy(update={role: reference})
    if plan.request.name is None:
        plan.request = plan.request.model_copy(update={"name": _name(plan)})
    return plan


def _run(session: Session, text: str, name: str | None) -> dict[str, Any]:
    """What asks for a notebook on a trial: which one, and a name by which it is found again."""
    from kaos_hub.cli.selection import split_model
    from kaos_hub.cli.train_get import only_trial
    from kaos_hub.client import notebook_name_from

    training, number = split_model(text)
    found = session.client.trainings.get(training)
    number = number or only_trial(session, found)
    # The same trial is the same notebook, and no other trial's.
    short = notebook_name_from(Path(found.name[:18])) or "run"
    return {"run": f"{training}.{number}", "name": name or f"{short}-{training[:6]}-{number}"[:30]}


def _name(plan: _Plan) -> str | None:
    from kaos_hub.client import notebook_name_from
    from kaos_hub.models import NOTHING, parse_repository

    for role in ("source", "context", "data"):
        folder = plan.folders.get(role)
        reference = getattr(plan.request, role)
        path = Path(str(reference or "").partition("@")[0])
        if folder is not None:
            # Of a single file the folder is one that was made for it.
            path = folder.path if folder.keeps is None else Path(folder.name)
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


def _deploy(session: Session, request: "NotebookRequest", yes: bool) -> "DeployAnswer":
    try:
        return session.client.notebooks.request(request)
    except RestartRequired as e:
        message = e.message.removesuffix(" Confirm with -y.")
        session.confirm(f"{message} Restart it?", yes, "deploy again with -y")
        return session.client.notebooks.request(request.model_copy(update={"restart": True}))


def _show_plan(session: Session, plan: _Plan) -> None:
    """What a deploy would do: what would be sent, then what the service would do with it."""
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
