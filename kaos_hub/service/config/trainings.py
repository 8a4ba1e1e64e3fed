"""Settings of trainings."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_network
from typing import TypeVar

from traitlets import Integer, List, TraitError, Unicode, Union, default, validate
from traitlets.config import Configurable

from kaos_hub.errors import KaosError
from kaos_hub.schemas import Pool, Size
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.util.quantities import parse_duration, parse_memory

Checked = TypeVar("Checked")


def checked(what: str, make: Callable[[], Checked]) -> Checked:
    """Run a check of settings, and name the setting in its error.

    Raises:
        TraitError: the check failed.
    """
    try:
        return make()
    except (KaosError, ValueError) as e:
        lines = str(e).splitlines()
        problem = lines[2].strip() if len(lines) > 2 else lines[0]
        raise TraitError(f"{what}: {problem}") from None


class TrainingConfig(Configurable):
    """The settings of the service that are about trainings."""

    max_workers = Integer(
        min=0,
        help="""Workers of trainings (count) that run at once, of all owners together; 0 is any
        number. A worker runs one trial after the other.

        Default: as many as this machine has cores; on Kubernetes any number, since pods that have
        no place wait.""",
    ).tag(config=True)

    trial_deadline = Union(
        [Integer(), Unicode()],
        default_value="24h",
        help="""Seconds (or `24h`) that a trial may take, where its owner says nothing.

        Default: a day: enough for most, and what hangs does not hold its place for ever.""",
    ).tag(config=True)

    trial_storage = Union(
        [Integer(), Unicode()],
        default_value="20Gi",
        help="""Bytes (or `20Gi`) that a trial may write; one that writes more is ended.

        Default: 20Gi: checkpoints fit, and one trial does not fill a disk.""",
    ).tag(config=True)

    leaver_grace_period = Union(
        [Integer(), Unicode()],
        default_value="5m",
        help="""Seconds (or `5m`) that notebooks and trainings on things of a group are left to run
        when their user has left it; 0 stops them at once, `never` lets them run to their end.

        Default: 5 minutes, in which they are told; their own files stay. Nothing of the group's is
        started, built or fetched anew for a former member, whatever this says.""",
    ).tag(config=True)

    trial_log_limit = Union(
        [Integer(), Unicode()],
        default_value="64Mi",
        help="""Bytes (or `64Mi`) that are kept of a trial's output. The trial goes on beyond it.

        Default: 64Mi, about a million lines.""",
    ).tag(config=True)

    max_trials = Integer(
        100_000,
        min=1,
        help="""Trials (count) of one training.

        Default: 100,000: more is a list of values too many.""",
    ).tag(config=True)

    manifest_networks = List(
        Unicode(),
        help="""Networks (`10.1.0.0/16`) from which manifests may have files fetched although they
        are private.

        Default: none. Manifests are written by users: with a network of yours in this list they
        reach everything in it.""",
    ).tag(config=True)

    manifest_schemes = List(
        Unicode(),
        ["http", "https"],
        help="""Schemes of the addresses in manifests.

        Default: http and https. `ftp` can be fetched, too; no others can.""",
    ).tag(config=True)

    manifest_parallel = Integer(
        8,
        min=1,
        help="""Files (count) that are fetched at once for one manifest.

        Default: 8: fills most lines, annoys few servers.""",
    ).tag(config=True)

    max_manifest_size = Union(
        [Integer(), Unicode()],
        default_value="1Ti",
        help="""Bytes (or `1Ti`) that one ingest may fetch; what is held already does not count.

        Default: 1Ti; what really bounds it is the owner's limit of storage.""",
    ).tag(config=True)

    @default("max_workers")
    def _max_workers(self) -> int:
        # `engine` is a setting of the service, which this is a part of.
        on_this_machine = getattr(self, "engine", "") != "kubernetes"
        return (os.cpu_count() or 1) if on_this_machine else 0

    @validate("manifest_networks")
    def _check_networks(self, proposal: dict[str, list[str]]) -> list[str]:
        for network in proposal["value"]:
            checked("manifest_networks", partial(ip_network, network))
        return proposal["value"]

    def leaver_grace(self) -> int | None:
        """Return the seconds for which work of former members goes on; None: until it ends."""
        given = self.leaver_grace_period
        if given == "never":
            return None
        return checked("leaver_grace_period", lambda: parse_duration(given))

    def training_settings(
        self, inside_url: str, size: Size | None, gpus: int, pools: Mapping[str, Pool]
    ) -> Settings:
        """Return the settings as trainings need them.

        Args:
            inside_url: the service's address as workers reach it.
            size: what trials get that ask for nothing.
            gpus: devices that the engine can give out.
            pools: nodes that sizes may name.

        Raises:
            TraitError: one of them makes no sense.
        """
        return Settings(
            url=inside_url.rstrip("/") + "/",
            size=size,
            gpus=gpus,
            leaver_grace=self.leaver_grace(),
            deadline=checked("trial_deadline", lambda: parse_duration(self.trial_deadline)),
            storage=checked("trial_storage", lambda: parse_memory(self.trial_storage)),
            log_limit=checked("trial_log_limit", lambda: parse_memory(self.trial_log_limit)),
            most_trials=self.max_trials,
            pools=pools,
            allow=tuple(self.manifest_networks),
            schemes=tuple(self.manifest_schemes),
            parallel=self.manifest_parallel,
            max_size=checked("max_manifest_size", lambda: parse_memory(self.max_manifest_size)),
        )
