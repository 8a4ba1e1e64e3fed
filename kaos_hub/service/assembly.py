"""Assembly of the service's parts: they start in order and end in the opposite order."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from traitlets.config import Configurable

from kaos_hub import __version__
from kaos_hub.bundles.limits import Limits
from kaos_hub.engines.base import Engine
from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.logins import ONLY_USER, Served
from kaos_hub.schemas import Info
from kaos_hub.service.auth.owners import Owners
from kaos_hub.service.builds.environments import Environments, explain
from kaos_hub.service.builds.image_catalog import Images
from kaos_hub.service.bundles.archives import Deposits
from kaos_hub.service.bundles.browse import Catalogue
from kaos_hub.service.bundles.deletion import Removal
from kaos_hub.service.bundles.likeness import Likenesses
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.core import Core
from kaos_hub.service.db.database import Database
from kaos_hub.service.handover import Handover
from kaos_hub.service.hub_client import Hub
from kaos_hub.service.jobs.jobs import Jobs
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.notebooks.admission import Inside
from kaos_hub.service.notebooks.errands import Errands
from kaos_hub.service.notebooks.gate import Gate
from kaos_hub.service.notebooks.hosting import Hosting
from kaos_hub.service.notebooks.mounting import Mounts
from kaos_hub.service.notebooks.notebooks import Notebooks
from kaos_hub.service.notebooks.rights import Rights
from kaos_hub.service.notebooks.trees import Trees
from kaos_hub.service.notebooks.volumes import Volumes
from kaos_hub.service.notebooks.wishes import Offer, Wishes
from kaos_hub.service.quota import Ledger
from kaos_hub.service.trainings.base import Tools
from kaos_hub.service.trainings.trainings import Trainings
from kaos_hub.service.users.identities import Identities
from kaos_hub.service.users.membership import Membership
from kaos_hub.stores.access import keep_tidy, open_store
from kaos_hub.stores.base import Store
from kaos_hub.transport.tickets import Tickets
from kaos_hub.util.notifier import Bell

if TYPE_CHECKING:
    from kaos_hub.service.config.service import ServiceConfig

log = logging.getLogger("kaos.service")

Part = TypeVar("Part")


def find_class(group: str, name: str, base: type[Part]) -> type[Part]:
    """Return a class by entry point name or import path.

    Raises:
        KaosError: there is none; says what there is.
    """
    known = {entry.name: entry for entry in entry_points(group=group)}
    try:
        if name in known:
            found = known[name].load()
        else:
            module, _, attribute = name.rpartition(".")
            if not module:
                raise ImportError(f"there is {', '.join(sorted(known))}")
            found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise KaosError(f"Cannot use {name!r} ({group}): {e}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise KaosError(f"{name!r} ({group}) is no {base.__name__}")
    return found


class Parts:
    """Everything that runs in the service.

    Args:
        config: the settings.
        data: the data directory, locked.
    """

    core: Core

    def __init__(self, config: "ServiceConfig", data: DataDir) -> None:
        self._config, self._data = config, data
        self._closers: list[Callable[[], Awaitable[None] | None]] = []

    async def start(self) -> None:
        """Open and start everything, and take up what was going on.

        Raises:
            KaosError: something is missing or wrong.
        """
        config = self._config
        idle = config.idle_policy()
        config.all_sizes()  # a mistake in them is told before anything is opened
        store = await self._open_store()
        db = await self._open_database()
        engine = await self._start_engine()
        capacity = config.capacity_within(await engine.capacity())
        sizes, default_size = config.sizes_within(capacity)
        certificates = Certificates.of_service()
        hub = Hub(
            os.environ["JUPYTERHUB_API_URL"],
            os.environ["JUPYTERHUB_API_TOKEN"],
            certificates.service_client() if certificates else None,
        )
        identities = Identities(db, hub)
        await identities.start()
        ledger = Ledger(db, config.limits, capacity, identities.shown)
        await ledger.clear()
        versions = Versions(db, store, ledger, config.file_limit(), config.max_files)
        gpus = await engine.gpus()
        info = Info(
            version=__version__,
            engine=engine.name,
            sizes=sizes,
            default_size=default_size,
            pools=sorted(config.pools) if engine.name == "kubernetes" else [],
            images=config.all_images() if engine.images else [],
            any_image=config.allow_any_image and engine.images,
            gpu=gpus > 0,
            idle=idle,
            max_file_size=config.file_limit(),
            max_files=config.max_files,
        )
        self._closers.append(hub.close)
        membership = Membership(_groups_of(identities), identities.gone, identities.shown)
        tools = self._tools(db, engine, ledger, versions, store, membership)
        await tools.jobs.recover()
        hosting = await self._start_hosting(tools, hub, membership, identities)
        size = next((size for size in sizes if size.name == default_size), None)
        trainings = Trainings(
            tools, config.training_settings(config.inside_url, size, gpus, config.all_pools())
        )
        await trainings.start()
        self._closers.append(trainings.close)
        served = self._served(engine)
        public_url = config.public_url.rstrip("/")
        offer = Offer(
            engine.name, config.pools, engine.places, config.max_volumes, self._images(engine),
            config.git_rules(),
        )  # fmt: skip
        wishes = Wishes(ledger, sizes, default_size, idle, gpus, offer)
        notebooks = Notebooks(hosting, wishes, config.servers_url(), served=served)
        await notebooks.recover()
        tickets = Tickets(self._data.secret("tickets"))
        errands = Errands(hosting, versions, tickets, config.default_image)
        gate = Gate(hosting, wishes, ledger, errands, public_url, served=served)
        likenesses = Likenesses(db, versions)
        self.core = Core(
            info=info,
            public_url=public_url,
            served=served,
            db=db,
            engine=engine,
            ledger=ledger,
            versions=versions,
            catalogue=Catalogue(db, versions),
            likenesses=likenesses,
            removal=Removal(db, versions),
            volumes=Volumes(db, engine.places, config.max_volumes),
            deposits=self._open_deposits(versions, ledger, likenesses),
            jobs=tools.jobs,
            notebooks=notebooks,
            gate=gate,
            errands=errands,
            trainings=trainings,
            owners=Owners(partial(_groups_by_name, identities)),
            identities=identities,
            handover=Handover(db, identities, engine.places, tools.logs),
            tickets=tickets,
        )

    async def close(self) -> None:
        """End in the opposite order. Jobs and notebooks go on in the engine."""
        for closer in reversed(self._closers):
            try:
                ending = closer()
                if ending is not None:
                    await ending
            except Exception:  # what cannot be closed must not keep the rest from being closed
                log.exception("Could not close a part of the service")
        self._closers.clear()

    async def _open_store(self) -> Store:
        store = open_store(self._config.store_url(), self._data.secrets)
        await store.probe()
        tidying = asyncio.create_task(keep_tidy(store))
        self._closers.append(lambda: _cancel(tidying))
        return store

    def _open_deposits(
        self, versions: Versions, ledger: Ledger, likenesses: Likenesses
    ) -> Deposits:
        config = self._config
        limits = Limits(max_files=config.max_files, max_file_size=config.file_limit())
        deposits = Deposits(versions, ledger, likenesses.of, self._data.uploads, limits)
        deposits.clear()
        return deposits

    async def _open_database(self) -> Database:
        db = Database(self._config.database_url)
        self._closers.append(db.close)
        await db.migrate()
        return db

    async def _start_engine(self) -> Engine:
        kind: Any = find_class("kaos_hub.engines", self._config.engine, Engine)
        engine: Engine = (
            kind(parent=self._config, data_dir=str(self._data.path))
            if issubclass(kind, Configurable)
            else kind()
        )
        await engine.start()
        self._closers.append(engine.close)
        for problem in engine.problems():
            log.warning("%s", problem)
        return engine

    def _served(self, engine: Engine) -> Served | None:
        """Return the only user that may be served, or None if all may be.

        There is one where builds and notebooks run as one OS user, or share the Docker Engine's
        builder.

        Raises:
            InvalidRequest: builds share a builder, and the Hub does not say that one person alone
                can log in.
        """
        if engine.name == "local" and not self._config.trust_all_users:
            return Served(
                self._data.user,
                "On the engine `local` everything runs as that OS user. Use the engine `docker`"
                " for several users, or --trust-all-users if they may all act as one.",
            )
        if engine.name == "docker" and not engine.buildah:
            only = os.environ.get(ONLY_USER)
            if not only:
                raise InvalidRequest(
                    "c.DockerEngine.builder = 'engine' is only for a hub that one person alone can"
                    " log in to, which was not so when the Hub started. Start the Hub again."
                )
            return Served(
                only,
                "Its builds share the Docker Engine's own builder. The admin leaves"
                " c.DockerEngine.builder out for several users.",
            )
        return None

    def _tools(
        self,
        db: Database,
        engine: Engine,
        ledger: Ledger,
        versions: Versions,
        store: Store,
        membership: Membership,
    ) -> Tools:
        config = self._config
        logs = LogStore(self._data.logs)
        jobs = Jobs(
            db, engine, logs, ledger, config.max_builds, partial(explain, versions),
            shares=config.job_shares() if engine.images else {}, max_workers=config.max_workers,
        )  # fmt: skip
        self._closers.append(jobs.close)
        environments = Environments(
            db,
            engine,
            jobs,
            versions,
            config.default_image,
            config.build_deadline,
            [image.image for image in config.all_images()],
        )
        # Where only we have the key of the store, trees are fetched from us.
        url = config.inside_url if store.private else store.url
        return Tools(db, engine, jobs, environments, versions, ledger, logs, url, membership)

    def _images(self, engine: Engine) -> Images:
        config = self._config
        return Images(
            config.all_images(), config.allow_any_image, engine.owns,
            "" if engine.images else engine.name,
        )  # fmt: skip

    async def _start_hosting(
        self, tools: Tools, hub: Hub, membership: Membership, identities: Identities
    ) -> Hosting:
        config = self._config
        inside = Inside(
            config.inside_url, self._data.path / "kernels", config.all_pools(),
            self._images(tools.engine), config.git_rules(),
        )  # fmt: skip
        here, uid = tools.engine.places.here, tools.engine.uid
        mounts = Mounts(config.all_bind_mounts(), self._data.path, here, uid, identities.shown)
        hosting = Hosting(
            tools.db, Bell(), tools.jobs, tools.engine, tools.environments, tools.logs, hub,
            Trees(tools.db, tools.versions), mounts, tools.store_url, inside,
            Rights(tools.db, membership, config.leaver_grace()), identities,
        )  # fmt: skip
        await hosting.start()
        self._closers.append(hosting.close)
        return hosting


async def _groups_by_name(identities: Identities, owner: str) -> Mapping[str, str]:
    user = await identities.user(owner)
    return user.groups if user else {}


def _groups_of(identities: Identities) -> Callable[[str], Awaitable[list[str]]]:
    async def ask(owner: str) -> list[str]:
        return list((await _groups_by_name(identities, owner)).values())

    return ask


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
