"""The places where an engine has trees and homes, and the mounts by which workloads see them."""

import asyncio
import contextlib
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from kaos_hub.schemas import Mount


class Places(ABC):
    """Trees are shared by digest and never written to; a home is one notebook's, and stays."""

    here: ClassVar[bool] = False
    """True if workloads see folders of the machine that the service runs on."""

    @abstractmethod
    async def has_tree(self, digest: str) -> bool:
        """Return whether a workload can see a tree without its being laid out first.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    def tree(self, digest: str, target: str, path: str = "") -> Mount:
        """Return the mount of a tree, or of what lies at ``path`` in it, at ``target``."""

    def runtime(self, target: str) -> Mount | None:
        """Return the mount of the runtime at ``target``; None: the spawner provides it."""
        return None

    @abstractmethod
    def home(self, notebook_id: str, target: str) -> Mount:
        """Return the mount of a notebook's home, which the spawner makes if it is not there."""

    @abstractmethod
    async def remove_home(self, notebook_id: str) -> None:
        """Delete a home for good. One that was never made, or is gone, is fine."""

    shares_volumes: bool = True
    """True if several running notebooks can have one volume."""

    @abstractmethod
    def volume(self, volume_id: str, target: str, read_only: bool) -> Mount:
        """Return the mount of a volume. It is made, if need be, when a notebook with it starts."""

    @abstractmethod
    async def remove_volume(self, volume_id: str) -> None:
        """Delete a volume for good. One that was never made, or is gone, is fine."""

    async def finish_removals(self) -> None:  # noqa: B027 - most have nothing to do
        """Delete what is left of homes whose removal was interrupted."""


class MachinePlaces(Places):
    """Folders of this machine.

    Args:
        trees: one folder per digest (its hex part).
        homes: one folder per notebook id.
        volumes: one folder per volume id.
    """

    here = True

    def __init__(self, trees: Path, homes: Path, volumes: Path) -> None:
        self._trees, self._homes, self._volumes = trees, homes, volumes

    def path(self, digest: str) -> Path:
        """Return the folder in which a tree is laid out; for no tree (``""``), an empty folder."""
        if digest:
            return self._trees / digest.removeprefix("blake3:")
        nothing = self._trees / "none"
        nothing.mkdir(exist_ok=True)
        return nothing

    async def has_tree(self, digest: str) -> bool:
        """Return whether a tree is laid out."""
        return self.path(digest).is_dir()

    def tree(self, digest: str, target: str, path: str = "") -> Mount:
        """A read-only mount of the laid out tree."""
        return Mount(source=str(self.path(digest) / path), target=target)

    def home(self, notebook_id: str, target: str) -> Mount:
        """A mount that may be written to."""
        return Mount(source=str(self._homes / notebook_id), target=target, read_only=False)

    async def remove_home(self, notebook_id: str) -> None:
        """Move it out of the way, at once and for good, then delete it."""
        await self._remove(self._homes / notebook_id)

    def volume(self, volume_id: str, target: str, read_only: bool) -> Mount:
        """A mount of a folder of its own."""
        self._volumes.mkdir(mode=0o700, exist_ok=True)
        source = str(self._volumes / volume_id)
        return Mount(source=source, target=target, read_only=read_only, volume=volume_id)

    async def remove_volume(self, volume_id: str) -> None:
        """Move it out of the way, at once and for good, then delete it."""
        await self._remove(self._volumes / volume_id)

    async def _remove(self, folder: Path) -> None:
        grave = folder.with_name(f"{_GRAVE}{folder.name}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(grave)
        await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)

    async def finish_removals(self) -> None:
        """Delete what was moved out of the way."""
        for grave in [*self._homes.glob(f"{_GRAVE}*"), *self._volumes.glob(f"{_GRAVE}*")]:
            await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)


_GRAVE = ".deleted-"
