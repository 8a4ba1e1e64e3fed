"""Pods and their events as the cluster tells of them, with bells that ring at each change.

KubeSpawner's reflectors hold a copy of what there is; a caller that waits for a change has to look
again and again. These ring a bell for each pod about which something new was told.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from kubespawner.reflector import ResourceReflector
from kubespawner.spawner import EventReflector, PodReflector
from traitlets import Instance, validate


class Bells:
    """Bells, one for each pod that a caller waits for."""

    def __init__(self) -> None:
        self._hung: dict[str, asyncio.Event] = {}

    def of(self, pod: str) -> asyncio.Event:
        """Return the bell of a pod. It rings once; ask for it before you look, then wait for it."""
        return self._hung.setdefault(pod, asyncio.Event())

    def ring(self, pod: str) -> None:
        """Ring the bell of a pod about which something was told."""
        bell = self._hung.pop(pod, None)
        if bell is not None:
            bell.set()

    def ring_all(self) -> None:
        """Ring all bells: everything was told anew."""
        for pod in list(self._hung):
            self.ring(pod)


class _Noticed(dict[str, Any]):
    """The resources that a reflector keeps; ``notice`` is called with each that changes."""

    def __init__(self, content: dict[str, Any], notice: Callable[[Any], None]) -> None:
        super().__init__(content)
        self._notice = notice

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._notice(value)

    def pop(self, key: str, *default: Any) -> Any:
        value = super().pop(key, *default)
        if value is not None:
            self._notice(value)
        return value


class _Ringing(ResourceReflector):
    """A reflector that rings. It was made to be read now and then, so its dictionary is wrapped."""

    bells = Instance(Bells, ())

    @validate("resources")
    def _wrap(self, proposal: Any) -> _Noticed:
        asyncio.get_running_loop().call_soon(self.bells.ring_all)
        return _Noticed(proposal.value, lambda value: self.bells.ring(self.pod_of(value)))

    def pod_of(self, resource: dict[str, Any]) -> str:
        """The name of the pod that something is told about."""
        return str(resource["metadata"]["name"])

    @property
    def broken(self) -> bool:
        """True once it gave up. KubeSpawner would go on believing what it told last."""
        if not self.first_load_future.done():
            return False  # it is just being started
        return self.watch_task is None or self.watch_task.done()


class Pods(_Ringing, PodReflector):
    """The pods of notebooks."""


class Events(_Ringing, EventReflector):
    """The events of pods."""

    def pod_of(self, resource: dict[str, Any]) -> str:
        """The name of the pod that it happened to."""
        return str((resource.get("involvedObject") or {}).get("name"))

    @property
    def events(self) -> list[dict[str, Any]]:
        """All of them, the oldest first, also those that have no time of their own."""
        return sorted(self.resources.values(), key=when)

    def of(self, pod: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events of a pod, the oldest first."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        told = (e for e in list(self.resources.values()) if self.pod_of(e) == name)
        return sorted((e for e in told if e["involvedObject"].get("uid", uid) == uid), key=when)


def when(event: dict[str, Any]) -> str:
    """Return the (last) time of an event, as text that sorts."""
    series = event.get("series") or {}
    for time in (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    ):
        if time:
            return str(time)
    return ""


async def first_of(bells: Iterable[asyncio.Event], timeout: float) -> None:
    """Wait until one of them rings, or for that many seconds."""
    waits = [asyncio.ensure_future(bell.wait()) for bell in bells]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
