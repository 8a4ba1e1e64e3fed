"""A Hub as zero-to-jupyterhub's chart makes one, to which our values for that chart are applied.

That chart itself cannot be had everywhere. What is here does what it does as far as it concerns us:
the names and labels of Hub and proxy, where it mounts what, and how its configuration is read, with
`hub.config` before `hub.extraConfig`. Its image is ours, as our values want it.
"""

import json
from typing import Any

import yaml

from tests.hub import ROOT

VALUES = ROOT / "helm/beside-zero-to-jupyterhub.yaml"

CONFIG = """
import json, os

c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.JupyterHub.authenticator_class = "dummy"
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.ConfigurableHTTPProxy.should_start = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"
c.KubeSpawner.common_labels = {"app": "jupyterhub", "heritage": "jupyterhub"}
c.KubeSpawner.namespace = os.environ["POD_NAMESPACE"]
c.KubeSpawner.extra_labels = {"hub.jupyter.org/network-access-hub": "true"}
c.KubeSpawner.image = "quay.io/jupyterhub/k8s-singleuser-sample:4.0.0"
c.KubeSpawner.allow_privilege_escalation = False
c.KubeSpawner.start_timeout = 300
c.KubeSpawner.volumes.extend([])
c.JupyterHub.services = [{"name": "theirs", "api_token": "of-somebody-else"}]
c.JupyterHub.load_roles = []
c.JupyterHub.cookie_secret = "ab" * 32
with open("/etc/theirs/values.json") as file:
    values = json.load(file)
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}
for app, settings in values["config"].items():
    c[app].update(settings)
for name, text in sorted(values["extraConfig"].items()):
    exec(text)
"""


def _listed(variables: dict[str, Any]) -> list[dict[str, Any]]:
    """Variables as that chart takes them → as a pod does."""
    return [
        {"name": k, **(v if isinstance(v, dict) else {"value": v})} for k, v in variables.items()
    ]


def _pod(component: str, container: dict[str, Any], volumes: list[dict[str, Any]]) -> Any:
    labels = {"app": "jupyterhub", "component": component}
    spec = {
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
        "containers": [{"name": component, **container}],
        "volumes": volumes,
        "serviceAccountName": "hub" if component == "hub" else "default",
        "terminationGracePeriodSeconds": 5,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": component},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _service(name: str, component: str, port: int, to: int, node: int | None = None) -> Any:
    ports: list[Any] = [{"name": "http", "protocol": "TCP", "port": port, "targetPort": to}]
    ports[0] |= {"nodePort": node} if node else {}
    kind = "NodePort" if node else "ClusterIP"
    spec = {"type": kind, "selector": {"app": "jupyterhub", "component": component}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def manifests(values: dict[str, Any], url: str) -> str:
    """All objects of the Hub and its proxy, as JSON for kubectl.

    Args:
        values: those of our chart, for the image.
        url: where people are to reach it, at a port of a node.
    """
    image, port = values["image"]["hub"], int(url.rpartition(":")[2])
    hub = yaml.safe_load(VALUES.read_text())["hub"]
    token = {"secretKeyRef": {"name": "kaos", "key": "proxy"}}
    here = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    theirs = {"POD_NAMESPACE": {"valueFrom": here}, "CONFIGPROXY_AUTH_TOKEN": {"valueFrom": token}}
    files = {"config.py": CONFIG, "values.json": json.dumps(hub)}
    named = {"name": "theirs", "configMap": {"name": "theirs"}}
    data = {"name": "srv", "emptyDir": {}}
    resources = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    run_hub = {
        "image": image,
        "args": ["jupyterhub", "--config", "/etc/theirs/config.py", "--upgrade-db"],
        "env": _listed(theirs | hub["extraEnv"]),
        "resources": resources,
        "readinessProbe": {"httpGet": {"path": "/hub/health", "port": 8081}, "periodSeconds": 2},
        "volumeMounts": [
            {"name": "theirs", "mountPath": "/etc/theirs"},
            {"name": "srv", "mountPath": "/srv/jupyterhub"},
            *hub["extraVolumeMounts"],
        ],
    }
    secret = {"secretName": "kaos", "items": [{"key": "proxy", "path": "proxy"}]}
    run_proxy = {
        "image": image,
        "args": ["/opt/kaos-hub/bin/python", "-m", "kaos_hub.deployment.proxy"],
        "env": _listed(
            {"KAOS_NAMESPACE": {"valueFrom": here}, "KAOS_SECRETS_DIR": "/run/kaos/secrets"}
        ),
        "resources": resources,
        "volumeMounts": [{"name": "secrets", "mountPath": "/run/kaos/secrets"}],
    }
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hub"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": files},
        _service("hub", "hub", 8081, 8081),
        _service("proxy-api", "proxy", 8001, 8001),
        _service("proxy-public", "proxy", 80, 8000, port),
        _pod("hub", run_hub, [named, data, *hub["extraVolumes"]]),
        _pod("proxy", run_proxy, [{"name": "secrets", "secret": secret}]),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
