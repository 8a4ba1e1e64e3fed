"""``kaos doctor``: what is wrong with a set-up, and what to do."""

import os
from pathlib import Path

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.terminal.output import show, show_json
from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir

_MARKS = {"good": "✔", "weak": "!", "bad": "✗"}


@click.command(cls=Command)
@click.option(
    "--engine",
    type=click.Choice(("local", "docker", "kubernetes")),
    help="Look at what this engine needs.  [default: the engine of the Hub, else local]",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Directory in which everything lies.  [default: that of the Hub logged in to]",
)
@pass_session
def doctor(session: Session, engine: str | None, data_dir: Path | None) -> None:
    """Say what is wrong with a set-up, and what to do.

    Ends with exit code 1 if something is wrong (✗). What could be better (!) is no error.
    """
    from kaos_hub.doctor import machine as checks

    data = DataDir(data_dir or _of_the_hub_in_use(), create=False)
    findings = []
    for finding in checks.examine(data, engine or os.environ.get("KAOS_ENGINE") or _noted(data)):
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


def _noted(data: DataDir) -> str:
    """The engine of the Hub that last started with a data directory; ``local`` without any."""
    try:
        return data.engine.read_text() or "local"
    except OSError:
        return "local"


def _of_the_hub_in_use() -> str | None:
    """The data directory of the Hub that one is logged in to, if `kaos up` started that one."""
    from kaos_hub.transport.credentials import load_credentials, local_data

    if os.environ.get("KAOS_DATA_DIR"):
        return None
    try:
        known = load_credentials()
        return known.data if known else local_data()
    except KaosError:
        return None  # said by the check of the login
