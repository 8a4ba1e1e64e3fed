"""A pod that tries what NetworkPolicies forbid: only that shows whether a cluster enforces them."""

import json
import secrets
import time
from typing import Any

from kaos_hub.errors import EngineUnavailable
from kaos_hub.installation.addresses import SERVICE_PORT, namespace

_PATIENCE = 90.0
"""Seconds until the pod must have started and ended; an image may have to be pulled first."""

_TRY = """
import json, os, socket

def open_way(host, port):
    try:
        socket.create_connection((host, port), timeout=4).close()
    except OSError:
        return False
    return True

service, port = os.environ["SERVICE"].split(":")
ways = {
    "the service": (service, int(port)),
    "the cluster's API": (os.environ["KUBERNETES_SERVICE_HOST"], 443),
    "the metadata address of clouds": ("169.254.169.254", 80),
    "its node": (os.environ["NODE"], 10250),
}
found = [name for name, way in ways.items() if open_way(*way)]
open("/dev/termination-log", "w").write(json.dumps(found))
"""


def try_ways(workloads: str, image: str) -> list[str] | None:
    """Return what a pod reaches besides the service, which alone it may; None if not even that.

    Args:
        workloads: the namespace of workloads.
        image: the runtime's, whose Python tries it.

    Raises:
        EngineUnavailable: the pod could not be made, or did not end.
    """
    from kaos_hub.engines.kubernetes.api import Api

    api, name = Api(workloads), f"kaos-doctor-{secrets.token_hex(4)}"
    try:
        api.create_pod(_pod(name, image))
        try:
            reached = _wait(api, name)
        finally:
            api.delete_pod(name, 0)
    finally:
        api.close()
    if "the service" not in reached:
        return None
    return [way for way in reached if way != "the service"]


def _wait(api: Any, name: str) -> list[str]:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        status = (api.pod(name) or {}).get("status", {})
        if status.get("phase") in ("Succeeded", "Failed"):
            (container,) = status["containerStatuses"]
            ended = container["state"]["terminated"]
            if ended["exitCode"]:
                raise EngineUnavailable(f"The pod that tries the network failed: {ended}")
            return list(json.loads(ended["message"]))
        time.sleep(0.5)
    raise EngineUnavailable(f"The pod that tries the network did not end within {_PATIENCE:.0f} s")


def _pod(name: str, image: str) -> dict[str, Any]:
    """A pod with the rights of one that lays a bundle out: the service, and nothing else."""
    environment = [
        {"name": "SERVICE", "value": f"service.{namespace() or 'kaos'}:{SERVICE_PORT}"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
    ]
    container = {
        "name": "try",
        "image": image,
        "command": ["/opt/kaos/bin/python", "-I", "-c", _TRY],
        "env": environment,
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    labels = {"app.kubernetes.io/managed-by": "kaos-hub", "kaos-hub.io/kind": "materialise"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(_PATIENCE),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }
