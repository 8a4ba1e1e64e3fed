"""The admitted notebook, as a part of a pod.

KubeSpawner makes the pod, with what the admin configured. Here the admitted is put into it, after
KubeSpawner has filled in its templates: a path of a user's may have braces in it.
"""

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from kubernetes_asyncio.client.models import V1Container, V1Pod, V1Volume, V1VolumeMount
from kubespawner.utils import get_k8s_model

from kaos_hub.engines import runtime_image
from kaos_hub.errors import KaosError, Unsupported
from kaos_hub.schemas import Mount, NotebookSpec, Pool

FETCH, RUNTIME, NOTEBOOK = "fetch", "runtime", "notebook"
"""Names of containers: two that may come before, and KubeSpawner's."""

PREFIX = "kaos-hub.io"
PYTHON = f"{runtime_image.ROOT}/bin/python"
_COPY = (
    "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True,"
    " dirs_exist_ok=True)"
)
_TREES, _TICKET, _FILLED = "/kaos-trees", "/kaos-ticket", "/kaos-runtime"
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")

CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_security(uid: int) -> dict[str, Any]:
    """As whom everything in the pod runs, and may not do."""
    return {
        "runAsUser": uid,
        "runAsGroup": uid,
        "runAsNonRoot": True,
        "fsGroup": uid,
        # Else each start would go through all files of a home.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def home_claim(spec: NotebookSpec) -> str | None:
    """The claim of the notebook's home: what it may write to."""
    return next((m.volume for m in spec.mounts if m.volume and not m.read_only), None)


def labels(spec: NotebookSpec) -> tuple[dict[str, str], dict[str, str]]:
    """Labels for what belongs to a notebook; and annotations, for what cannot be a label."""
    found = {
        "app.kubernetes.io/managed-by": "kaos-hub",
        f"{PREFIX}/workload": spec.workload,
        f"{PREFIX}/kind": "notebook",
        f"{PREFIX}/owner": sha256(spec.owner.encode()).hexdigest()[:16],
        f"{PREFIX}/notebook": spec.notebook,
    } | spec.labels
    fit = {k: v for k, v in found.items() if _KEY.fullmatch(k) and _LABEL.fullmatch(v)}
    rest = {k: v for k, v in found.items() if k not in fit and _KEY.fullmatch(k)}
    return fit, rest


@dataclass
class _Volumes:
    """The pod's volumes as they are needed, and where containers see them."""

    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def add(self, name: str, source: dict[str, Any]) -> str:
        """A volume; there is one of each name."""
        self.volumes.setdefault(name, {"name": name, **source})
        return name

    def see(self, name: str, target: str, path: str = "", read_only: bool = True) -> None:
        """Show (a path in) a volume to the notebook."""
        mount = {"name": name, "mountPath": target, "readOnly": read_only}
        self.mounts.append(mount | ({"subPath": path} if path else {}))


@dataclass(frozen=True)
class Provisions:
    """The sources of what a pod does not find mounted.

    Args:
        runtime_image: the image that holds the runtime.
        service_url: the service, which hands out trees.
    """

    runtime_image: str
    service_url: str

    def complete(self, pod: V1Pod, spec: NotebookSpec) -> V1Pod:
        """Put what was admitted into a pod of KubeSpawner's; returns it.

        Raises:
            Unsupported: something cannot be had on Kubernetes.
            KaosError: something is not configured.
        """
        uid = 1000 if spec.uid is None else spec.uid
        container = next(c for c in pod.spec.containers if c.name == NOTEBOOK)
        fit, rest = labels(spec)
        pod.metadata.labels |= fit
        pod.metadata.annotations = rest | pod.metadata.annotations
        pod.spec.restart_policy = "Never"
        pod.spec.security_context = pod_security(uid) | (pod.spec.security_context or {})
        if pod.spec.enable_service_links is None:
            pod.spec.enable_service_links = False
        if pod.spec.share_process_namespace is None:
            # As process 1 a server that is just starting would be deaf to a request to end, and no
            # process would reap what its kernels and terminals leave behind.
            pod.spec.share_process_namespace = True
        _place(pod, spec)
        self._fill(container, spec)
        self._mount(pod, container, spec)
        return pod

    def _fill(self, container: V1Container, spec: NotebookSpec) -> None:
        # In place of the image's entry point, which has no say.
        container.command, container.args = [runtime_image.COMMAND], None
        container.working_dir = container.working_dir or spec.environment.get("KAOS_HOME")
        container.security_context = CONTAINER_SECURITY | (container.security_context or {})
        if spec.resources.gpu:
            resource = (spec.pool or Pool()).gpu_resource
            container.resources.limits[resource] = str(spec.resources.gpu)
            container.resources.requests[resource] = str(spec.resources.gpu)

    def _mount(self, pod: V1Pod, container: V1Container, spec: NotebookSpec) -> None:
        seen = _Volumes()
        for mount in spec.mounts:
            self._see(seen, mount, spec)
        # As tmpfs it is counted as the memory of who writes there. Its own limit is all of that.
        limit = container.resources.limits.get("memory")
        shm = {"medium": "Memory"} | ({"sizeLimit": str(limit)} if limit else {})
        seen.see(seen.add("kaos-shm", {"emptyDir": shm}), "/dev/shm", read_only=False)  # noqa: S108
        before = []
        if seen.digests:
            before.append(self._fetch(seen, spec, container))
        if not any(m.target == runtime_image.ROOT for m in spec.mounts):
            before.append(self._copy(seen, container))
        pod.spec.volumes = [
            *(pod.spec.volumes or []),
            *(get_k8s_model(V1Volume, v) for v in seen.volumes.values()),
        ]
        container.volume_mounts = [
            *(container.volume_mounts or []),
            *(get_k8s_model(V1VolumeMount, m) for m in seen.mounts),
        ]
        ours = [get_k8s_model(V1Container, c) for c in before]
        pod.spec.init_containers = [*ours, *(pod.spec.init_containers or [])] or None

    def _see(self, seen: _Volumes, mount: Mount, spec: NotebookSpec) -> None:
        path = mount.source.strip("/")
        if mount.volume:
            # Where no mount of a volume may be written to, the whole volume is read-only. The node
            # then leaves its files' groups and modes alone, of which a shared volume has very many.
            claim = [m for m in spec.mounts if m.volume == mount.volume]
            source = {"claimName": mount.volume, "readOnly": all(m.read_only for m in claim)}
            index = list(dict.fromkeys(m.volume for m in spec.mounts if m.volume))
            name = f"kaos-claim-{index.index(mount.volume)}"
            seen.add(name, {"persistentVolumeClaim": source})
            seen.see(name, mount.target, path, mount.read_only)
        elif mount.digest:
            if mount.digest not in seen.digests:
                seen.digests.append(mount.digest)
            name = seen.add("kaos-trees", {"emptyDir": {}})
            seen.see(name, mount.target, f"{_hex(mount.digest)}/{path}".rstrip("/"))
        elif mount.host:
            # The service has seen that the admin offers it.
            source = {"path": mount.source, "type": "Directory"}
            name = seen.add(f"kaos-host-{len(seen.volumes)}", {"hostPath": source})
            seen.see(name, mount.target, read_only=mount.read_only)
        else:
            # A folder of the node: only the cluster's admin has a say in those.
            raise Unsupported(f"{mount.target} is neither on a claim nor in a bundle.")

    def _fetch(self, seen: _Volumes, spec: NotebookSpec, like: V1Container) -> dict[str, Any]:
        """Fetches trees from the service. It alone sees the ticket, and runs no user code."""
        seen.add("kaos-ticket", {"secret": {"secretName": spec.workload, "defaultMode": 0o440}})
        trees = (f"--tree={digest}={_TREES}/{_hex(digest)}" for digest in seen.digests)
        return self._before(
            FETCH,
            [
                *(PYTHON, "-I", "-m", "kaos_hub.workload.fetch.fetch"),
                *(f"--url={self.service_url}", f"--ticket={_TICKET}/ticket", *trees),
                "--no-sync",  # the volume goes with the pod
            ],
            [
                {"name": "kaos-trees", "mountPath": _TREES},
                {"name": "kaos-ticket", "mountPath": _TICKET, "readOnly": True},
            ],
            like,
        )

    def _copy(self, seen: _Volumes, like: V1Container) -> dict[str, Any]:
        """Copies the runtime out of its image."""
        name = seen.add("kaos-runtime", {"emptyDir": {}})
        # A folder in it, for the volume itself belongs to root.
        seen.see(name, runtime_image.ROOT, "kaos")
        return self._before(
            RUNTIME,
            [PYTHON, "-I", "-c", _COPY, runtime_image.ROOT, f"{_FILLED}/kaos"],
            [{"name": name, "mountPath": _FILLED}],
            like,
        )

    def _before(
        self, name: str, command: list[str], mounts: list[dict[str, Any]], like: V1Container
    ) -> dict[str, Any]:
        if not self.runtime_image:
            raise KaosError(
                "Notebooks need c.KaosKubeSpawner.runtime_image, which is not set."
                " Tell the administrator."
            )
        asked = ("cpu", "memory")  # no more than the notebook itself, and none of its devices
        resources = {
            "limits": {k: str(v) for k, v in like.resources.limits.items() if k in asked},
            "requests": {k: str(v) for k, v in like.resources.requests.items() if k in asked},
        }
        return {
            "name": name,
            "image": self.runtime_image,
            "command": command,
            "volumeMounts": mounts,
            "resources": resources,
            "securityContext": CONTAINER_SECURITY | {"readOnlyRootFilesystem": True},
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }


def _place(pod: V1Pod, spec: NotebookSpec) -> None:
    """Set where the pod may run: what the pool says, and what the admin adds."""
    pool = spec.pool
    if pool is None:
        return
    pod.spec.node_selector = {**pool.node_selector, **(pod.spec.node_selector or {})} or None
    pod.spec.tolerations = [*(pod.spec.tolerations or []), *pool.tolerations] or None


def _hex(digest: str) -> str:
    return digest.removeprefix("blake3:")
