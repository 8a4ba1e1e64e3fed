"""Folders on their way to the service: read, checked, sent, each with a bar and a word about it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaos_hub.cli.base import Session
from kaos_hub.cli.output import say
from kaos_hub.cli.progress import Bar
from kaos_hub.errors import InvalidBundle

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Bundles, Folder
    from kaos_hub.models import BundleKind, BundleVersion

_SKIPPED_SHOWN = 5


def reference_to(argument: str, what: str = "folder") -> str:
    """A submitted bundle instead of a folder, unless it can only be a folder that is not there."""
    if argument.startswith("blake3:") or ("@v" in argument and "/" not in argument):
        return argument
    raise InvalidBundle(
        f"there is no {what} {argument!r}. A bundle that was submitted before is named with its"
        " version, as in example@v2: kaos bundle list"
    )


def prepare(session: Session, bundles: "Bundles", path: Path, kind: "BundleKind") -> "Folder":
    """Read and check what is to be submitted, and say what is left out."""
    with Bar(f"Reading {path.name}", not session.quiet) as bar:
        folder = bundles.prepare(path, kind, progress=lambda done: bar(done, 0))
    skipped = folder.scan.skipped
    if skipped:
        more = f" and {len(skipped) - _SKIPPED_SHOWN} more" if len(skipped) > _SKIPPED_SHOWN else ""
        session.note(f"Left out of {kind}: {', '.join(skipped[:_SKIPPED_SHOWN])}{more}")
    return folder


def submit(session: Session, bundles: "Bundles", folder: "Folder") -> "BundleVersion":
    """Submit a folder with a bar, and say which version it is."""
    try:
        with Bar(f"Sending {folder.name}", not session.quiet) as bar:
            version = bundles.submit(folder, progress=bar)
    except KeyboardInterrupt:
        say("Interrupted. Deploy it again: only what has not arrived yet is sent.")
        raise click.exceptions.Exit(130) from None
    session.note(f"{folder.kind.capitalize()}: {version.name}@v{version.version}, {extent(folder)}")
    return version


def extent(folder: "Folder") -> str:
    """How much a folder holds, for people."""
    from kaos_hub.quantities import plural, show_memory

    return f"{plural(folder.scan.count, 'file')}, {show_memory(folder.scan.size)}"


def submitted_as(bundles: "Bundles", folder: "Folder") -> "BundleVersion | None":
    """The version that the folder, as it is, is already."""
    known = bundles.list(kind=folder.kind, name=folder.name, limit=1000)
    return next((version for version in known if version.digest == folder.scan.root), None)


def would_send(bundles: "Bundles", folder: "Folder") -> str:
    """What submitting a folder would mean, for people."""
    from kaos_hub.quantities import show_memory

    sizes = folder.scan.objects
    amount = sum(sizes[digest] for digest in bundles.missing(folder))
    amount_of = f"{extent(folder)}; {show_memory(amount)} to send"
    return f"submit {folder.kind} bundle {folder.name} ({amount_of})"
