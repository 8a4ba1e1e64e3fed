"""Laying the runtime of this release out on the shared claim, once, while the service runs."""

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING

from kaos_hub.engines.base import Phase
from kaos_hub.errors import KaosError

if TYPE_CHECKING:
    from kaos_hub.engines.kubernetes.engine import KubernetesEngine

_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 300.0


async def lay_runtime_out(engine: "KubernetesEngine") -> None:
    """Have the runtime on the shared claim, so that notebooks' pods need not copy it.

    Until then they do. Tried again for as long as it takes; nothing waits for it.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            if await _laid_out(engine):
                return
        except KaosError as e:
            engine.log.warning("The runtime cannot be laid out yet: %s", e)
        except Exception:
            # notebooks start without it, only slower
            engine.log.exception("laying the runtime out failed, trying again")
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


async def _laid_out(engine: "KubernetesEngine") -> bool:
    # Of the image that is configured, whatever kaos_hub would build here: the two may differ, and
    # in a pod of the service nothing is there to build from.
    release = sha256(engine.runtime_image.encode()).hexdigest()[:16]
    if not await engine.places.knows(f"runtime-{release}"):
        uid = await engine.places.uid()
        if not uid or not engine.runtime_image:
            return False
        name = f"kaos-runtime-{release}"
        await engine.create(engine.pods.runtime(name, release, uid))
        async for seen in engine.watch(name):
            last = seen
        await engine.remove(name)
        if last.phase is not Phase.SUCCEEDED:
            engine.log.warning("The runtime cannot be laid out yet: %s", last.message)
            return False
    engine.places.use_runtime(release)
    return True
