"""``kaos bundle …``: what was submitted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.output import age, show, show_json, show_table
from kaos_hub.cli.progress import Bar
from kaos_hub.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from kaos_hub.models import BundleVersion

_KINDS = ["source", "data", "manifest", "params", "artifact"]
_kind = click.option("--kind", type=click.Choice(_KINDS), help="Only bundles of this kind.")


@click.group(cls=Group)
def bundle() -> None:
    """See and fetch the bundles you submitted. Every version is kept as it was."""


@bundle.command("list")
@_kind
@click.option("--name", help="Only versions of this bundle.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@pass_session
def list_bundles(session: Session, kind: str | None, name: str | None, limit: int) -> None:
    """List versions, newest first. A star marks the one used when none is named.

    \b
    Example:
        kaos bundle list --kind data
    """
    from kaos_hub.quantities import show_memory

    found = session.client.bundles.list(kind=kind, name=name, limit=limit)
    if session.json:
        show_json(found)
    elif not found:
        session.note("No bundles yet. `kaos notebook deploy -s DIR -d DIR` submits them.")
    else:
        show_table(
            ("kind", "bundle", "", "files", "size", "author", "age", "digest"),
            [
                (b.kind, f"{b.name}@v{b.version}", "*" if b.current else "", b.files,
                 show_memory(b.size), b.author, age(b.created), b.digest[:19])
                for b in found
            ],
        )  # fmt: skip


@bundle.command()
@click.argument("bundle", metavar="NAME[@vN]")
@_kind
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder to make; else ./NAME is made."
)
@pass_session
def get(session: Session, bundle: str, kind: str | None, out: Path | None) -> None:
    """Fetch a bundle into a new folder, exactly as it was submitted.

    \b
    Example:
        kaos bundle get example@v2 -o example-v2
    """
    version = _find(session, bundle, kind)
    target = out or Path(version.name)
    with Bar(f"Fetching {version.name}", not session.quiet) as bar:
        session.client.bundles.get(version.kind, version.name, version.version, target, bar)
    session.note(f"{version.kind} bundle {version.name}@v{version.version} is in {target}")
    if session.json:
        show_json(version)
    else:
        show(str(target))


def _find(session: Session, text: str, kind: str | None) -> "BundleVersion":
    name, at, number = text.partition("@")
    wanted = number.removeprefix("v")
    if at and not wanted.isdecimal():
        raise InvalidRequest(f"{text!r} is no version of a bundle; say NAME or NAME@v2")
    found = []
    for each in [kind] if kind else _KINDS:
        try:
            found.append(session.client.bundles.get(each, name, int(wanted) if at else None))
        except NotFound:
            continue
    if not found:
        raise NotFound(f"there is no bundle {text}; `kaos bundle list` shows what there is")
    if len(found) > 1:
        kinds = " and ".join(f"--kind {each.kind}" for each in found)
        raise InvalidRequest(f"more than one bundle is called {text}; choose among {kinds}")
    return found[0]
