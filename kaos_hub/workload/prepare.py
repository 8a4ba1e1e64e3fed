"""The content that a pod finds in its empty volumes: ``python -m kaos_hub.workload.prepare``.

A step before the main container. It makes the directories that a workload may write to, hands the
ticket over, and copies the runtime where no shared volume has it. Needs only the standard library.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = "/opt/kaos"


def prepare(
    folders: list[Path], ticket: Path | None, into: Path | None, runtime: Path | None
) -> None:
    """Make all of it; may be repeated.

    Args:
        folders: directories to make.
        ticket: file with the workload's ticket.
        into: where a copy of that goes which the workload can read and delete.
        runtime: where a copy of the runtime goes.
    """
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if ticket is not None and into is not None:
        into.unlink(missing_ok=True)
        file = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as copy:
            copy.write(ticket.read_bytes())
    if runtime is not None:
        shutil.copytree(ROOT, runtime, symlinks=True, dirs_exist_ok=True)


def main(arguments: list[str]) -> None:
    """Do as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, action="append", default=[])
    parser.add_argument("--ticket", type=Path)
    parser.add_argument("--ticket-into", type=Path)
    parser.add_argument("--runtime", type=Path)
    given = parser.parse_args(arguments)
    prepare(given.folder, given.ticket, given.ticket_into, given.runtime)


if __name__ == "__main__":
    main(sys.argv[1:])
