"""Workloads that may fetch, and the command with which they do."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

from kaos_hub.service.db.tables import JobRow, now
from kaos_hub.transport.tickets import Tickets
from tests.history import write
from tests.hub import ROOT, RunningHub


def direct(hub: RunningHub) -> str:
    """The service's address without the proxy: as workloads reach it."""
    ports = json.loads((hub.data / "ports.json").read_text())
    return f"http://127.0.0.1:{ports['service']}/services/kaos"


def waiting_job(hub: RunningHub) -> str:
    """The workload of a job that stays queued, whatever becomes of the service."""
    row = JobRow(
        id=token_hex(8), kind="build", owner="user:ada", key=token_hex(8), state="QUEUED",
        work={}, deadline=3600, created=now(), not_before=now() + timedelta(days=1),
    )  # fmt: skip
    workload = f"kaos-build-{row.id}"
    write(hub.data, [row])
    return workload


def ticket_for(hub: RunningHub, digests: Sequence[str], workload: str | None = None) -> str:
    """A ticket as the service makes them."""
    key = (hub.data / "secrets" / "tickets").read_text()
    return Tickets(key).issue(workload or waiting_job(hub), digests, 3600)


def command(url: str, ticket: str, directory: Path, *arguments: object) -> list[str]:
    """The command line of a fetch; the ticket goes into a file in ``directory``."""
    file = directory / f"ticket-{token_hex(4)}"
    file.write_text(ticket)
    program = [sys.executable, "-I", "-c", _RUN, str(ROOT)]
    return [*program, "--url", url, "--ticket", str(file), *map(str, arguments)]


# As `-I -m kaos_hub.workload.fetch.fetch`, from this checkout.
_RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
sys.exit(runpy.run_module("kaos_hub.workload.fetch.fetch", run_name="__main__"))
"""


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Fetch, and see how it ends."""
    line = command(*arguments)  # type: ignore[arg-type]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env=_plain())


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Begin to fetch."""
    line = command(*arguments)  # type: ignore[arg-type]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_plain()
    )


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KAOS_")}
