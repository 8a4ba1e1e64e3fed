"""The checks of `kaos doctor` in a Kubernetes cluster, reached with KUBECONFIG or from a pod."""

import json
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from kaos_hub.doctor import probe
from kaos_hub.doctor.finding import BAD, GOOD, WEAK, Finding
from kaos_hub.errors import KaosError, NotFound
from kaos_hub.installation.addresses import in_cluster, namespace
from kaos_hub.registry.names import Ways
from kaos_hub.registry.registries import trusting

_OLDEST, _NEWEST = 20, 36
"""Minor versions of Kubernetes that this was written for."""

CA = "/run/kaos/ca/ca.crt"
"""The path at which the manifests give the service the certificates of the admin's registry."""
_MANIFESTS = "Install the chart: docs/howto/kubernetes.md"

RIGHTS = {
    "hub": {
        "pods": ("create", "delete", "list", "watch"),
        "events": ("list", "watch"),
        "persistentvolumeclaims": ("create", "get"),
    },
    "service": {
        "pods": ("create", "delete", "get", "list", "patch", "watch"),
        "pods/log": ("get",),
        "secrets": ("create", "delete"),
        "persistentvolumeclaims": ("create", "delete", "get"),
    },
}
"""The rights that Hub and service need in the namespace of workloads, and no others."""


def checks() -> list[Callable[[], Finding | list[Finding]]]:
    """The checks of a cluster, in order."""
    if not find_spec("kubernetes"):
        text, advice = "Its client is missing.", "pip install 'kaos-hub[hub,kubernetes]'"
        return [lambda: Finding("kubernetes", BAD, text, advice)]
    cluster = Cluster()
    return [
        lambda: _told("kubernetes", cluster.api),
        lambda: _told("rights", cluster.rights),
        lambda: _told("storage", cluster.storage),
        lambda: _told("registry", registry),
        lambda: _told("network policies", cluster.network),
        parts,
    ]


def _told(name: str, check: Callable[[], Finding | list[Finding]]) -> Finding | list[Finding]:
    try:
        return check()
    except KaosError as e:
        return Finding(name, BAD, e.message, "KUBECONFIG says which cluster; `kubectl get pods`")


class Cluster:
    """The cluster, as far as the account that runs this may see it."""

    def __init__(self) -> None:
        self.workloads = os.environ.get("KAOS_WORKLOADS") or "kaos-workloads"

    def ask(self, api: str, question: str, *arguments: Any) -> Any:
        """Return what the cluster answers, read from JSON.

        Raises:
            KaosError: it does not answer, or says no.
        """
        from kubernetes import client

        from kaos_hub.engines.kubernetes.api import Api, answering

        found = Api(self.workloads)
        try:
            with answering():
                ask = getattr(getattr(client, api)(found._client), question)
                answer = ask(*arguments, _preload_content=False, _request_timeout=(5, 20))
                return json.loads(answer.data)
        finally:
            found.close()

    def api(self) -> Finding:
        """Check that it answers, which version it is, and that our namespace is there."""
        version = str(self.ask("VersionApi", "get_code")["gitVersion"])
        try:
            self.ask("CoreV1Api", "read_namespace", self.workloads)
        except NotFound:
            text = f"{version}, but there is no namespace {self.workloads}."
            return Finding("kubernetes", BAD, text, _MANIFESTS)
        except KaosError:
            # Hub and service may not look at namespaces, only into theirs.
            self.ask("CoreV1Api", "list_namespaced_pod", self.workloads)
        minor = re.match(r"v1\.(\d+)", version)
        text = f"{version}, namespace {self.workloads}"
        if minor is None or not _OLDEST <= int(minor[1]) <= _NEWEST:
            advice = f"kaos_hub was written for 1.{_OLDEST} to 1.{_NEWEST}."
            return Finding("kubernetes", WEAK, text, advice)
        return Finding("kubernetes", GOOD, text)

    def rights(self) -> Finding:
        """Check that Hub and service may do what they must.

        Only an administrator may ask that; without that right, check the part that asks.
        """
        try:
            lacking = [f"{who} {r}" for who in RIGHTS for r in self._lacks(who, RIGHTS[who])]
            whose = "Hub and service"
        except KaosError:
            # Only an administrator may ask about others. A part of kaos_hub asks about itself.
            me = "hub" if os.environ.get("HOSTNAME", "").startswith("hub-") else "service"
            lacking, whose = self._lacks("", RIGHTS[me]), f"the {me}"
        if lacking:
            text = f"May not, in {self.workloads}: {'; '.join(lacking)}"
            return Finding("rights", BAD, text, _MANIFESTS)
        return Finding("rights", GOOD, f"{whose} may do what is needed in {self.workloads}")

    def _lacks(self, who: str, what: dict[str, tuple[str, ...]]) -> list[str]:
        return [
            f"{verb} {resource}"
            for resource, verbs in what.items()
            for verb in verbs
            if not self._may(who, resource, verb)
        ]

    def _may(self, who: str, resource: str, verb: str) -> bool:
        kind, _, part = resource.partition("/")
        wanted = {"namespace": self.workloads, "resource": kind, "subresource": part, "verb": verb}
        spec: dict[str, Any] = {"resourceAttributes": wanted}
        name = "SelfSubjectAccessReview"
        if who:
            name = "SubjectAccessReview"
            spec["user"] = f"system:serviceaccount:{namespace() or 'kaos'}:{who}"
        question = {"apiVersion": "authorization.k8s.io/v1", "kind": name, "spec": spec}
        method = "create_self_subject_access_review" if not who else "create_subject_access_review"
        return bool(self.ask("AuthorizationV1Api", method, question)["status"].get("allowed"))

    def storage(self) -> list[Finding]:
        """Check where homes come from, and whether bundles are shared."""
        return [self._default_class(), self._trees()]

    def _default_class(self) -> Finding:
        try:
            classes = self.ask("StorageV1Api", "list_storage_class")["items"]
        except KaosError:
            return Finding("storage class", GOOD, "cannot tell: only an administrator may look")
        mark = "storageclass.kubernetes.io/is-default-class"
        named = [c["metadata"]["name"] for c in classes
                 if (c["metadata"].get("annotations") or {}).get(mark) == "true"]  # fmt: skip
        if not named:
            text = "The cluster has no default storage class; claims for homes would wait for ever."
            advice = "Make one the default, or set c.KubeSpawner.storage_class."
            return Finding("storage class", WEAK, text, advice)
        return Finding("storage class", GOOD, f"{', '.join(named)} is the default")

    def _trees(self) -> Finding:
        claim = os.environ.get("KAOS_TREES_CLAIM")
        if not claim:
            text = "None (KAOS_TREES_CLAIM): every pod fetches its bundles for itself."
            advice = "With a ReadWriteMany volume they are laid out once, and there at once."
            return Finding("shared bundles", WEAK, text, advice)
        try:
            found = self.ask(
                "CoreV1Api", "read_namespaced_persistent_volume_claim", claim, self.workloads
            )
        except NotFound:
            return Finding("shared bundles", BAD, f"There is no claim {claim}.", _MANIFESTS)
        phase = found["status"].get("phase")
        if phase != "Bound":
            text = f"The claim {claim} is {phase}, so no notebook with bundles starts."
            return Finding(
                "shared bundles",
                BAD,
                text,
                f"kubectl -n {self.workloads} describe pvc {claim}; it needs ReadWriteMany",
            )
        return Finding("shared bundles", GOOD, f"laid out once, on the claim {claim}")

    def network(self) -> Finding:
        """Check with a pod that what NetworkPolicies forbid is really impossible."""
        name, image = "network policies", os.environ.get("KAOS_RUNTIME_IMAGE")
        if not image:
            text = "Cannot tell whether the cluster enforces them."
            advice = "With KAOS_RUNTIME_IMAGE set, a pod tries it; in the service's pod it is set."
            return Finding(name, WEAK, text, advice)
        open_ways = probe.try_ways(self.workloads, image)
        if open_ways is None:
            text = "Cannot tell whether the cluster enforces them: the pod that tries reached"
            return Finding(name, WEAK, f"{text} not even the service.", "Is it running?")
        if open_ways:
            text = f"Not enforced here: a pod reached {', '.join(open_ways)} all the same."
            advice = (
                "Users' code reaches the cluster's network. Install a network plugin that enforces"
                " NetworkPolicies (Calico, Cilium, …), or trust all users."
            )
            return Finding(name, WEAK, text, advice)
        return Finding(name, GOOD, "enforced: a pod reached the service, and nothing forbidden")


def registry() -> Finding:
    """Check that the registry of users' images answers."""
    name, prefix = "registry", os.environ.get("KAOS_REGISTRY")
    if not prefix:
        text = "None is set (KAOS_REGISTRY), so nothing can be built."
        return Finding(name, WEAK, text, "Notebooks without a source work.")
    host = prefix.split("/")[0]
    problems = []
    context = trusting(Ways(ca=CA))
    for scheme in ("https", "http"):
        try:
            with urlopen(f"{scheme}://{host}/v2/", timeout=10, context=context):  # noqa: S310  of the settings
                return Finding(name, GOOD, f"{host} answers ({scheme})")
        except HTTPError as e:
            if e.code == 401:
                return Finding(name, GOOD, f"{host} answers ({scheme}), and wants a login")
            problems.append(f"{scheme}: HTTP {e.code}")
        except (URLError, OSError) as e:
            problems.append(f"{scheme}: {getattr(e, 'reason', e)}")
    if namespace() is None and re.search(r"\.(svc|local)(:\d+)?$", host):
        text = f"{host} is a name of the cluster's; from here one cannot tell."
        return Finding(name, WEAK, text, "kubectl -n kaos exec deployment/service -- kaos doctor")
    if "CERTIFICATE_VERIFY_FAILED" in problems[0]:
        text = f"The certificate of {host} is not trusted here ({problems[0]})."
        return Finding(name, BAD, text, "Name its CA: docs/howto/private-registry.md")
    return Finding(name, BAD, f"{host} does not answer ({'; '.join(problems)}).")


def parts() -> list[Finding]:
    """Hub and service, from a pod of theirs."""
    where = namespace()
    if where is None:
        text = "to look at Hub and service from inside:"
        advice = "kubectl -n kaos exec deployment/service -- kaos doctor"
        return [Finding("inside", GOOD, f"{text} {advice}")]
    at = in_cluster(where)
    ways = {"hub": f"{at.hub_pages}/health", "service": f"{at.inside}/health"}
    return [_answers(name, url, where) for name, url in ways.items()]


def _answers(name: str, url: str, where: str) -> Finding:
    try:
        with urlopen(url, timeout=10):  # noqa: S310  ours
            return Finding(name, GOOD, f"answers at {url}")
    except (URLError, OSError) as e:
        advice = f"kubectl -n {where} logs deployment/{name}"
        return Finding(name, BAD, f"does not answer at {url}: {e}", advice)
