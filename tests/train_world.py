"""Trainings for tests: the service's parts that matter to them, made anew at will, and what they
work on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.testing import bind_unused_port
from tornado.web import Application

from kaos_hub.bundles.scan import scan
from kaos_hub.engines.base import Engine
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.installation.datadir import DataDir
from kaos_hub.schemas import BundleKind, BundleVersion, CommitRequest, Training, TrainingRequest
from kaos_hub.service.builds.environments import Environments, explain
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, JobRow
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.quota import Ledger
from kaos_hub.service.trainings.base import Tools
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.service.trainings.trainings import Trainings
from kaos_hub.service.web.traffic import Allowed, Pace, Traffic
from kaos_hub.service.workers.working import WorkParts, work_rules
from kaos_hub.stores.file import FileStore
from kaos_hub.transport.tickets import Tickets

ADA = "user:ada"
PREFIX = "/services/kaos/"


class World:
    """A service's parts, which can be killed and begun anew over what they left.

    Args:
        db: its database, migrated.
        folder: where everything else lies.
        limits: of users.
        max_workers: of all together.
        environments: where environments lie that worlds share; making one takes seconds.
        engine: of which kind the engine is.
        settings: of trainings.
    """

    trainings: Trainings
    jobs: Jobs
    engine: Engine

    def __init__(
        self,
        db: Database,
        folder: Path,
        limits: Mapping[str, Mapping[str, object]] | None = None,
        max_workers: int = 0,
        environments: Path | None = None,
        engine: type[LocalEngine] = LocalEngine,
        **settings: Any,
    ) -> None:
        self.db, self.folder = db, folder
        self.data = DataDir(folder / "data")
        if environments is not None:
            for place in (self.data.environments, self.data.path / "kernels"):
                shared = environments / place.name
                shared.mkdir(parents=True, exist_ok=True)
                if not place.is_symlink():
                    with contextlib.suppress(FileNotFoundError):
                        place.rmdir()
                    place.symlink_to(shared)
        self.store = FileStore(self.data.store)
        self.limits, self.max_workers, self._settings = dict(limits or {}), max_workers, settings
        self._kind = engine
        self.logs = LogStore(self.data.logs)
        self._server: HTTPServer | None = None
        self._port = 0
        self.made = 0

    def make(self, port: int = 0) -> None:
        """Put the parts together, of which none runs yet."""
        self.logs = LogStore(self.data.logs)
        self.engine = self._kind(data_dir=str(self.data.path))
        ledger = Ledger(self.db, self.limits)
        self.versions = Versions(self.db, self.store, ledger, 1 << 40, 1_000_000)
        self.jobs = Jobs(
            self.db, self.engine, self.logs, ledger, 2, partial(explain, self.versions),
            max_workers=self.max_workers,
        )  # fmt: skip
        environments = Environments(self.db, self.engine, self.jobs, self.versions, "", 600)
        url = f"http://127.0.0.1:{port}{PREFIX}"
        tools = Tools(
            self.db, self.engine, self.jobs, environments, self.versions, ledger, self.logs,
            self.store.url,
        )  # fmt: skip
        self.trainings = Trainings(tools, Settings(url=url, **self._settings))

    async def start(self) -> None:
        """Begin, or begin anew."""
        socket, self._port = _bind(self._port) if self._port else bind_unused_port()
        self.make(self._port)
        await self.engine.start()
        tickets = Tickets(self.data.secret("tickets"))
        parts = WorkParts(self.db, self.versions, self.trainings, tickets)
        app = Application(
            work_rules(PREFIX, parts),
            streams=set(),
            loose_ends=set(),
            log_function=lambda _: None,
            traffic=Traffic(Allowed(), Pace()),
        )
        self._server = HTTPServer(app)
        await self.jobs.recover()
        await self.trainings.start()
        self._server.add_socket(socket)

    async def stop(self) -> None:
        """As if it were killed: nothing is written when drivers are ended."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None
        await self.trainings.close()
        await self.jobs.close()
        await self.engine.close()

    # --- bundles ---

    async def commit(
        self, kind: BundleKind, name: str, folder: Path, owner: str = ADA
    ) -> BundleVersion:
        """A folder as a version."""
        found = scan(folder)
        receiver = self.versions.receive(owner)
        for digest, size in found.objects.items():
            await receiver.feed(f"{digest.removeprefix('blake3:')} {size}\n".encode())
            for piece in found.read(digest):
                await receiver.feed(piece)
        await receiver.finish()
        wanted = CommitRequest(kind=kind, name=name, root=found.root)
        return await self.versions.commit(owner, owner.partition(":")[2], wanted)

    async def source(self, train: str, name: str = "code", owner: str = ADA) -> BundleVersion:
        """A source bundle whose `train` is this script."""
        folder = self._new()
        (folder / "model").mkdir()
        (folder / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY . /opt/program\n")
        script = folder / "model" / "train"
        script.write_text(train)
        script.chmod(0o755)
        return await self.commit(BundleKind.SOURCE, name, folder, owner)

    async def files(
        self, kind: BundleKind, name: str, owner: str = ADA, **files: str
    ) -> BundleVersion:
        """A bundle of these files; `_` in their names is a dot."""
        folder = self._new()
        for file, content in files.items():
            (folder / file.replace("_", ".")).write_text(content)
        return await self.commit(kind, name, folder, owner)

    async def params(self, grid: object, name: str = "grid", owner: str = ADA) -> BundleVersion:
        """A bundle of parameters."""
        return await self.files(BundleKind.PARAMS, name, owner, params_json=json.dumps(grid))

    def _new(self) -> Path:
        self.made += 1
        folder = self.folder / f"bundle-{self.made}"
        folder.mkdir()
        return folder

    # --- trainings ---

    async def request(self, owner: str = ADA, user: str = "ada", **wanted: Any) -> Training:
        """Train, and what came of the request."""
        asked = TrainingRequest.model_validate(wanted)
        answer = await self.trainings.request(owner, user, asked)
        assert answer.training is not None
        return answer.training

    async def until(
        self, training: str, *states: str, owner: str = ADA, seconds: float = 60
    ) -> Training:
        """Wait until it is in one of these states; none: until it has ended."""
        async with asyncio.timeout(seconds):
            while True:
                seen = await self.trainings.get(owner, training)
                if seen.state in states or (not states and seen.state.ended):
                    return seen
                assert not seen.state.ended, f"{seen.state}: {seen.reason}"
                await asyncio.sleep(0.05)

    async def see(self, look: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
        """Look again and again until there is something."""
        async with asyncio.timeout(seconds):
            while not (seen := await look()):  # noqa: ASYNC110 - it may be of anything
                await asyncio.sleep(0.05)
        return seen

    async def idle(self) -> bool:
        """Whether nothing runs any more, nor is about to."""
        active = select(JobRow.id).where(JobRow.state.in_(ACTIVE_JOBS)).limit(1)
        return await self.db.run(lambda session: session.scalar(active) is None)

    async def text(self, training: str, trial: int = 1, owner: str = ADA) -> str:
        """The output of a trial, without its stamps."""
        pieces = await self.trainings.log(owner, training, trial)
        lines = b"".join([piece async for _, piece in pieces]).decode().splitlines()
        return "".join(f"{line.partition('Z ')[2]}\n" for line in lines)


def _bind(port: int) -> tuple[Any, int]:
    return bind_sockets(port, "127.0.0.1")[0], port


@asynccontextmanager
async def world(db: Database, folder: Path, **more: Any) -> AsyncIterator[World]:
    """A world that runs."""
    made = World(db, folder, **more)
    await made.start()
    try:
        yield made
    finally:
        for row in await made.trainings.list(ADA, limit=1000):
            if not row.state.ended:
                await made.trainings.kill(ADA, "ada", row.id)
        for row in await made.trainings.list(ADA, limit=1000):
            await made.until(row.id)
        # Else a worker that came too late to be needed would wait for this service for hours.
        await made.see(made.idle)
        await made.stop()
