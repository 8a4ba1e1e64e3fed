"""Folders on their way to the service: read, checked, sent, each with a bar and a word about it."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.base import Session
from kaos_hub.cli.outcome import Interrupted
from kaos_hub.cli.terminal.output import clean, say
from kaos_hub.cli.terminal.progress import Bar
from kaos_hub.errors import InvalidBundle

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Bundles, Folder
    from kaos_hub.schemas import BundleKind, BundleVersion

_SKIPPED_SHOWN = 5


def reference_to(argument: str, what: str = "folder") -> str:
    """A submitted bundle instead of a folder, unless it can only be a folder that is not there."""
    if argument.startswith("blake3:") or ("@v" in argument and "/" not in argument):
        return argument
    path = Path(argument)
    if what == "folder" and path.is_file():
        raise InvalidBundle(
            f"{argument!r} is a file, and a bundle is a folder. The folder it lies in:"
            f" {shlex.quote(str(path.parent))}. One file alone into a notebook: kaos notebook"
            f" deploy --context {shlex.quote(argument)}"
        )
    raise InvalidBundle(
        f"there is no {what} {argument!r}. A bundle that was submitted before is named with its"
        " version, as in example@v2: kaos bundle list"
    )


@contextmanager
def naming_what_is_meant() -> Iterator[None]:
    """End the refusal of a folder with the command for the bundle that lies near by."""
    try:
        yield
    except InvalidBundle as e:
        meant: list[str] = e.details.get("meant", [])
        if not meant:
            raise
        path = click.get_current_context().command_path
        lines = [f"    {path} -s {shlex.quote(each)}" for each in meant]
        raise InvalidBundle("\n".join([f"{e.message}\n", *lines]), **e.details) from None


def prepare(
    session: Session,
    bundles: "Bundles",
    path: Path,
    kind: "BundleKind",
    named: str | None = None,
    force: str = "-n NAME",
) -> "Folder":
    """Read and check what is to be submitted, and say what is left out.

    Args:
        session, bundles, path, kind: what, and where to.
        named: what else was named on purpose: then the folder's name is meant, too, whatever
            other folder has it. None: another folder of the name is another thing.
        force: the option that names something.
    """
    from kaos_hub.bundles.source import default_name

    with naming_what_is_meant(), Bar(f"Reading {path.name}", not session.quiet) as bar:
        name = default_name(bundles.root_of(path, kind)) if named and path.is_dir() else None
        folder = bundles.prepare(path, kind, name, progress=lambda done: bar(done, 0))
    if folder.other:
        folder = _told_apart(session, folder, force)
    skipped = folder.scan.skipped
    if skipped:
        more = f" and {len(skipped) - _SKIPPED_SHOWN} more" if len(skipped) > _SKIPPED_SHOWN else ""
        first = skipped[:_SKIPPED_SHOWN]
        names = ", ".join(name if name.isprintable() else repr(name) for name in first)
        session.note(f"Left out of {kind}: {names}{more}")
    for note in folder.scan.notes:
        session.note(f"{kind.capitalize()}: {note}")
    return folder


def _told_apart(session: Session, folder: "Folder", force: str) -> "Folder":
    """Return the folder, named as what it is: the next version of a bundle of its name, or another.

    A person is asked; without one, or with a no, it gets a new name, and that is said.
    """
    what = folder.apart
    question = f"{what}. Make it the next version of that all the same?"
    if session.can_ask and click.confirm(clean(question), default=False, err=True):
        return replace(folder, name=folder.asked_name, other="")
    say(f"{what}; it becomes bundle {folder.name}. To replace the other: {force}")
    return replace(folder, other="")


def submit(session: Session, bundles: "Bundles", folder: "Folder") -> "BundleVersion":
    """Submit a folder with a bar, and say which version it is."""
    try:
        with Bar(f"Sending {folder.name}", not session.quiet) as bar:
            version = bundles.submit(folder, progress=bar)
    except KeyboardInterrupt:
        text = "Interrupted. Deploy it again: only what has not arrived yet is sent."
        raise Interrupted(text) from None
    session.note(f"{folder.kind.capitalize()}: {version.name}@v{version.version}, {extent(folder)}")
    return version


def extent(folder: "Folder") -> str:
    """Return how much a folder holds, for people."""
    from kaos_hub.util.quantities import plural, show_memory

    return f"{plural(folder.scan.count, 'file')}, {show_memory(folder.scan.size)}"


def submitted_as(bundles: "Bundles", folder: "Folder") -> "BundleVersion | None":
    """The version that the folder, as it is, is already."""
    known = bundles.list(kind=folder.kind, name=folder.name, limit=1000)
    return next((version for version in known if version.digest == folder.scan.root), None)


def would_send(bundles: "Bundles", folder: "Folder") -> str:
    """Return what submitting a folder would mean, for people."""
    from kaos_hub.util.quantities import show_memory

    sizes = folder.scan.objects
    amount = sum(sizes[digest] for digest in bundles.missing(folder))
    amount_of = f"{extent(folder)}; {show_memory(amount)} to send"
    return f"submit {folder.kind} bundle {folder.name} ({amount_of})"
