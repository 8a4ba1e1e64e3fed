"""Pods with a user's image: the user's command, or a program of ours that runs the user's code."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from kaos_hub.engines import base
from kaos_hub.engines.base import JobSpec, Run
from kaos_hub.engines.kubernetes.objects import Object
from kaos_hub.engines.kubernetes.pods import Pods, digests, ticket
from kaos_hub.engines.kubernetes.steps import TICKET, environment, harmless, literal
from kaos_hub.engines.runtime_image import ROOT
from kaos_hub.engines.scratch import scratch_of
from kaos_hub.errors import Unsupported
from kaos_hub.schemas import JobKind, Mount

_KIND = re.compile(rf"kaos-({JobKind.TRAIN}|{JobKind.INGEST})-")
_SCRATCH, _FILLED = "/scratch", "/filled"


def wants_ticket(spec: JobSpec) -> bool:
    """Return whether a pod waits for the secret with its ticket."""
    work = spec.work
    return bool(digests(spec)) or (isinstance(work, Run) and work.ticket)


class WorkerPods(Pods):
    """Makes the manifests, also of what runs in a user's image."""

    def run(self, spec: JobSpec, work: Run, runtime: Mount | None = None) -> Object:
        """A command of the user's, or a program of ours in the user's image.

        Args:
            spec: the job.
            work: what to run.
            runtime: where the runtime is laid out; None: the pod copies it.

        Raises:
            Unsupported: it asks for what a pod cannot have.
        """
        if not work.image:
            raise Unsupported("The kubernetes engine runs nothing without an image")
        if work.module and not self._s.runtime_image:
            raise Unsupported(
                "Nothing of ours can run here: the admin has to set KubernetesEngine.runtime_image"
            )
        copied = bool(work.module) and runtime is None
        given = [*work.mounts, *([runtime] if work.module and runtime else [])]
        volumes, mounts = self._volumes(given)
        main = self._main(spec, work)
        main["volumeMounts"] = [*self._scratch(work), *mounts, *self._own(copied)]
        steps = [self._fetch(digests(spec))] if digests(spec) else []
        if copied or scratch_of(work):
            steps.append(self._prepare(work, copied))
        volumes += self._empty(spec, work, copied)
        body = self._pod(spec, _kind(spec), steps, main, volumes)
        # Some process must reap what it leaves behind, and pass on the signal to end.
        body["spec"]["shareProcessNamespace"] = True
        return _placed(body, work, self._s.gpu_resource)

    def _main(self, spec: JobSpec, work: Run) -> Object:
        s = self._s
        ours = [f"{ROOT}/bin/kaos-run", work.module] if work.module else []
        # Beside the scratch directories there are its trees and what it writes elsewhere.
        storage = s.storage + work.storage
        return {
            "name": "main",
            "image": work.image,
            "command": [literal(word) for word in (*ours, *work.command)],
            "env": environment(work.environment),
            "workingDir": work.workdir,
            "resources": self.resources(spec.resources, storage=storage),
            "securityContext": harmless(),
        }

    def _room(self, work: Run) -> int:
        """Bytes of its scratch directories."""
        return work.storage or self._s.storage

    # --- what it sees ---

    def _scratch(self, work: Run) -> list[Object]:
        return [
            {"name": "scratch", "mountPath": target, "subPath": str(n)}
            for n, target in enumerate(scratch_of(work))
        ]

    def _own(self, copied: bool) -> list[Object]:
        runtime = {"name": "runtime", "mountPath": ROOT, "subPath": "kaos", "readOnly": True}
        # Of what a container gets for it by itself, programs that load data in parallel run out.
        shared = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108
        return [shared, *([runtime] if copied else [])]

    def _empty(self, spec: JobSpec, work: Run, copied: bool) -> list[Object]:
        """The volumes that come and go with the pod."""
        memory = str(spec.resources.memory or self._s.default.memory)
        found: list[Object] = [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": memory}}
        ]
        if wants_ticket(spec):
            found.append(ticket(spec.name))
        if digests(spec):
            found.append({"name": "trees", "emptyDir": {}})
        if scratch_of(work):
            found.append({"name": "scratch", "emptyDir": {"sizeLimit": str(self._room(work))}})
        if copied:
            found.append({"name": "runtime", "emptyDir": {}})
        return found

    def _prepare(self, work: Run, copied: bool) -> Object:
        """The step that hands the ticket over: so no volume with it is in the user's reach."""
        targets = scratch_of(work)
        arguments = [f"--folder={_SCRATCH}/{n}" for n in range(len(targets))]
        mounts: list[Object] = []
        if targets:
            mounts.append({"name": "scratch", "mountPath": _SCRATCH})
        if work.ticket:
            where = PurePosixPath(base.TICKET)
            into = f"{_SCRATCH}/{targets.index(str(where.parent))}/{where.name}"
            arguments += [f"--ticket={TICKET}/ticket", f"--ticket-into={into}"]
            mounts.append({"name": "ticket", "mountPath": TICKET, "readOnly": True})
        if copied:
            arguments.append(f"--runtime={_FILLED}/kaos")
            mounts.append({"name": "runtime", "mountPath": _FILLED})
        step = self._ours("prepare", "kaos_hub.workload.prepare", arguments)
        return step | {"volumeMounts": mounts}

    def _volumes(self, given: Sequence[Mount]) -> tuple[list[Object], list[Object]]:
        """Volumes and where a container sees them."""
        names: dict[str, str] = {}
        mounts: list[Object] = []
        for mount in given:
            if mount.digest:
                name, path = "trees", f"{mount.digest.removeprefix('blake3:')}/{mount.source}"
            elif mount.volume:
                name = names.setdefault(mount.volume, f"claim-{len(names)}")
                path = mount.source
            else:
                raise Unsupported(
                    f"A pod cannot see {mount.source}: only claims and trees can be mounted"
                )
            mounts.append(
                {"name": name, "mountPath": mount.target, "readOnly": mount.read_only}
                | ({"subPath": path.strip("/")} if path.strip("/") else {})
            )
        volumes: list[Object] = [
            {"name": name, "persistentVolumeClaim": {"claimName": claim}}
            for claim, name in names.items()
        ]
        return volumes, mounts


def _kind(spec: JobSpec) -> str:
    """Return the kind by which network policies know the pod."""
    found = _KIND.match(spec.name)
    return found[1] if found else JobKind.TRAIN.value


def _placed(body: Object, work: Run, gpu: str) -> Object:
    """Place a pod on the nodes of its pool, beside what holds for all jobs."""
    pool = work.pool
    if pool is None:
        return body
    body["spec"]["nodeSelector"] |= pool.node_selector
    body["spec"]["tolerations"] += [dict(t) for t in pool.tolerations]
    limits = body["spec"]["containers"][0]["resources"]["limits"]
    if gpu in limits:
        limits[pool.gpu_resource] = limits.pop(gpu)
    return body
