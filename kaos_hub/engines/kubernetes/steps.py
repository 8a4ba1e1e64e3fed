"""The steps that pods are made of: containers, and what each of them sees."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kaos_hub.engines.base import Build, JobSpec
from kaos_hub.engines.builder_environment import environment as builder_environment
from kaos_hub.engines.kubernetes.objects import Object, builder_context, registries_conf
from kaos_hub.schemas import Resources

TICKET = "/kaos/ticket"
_CA, _LOGIN, _KEPT = "/ca", "/login", "/kept"
_TERMINATION = "/dev/termination-log"
PYTHON = ["/opt/kaos/bin/python", "-I", "-m"]
_MIB = 1 << 20
_LITTLE = 256 * _MIB


@dataclass(frozen=True)
class Settings:
    """The admin's settings, as far as pods depend on them."""

    uid: int
    grace: int
    builder_image: str
    runtime_image: str
    registry: str
    pull_registry: str
    push_secret: str
    base_secret: str
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


class Steps:
    """Makes containers."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings

    def _ours(self, name: str, module: str, arguments: Sequence[str]) -> Object:
        """A container that runs our own code; it can write to nothing but volumes."""
        return {
            "name": name,
            "image": self._s.runtime_image,
            "command": [*PYTHON, module, *arguments],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "resources": self.resources(Resources(cpu=1, memory=512 * _MIB), self._s.share),
            "securityContext": harmless() | {"readOnlyRootFilesystem": True},
        }

    def _fetching(self) -> list[Object]:
        return environment(
            {
                "KAOS_FETCH_URL": self._s.service_url,
                "KAOS_FETCH_TICKET": f"{TICKET}/ticket",
                "PYTHONUNBUFFERED": "1",
            }
        )

    def _fetch(self, trees: Sequence[str]) -> Object:
        """The step that brings trees into the pod; the only one with the ticket."""
        wanted = [f"--tree={d}=/trees/{d.removeprefix('blake3:')}" for d in trees]
        return self._ours("fetch", "kaos_hub.workload.fetch.fetch", wanted) | {
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
        variables = builder_environment(
            work.context,
            bases,
            s.build_storage,
            s.build_args,
            s.pip_index_url,
            f"{_CA}/ca.crt" if s.ca_configmap else "",
            "/cache" if s.build_cache else "",
        ) | {
            "KAOS_SOURCE": f"/trees/{source}",
            "KAOS_REGISTRIES": registries_conf(s.mirrors, s.insecure),
            "KAOS_PROCESSES": str(s.build_processes),
        }
        mounts: list[Object] = [
            {"name": "trees", "mountPath": "/trees", "readOnly": True},
            {"name": "storage", "mountPath": "/storage"},
            {"name": "out", "mountPath": "/out"},
        ]
        if s.ca_configmap:
            mounts.append(_read("ca", _CA))
        if self._keeps(work):
            variables["KAOS_KEPT"] = _KEPT
            mounts.append(_read("kept", _KEPT))
        if s.build_cache:
            mounts.append({"name": "cache", "mountPath": "/cache"})
        return {
            "name": "build",
            "image": s.builder_image,
            "command": ["/usr/local/bin/kaos-build"],
            "env": environment({**s.build_environment, **variables}),
            "volumeMounts": mounts,
            "resources": self.resources(spec.resources, s.share, s.build_storage),
            "securityContext": builder_context(s.build_seccomp_profile),
        }

    def _keeps(self, work: Build) -> bool:
        """Return whether there may be bases that want a login."""
        return bool(self._s.base_secret) and set(work.bases.values()) - {"scratch"} != set()

    def _bases(self, work: Build) -> Object:
        """The step that fetches bases with a login; the only one with that password."""
        step = self._asking("bases", "kaos_hub.workload.builds.bases", "base_secret")
        step["env"] += environment({"KAOS_KEPT": _KEPT, "KAOS_LOGIN": f"{_LOGIN}/config.json"})
        step["env"] += environment({"KAOS_BASES": json.dumps(work.bases)})
        step["volumeMounts"] += [
            {"name": "kept", "mountPath": _KEPT},
            _read("base-login", _LOGIN),
        ]
        return step

    def _push(self, work: Build, known: bool) -> Object:
        """The step that brings the image into the registry; the only one with the password."""
        s = self._s
        repository = work.image.rpartition(":")[0]
        variables = {
            "KAOS_IMAGE": f"{s.registry}/{work.image}",
            "KAOS_PULL": f"{s.pull_registry}/{repository}",
            "KAOS_BASES": json.dumps(work.bases),
            "TMPDIR": "/out",
        }
        mounts: list[Object] = [{"name": "out", "mountPath": "/out"}]
        if not known:
            variables["KAOS_OUT"] = "/out"
        if not known and self._keeps(work):
            variables["KAOS_KEPT"] = _KEPT
            mounts.append(_read("kept", _KEPT))
        if s.push_secret:
            variables["KAOS_LOGIN"] = f"{_LOGIN}/config.json"
            mounts.append(_read("login", _LOGIN))
        step = self._asking("push", "kaos_hub.workload.builds.push", "push_secret")
        step["env"] += environment(variables)
        step["volumeMounts"] += mounts
        return step

    def _asking(self, name: str, module: str, login: str) -> Object:
        """A step of ours that asks registries; ``login`` is the setting with its password."""
        s = self._s
        ways: Object = {"mirrors": dict(s.mirrors), "insecure": list(s.insecure)}
        ways |= {f"{k}_setting": f"KubernetesEngine.{v}" for k, v in
                 (("login", login), ("ca", "ca_configmap"))}  # fmt: skip
        if s.ca_configmap:
            ways["ca"] = f"{_CA}/ca.crt"
        variables = {
            "KAOS_WAYS": json.dumps(ways),
            "KAOS_RESULT": _TERMINATION,
            "PYTHONUNBUFFERED": "1",
        }
        step = self._ours(name, module, [])
        # The larger of steps and container counts, so this one must not be what limits the disk.
        memory = Resources(cpu=1, memory=512 * _MIB)
        step["resources"] = self.resources(memory, s.share, s.build_storage)
        mounts = [_read("ca", _CA)] if s.ca_configmap else []
        return step | {"env": environment(variables), "volumeMounts": mounts}

    # --- parts ---

    def resources(
        self, asked: Resources, share: float | None = None, storage: int | None = None
    ) -> Object:
        """Return requests and limits: the same where the job asked, else a share of the default."""
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
            # A limit, not a reservation: what is set aside could be given to no other pod.
            "ephemeral-storage": str(min(_LITTLE, storage or s.storage)),
        }
        if asked.gpu:
            limits[s.gpu_resource] = str(asked.gpu)
        return {"requests": requests, "limits": limits}

    def _size(self) -> str:
        return str(self._s.build_storage)


def harmless() -> Object:
    """The security context of what needs no right at all."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _read(volume: str, path: str) -> Object:
    return {"name": volume, "mountPath": path, "readOnly": True}


def environment(values: Mapping[str, str]) -> list[Object]:
    """Variables of a container."""
    return [{"name": name, "value": literal(str(value))} for name, value in values.items()]


def literal(text: str) -> str:
    """A text that the cluster leaves as it is."""
    # "$(NAME)" would be replaced; a doubled dollar is one.
    return text.replace("$(", "$$(")


def _cores(cpu: float) -> str:
    return f"{max(1, round(cpu * 1000))}m"
