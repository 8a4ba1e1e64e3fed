"""``kaos bundle …``: what was submitted, one version beside another, and its end."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli import completion
from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.terminal.output import age, show, show_json, show_table
from kaos_hub.cli.terminal.progress import Bar
from kaos_hub.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import BundleVersion

_KINDS = ["source", "data", "manifest", "params", "context", "artifact"]
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_kind = click.option("--kind", type=click.Choice(_KINDS), help="Only bundles of this kind.")


@click.group(cls=Group)
def bundle() -> None:
    """See and fetch the bundles you submitted. Every version is kept as it was."""


@bundle.command("list")
@_kind
@click.option("--name", help="Only versions of this bundle.", shell_complete=completion.bundles)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@pass_session
def list_bundles(session: Session, kind: str | None, name: str | None, limit: int) -> None:
    """List versions, newest first. A star marks the one used when none is named.

    \b
    Example:
        kaos bundle list --kind data
    """
    from kaos_hub.util.quantities import show_memory

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
@click.argument("bundle", metavar="NAME[@vN]", shell_complete=completion.bundles)
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


@bundle.command()
@click.argument("bundle", metavar="NAME[@vN]", shell_complete=completion.bundles)
@click.argument("since", metavar="[vN]", required=False)
@_kind
@click.option("--limit", type=click.IntRange(0, 100_000), default=1000, show_default=True)
@pass_session
def diff(session: Session, bundle: str, since: str | None, kind: str | None, limit: int) -> None:
    """Show which files a version added, removed and changed, since the one before or any other.

    \b
    Example:
        kaos bundle diff example
        kaos bundle diff example@v3 v1
    """
    from kaos_hub.util.quantities import show_memory

    version = _find(session, bundle, kind)
    other = _number(since, since) if since else None
    found = session.client.bundles.compare(
        version.kind, version.name, version.version, other, limit
    )
    if session.json:
        show_json(found)
        return
    for change in found.changes:
        now = change.after or change.before
        size = f"  {show_memory(now.size)}" if now and now.kind.value != "directory" else ""
        show(f"{_SIGNS[change.change.value]} {change.path}{size}")
    more = found.added + found.removed + found.changed - len(found.changes)
    rest = f"; {more:,} are not listed, --limit shows more" if more else ""
    session.note(
        f"{version.name} v{found.before.version} → v{found.after.version}: {found.added:,} added,"
        f" {found.removed:,} removed, {found.changed:,} changed{rest}"
    )


@bundle.command()
@click.argument("bundle", metavar="NAME[@vN]", shell_complete=completion.bundles)
@_kind
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, bundle: str, kind: str | None, yes: bool) -> None:
    """Delete a bundle with all its versions, or one of them.

    It is refused while a notebook or a training is made of it.

    \b
    Example:
        kaos bundle delete example@v2
    """
    from kaos_hub.util.quantities import show_memory

    version = _find(session, bundle, kind)
    number = version.version if "@" in bundle else None
    what = f"{bundle} with all of its versions" if number is None else f"{bundle}"
    stays = "" if number is None else " Its other versions stay."
    session.confirm(
        f"Delete the {version.kind} bundle {what}?{stays} Notebooks, trainings and models stay.",
        yes,
        f"kaos bundle delete {bundle} --kind {version.kind} -y",
    )
    gone = session.client.bundles.delete(version.kind, version.name, number)
    if session.json:
        show_json(gone)
    else:
        numbers = ", ".join(f"v{one}" for one in gone.versions)
        freed = show_memory(gone.freed)
        session.note(f"Deleted {version.name} {numbers}; {freed} of storage are free again.")


def _find(session: Session, text: str, kind: str | None) -> "BundleVersion":
    name, at, number = text.partition("@")
    wanted = _number(number, text) if at else None
    found = []
    for each in [kind] if kind else _KINDS:
        try:
            found.append(session.client.bundles.get(each, name, wanted))
        except NotFound:
            continue
    if not found:
        raise NotFound(f"there is no bundle {text}; `kaos bundle list` shows what there is")
    if len(found) > 1:
        kinds = " and ".join(f"--kind {each.kind}" for each in found)
        raise InvalidRequest(f"more than one bundle is called {text}; choose among {kinds}")
    return found[0]


def _number(text: str, whole: str) -> int:
    wanted = text.removeprefix("v")
    if not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 10):
        raise InvalidRequest(f"{whole!r} is no version of a bundle; say NAME or NAME@v2")
    return int(wanted)
