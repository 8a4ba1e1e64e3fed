"""Settings of what notebooks can have, besides sizes."""

import os
from functools import partial
from ipaddress import ip_network
from itertools import permutations
from pathlib import PurePosixPath

from traitlets import (
    Bool,
    Dict,
    Enum,
    Integer,
    List,
    TraitError,
    Unicode,
    Union,
    default,
    validate,
)
from traitlets.config import Configurable

from kaos_hub.registry.names import Reference
from kaos_hub.schemas import GIT_SCHEMES, AllowedMount, Capacity, Image
from kaos_hub.service.config.trainings import checked
from kaos_hub.service.notebooks.repositories import GitRules
from kaos_hub.util.quantities import parse_duration, parse_memory


class OfferConfig(Configurable):
    """The settings of the service that say what a deploy may ask for."""

    bind_mounts = List(
        Dict(),
        help="""Folders of the machine that notebooks may see: a list of {"host_path" (with what is
        below; `{username}` is the user's name), "read_only" (default: no), "container_path"
        (mounted there in every notebook), "on_nodes" (Kubernetes: a folder of the nodes)}.

        Default: what `kaos up --bind-mount DIR` names, else none. What notebooks may write to,
        they may also fill.""",
    ).tag(config=True)

    capacity = Dict(
        help="""The most that one notebook or trial can have: {"cpu": cores, "memory": bytes or
        `64Gi`}. More is refused at once, and sizes that ask for more are not offered.

        Default: what the machine of the hub, or of the Docker Engine, has; on Kubernetes no bound,
        since nodes may come and go. Say more to let workloads ask for more than there is.""",
    ).tag(config=True)

    max_volumes = Integer(
        20,
        min=0,
        help="""Named volumes (count) that one owner may have.

        Default: 20; on a cluster each is a disk.""",
    ).tag(config=True)

    images = List(
        Dict(),
        help="""Ready-made environments (images) that people choose from: a list of {"name",
        "description", "image" (reference)}. They need no Jupyter; Python and glibc is enough.

        Default: none.""",
    ).tag(config=True)

    allow_any_image = Bool(
        False,
        help="""Let notebooks run in any image that is named.

        Default: no. Whoever may name images may have all that the machines' passwords for
        registries open, and fill their disks.""",
    ).tag(config=True)

    git_networks = List(
        Unicode(),
        help="""Networks (`10.1.0.0/16`) from which repositories may be cloned although they are
        private.

        Default: those of `manifest_networks`, which is none unless you say so.""",
    ).tag(config=True)

    git_schemes = List(
        Enum(GIT_SCHEMES),
        list(GIT_SCHEMES),
        help="""Schemes of the addresses of repositories.

        Default: https and http; no others can be cloned.""",
    ).tag(config=True)

    git_size = Union(
        [Integer(), Unicode()],
        default_value="10Gi",
        help="""Bytes (or `10Gi`) that a clone may fetch, and that its files may have.

        Default: 10Gi: more is data, which does not belong into git.""",
    ).tag(config=True)

    git_deadline = Union(
        [Integer(), Unicode()],
        default_value="1h",
        help="""Seconds (or `1h`) that a clone may take.

        Default: an hour: enough for 10Gi on a slow line.""",
    ).tag(config=True)

    @default("git_networks")
    def _git_networks(self) -> list[str]:
        # A setting of the service, which this is a part of.
        return list(getattr(self, "manifest_networks", ()))

    @validate("git_networks")
    def _check_git_networks(self, proposal: dict[str, list[str]]) -> list[str]:
        for network in proposal["value"]:
            checked("git_networks", partial(ip_network, network))
        return proposal["value"]

    def git_rules(self) -> GitRules:
        """Return the rules for repositories that may be cloned.

        Raises:
            TraitError: a setting makes no sense.
        """
        return GitRules(
            networks=tuple(self.git_networks),
            schemes=tuple(self.git_schemes),
            size=checked("git_size", lambda: parse_memory(self.git_size)),
            deadline=checked("git_deadline", lambda: parse_duration(self.git_deadline)),
        )

    @default("bind_mounts")
    def _bind_mounts(self) -> list[dict[str, object]]:
        given = os.environ.get("KAOS_BIND_MOUNTS", "").split(os.pathsep)
        return [{"host_path": path, "container_path": path} for path in given if path]

    def all_capacity(self) -> Capacity:
        """Return the capacity that the admin set.

        Raises:
            TraitError: it makes no sense.
        """
        return checked("capacity", partial(Capacity.model_validate, self.capacity))

    def capacity_within(self, found: Capacity) -> Capacity:
        """Return the most that one workload can have: the admin's values, else the engine's."""
        given = self.all_capacity()
        return found.model_copy(update={f: getattr(given, f) for f in given.model_fields_set})

    def all_images(self) -> list[Image]:
        """Return the ready-made environments as models.

        Raises:
            TraitError: one of them makes no sense.
        """
        found = [
            checked("images", partial(Image.model_validate, each, extra="forbid"))
            for each in self.images
        ]
        for image in found:
            checked("images", partial(Reference.parse, image.image))
        names = [image.name for image in found]
        if len(names) != len(set(names)):
            raise TraitError("images: two have one name")
        return found

    def all_bind_mounts(self) -> list[AllowedMount]:
        """Return the folders as models.

        Raises:
            TraitError: one of them makes no sense.
        """
        found = [
            checked("bind_mounts", partial(AllowedMount.model_validate, each, extra="forbid"))
            for each in self.bind_mounts
        ]
        on_nodes = [PurePosixPath(each.host_path) for each in found if each.on_nodes]
        for inner, outer in permutations(on_nodes, 2):
            if inner.is_relative_to(outer):
                # A user who writes to the outer one could lead the inner one elsewhere.
                raise TraitError(f"bind_mounts: {inner} lies in {outer}; offer one of them")
        return found
