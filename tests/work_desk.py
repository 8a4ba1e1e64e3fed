"""The service's worker side alone: a real server, database and store, no Hub."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import JobRow, now
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.web.base import log_request
from kaos_hub.service.web.traffic import Allowed, Pace, Traffic
from kaos_hub.service.workers.working import WorkParts, work_rules
from kaos_hub.transport.tickets import Tickets
from tests.hub import Answer
from tests.train_world import World

KEY = "the key of the tests' tickets"
PREFIX = "/services/kaos/"


class WorkDesk:
    """Where workers of tests come to.

    Args:
        db: what the service works with.
        logs: the same.
        port: where it listens.
    """

    def __init__(self, db: Database, logs: LogStore, port: int) -> None:
        self.db, self.logs, self._port = db, logs, port

    async def job(self, kind: str = "train", owner: str = "user:ada", **more: Any) -> str:
        """The id of a new job that runs."""
        row = JobRow(
            id=token_hex(8), kind=kind, owner=owner, work={}, deadline=3600, created=now(),
            **{"key": token_hex(8), "state": "RUNNING", **more},
        )  # fmt: skip
        await self.db.run(lambda session: session.add(row))
        return row.id

    def ticket(self, job: str, kind: str = "train", seconds: int = 3600, key: str = KEY) -> str:
        """The ticket that the engine gave to the job's workload."""
        return Tickets(key).issue(f"kaos-{kind}-{job}", (), seconds)

    async def ask(
        self, method: str, path: str, ticket: str | None, body: Any = b"", timeout: float = 30
    ) -> Answer:
        """One request; a body of bytes, an iterable of them, or something to send as JSON."""
        return await asyncio.to_thread(self._ask, method, path, ticket, body, timeout)

    def _ask(self, method: str, path: str, ticket: str | None, body: Any, timeout: float) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {} if ticket is None else {"Authorization": f"Bearer {ticket}"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            chunked = not isinstance(data, bytes)
            connection.request(
                method, f"{PREFIX}work/v1/{path}", data, headers, encode_chunked=chunked
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@asynccontextmanager
async def work_desk(db: Database, directory: Path, storage: str = "1Gi") -> AsyncIterator[WorkDesk]:
    """A desk for as long as it is used."""
    world = World(db, directory, limits={"default": {"storage": storage}})
    world.make()
    versions, trainings = world.versions, world.trainings
    app = Application(
        work_rules(PREFIX, WorkParts(db, versions, trainings, Tickets(KEY))),
        streams=set(), loose_ends=set(), log_function=log_request,
        traffic=Traffic(Allowed(), Pace()),
    )  # fmt: skip
    server, (socket, port) = HTTPServer(app), bind_unused_port()
    server.add_socket(socket)
    try:
        yield WorkDesk(db, world.logs, port)
    finally:
        server.stop()
        await server.close_all_connections()


def pieces(data: bytes, times: int) -> Iterable[bytes]:
    """The same bytes again and again, never held at once."""
    return (data for _ in range(times))
