"""Servers of the tests that pods of the cluster reach: PostgreSQL, S3."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from sqlalchemy import make_url

from tests import databases
from tests.pods import this_machine


class Way:
    """A port at which pods reach somebody who listens for this machine alone."""

    def __init__(self, family: int, to: object) -> None:
        self._family, self._to = family, to
        self._server = socket.create_server((this_machine(), 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def host(self) -> str:
        """``address:port``."""
        host, port = self._server.getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        """Nobody else gets through."""
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                came, _ = self._server.accept()
                there = socket.socket(self._family)
                there.connect(self._to)  # type: ignore[arg-type]
                for one, other in ((came, there), (there, came)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := one.recv(1 << 16):
            other.sendall(some)
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database, for pods."""
    url = make_url(databases.postgresql_url(template=False))
    way = Way(socket.AF_UNIX, os.path.join(str(url.query["host"]), ".s.PGSQL.5432"))
    try:
        yield f"postgresql://{url.username}:any@{way.host}/{url.database}"
    finally:
        way.close()


@contextlib.contextmanager
def tcp(host: str) -> Iterator[str]:
    """``address:port`` at which pods reach a port of this machine."""
    name, _, port = host.rpartition(":")
    way = Way(socket.AF_INET, (name, int(port)))
    try:
        yield way.host
    finally:
        way.close()
