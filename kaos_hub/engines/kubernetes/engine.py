"""The engine of a Kubernetes cluster: every workload is one pod.

A bare pod and no Job: its name is the workload's, so that nothing is ever started twice; one that
has reached its deadline is kept with its output; and trying again is ours to decide.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

from kaos_hub.engines.base import Build, Cause, JobSpec, Materialise, Observation, Phase, Run
from kaos_hub.engines.kubernetes import objects as objects, seen as seen_as
from kaos_hub.engines.kubernetes.api import Api
from kaos_hub.engines.kubernetes.logs import Progress, Reader
from kaos_hub.engines.kubernetes.places import ClusterPlaces
from kaos_hub.engines.kubernetes.pods import digests
from kaos_hub.engines.kubernetes.runtime import lay_runtime_out
from kaos_hub.engines.kubernetes.settings import KubernetesSettings
from kaos_hub.engines.kubernetes.watch import Watch
from kaos_hub.engines.kubernetes.workers import WorkerPods, wants_ticket
from kaos_hub.engines.runtime_image import ROOT
from kaos_hub.errors import Conflict, EngineUnavailable, KaosError, NotFound, Unsupported
from kaos_hub.registry.names import Reference, Ways, logins
from kaos_hub.registry.registries import Registries
from kaos_hub.schemas import NotebookSpec

T = TypeVar("T")

_SCRATCH = "scratch"
_TICKET_SECONDS = 24 * 3600
_TRIES = 20
"""The number of failed reads, half a second apart, after which an output is given up."""
_GONE_WITHIN = 60.0
"""Seconds beyond its grace after which a pod's node counts as dead."""


class KubernetesEngine(KubernetesSettings):
    """Work runs in pods of one namespace, builds without privileges."""

    name: ClassVar[str] = "kubernetes"

    # --- talking to the cluster ---

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="kaos-kubernetes")

    @cached_property
    def _api(self) -> Api:
        return Api(self.namespace)

    @cached_property
    def _watch(self) -> Watch:
        return Watch(lambda: self._api, seen_as.WORKLOAD)

    @cached_property
    def _locks(self) -> "WeakValueDictionary[str, asyncio.Lock]":
        return WeakValueDictionary()

    @cached_property
    def pods(self) -> WorkerPods:
        """Makes manifests."""
        return WorkerPods(self.settings())

    @cached_property
    def places(self) -> ClusterPlaces:
        """The places where trees and homes lie: on persistent volumes."""
        return ClusterPlaces(
            self.trees_claim, self._data.path / "claims", self._ask, self.shared_volumes
        )

    @cached_property
    def _registries(self) -> Registries:
        login = logins(Path(self.registry_login)) if self.registry_login else {}
        ways = Ways(self.mirrors(), self.insecure_registries, self.registry_ca, login)
        return Registries(ways)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _ask(self, question: Callable[[Api], T]) -> T:
        """Ask the cluster something, in a thread of our own."""
        return await self._in_thread(lambda: question(self._api))

    @cached_property
    def _no_images(self) -> dict[str, str]:
        return {}  # why images of pods could not be pulled

    _version = ""
    _laying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See whether the cluster answers and what it lets us do; lay the runtime out.

        Raises:
            EngineUnavailable: it does not answer; says what to look at.
        """
        self._version = await self._ask(Api.version)
        await self._ask(lambda api: api.pods(seen_as.WORKLOAD))
        if self.trees_claim:
            self._laying = asyncio.create_task(lay_runtime_out(self), name="runtime")

    async def close(self) -> None:
        """Let go of connections and threads. Pods go on."""
        if self._laying is not None:
            self._laying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._laying
        self._watch.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if "_api" in self.__dict__:
            self._api.close()
        if "_registries" in self.__dict__:
            self._registries.close()

    # --- submitting ---

    async def submit(self, spec: JobSpec) -> None:
        """Start the work, or adopt the pod of that name."""
        async with self._locks.setdefault(spec.name, asyncio.Lock()):
            pod = await self._pod(spec.name)
            if pod is None:
                pod = await self.create(await self._manifest(spec))
            if wants_ticket(spec) and not seen_as.over(pod):
                await self._give_ticket(spec, pod)

    async def _manifest(self, spec: JobSpec) -> objects.Object:
        match spec.work:
            case Build() as build:
                return await self._build(spec, build)
            case Materialise() as work:
                if not self.trees_claim:
                    raise Unsupported("There is no shared claim to lay trees out on")
                uid = await self.places.uid()
                if not uid:
                    raise EngineUnavailable(
                        f"There is no claim {self.trees_claim} in namespace {self.namespace}"
                    )
                return self.pods.materialise(spec, work, uid)
            case Run() as run:
                return self.pods.run(spec, run, self.places.runtime(ROOT))

    async def _build(self, spec: JobSpec, work: Build) -> objects.Object:
        self.check_builds()
        known = False
        # If the registry does not answer now, the step that pushes will say so.
        with contextlib.suppress(EngineUnavailable):
            target = Reference.parse(f"{self.registry}/{work.image}")
            known = await self._in_thread(lambda: self._registries.has(target))
        if self.build_cache and not known:
            size = self.settings().build_storage
            body = objects.claim(objects.cache_claim(spec.owner), size, {})
            with contextlib.suppress(Conflict):
                await self._ask(lambda api: api.create_claim(body))
        return self.pods.build(spec, work, known)

    async def create(self, body: objects.Object) -> seen_as.Pod:
        """Make a pod, or adopt the one of that name.

        Raises:
            EngineUnavailable: it cannot be made now.
        """
        name = body["metadata"]["name"]
        try:
            return await self._ask(lambda api: api.create_pod(body))
        except Conflict:
            # Another process made it a moment ago: adopt that one.
            pod = await self._pod(name)
            if pod is None:
                raise EngineUnavailable(f"the pod {name} is just being removed") from None
            return pod
        except NotFound as e:
            raise EngineUnavailable(f"Cannot make the pod {name}: {e.message}") from None

    async def _give_ticket(self, spec: JobSpec, pod: seen_as.Pod) -> None:
        """After the pod, which waits for it: so it can belong to the pod, and goes with it."""
        body = objects.secret(spec.name, self._ticket(spec, digests(spec)), "job", pod)
        with contextlib.suppress(Conflict):
            await self._ask(lambda api: api.create_secret(body))

    async def admitted(self, spec: NotebookSpec) -> None:
        """Make its volumes, and the secret with which its pod fetches its trees, if it has to."""
        await self.places.make_volumes(spec, self.volume_claim)
        trees = list(dict.fromkeys(m.digest for m in spec.mounts if m.digest))
        if not trees:
            return
        body = objects.secret(
            spec.workload, self._tickets.issue(spec.workload, trees, _TICKET_SECONDS), "notebook"
        )
        with contextlib.suppress(Conflict):
            await self._ask(lambda api: api.create_secret(body))

    # --- observing ---

    async def _pod(self, name: str) -> seen_as.Pod | None:
        """The pod of that name, if it is one of ours."""
        pod = await self._ask(lambda api: api.pod(name))
        ours = pod and seen_as.WORKLOAD in (pod["metadata"].get("labels") or {})
        return pod if ours else None

    async def _observe(self, name: str) -> Observation:
        pod = await self._pod(name)
        if pod is None:
            return Observation(Phase.ABSENT)
        seen_as.recall(pod, self._no_images)
        stuck = seen_as.stuck(pod, self.patience, datetime.now(UTC))
        if stuck is not None and seen_as.VERDICT not in (pod["metadata"].get("annotations") or {}):
            await self._judge(name, *stuck)
            pod = await self._pod(name) or pod
        seen = seen_as.observation(pod)
        if seen.phase is Phase.SUCCEEDED:
            await self._remember(pod)
        return seen

    async def _remember(self, pod: seen_as.Pod) -> None:
        said = pod["metadata"].get("annotations") or {}
        if objects.LAID in said:
            uid, what = said[objects.CLAIM], said[objects.LAID]
            await asyncio.to_thread(self.places.remember, uid, what)

    async def watch(self, name: str) -> AsyncIterator[Observation]:
        """The present observation, then each change, until an ended or absent one."""
        last = None
        with self._watch.listen(name) as happened:
            while True:
                happened.clear()
                now = await self._observe(name)
                if now != last:
                    yield now
                    last = now
                if now.phase.ended or now.phase is Phase.ABSENT:
                    return
                # Hope is given up some time after the last event.
                pause = min(self.resync, self.patience + 1) if now.message else self.resync
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(happened.wait(), pause)

    # --- ending ---

    async def _judge(self, name: str, cause: Cause, message: str) -> None:
        """End a pod that has a node, and keep why. Its output stays readable."""
        verdict = json.dumps({"cause": cause.value, "message": message})
        body = {
            "metadata": {"annotations": {seen_as.VERDICT: verdict}},
            "spec": {"activeDeadlineSeconds": 1},
        }
        await self._ask(lambda api: api.patch_pod(name, body))

    async def cancel(self, name: str) -> None:
        """End the work and everything it started. Returns when it is really gone."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            pod = await self._pod(name)
            if pod is None or seen_as.observation(pod).phase.ended:
                return
            if seen_as.scheduled(pod) or not await self._withdraw(name):
                await self._judge(name, Cause.CANCELLED, "cancelled")
            await self._until(name, seen_as.over, self.stop_grace + _GONE_WITHIN)

    async def _withdraw(self, name: str) -> bool:
        """Take back a pod that has no node yet; it stays visible, and can get none any more.

        False: it has just got one, and is not taken back.
        """
        verdict = json.dumps({"cause": Cause.CANCELLED.value, "message": "cancelled"})
        kept = {"annotations": {seen_as.VERDICT: verdict}, "finalizers": [seen_as.FINALIZER]}
        pod = await self._ask(lambda api: api.patch_pod(name, {"metadata": kept}))
        if pod is None or seen_as.scheduled(pod):
            return pod is None
        version = pod["metadata"]["resourceVersion"]
        # A pod that gets its node just now would be neither run nor ended by that.
        return await self._ask(lambda api: api.delete_pod(name, 0, version=version))

    async def _until(self, name: str, done: Callable[[seen_as.Pod], bool], seconds: float) -> None:
        """Wait until a pod is done, or gone, and nothing of it runs any more.

        Raises:
            EngineUnavailable: its node does not answer.
        """
        with self._watch.listen(name) as happened:
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        happened.clear()
                        pod = await self._pod(name)
                        if pod is None or done(pod) or not seen_as.scheduled(pod):
                            break
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(happened.wait(), self.resync)
                    for container in seen_as.still_running(pod) if pod else []:
                        await self._outlast(name, container)
            except TimeoutError:
                raise EngineUnavailable(f"The node of {name} does not answer") from None

    async def _outlast(self, name: str, container: str) -> None:
        """Wait for a container's end where its status doesn't tell: its output ends with it."""
        with contextlib.suppress(KaosError):
            await self._ask(lambda api: api.outlast(name, container))

    async def remove(self, name: str) -> None:
        """Forget the workload, its pod and logs; ends it first if it still runs."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            pod = await self._pod(name)
            if pod is not None:
                await self._delete(name, pod)
            await self._ask(lambda api: api.delete_secret(name))

    async def _delete(self, name: str, pod: seen_as.Pod) -> None:
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("finalizers"):
            await self._ask(lambda api: api.patch_pod(name, {"metadata": {"finalizers": None}}))
        if seen_as.scheduled(pod):
            # Before it is deleted, since some nodes take ten seconds to tell of a deletion.
            if not seen_as.over(pod):
                await self._judge(name, Cause.CANCELLED, "removed")
            # If its node is dead or cut off: what it does there does no harm, results go by name.
            with contextlib.suppress(EngineUnavailable):
                await self._until(name, seen_as.over, self.stop_grace + _GONE_WITHIN)
        await self._ask(lambda api: api.delete_pod(name, 0, uid))
        await self._until(name, partial(_is_another, uid=uid), _GONE_WITHIN)

    # --- logs ---

    async def logs(self, name: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The output of all its containers, one after the other, followed until it ends."""
        progress = Progress(offset, self.log_limit)
        done: set[str] = set()
        failures = 0
        with self._watch.listen(name) as happened:
            while not progress.full:
                happened.clear()
                pod = await self._pod(name)
                left = [c for c in seen_as.containers(pod) if c not in done] if pod else []
                if pod is None or not left:
                    return
                state = seen_as.state(pod, left[0])
                if state == "waiting":
                    if seen_as.observation(pod).phase.ended:
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(happened.wait(), self.resync)
                    continue
                try:
                    reader = Reader(self._api, name, left[0], progress)
                    async with contextlib.aclosing(reader.read(state == "running")) as pieces:
                        async for piece in pieces:
                            yield piece
                except (EngineUnavailable, NotFound, Unsupported):
                    # It has ended, was removed, or the cluster was restarted: see what is so now.
                    failures += 1
                    await asyncio.sleep(0.5)
                    if failures < _TRIES:
                        continue
                # What was followed may have ended before its last lines were there: read it again,
                # unless its status will never tell that it has ended.
                if state == "terminated" or seen_as.over(pod) or failures >= _TRIES:
                    done.add(left[0])
                    progress.next()
                    failures = 0

    # --- images and the machines ---

    async def resolve(self, image: str, pull: bool = False) -> str:
        """The digest that ``image`` means now, in a reference that nodes can pull.

        Raises:
            NotFound: no registry has it; says where it was looked for.
        """
        if image == _SCRATCH:
            return _SCRATCH
        reference = Reference.parse(image)
        if reference.digest:
            # It can never mean anything else, and may be named as only the nodes reach it.
            return reference.pinned(reference.digest)
        found = await self._in_thread(lambda: self._registries.manifest(reference))
        return reference.pinned(found.digest)

    async def has(self, result: dict[str, Any]) -> bool:
        """Return whether a built image is still in the registry."""
        image = str(result.get("image") or "")
        if not image:
            return False
        # Nodes may call the registry otherwise than we do.
        prefix = f"{self.settings().pull_registry}/"
        if self.registry and image.startswith(prefix):
            image = f"{self.registry}/{image.removeprefix(prefix)}"
        return await self._in_thread(lambda: self._registries.has(Reference.parse(image)))

    async def gpus(self) -> int:
        """Return the number of GPUs that can be given out, as the admin has set it."""
        return int(self.gpu_count)

    def problems(self) -> list[str]:
        """List what is weaker here than promised."""
        if not self._version:
            return ["The Kubernetes cluster has not answered yet."]
        return self.weaknesses()


def _is_another(pod: seen_as.Pod, uid: str) -> bool:
    return bool(pod["metadata"]["uid"] != uid)
