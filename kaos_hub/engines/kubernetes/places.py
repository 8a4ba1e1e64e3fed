"""Places of trees and homes in a cluster: persistent volumes, or the pod itself."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from kaos_hub.engines.kubernetes.api import Api, Object
from kaos_hub.engines.places import Places
from kaos_hub.errors import Conflict
from kaos_hub.schemas import Mount, NotebookSpec

TREES = "trees"
RUNTIMES = "runtime"
VOLUME = "kaos-volume-"
Ask = Callable[[Callable[[Api], Any]], Awaitable[Any]]


class ClusterPlaces(Places):
    """Trees on a claim that all nodes can mount, if there is one; a claim for every home.

    What has been laid out is remembered in files below the claim's uid, so that nothing is believed
    of a claim that was deleted and made anew.

    Args:
        claim: name of the shared claim; empty if there is none, and every pod fetches its trees.
        known: the directory for those files.
        ask: asks the cluster something.
        shares: whether claims of volumes can be mounted on several nodes.
    """

    def __init__(self, claim: str, known: Path, ask: Ask, shares: bool = False) -> None:
        self.claim, self._known, self._ask = claim, known, ask
        self.shares_volumes = shares
        self._runtime = ""

    async def has_tree(self, digest: str) -> bool:
        """Return whether it is on the shared claim; True if each pod fetches its own trees."""
        if not self.claim:
            return True
        uid = await self.uid()
        return bool(uid) and await asyncio.to_thread(self._mark(uid, _hex(digest)).exists)

    async def uid(self) -> str:
        """Return the uid of the claim that has the shared name now; empty if there is none."""
        found = await self._claim(self.claim) if self.claim else None
        return str(found["metadata"]["uid"]) if found else ""

    def remember(self, uid: str, what: str) -> None:
        """Something is laid out whole on the claim of that uid."""
        mark = self._mark(uid, _hex(what))
        if not mark.exists():
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch()

    async def knows(self, what: str) -> bool:
        """Return whether something was remembered of the claim that is there now."""
        uid = await self.uid()
        return bool(uid) and self._mark(uid, _hex(what)).exists()

    def _mark(self, uid: str, name: str) -> Path:
        return self._known / uid / name

    def tree(self, digest: str, target: str, path: str = "") -> Mount:
        """A part of the shared claim, or something to be fetched."""
        path = "" if path == "." else path.strip("/")
        if self.claim:
            source = f"{TREES}/{_hex(digest)}/{path}".rstrip("/")
            return Mount(source=source, target=target, volume=self.claim)
        return Mount(source=path, target=target, digest=digest)

    def runtime(self, target: str) -> Mount | None:
        """The runtime on the shared claim, once it is there."""
        if not self._runtime:
            return None
        source = f"{RUNTIMES}/{self._runtime}"
        return Mount(source=source, target=target, volume=self.claim)

    def use_runtime(self, release: str) -> None:
        """From now on notebooks see that runtime."""
        self._runtime = release

    def home(self, notebook_id: str, target: str) -> Mount:
        """The root of a claim of its own."""
        return Mount(source="", target=target, read_only=False, volume=home_claim(notebook_id))

    def volume(self, volume_id: str, target: str, read_only: bool) -> Mount:
        """The root of a claim of its own."""
        claim = volume_claim(volume_id)
        return Mount(source="", target=target, read_only=read_only, volume=claim)

    async def make_volumes(self, spec: NotebookSpec, body: Callable[[str, str], Object]) -> None:
        """Make the claims of a notebook's volumes that are not there yet.

        Args:
            spec: the notebook, about to be started.
            body: makes a claim, of a name and an owner.
        """
        for name in {m.volume for m in spec.mounts if m.volume}:
            if name.startswith(VOLUME) and await self._claim(name) is None:
                claim = body(name, spec.owner)
                with contextlib.suppress(Conflict):
                    await self._ask(partial(Api.create_claim, body=claim))

    async def _claim(self, name: str) -> Any:
        return await self._ask(lambda api: api.claim(name))

    async def remove_volume(self, volume_id: str) -> None:
        """Delete the claim; the cluster does it as soon as no pod uses it."""
        await self._ask(lambda api: api.delete_claim(volume_claim(volume_id)))

    async def remove_home(self, notebook_id: str) -> None:
        """Delete the claim; the cluster does it as soon as no pod uses it."""
        await self._ask(lambda api: api.delete_claim(home_claim(notebook_id)))


def volume_claim(volume_id: str) -> str:
    """The name of the claim that is a named volume."""
    return f"{VOLUME}{volume_id}"


def home_claim(notebook_id: str) -> str:
    """The name of the claim that is a notebook's home."""
    return f"kaos-home-{notebook_id}"


def _hex(digest: str) -> str:
    return digest.removeprefix("blake3:")
