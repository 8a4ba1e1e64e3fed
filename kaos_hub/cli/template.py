"""``kaos template …``: folders to begin with. They come with this package; no Hub is asked."""

import os
import shlex
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from kaos_hub.cli.base import Command, Group, Session, pass_session
from kaos_hub.cli.terminal.output import show, show_json, show_table
from kaos_hub.errors import InvalidRequest, NotFound

_PROGRAM = b"#!"
"""The beginning of a file that is to be executed. Installers keep contents, not always modes."""


@dataclass(frozen=True)
class _Template:
    what: str
    deploy: tuple[str, ...]
    """Commands that deploy it, with ``{}`` for the folder it was laid out in."""

    def commands(self, folder: Path) -> list[str]:
        """Return the commands to type next."""
        return [each.replace("{}", shlex.quote(str(folder))) for each in self.deploy]


_TEMPLATES = {
    "notebook": _Template("an empty notebook", ("kaos notebook deploy -s {}",)),
    "notebook-data": _Template(
        "a notebook, and data beside it",
        ("kaos notebook deploy -s {}/weather -d {}/temperatures",),
    ),
    "notebook-gpu": _Template(
        "a notebook that uses a GPU", ("kaos notebook deploy -s {} --gpu 1",)
    ),
    "training": _Template(
        "a program that trains, its data, and parameters to try",
        (
            "kaos train deploy -s {}/moons -d {}/points",
            "kaos train deploy -h {}/params.json -p 2 --goal accuracy:max",
        ),
    ),
}


@dataclass
class _Laid:
    """The outcome for each file of a template, by its path in the folder."""

    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def _offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [name for name in _TEMPLATES if name.startswith(incomplete)]
    return [CompletionItem(name, help=_TEMPLATES[name].what) for name in names]


@click.group(cls=Group)
def template() -> None:
    """Folders to begin with, which deploy as they are."""


@template.command("list")
@pass_session
def list_templates(session: Session) -> None:
    """List the templates. They come with kaos: this needs no login and no network.

    \b
    Example:
        kaos template list
    """
    if session.json:
        show_json(
            [
                {"name": name, "what": each.what, "deploy": each.commands(Path(name))}
                for name, each in _TEMPLATES.items()
            ]
        )
        return
    show_table(("name", "what it is"), [(name, each.what) for name, each in _TEMPLATES.items()])
    session.note("Take one: kaos template get NAME")


@template.command(cls=Command)
@click.argument("name", shell_complete=_offered)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@pass_session
def get(session: Session, name: str, folder: Path | None) -> None:
    """Lay a template out in DIR, which is called like it unless you say otherwise.

    What is there already stays as it is: a file that differs from the template's is kept and named.

    \b
    Example:
        kaos template get notebook-data
        kaos template get training my-training
    """
    chosen = _TEMPLATES.get(name)
    if chosen is None:
        raise NotFound(f"there is no template {name!r}, but {', '.join(_TEMPLATES)}")
    target = folder or Path(name)
    laid = _lay_out(Path(str(files("kaos_hub"))) / "templates" / name, target)
    commands = chosen.commands(target)
    if session.json:
        show_json({"name": name, "path": str(target), **vars(laid), "deploy": commands})
        return
    show(str(target))
    for path in laid.kept:
        session.note(f"kept as it is: {path}, which differs from the template's")
    if laid.kept:
        session.note(f"To see the template's: kaos template get {name} ANOTHER-DIR")
    session.note("Next:")
    for command in commands:
        session.note(f"  {command}")


def _lay_out(template: Path, target: Path) -> _Laid:
    """Write the files that are missing.

    Raises:
        InvalidRequest: the folder cannot be made or written to.
    """
    laid = _Laid()
    for source in sorted(path for path in template.rglob("*") if path.is_file()):
        path = source.relative_to(template)
        if "__pycache__" in path.parts:
            continue
        content = source.read_bytes()
        try:
            into = _write_new(target / path, content)
        except OSError as e:
            where = e.filename or target / path
            raise InvalidRequest(
                f"{where} cannot be written: {e.strerror}. Name another folder:"
                f" kaos template get {template.name} DIR"
            ) from None
        getattr(laid, into).append(str(path))
    return laid


def _write_new(path: Path, content: bytes) -> str:
    """Write a file unless something is there; returns what it was: written, same or kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o777 if content.startswith(_PROGRAM) else 0o666
    try:
        # O_EXCL follows no link and replaces nothing, even if others write here meanwhile.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        there = path.is_file() and not path.is_symlink() and path.read_bytes() == content
        return "same" if there else "kept"
    with os.fdopen(descriptor, "wb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink()  # half a file would be taken for the user's own the next time
            raise
    return "written"
