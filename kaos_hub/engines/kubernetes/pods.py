"""Pods for workloads: their manifests."""

from kaos_hub.engines.base import Build, JobSpec, Materialise, Run
from kaos_hub.engines.builder_environment import BUILDER_UID
from kaos_hub.engines.kubernetes.objects import CLAIM, LAID, Object, cache_claim, labels
from kaos_hub.engines.kubernetes.places import RUNTIMES, TREES
from kaos_hub.engines.kubernetes.seen import DEADLINE
from kaos_hub.engines.kubernetes.steps import PYTHON, TICKET, Steps

# AppArmor would not let the builder mount what a step sees.
_UNCONFINED = {"container.apparmor.security.beta.kubernetes.io/build": "unconfined"}


def digests(spec: JobSpec) -> list[str]:
    """The trees that a job fetches."""
    match spec.work:
        case Build() as build:
            return [build.source] if build.source else []
        case Materialise() as work:
            return [work.digest]
        case Run() as run:
            return list(dict.fromkeys(m.digest for m in run.mounts if m.digest))


class Pods(Steps):
    """Makes the manifests."""

    def materialise(self, spec: JobSpec, work: Materialise, claim_uid: str) -> Object:
        """Lay a tree out on the shared claim."""
        target = f"/claim/{TREES}/{work.digest.removeprefix('blake3:')}"
        tree = f"--tree={work.digest}={target}"
        main = self._ours("main", "kaos_hub.workload.fetch.fetch", [tree])
        main["env"] = self._fetching()
        main["volumeMounts"] = [
            {"name": "claim", "mountPath": "/claim"},
            {"name": "ticket", "mountPath": TICKET, "readOnly": True},
        ]
        body = self._pod(spec, "materialise", [], main, [self._claim(), ticket(spec.name)])
        body["metadata"]["annotations"] |= {LAID: work.digest, CLAIM: claim_uid}
        return self._writing(body)

    def runtime(self, name: str, release: str, claim_uid: str) -> Object:
        """Lay the runtime out on the shared claim."""
        main = self._ours("main", "", [])
        program = "/opt/kaos/libexec/fill_volume.py"
        main["command"] = [*PYTHON[:2], program, f"/claim/{RUNTIMES}/{release}"]
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
        kept = self._keeps(work) and not known
        volumes: list[Object] = [{"name": "out", "emptyDir": {"sizeLimit": self._size()}}]
        if not known:
            volumes += [
                ticket(spec.name),
                {"name": "trees", "emptyDir": {"sizeLimit": self._size()}},
                {"name": "storage", "emptyDir": {"sizeLimit": self._size()}},
            ]
            if self._s.build_cache:
                claimed = {"claimName": cache_claim(spec.owner)}
                volumes.append({"name": "cache", "persistentVolumeClaim": claimed})
        if kept:
            steps.insert(0, self._bases(work))
            volumes.append(_login("base-login", self._s.base_secret))
            volumes.append({"name": "kept", "emptyDir": {"sizeLimit": self._size()}})
        if self._s.push_secret:
            volumes.append(_login("login", self._s.push_secret))
        if self._s.ca_configmap:
            # If there is none, the steps can say so; the node would wait for it without a word.
            ca = {"name": self._s.ca_configmap, "optional": True}
            volumes.append({"name": "ca", "configMap": ca})
        body = self._pod(spec, "build", steps, self._push(work, known), volumes)
        if not known and not self._s.build_seccomp_profile:
            body["metadata"]["annotations"] |= _UNCONFINED
        if self._s.build_cache and not known:
            body["spec"]["securityContext"] |= _group(BUILDER_UID)
        return body

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

    def _claim(self) -> Object:
        return {"name": "claim", "persistentVolumeClaim": {"claimName": self._s.trees_claim}}

    def _writing(self, body: Object) -> Object:
        """Let the pod write to a claim whose root belongs to another user."""
        body["spec"]["securityContext"] |= _group(self._s.uid)
        return body


def ticket(name: str) -> Object:
    """The volume with the secret of that workload's ticket."""
    return {"name": "ticket", "secret": {"secretName": name, "defaultMode": 0o444}}


def _group(uid: int) -> Object:
    # Going through a hundred thousand files at every mount would take minutes.
    return {"fsGroup": uid, "fsGroupChangePolicy": "OnRootMismatch"}


def _login(name: str, secret: str) -> Object:
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    # If there is none, the step can say so; the node would wait for it without a word.
    return {"name": name, "secret": {"secretName": secret, "items": items, "optional": True}}
