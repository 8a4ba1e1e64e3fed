"""Everything an admin can set of the service, with units, defaults and reasons."""

import logging
import os
from functools import partial

from traitlets import Bool, Dict, Integer, List, TraitError, Unicode, Union, default, validate
from traitlets.config import Application

from kaos_hub import __version__
from kaos_hub.errors import InvalidResources, KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.domains import servers_url
from kaos_hub.schemas import Capacity, IdlePolicy, Limits, Pool, Size
from kaos_hub.service.config.jobs import JobConfig
from kaos_hub.service.config.offers import OfferConfig
from kaos_hub.service.config.traffic import TrafficConfig
from kaos_hub.service.config.trainings import TrainingConfig, checked
from kaos_hub.service.quota import check_size
from kaos_hub.util.quantities import parse_memory

log = logging.getLogger(__name__)
_OF_GROUPS = ("storage", "builds")
"""Limits of what groups own."""


class ServiceConfig(TrafficConfig, TrainingConfig, JobConfig, OfferConfig, Application):
    """The settings of :class:`~kaos_hub.service.app.KaosService`."""

    name = "kaos-service"
    version = __version__
    description = "The kaos service. JupyterHub starts it; see jupyterhub_config.py."

    config_file = Unicode(
        "",
        help="""The file to read settings from: the Hub's own jupyterhub_config.py.

        Default: none. One file for both keeps limits and sizes from drifting apart.""",
    ).tag(config=True)

    data_dir = Unicode(
        help="""Directory in which everything lies: database, bundles, homes, logs, secrets.

        Default: $KAOS_DATA_DIR, else kaos_hub in $XDG_DATA_HOME, else ~/.local/share/kaos_hub.
        On one machine that is all there is; docs/howto/back-up.md.""",
    ).tag(config=True)

    engine = Unicode(
        help="""Where builds and notebooks run: `local` (processes), `docker`, or an engine's
        entry point name or import path.

        Default: $KAOS_ENGINE, else `local`, which needs nothing else to be installed.""",
    ).tag(config=True)

    store = Unicode(
        help="""Where the bytes of bundles rest: `file`, or the URL of a store, like
        `s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1`.

        Default: $KAOS_STORE, else `file`, a folder in the data directory: nothing else to run. A
        URL holds no key; see docs/howto/storage.md.""",
    ).tag(config=True)

    database_url = Unicode(
        help="""URL of the database, like `postgresql://kaos@db.example.org/kaos`.

        Default: $KAOS_DATABASE_URL, else what stands in the secret `database-url`, else an SQLite
        file in the data directory: nothing to run, nothing to forget in a backup.""",
    ).tag(config=True)

    limits = Dict(
        help="""What owners may hold at once: {"default": {…}, "user:ada": {…}}; a user's entry
        replaces those fields of the default that it names.

        What a group owns has limits of its own: {"group:vision": {"storage": …, "builds": …}};
        what runs counts for the member who asked for it.

        Fields: notebooks, builds, trials, gpu (counts), cpu (cores), memory, storage (bytes,
        `8Gi`), idle_timeout (seconds, `2h`). Default: no limits; on a shared machine set some.""",
    ).tag(config=True)

    sizes = Union(
        [List(Dict()), Dict()],
        help="""Sizes that people choose from: a list of {"name", "description", "cpu" (cores),
        "memory" (bytes, `2Gi`), "gpu" (devices), "pool" (one of `pools`)}, or a dict by name.

        Default: small (1 core, 2Gi), medium (2 cores, 4Gi), large (4 cores, 8Gi).""",
    ).tag(config=True)

    pools = Dict(
        help="""Kubernetes: groups of nodes that sizes name as their `pool`: {"gpu":
        {"node_selector": {…}, "tolerations": […], "gpu_resource": "nvidia.com/gpu"}}.

        Default: none; notebooks run on any node that takes them.""",
    ).tag(config=True)

    default_size = Unicode(
        help="""The size (one of `sizes`) of whoever asks for none.

        Default: the first; so what is asked for without thinking is what costs least.""",
    ).tag(config=True)

    idle_timeout = Union(
        [Integer(), Unicode()],
        default_value=0,
        help="""Seconds (or `30m`, `2h`) without use after which a notebook is stopped, where its
        owner says nothing; 0 is never.

        Default: never, because nobody should lose kernels to a rule they were not told of.""",
    ).tag(config=True)

    idle_type = Unicode(
        "kernels_or_terminals",
        help="""What keeps a notebook from being idle: `kernels_or_terminals`,
        `kernel_connections` or `activity`.

        Default: `kernels_or_terminals`, the most careful: what runs is not stopped.""",
    ).tag(config=True)

    default_image = Unicode(
        "python:3.13-slim",
        help="""Image (reference) of notebooks that have no source bundle, on engines with images.

        Default: a small Python; the notebook's own programs are mounted over whatever image.""",
    ).tag(config=True)

    public_url = Unicode(
        help="""URL of the Hub as browsers reach it, without a slash at the end.

        Default: $KAOS_PUBLIC_URL, else what the Hub knows. It stands in links we hand out.""",
    ).tag(config=True)

    inside_url = Unicode(
        help="""URL of this service as notebooks reach it.

        Default: $KAOS_INSIDE_URL, else the address the Hub gave us, which is right when
        notebooks run on this machine.""",
    ).tag(config=True)

    admission_url = Unicode(
        help="""URL (scheme, address, port) at which spawners ask for admission.

        Default: $KAOS_ADMISSION_URL, else a free port of the loopback address. Never let a
        proxy route to it: whoever reaches it with its secret decides what starts.""",
    ).tag(config=True)

    trust_all_users = Bool(
        False,
        help="""On the engine `local`: let every user of the Hub run code as the OS user of the
        service.

        Default: $KAOS_TRUST_ALL_USERS, else no. There they could read everything of one
        another's.""",
    ).tag(config=True)

    max_file_size = Union(
        [Integer(), Unicode()],
        default_value="100Gi",
        help="""Bytes (or `100Gi`) of the largest file in a bundle.

        Default: 100Gi: more than people mean to send, less than fills a disk by mistake.""",
    ).tag(config=True)

    max_files = Integer(
        1_000_000,
        help="""Files (count) in one bundle.

        Default: a million. More make every listing slow; pack them into archives.""",
    ).tag(config=True)

    max_builds = Integer(
        2,
        help="""Builds (count) that run at once, of all owners together.

        Default: 2, which leaves a small machine usable while it builds.""",
    ).tag(config=True)

    build_deadline = Integer(
        3600,
        help="""Seconds after which a build is ended.

        Default: an hour. Longer ones hold up everybody who waits for a slot.""",
    ).tag(config=True)

    cookie_max_age_days = Integer(
        14,
        help="""Days after which a browser's session with this service ends.

        Default: 14, like the Hub's own.""",
    ).tag(config=True)

    aliases = {"config": "ServiceConfig.config_file", "f": "ServiceConfig.config_file"}

    @default("data_dir")
    def _data_dir(self) -> str:
        return str(DataDir(create=False).path)

    @default("engine")
    def _engine(self) -> str:
        return os.environ.get("KAOS_ENGINE") or "local"

    @default("store")
    def _store(self) -> str:
        return os.environ.get("KAOS_STORE") or "file"

    @default("database_url")
    def _database_url(self) -> str:
        data = DataDir(self.data_dir, create=False)
        secret = data.secret("database-url") if data.has_secret("database-url") else ""
        return os.environ.get("KAOS_DATABASE_URL") or secret or f"sqlite:///{data.database}"

    @default("trust_all_users")
    def _trust_all_users(self) -> bool:
        return os.environ.get("KAOS_TRUST_ALL_USERS") == "1"

    @default("sizes")
    def _sizes(self) -> list[dict[str, object]]:
        return [
            {"name": "small", "description": "1 core, 2 GiB", "cpu": 1, "memory": "2Gi"},
            {"name": "medium", "description": "2 cores, 4 GiB", "cpu": 2, "memory": "4Gi"},
            {"name": "large", "description": "4 cores, 8 GiB", "cpu": 4, "memory": "8Gi"},
        ]

    @default("public_url")
    def _public_url(self) -> str:
        known = os.environ.get("KAOS_PUBLIC_URL") or os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL")
        if known:
            return known.rstrip("/").removesuffix("/hub")
        bound = str(self.config.JupyterHub.get("bind_url") or "http://127.0.0.1:8000")
        return bound.rstrip("/").replace("//:", "//127.0.0.1:").replace("//*:", "//127.0.0.1:")

    @default("inside_url")
    def _inside_url(self) -> str:
        given = os.environ.get("KAOS_INSIDE_URL")
        if given:
            return given.rstrip("/")
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/services/kaos/")
        return os.environ.get("JUPYTERHUB_SERVICE_URL", "").rstrip("/") + prefix.rstrip("/")

    @default("admission_url")
    def _admission_url(self) -> str:
        given = os.environ.get("KAOS_ADMISSION_URL")
        return given or f"http://127.0.0.1:{DataDir(self.data_dir).port('admission')}"

    @validate("limits")
    def _check_limits(self, proposal: dict[str, object]) -> object:
        value: dict[str, dict[str, object]] = proposal["value"]  # type: ignore[assignment]
        for owner, limits in value.items():
            known = _limits_of(owner)
            unknown = set(limits) - set(known)
            if unknown:
                raise TraitError(
                    f"limits[{owner!r}]: no limit {min(unknown)!r}; there are {', '.join(known)}"
                )
            checked(f"limits[{owner!r}]", partial(Limits.model_validate, limits))
        return value

    def servers_url(self) -> str:
        """Return the address below which users' servers are: the Hub's, or a domain for each."""
        host = str(self.config.JupyterHub.get("subdomain_host") or "")
        return servers_url(host) if host else self.public_url.rstrip("/")

    def store_url(self) -> str:
        """Return the URL of the store.

        Raises:
            TraitError: `store` is neither a URL nor `file`.
        """
        if self.store != "file" and "://" not in self.store:
            raise TraitError(
                f"store: {self.store!r} is neither `file` nor a URL like s3://bucket/prefix"
            )
        data = DataDir(self.data_dir, create=False)
        return data.store.as_uri() if self.store == "file" else self.store

    def all_sizes(self) -> list[Size]:
        """Return the sizes as models.

        Raises:
            TraitError: one of them makes no sense.
        """
        given = self.sizes
        if isinstance(given, dict):
            given = [{"name": name, **size} for name, size in given.items()]
        sizes = [checked("sizes", partial(Size.model_validate, size)) for size in given]
        for size in sizes:
            if size.pool is not None and size.pool not in self.pools:
                raise TraitError(f"sizes: {size.name!r} names a pool {size.pool!r} not in `pools`")
        return sizes

    def sizes_within(self, capacity: Capacity) -> tuple[list[Size], str]:
        """Return the sizes that there is room for, and the name of the default size.

        Raises:
            KaosError: the default size asks for more than there is.
        """
        sizes = self.all_sizes()
        fits = [size for size in sizes if _fits(size, capacity)]
        for size in sizes:
            if size not in fits:
                log.warning("size %s asks for more than this machine has; not offered", size.name)
        if not self.default_size and sizes and not fits:
            return [_cut(sizes[0], capacity)], sizes[0].name
        default = self.default_size or (fits[0].name if fits else "")
        if default and default not in {size.name for size in sizes}:
            raise KaosError(f"default_size: there is no size {default!r} among `sizes`")
        if default and default not in {size.name for size in fits}:
            raise KaosError(
                f"default_size: {default!r} asks for more than this machine has. Choose a smaller"
                " one, or set c.KaosService.capacity if there is more"
            )
        return fits, default

    def all_pools(self) -> dict[str, Pool]:
        """Return the pools as models.

        Raises:
            TraitError: one of them makes no sense.
        """
        return {
            name: checked(
                f"pools[{name!r}]", partial(Pool.model_validate, pool, strict=False, extra="forbid")
            )
            for name, pool in self.pools.items()
        }

    def idle_policy(self) -> IdlePolicy:
        """Return the idle policy of notebooks whose owner sets none."""
        given = {"timeout": self.idle_timeout, "type": self.idle_type}
        return checked("idle_timeout, idle_type", lambda: IdlePolicy.model_validate(given))

    def file_limit(self) -> int:
        """Return the size in bytes of the largest file that is allowed."""
        return checked("max_file_size", lambda: parse_memory(self.max_file_size))


def _limits_of(owner: str) -> tuple[str, ...]:
    """Return the names of the limits that an owner can have.

    Raises:
        TraitError: ``owner`` is not an owner.
    """
    if owner == "default" or owner.startswith("user:"):
        return tuple(Limits.model_fields)
    if owner.startswith("group:"):
        return _OF_GROUPS
    raise TraitError(f"limits: {owner!r} is neither 'default' nor 'user:<name>' or 'group:<name>'")


def _fits(size: Size, capacity: Capacity) -> bool:
    try:
        check_size(capacity, size.cpu, size.memory)
    except InvalidResources:
        return False
    return True


def _cut(size: Size, capacity: Capacity) -> Size:
    """Return a size reduced to what the machine has."""
    least = {
        field: there
        for field in ("cpu", "memory")
        if (there := getattr(capacity, field)) is not None
        and (getattr(size, field) or 0) > there
    }  # fmt: skip
    return size.model_copy(update={**least, "description": "all that this machine has"})
