"""Notebooks as pods of a Kubernetes cluster, each in the user's own, untouched image."""

import asyncio
import contextlib
import time
from contextvars import ContextVar
from typing import Any, ClassVar

from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client import V1PersistentVolumeClaim, V1Pod
from kubespawner import KubeSpawner
from traitlets import Float, Unicode, default

from kaos_hub.errors import KaosError, NotFound
from kaos_hub.hub.spawners.kubernetes import words as words
from kaos_hub.hub.spawners.kubernetes.pod import Provisions, home_claim, labels
from kaos_hub.hub.spawners.kubernetes.watch import Events, Pods, first_of
from kaos_hub.hub.spawners.kubernetes.words import Kind, Sight
from kaos_hub.hub.spawners.mixin import Ending, KaosSpawnerMixin
from kaos_hub.schemas import NotebookSpec
from kaos_hub.util.quantities import duration

_LOOK_ANYWAY = 15.0
"""Seconds after which one looks although no bell rang."""

_HOOK = "after_pod_created_hook"
_LAUNCHING: ContextVar[object] = ContextVar("launching", default=None)
"""The spawner whose launch this is."""


class KaosKubeSpawner(KaosSpawnerMixin, KubeSpawner):
    """Runs a notebook in a pod named by its workload; a restarted Hub finds it by that name.

    KubeSpawner makes, watches and deletes the pod. What the service admitted is put into it; what
    else the admin configures for KubeSpawner is added, and where both say something of security or
    placing, the admin's word counts.
    """

    runtime_image = Unicode(
        config=True,
        help="Image of the runtime, as the cluster's nodes pull it. It fetches bundles into pods"
        " and brings what notebooks run, where no shared volume holds these.",
    )
    unschedulable_patience = Float(
        300,
        config=True,
        help="Seconds that a notebook waits for a machine with room before its start fails. The"
        " user is told at once. A cluster that adds machines by itself takes some minutes for that;"
        " where machines are fixed, less is kinder.",
    )
    pull_patience = Float(
        15,
        config=True,
        help="Seconds that an image may fail to be pulled, or a container to be made, before the"
        " start fails. The cluster tries again after ten seconds, and then less and less often.",
    )
    node_patience = Float(
        180,
        config=True,
        help="Seconds that a machine may fail to mount a volume or to set up the pod's network"
        " before the start fails. A disk that is still attached elsewhere takes a minute or more.",
    )

    reflectors: ClassVar[dict[Any, Any]] = {}  # KubeSpawner's own are of other classes
    _repairing: ClassVar[asyncio.Lock | None] = None

    def __init__(self, **kwargs: Any) -> None:
        self._admins_hook: Any = None
        super().__init__(**kwargs)

    def _forget(self) -> None:
        super()._forget()
        self._given_up = asyncio.Event()
        self._until = 0.0

    @default("namespace")
    def _where_notebooks_run(self) -> str:
        return "kaos-workloads"

    @default("start_timeout")
    def _a_pull_may_take_long(self) -> int:
        return 3600

    @default("delete_grace_period")
    def _time_to_end(self) -> int:
        return 10

    @default("delete_pvc")
    def _homes_are_the_services(self) -> bool:
        return False

    @default("remember_pvc_name")
    def _homes_are_named_by_the_service(self) -> bool:
        return False

    @default("storage_capacity")
    def _size_of_a_home(self) -> str:
        return "10Gi"

    @default("automount_service_account_token")
    def _no_token(self) -> bool:
        return False

    # --- the three steps -------------------------------------------------------------------------

    async def launch(self, spec: NotebookSpec) -> str:
        """Have KubeSpawner make the pod, and return its URL once the container runs.

        Raises:
            NotFound: its image, or something else that it needs, is gone.
            LimitExceeded: a quota of the cluster's is used up.
            Unsupported: no machine of the cluster could take it.
            EngineUnavailable: the cluster does not answer.
        """
        if not spec.image:
            raise NotFound(f"Notebook {spec.notebook} has no image. Deploy it again.")
        _LAUNCHING.set(self)
        self._until = time.monotonic() + 0.9 * self.start_timeout
        with words.explained():
            await self._watch()
            try:
                return str(await KubeSpawner.start(self))
            except BaseException:
                if self._pod is None:
                    # Made, perhaps, but never seen; no part of the hub would know of it.
                    await self._delete_unseen()
                raise

    async def look(self) -> Ending | None:
        """Return how the pod ended, or None while it runs or is about to.

        Raises:
            EngineUnavailable: the cluster does not answer.
        """
        with words.explained():
            await self._watch()
            pod = self._pod
            if pod is None and not await self._is_there():
                return Ending(1, "its pod was deleted by somebody")
        return words.ending(pod) if pod is not None else None

    async def halt(self, now: bool) -> None:
        """Delete the pod; the service has followed its log from the beginning.

        Returns when nothing runs in it any more. The cluster takes longer to clear it away, but no
        other pod ever gets its name.

        Raises:
            EngineUnavailable: the cluster does not answer.
        """
        self._name_pod(self.workload)
        with words.explained():
            await self._watch()
            if not await self._delete(now):
                # Its node does not confirm. Have the cluster forget it, or the stop would not end.
                await self._delete(True)

    async def _delete(self, now: bool) -> bool:
        """Have KubeSpawner delete the pod; whether all of it ended soon enough."""
        until = time.monotonic() + self.delete_grace_period + 30
        known = self._pod is not None
        deleting = asyncio.ensure_future(KubeSpawner.stop(self, now))
        try:
            while not deleting.done():
                pod = self._pod
                if words.over(pod) if pod is not None else known:
                    return True
                left = until - time.monotonic()
                if left <= 0:
                    return False
                bell = asyncio.ensure_future(self.pod_reflector.bells.of(self.workload).wait())
                await asyncio.wait({deleting, bell}, timeout=left, return_when="FIRST_COMPLETED")
                bell.cancel()
            await deleting
        finally:
            deleting.cancel()
        return True

    async def stop(self, now: bool = False) -> None:
        """End the server, and a start that is under way."""
        if _LAUNCHING.get() is self:
            # KubeSpawner cleans up in the midst of its start: before it makes a pod whose name is
            # taken (by itself: names are used once; see _make_create_pod_request), or when its
            # start failed, after which JupyterHub asks for this, too.
            return
        self._given_up.set()
        await super().stop(now)

    async def get_url(self) -> str:
        """Return the server's URL, even if an earlier Hub died before it knew the address."""
        if not self.address and self.workload:
            # Not for long: a server cannot be stopped while a restarted Hub checks it.
            self._until = time.monotonic() + self.answer_patience
            # Whatever went wrong: JupyterHub finds nothing at the URL it has, and ends the server.
            with contextlib.suppress(KaosError), words.explained():
                await self._watch()
                await self._until_ready()
                self.address = str(self._get_pod_url(self._pod))
                self.remember()
        return await super().get_url()

    # --- state -----------------------------------------------------------------------------------

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier Hub started."""
        super().load_state(state)
        if self.workload:
            self._name_pod(self.workload)

    def _name_pod(self, name: str) -> None:
        self.pod_name = name
        self.dns_name = self.dns_name_template.format(namespace=self.namespace, name=name)

    # --- the pod ---------------------------------------------------------------------------------

    async def load_user_options(self) -> None:
        """Take over what was admitted. What users choose counts only as far as it was admitted.

        An admin's ``profile_list`` is applied after that, and cannot exceed it.
        """
        spec = self._admitted
        uid = 1000 if spec.uid is None else spec.uid
        self._name_pod(spec.workload)
        self.uid = self.gid = self.fs_gid = uid
        if self.profile_list:
            await super().load_user_options()
        self.image = spec.image
        self._clamp(spec.resources)
        for given, least in (("cpu_limit", "cpu_guarantee"), ("mem_limit", "mem_guarantee")):
            limit, wanted = getattr(self, given), getattr(self, least)
            self.set_trait(least, min(wanted, limit) if wanted and limit else wanted or limit)
        claim = home_claim(spec)
        self.storage_pvc_ensure = claim is not None
        if claim is not None:
            self.pvc_name, self._pvc_exists = claim, False
        hook: Any = getattr(self, _HOOK)
        if hook != self._after_created:
            self._admins_hook = hook
            self.set_trait(_HOOK, self._after_created)

    async def get_pod_manifest(self) -> V1Pod:
        """KubeSpawner's pod with what was admitted in it.

        Raises:
            KaosError: it cannot be made; says why.
        """
        pod = await super().get_pod_manifest()
        return Provisions(self.runtime_image, self.service_url).complete(pod, self._admitted)

    def get_pvc_manifest(self) -> V1PersistentVolumeClaim:
        """KubeSpawner's claim, with labels that say whose home it is."""
        claim = super().get_pvc_manifest()
        fit, rest = labels(self._admitted)
        # It outlives this start.
        passing = [k for k, v in (fit | rest).items() if v == self.workload]
        claim.metadata.labels |= {k: v for k, v in fit.items() if k not in passing}
        claim.metadata.annotations |= {k: v for k, v in rest.items() if k not in passing}
        return claim

    def get_env(self) -> dict[str, Any]:
        """Return the variables of all notebooks, and a home: the image's user may have none."""
        env = super().get_env()
        env["HOME"] = env.get("KAOS_HOME", "/home/kaos")
        admitted = self.spec.environment if self.spec else {}
        # $(NAME) is a reference, for the cluster; in a user's value it is just text.
        return {
            k: v.replace("$", "$$")
            if isinstance(v, str) and (k in admitted or k not in self.environment)
            else v
            for k, v in env.items()
        }

    @property
    def _admitted(self) -> NotebookSpec:
        if self.spec is None:
            raise KaosError("A pod cannot be made before it was admitted.")
        return self.spec

    async def _make_create_pod_request(self, pod: V1Pod, request_timeout: float) -> bool:
        """Create the pod. One that is there is ours: of a request whose answer did not come."""
        if self._pod is not None:
            return True
        return bool(await super()._make_create_pod_request(pod, request_timeout))

    async def _is_there(self) -> bool:
        """Ask the cluster whether it knows of the pod. What is watched may lag behind."""
        found = await self.api.list_namespaced_pod(
            self.namespace,
            field_selector=f"metadata.name={self.workload}",
            _request_timeout=self.k8s_api_request_timeout,
        )
        return bool(found.items)

    async def _delete_unseen(self) -> None:
        try:
            await self.api.delete_namespaced_pod(
                self.workload, self.namespace, _request_timeout=self.k8s_api_request_timeout
            )
        except Exception as e:
            # why it did not start is what its owner must hear, not this
            if getattr(e, "status", None) != 404:
                self.log.warning("pod %s may be left behind: %s", self.workload, e)

    # --- watching --------------------------------------------------------------------------------

    @property
    def _pod(self) -> dict[str, Any] | None:
        """The pod as it was told last."""
        reflector = self.pod_reflector
        found = reflector and reflector.pods.get(f"{self.namespace}/{self.workload}")
        return found or None

    async def _start_reflector(
        self, kind: str, reflector_class: Any, replace: bool = False, **kwargs: Any
    ) -> Any:
        """With reflectors that ring."""
        ours = {"pods": Pods, "events": Events}.get(kind, reflector_class)
        return await super()._start_reflector(kind, ours, replace, **kwargs)

    async def _watch(self) -> None:
        """Make sure that pods and events are watched. KubeSpawner gives up after half a minute."""
        cls = KaosKubeSpawner
        cls._repairing = cls._repairing or asyncio.Lock()
        async with cls._repairing:
            for reflector, start in (
                (self.pod_reflector, self._start_watching_pods),
                (self.event_reflector, self._start_watching_events),
            ):
                if self.events_enabled or start == self._start_watching_pods:
                    await start(replace=reflector is not None and reflector.broken)

    async def _after_created(self, _spawner: object, pod: dict[str, Any]) -> None:
        """Wait where one is woken, so that KubeSpawner's own waiting ends at its first look."""
        if self._admins_hook is not None:
            await maybe_future(self._admins_hook(self, pod))
        await self._until_ready()

    async def _until_ready(self) -> None:
        """Return when the container runs; tell meanwhile how it comes along.

        Raises:
            KaosError: it will not, or not in time.
        """
        since: dict[Kind, float] = {}
        before: Sight | None = None
        while True:
            bells = [self._given_up, self.pod_reflector.bells.of(self.workload)]
            pod = self._pod
            happened: list[dict[str, Any]] = []
            if self.event_reflector is not None:
                bells.append(self.event_reflector.bells.of(self.workload))
                happened = self.event_reflector.of(pod) if pod else []
            if self._given_up.is_set():
                raise KaosError("It was stopped while it started.")
            seen = words.sight(pod, happened)
            if seen.ready:
                return
            if before is None or before.message != seen.message:
                self.tell(seen.message, seen.progress)
            before = seen
            await first_of(bells, min(_LOOK_ANYWAY, self._judge(seen, since)))

    def _judge(self, seen: Sight, since: dict[Kind, float]) -> float:
        """Seconds for which one may go on waiting.

        Args:
            seen: how the pod looks.
            since: when each kind of trouble began that has not passed; kept up to date here.

        Raises:
            KaosError: that has been waited for long enough.
        """
        now = time.monotonic()
        kind = seen.trouble.kind if seen.trouble else None
        for past in set(since) - {kind}:
            del since[past]
        left = self._until - now
        if seen.trouble is not None and kind is not None:
            left = min(left, since.setdefault(kind, now) + self._patience(kind) - now)
            if left <= 0:
                raise seen.trouble.error
        if left <= 0:
            raise KaosError(
                f"The notebook did not start within {duration(self.start_timeout)}; what was seen"
                f" last: {seen.message}. Start it again: what was pulled is kept."
            )
        return left

    def _patience(self, kind: Kind) -> float:
        settings = {
            Kind.ROOM: self.unschedulable_patience,
            Kind.IMAGE: self.pull_patience,
            Kind.CONFIG: self.pull_patience,
            Kind.NODE: self.node_patience,
        }
        return float(settings.get(kind, 0))
