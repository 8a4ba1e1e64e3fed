"""The small things around pods: labels, claims, secrets, settings of programs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kaos_hub.engines.builder_environment import BUILDER_UID
from kaos_hub.engines.kubernetes.seen import PREFIX, WORKLOAD

Object = dict[str, Any]

MANAGED = {"app.kubernetes.io/managed-by": "kaos-hub"}
LAID = f"{PREFIX}/laid-out"
"""Annotation: what a pod lays out on the shared claim…"""
CLAIM = f"{PREFIX}/claim"
"""…and the uid of that claim."""


def owner_hash(owner: str) -> str:
    """An owner as part of a name: the same always, and legal whatever the owner is called."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def labels(name: str, kind: str, owner: str = "") -> dict[str, str]:
    """The labels of everything that belongs to a workload."""
    found = {**MANAGED, WORKLOAD: name, f"{PREFIX}/kind": kind}
    return found | ({f"{PREFIX}/owner": owner_hash(owner)} if owner else {})


def cache_claim(owner: str) -> str:
    """The claim with the cache of an owner's builds."""
    return f"kaos-cache-{owner_hash(owner)}"


def builder_context(profile: str) -> Object:
    """Return the security context of the step that builds.

    Args:
        profile: the seccomp profile on the nodes; empty: the step is unconfined.
    """
    confined = {"type": "Localhost", "localhostProfile": profile}
    return {
        "runAsUser": BUILDER_UID,
        "runAsGroup": BUILDER_UID,
        "runAsNonRoot": True,
        # Else the kernel would ignore the capabilities of newuidmap.
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]},
        # The default profile forbids to make a user namespace.
        "seccompProfile": confined if profile else {"type": "Unconfined"},
    }


def claim(name: str, size: int, labels: Mapping[str, str]) -> Object:
    """A claim of the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {**MANAGED, **labels}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(size)}},
        },
    }


def volume(name: str, size: int, owner: str, storage_class: str, shared: bool) -> Object:
    """The claim of a named volume."""
    found = claim(name, size, {f"{PREFIX}/kind": "volume", f"{PREFIX}/owner": owner_hash(owner)})
    found["spec"]["accessModes"] = ["ReadWriteMany" if shared else "ReadWriteOnce"]
    if storage_class:
        found["spec"]["storageClassName"] = storage_class
    return found


def secret(name: str, ticket: str, kind: str, pod: Object | None = None) -> Object:
    """The secret with a workload's ticket; it goes with the pod, if there is one already."""
    metadata: Object = {"name": name, "labels": labels(name, kind)}
    if pod is not None:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
        ]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata,
        "stringData": {"ticket": ticket},
    }


def registries_conf(mirrors: Mapping[str, str], insecure: Sequence[str]) -> str:
    """Return the builder's configuration (``registries.conf``) of how it reaches registries."""
    parts = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "disabled"']
    for registry in dict.fromkeys([*mirrors, *insecure]):
        parts += [
            "[[registry]]",
            f"prefix = {_quoted(registry)}",
            f"location = {_quoted(registry)}",
        ]
        parts.append(f"insecure = {str(registry in insecure).lower()}")
        if registry in mirrors:
            host = mirrors[registry].partition("/")[0]
            parts += ["[[registry.mirror]]", f"location = {_quoted(mirrors[registry])}"]
            parts.append(f"insecure = {str(host in insecure).lower()}")
    return "\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)
