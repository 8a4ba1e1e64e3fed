"""``kaos doctor``: what is wrong with a set-up, and what to do."""

import os
from pathlib import Path

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.output import show, show_json
from kaos_hub.datadir import DataDir

_MARKS = {"good": "✔", "weak": "!", "bad": "✗"}


@click.command(cls=Command)
@click.option(
    "--engine",
    type=click.Choice(("local", "docker", "kubernetes")),
    help="Look at what this engine needs.  [default: local]",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Directory in which everything lies."
)
@pass_session
def doctor(session: Session, engine: str | None, data_dir: Path | None) -> None:
    """Say what is wrong with a set-up, and what to do.

    Ends with exit code 1 if something is wrong (✗). What could be better (!) is no error.
    """
    from kaos_hub import checks

    data = DataDir(data_dir, create=False)
    findings = []
    for finding in checks.examine(data, engine or os.environ.get("KAOS_ENGINE") or "local"):
        findings.append(finding)
        if not session.json:
            show(f"{_MARKS[finding.state]} {finding.name}: {finding.text}")
            if finding.advice and finding.state != checks.GOOD:
                show(f"    → {finding.advice}")
    bad = [f for f in findings if f.state == checks.BAD]
    if session.json:
        show_json({"ok": not bad, "checks": [vars(f) for f in findings]})
    if bad:
        raise click.exceptions.Exit(1)
