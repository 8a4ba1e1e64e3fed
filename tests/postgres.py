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


class Server:
    """A PostgreSQL server that can be stopped and started under its clients."""

    def __init__(self) -> None:
        programs = binaries()
        assert programs is not None
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="kaos-pg-"))
        # the server refuses to run as root
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self._directory, self._user)
        self._data = str(self._directory / "data")
        self._run("initdb", "-D", self._data, "-A", "trust", "-N")
        self.start()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of an empty database."""
        role = self._user or pwd.getpwuid(os.getuid()).pw_name
        return f"postgresql+psycopg://{role}@/postgres?host={self._directory}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = str(self._directory / "log")
        options = f"-k {self._directory} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            user=self._user,
            cwd=self._directory,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )


@contextmanager
def server() -> Iterator[Server]:
    """A server that runs while you use it."""
    started = Server()
    try:
        yield started
    finally:
        started.stop()
        started.remove()
