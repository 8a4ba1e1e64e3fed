"""A Hub with kaos_hub beside a cluster, whose pods are in a namespace of their own."""

import json
from typing import Any

from benchmarks.harness import Report, output
from tests.cluster import kubectl
from tests.engine_cluster import options
from tests.pods import this_machine, why_not

HOSTNAME = "kubernetes.io/hostname"


def skipped(report: Report) -> bool:
    """Whether nothing can be measured for want of a cluster; if it can, the report says of which
    version."""
    if why_not():
        report.skip("kubernetes", why_not())
        return True
    said = json.loads(output("kubectl", "version", "-o", "json"))
    report.versions["Kubernetes"] = said["serverVersion"]["gitVersion"].lstrip("v")
    return False


def node() -> str:
    """One node, on which all contestants run."""
    found = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]
    return str(found["metadata"]["labels"][HOSTNAME])


def engine_options(namespace: str, url: str, **traits: Any) -> dict[str, Any]:
    """Settings of an engine `kubernetes` with pods in a namespace, all on :func:`node`.

    Args:
        namespace: where they are.
        url: of the service, as pods reach it.
        traits: what is to be otherwise than in tests.
    """
    return options(namespace, url) | {"node_selector": {HOSTNAME: node()}} | traits


def hub_options(namespace: str, **traits: Any) -> dict[str, Any]:
    """What a :class:`tests.hub.RunningHub` needs to do the same."""
    settings = engine_options(namespace, "", **traits)
    del settings["service_url"]  # it knows its own
    spawner = {
        "namespace": namespace,
        "runtime_image": settings["runtime_image"],
        "node_selector": settings["node_selector"],
        "storage_capacity": "1Mi",
        # So that there is room for it beside whatever else runs on the node.
        "cpu_guarantee": 0.05,
        "mem_guarantee": "64M",
    }
    parts = {"KubernetesEngine": settings, "KaosKubeSpawner": spawner}
    lines = [f"c.{part}.{k} = {v!r}\n" for part, each in parts.items() for k, v in each.items()]
    return {"config": "".join(lines), "environment": {"KAOS_BRIDGE": this_machine()}}
