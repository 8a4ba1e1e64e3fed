"""What workloads are as pods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kaos_hub.engines.base import Build, JobSpec, Materialise, Run
from kaos_hub.engines.kubernetes_objects import (
    BUILDER_UID,
    CLAIM,
    LAID,
    Object,
    builder_context,
    cache_claim,
    labels,
    registries_conf,
)
from kaos_hub.engines.kubernetes_places import RUNTIMES, TREES
from kaos_hub.engines.kubernetes_seen import DEADLINE
from kaos_hub.errors import Unsupported
from kaos_hub.models import Mount, Resources

TICKET = "/kaos/ticket"
_TERMINATION = "/dev/termination-log"
_PYTHON = ["/opt/kaos/bin/python", "-I", "-m"]
_MIB = 1 << 20
# AppArmor would not let the builder mount what a step sees.
_UNCONFINED = {"container.apparmor.security.beta.kubernetes.io/build": "unconfined"}
_LITTLE = 256 * _MIB
_OUTPUT = 4 << 20


@dataclass(frozen=True)
class Settings:
    """What the admin has set, as far as pods depend on it."""

    uid: int
    grace: int
    builder_image: str
    runtime_image: str
    registry: str
    pull_registry: str
    push_secret: str
    pull_secrets: Sequence[str]
    insecure: Sequence[str]
    mirrors: Mapping[str, str]
    ca_configmap: str
    pip_index_url: str
    build_args: Mapping[str, str]
    build_environment: Mapping[str, str]
    build_seccomp_profile: str
    build_storage: int
    build_processes: int
    build_cache: bool
    storage: int
    default: Resources
    share: float
    gpu_resource: str
    service_url: str
    trees_claim: str
    node_selector: Mapping[str, str]
    tolerations: Sequence[Object]
    labels: Mapping[str, str] = field(default_factory=dict)


def digests(spec: JobSpec) -> list[str]:
    """The trees that a job fetches."""
    match spec.work:
        case Build() as build:
            return [build.source] if build.source else []
        case Materialise() as work:
            return [work.digest]
        case Run() as run:
            return list(dict.fromkeys(m.digest for m in run.mounts if m.digest))


class Pods:
    """Makes the manifests."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings

    # --- the three kinds of work ---

    def run(self, spec: JobSpec, work: Run) -> Object:
        """A command of the user's.

        Raises:
            Unsupported: it asks for what a pod cannot have.
        """
        if not work.image:
            raise Unsupported("The kubernetes engine runs nothing without an image")
        volumes, mounts = self._volumes(work.mounts)
        fetched = digests(spec)
        main = {
            "name": "main",
            "image": work.image,
            "command": [_literal(word) for word in work.command],
            "env": _variables(work.environment),
            "workingDir": work.workdir,
            "volumeMounts": mounts,
            "resources": self.resources(spec.resources),
            "securityContext": _harmless(),
        }
        body = self._pod(spec, "train", [self._fetch(fetched)] if fetched else [], main, volumes)
        # Somebody must collect what it leaves behind, and hand on the wish to end.
        body["spec"]["shareProcessNamespace"] = True
        if fetched:
            volumes += [_ticket(spec.name), {"name": "trees", "emptyDir": {}}]
        return body

    def materialise(self, spec: JobSpec, work: Materialise, claim_uid: str) -> Object:
        """Lay a tree out on the shared claim."""
        target = f"/claim/{TREES}/{work.digest.removeprefix('blake3:')}"
        main = self._ours("main", "kaos_hub.inside.fetch", [f"--tree={work.digest}={target}"])
        main["env"] = self._fetching()
        main["volumeMounts"] = [
            {"name": "claim", "mountPath": "/claim"},
            {"name": "ticket", "mountPath": TICKET, "readOnly": True},
        ]
        body = self._pod(spec, "materialise", [], main, [self._claim(), _ticket(spec.name)])
        body["metadata"]["annotations"] |= {LAID: work.digest, CLAIM: claim_uid}
        return self._writing(body)

    def runtime(self, name: str, release: str, claim_uid: str) -> Object:
        """Lay the runtime out on the shared claim."""
        main = self._ours("main", "", [])
        program = "/opt/kaos/libexec/fill_volume.py"
        main["command"] = [*_PYTHON[:2], program, f"/claim/{RUNTIMES}/{release}"]
        main["volumeMounts"] = [{"name": "claim", "mountPath": "/claim"}]
        spec = JobSpec(name, "", Materialise(release, ""), deadline=1800)
        body = self._pod(spec, "runtime", [], main, [self._claim()])
        body["metadata"]["annotations"] |= {LAID: f"runtime-{release}", CLAIM: claim_uid}
        return self._writing(body)

    def build(self, spec: JobSpec, work: Build, known: bool) -> Object:
        """An image: fetched and built without a password, pushed without any of the user's code.

        Args:
            spec: the job.
            work: what to build.
            known: whether the registry has it already, so that it is only described.
        """
        steps = [] if known else [self._fetch([work.source]), self._build(spec, work)]
        volumes: list[Object] = [{"name": "out", "emptyDir": {"sizeLimit": self._size()}}]
        if not known:
            volumes += [
                _ticket(spec.name),
                {"name": "trees", "emptyDir": {"sizeLimit": self._size()}},
                {"name": "storage", "emptyDir": {"sizeLimit": self._size()}},
            ]
            if self._s.build_cache:
                claimed = {"claimName": cache_claim(spec.owner)}
                volumes.append({"name": "cache", "persistentVolumeClaim": claimed})
        if self._s.push_secret:
            items = [{"key": ".dockerconfigjson", "path": "config.json"}]
            login = {"secretName": self._s.push_secret, "items": items}
            volumes.append({"name": "login", "secret": login})
        if self._s.ca_configmap:
            volumes.append({"name": "ca", "configMap": {"name": self._s.ca_configmap}})
        body = self._pod(spec, "build", steps, self._push(work, known), volumes)
        if not known and not self._s.build_seccomp_profile:
            body["metadata"]["annotations"] |= _UNCONFINED
        if self._s.build_cache and not known:
            body["spec"]["securityContext"] |= _group(BUILDER_UID)
        return body

    # --- the steps ---

    def _ours(self, name: str, module: str, arguments: Sequence[str]) -> Object:
        """A container that runs our own code; it can write to nothing but volumes."""
        return {
            "name": name,
            "image": self._s.runtime_image,
            "command": [*_PYTHON, module, *arguments],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "resources": self.resources(Resources(cpu=1, memory=512 * _MIB), self._s.share),
            "securityContext": _harmless() | {"readOnlyRootFilesystem": True},
        }

    def _fetching(self) -> list[Object]:
        return _variables(
            {
                "KAOS_FETCH_URL": self._s.service_url,
                "KAOS_FETCH_TICKET": f"{TICKET}/ticket",
                "PYTHONUNBUFFERED": "1",
            }
        )

    def _fetch(self, trees: Sequence[str]) -> Object:
        """The step that brings trees into the pod; the only one with the ticket."""
        wanted = [f"--tree={d}=/trees/{d.removeprefix('blake3:')}" for d in trees]
        return self._ours("fetch", "kaos_hub.inside.fetch", wanted) | {
            "env": self._fetching(),
            "volumeMounts": [
                {"name": "trees", "mountPath": "/trees"},
                {"name": "ticket", "mountPath": TICKET, "readOnly": True},
            ],
        }

    def _build(self, spec: JobSpec, work: Build) -> Object:
        """The step that runs what the Dockerfile says. Nothing in its reach is worth stealing."""
        s, source = self._s, work.source.removeprefix("blake3:")
        bases = {name: pin for name, pin in work.bases.items() if pin != "scratch"}
        pip = f"[global]\nindex-url = {s.pip_index_url}\n" if s.pip_index_url else ""
        pip += "cert = /etc/xdg/pip/ca.crt\n" if pip and s.ca_configmap else ""
        pip = pip or ("[global]\ncert = /etc/xdg/pip/ca.crt\n" if s.ca_configmap else "")
        variables = {
            "KAOS_SOURCE": f"/trees/{source}",
            "KAOS_CONTEXT": work.context,
            "KAOS_OUT": "/out",
            "KAOS_STORAGE": "/storage",
            "KAOS_BASES": _lines(bases, " "),
            "KAOS_REGISTRIES": registries_conf(s.mirrors, s.insecure),
            "KAOS_BUILD_ARGS": _lines(s.build_args, "="),
            "KAOS_PIP": pip,
            "KAOS_OUTPUT_LIMIT": str(_OUTPUT),
            "KAOS_PROCESSES": str(s.build_processes),
            "KAOS_FILE_LIMIT": str(s.build_storage // _MIB),
        }
        mounts: list[Object] = [
            {"name": "trees", "mountPath": "/trees", "readOnly": True},
            {"name": "storage", "mountPath": "/storage"},
            {"name": "out", "mountPath": "/out"},
        ]
        if s.ca_configmap:
            variables["KAOS_CA"] = "/ca/ca.crt"
            mounts.append({"name": "ca", "mountPath": "/ca", "readOnly": True})
        if s.build_cache:
            variables |= {"KAOS_CACHE": "/cache", "KAOS_CACHE_LIMIT": str(s.build_storage // _MIB)}
            mounts.append({"name": "cache", "mountPath": "/cache"})
        return {
            "name": "build",
            "image": s.builder_image,
            "command": ["/usr/local/bin/kaos-build"],
            "env": _variables({**s.build_environment, **variables}),
            "volumeMounts": mounts,
            "resources": self.resources(spec.resources, storage=s.build_storage),
            "securityContext": builder_context(s.build_seccomp_profile),
        }

    def _push(self, work: Build, known: bool) -> Object:
        """The step that brings the image into the registry; the only one with the password."""
        s = self._s
        ways: Object = {"mirrors": dict(s.mirrors), "insecure": list(s.insecure)}
        repository = work.image.rpartition(":")[0]
        variables = {
            "KAOS_IMAGE": f"{s.registry}/{work.image}",
            "KAOS_PULL": f"{s.pull_registry}/{repository}",
            "KAOS_BASES": json.dumps(work.bases),
            "KAOS_RESULT": _TERMINATION,
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": "/out",
        }
        mounts: list[Object] = [{"name": "out", "mountPath": "/out"}]
        if not known:
            variables["KAOS_OUT"] = "/out"
        if s.push_secret:
            variables["KAOS_LOGIN"] = "/login/config.json"
            mounts.append({"name": "login", "mountPath": "/login", "readOnly": True})
        if s.ca_configmap:
            ways["ca"] = "/ca/ca.crt"
            mounts.append({"name": "ca", "mountPath": "/ca", "readOnly": True})
        variables["KAOS_WAYS"] = json.dumps(ways)
        step = self._ours("push", "kaos_hub.inside.push", [])
        # The larger of steps and container counts, so this one must not be what limits the disk.
        memory = Resources(cpu=1, memory=512 * _MIB)
        step["resources"] = self.resources(memory, s.share, s.build_storage)
        return step | {"env": _variables(variables), "volumeMounts": mounts}

    # --- parts ---

    def _pod(
        self, spec: JobSpec, kind: str, steps: list[Object], main: Object, volumes: list[Object]
    ) -> Object:
        s = self._s
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": spec.name,
                "labels": {**s.labels, **labels(spec.name, kind, spec.owner)},
                "annotations": {DEADLINE: str(spec.deadline)},
            },
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": spec.deadline,
                "terminationGracePeriodSeconds": s.grace,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {
                    "runAsUser": s.uid,
                    "runAsGroup": s.uid,
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "imagePullSecrets": [{"name": name} for name in s.pull_secrets],
                "nodeSelector": dict(s.node_selector),
                "tolerations": [dict(t) for t in s.tolerations],
                "initContainers": steps,
                "containers": [main],
                "volumes": volumes,
            },
        }

    def resources(
        self, asked: Resources, share: float | None = None, storage: int | None = None
    ) -> Object:
        """Requests and limits: the same where somebody asked, else a share of the default."""
        s = self._s
        default = s.default
        limits: Object = {
            "cpu": _cores(asked.cpu or default.cpu or 1),
            "memory": str(asked.memory or default.memory),
            "ephemeral-storage": str(storage or s.storage),
        }
        cpu_share = share or (1.0 if asked.cpu else s.share)
        memory_share = share or (1.0 if asked.memory else s.share)
        requests = {
            "cpu": _cores(cpu_share * (asked.cpu or default.cpu or 1)),
            "memory": str(int(memory_share * (asked.memory or default.memory or 0))),
            # A limit, not a reservation: what is set aside could be given to nobody else.
            "ephemeral-storage": str(min(_LITTLE, storage or s.storage)),
        }
        if asked.gpu:
            limits[s.gpu_resource] = str(asked.gpu)
        return {"requests": requests, "limits": limits}

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

    def _claim(self) -> Object:
        return {"name": "claim", "persistentVolumeClaim": {"claimName": self._s.trees_claim}}

    def _writing(self, body: Object) -> Object:
        """Let the pod write to a claim whose root belongs to somebody else."""
        body["spec"]["securityContext"] |= _group(self._s.uid)
        return body

    def _size(self) -> str:
        return str(self._s.build_storage)


def _group(uid: int) -> Object:
    # Going through a hundred thousand files at every mount would take minutes.
    return {"fsGroup": uid, "fsGroupChangePolicy": "OnRootMismatch"}


def _harmless() -> Object:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _ticket(name: str) -> Object:
    return {"name": "ticket", "secret": {"secretName": name, "defaultMode": 0o444}}


def _variables(values: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": _literal(str(value))} for name, value in values.items()]


def _literal(text: str) -> str:
    # "$(NAME)" would be replaced; a doubled dollar is one.
    return text.replace("$(", "$$(")


def _lines(values: Mapping[str, str], between: str) -> str:
    return "\n".join(f"{name}{between}{value}" for name, value in values.items())


def _cores(cpu: float) -> str:
    return f"{max(1, round(cpu * 1000))}m"
