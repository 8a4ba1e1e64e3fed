"""A PostgreSQL of the tests' own, in a temporary directory, reached by a socket."""

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """Where PostgreSQL's server programs are, if they are installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    path = found[-1] if found else shutil.which("initdb")
    return Path(path).parent if path else None


@contextmanager
def server() -> Iterator[str]:
    """Start a server; gives the SQLAlchemy URL of an empty database."""
    programs = binaries()
    assert programs is not None
    directory = Path(tempfile.mkdtemp(prefix="kaos-pg-"))
    # the server refuses to run as root
    user = "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(directory, user)

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, user=user, cwd=directory, capture_output=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    data = str(directory / "data")
    run(str(programs / "initdb"), "-D", data, "-A", "trust", "-N")
    options = f"-k {directory} -c listen_addresses='' -c fsync=off"
    run(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(directory / "log"), "-o", options, "start")  # noqa: E501
    role = user or pwd.getpwuid(os.getuid()).pw_name
    try:
        yield f"postgresql+psycopg://{role}@/postgres?host={directory}"
    finally:
        run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(directory, ignore_errors=True)
