"""The chart: what it renders to, what that allows, what it does not. Needs no cluster."""

import json
import re
from typing import Any

import pytest

from kaos_hub.installation import addresses
from tests.chart import CHART, Machine, Pod, may_talk, of_kind, one, rendered
from tests.hub import ROOT

COMPONENTS = ("hub", "proxy", "service")

# In Kubernetes 1.20 as well as in 1.36.
VERSIONS = {
    "Namespace": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "ResourceQuota": "v1",
    "LimitRange": "v1",
    "Secret": "v1",
    "Pod": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",  # before 1.21 it is another
    "NetworkPolicy": "networking.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}
RIGHTS = {
    "kaos-hub": {
        "pods": {"create", "delete", "list", "watch"},
        "events": {"list", "watch"},
        "persistentvolumeclaims": {"create", "get"},
    },
    "kaos-service": {
        "pods": {"create", "delete", "get", "list", "patch", "watch"},
        "pods/log": {"get"},
        "secrets": {"create", "delete"},
        "persistentvolumeclaims": {"create", "delete", "get"},
    },
}
SECRETS = {
    "hub": {
        "admission", "cookie", "metrics", "password", "proxy", "service", "service-train",
        "users-password",
    },
    "proxy": {"proxy"},
    "service": {"admission", "metrics", "service", "service-cookie", "service-train", "tickets"},
}  # fmt: skip


def pod_of(component: str) -> dict[str, Any]:
    """The pod's spec of a component."""
    return dict(one("Deployment", component, "kaos")["spec"]["template"]["spec"])


def test_every_object_is_of_a_version_that_all_clusters_have():
    for thing in rendered():
        assert thing["apiVersion"] == VERSIONS[thing["kind"]], thing["metadata"]["name"]
        if thing["kind"] != "Namespace":
            assert thing["metadata"]["namespace"] in ("kaos", "kaos-workloads")


def test_nothing_is_there_twice():
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in rendered()]
    assert len(keys) == len(set(keys))


def test_folders_look_alike():
    templates = CHART / "templates"
    shared = {"access.yaml", "deployment.yaml", "disruption.yaml", "network.yaml", "service.yaml"}
    for component in COMPONENTS:
        names = {p.name for p in (templates / component).iterdir()}
        assert names - {"ingress.yaml", "monitor.yaml", "storage.yaml"} == shared


# --- rights ---


def test_roles_are_exactly_those():
    assert {role["metadata"]["name"] for role in of_kind("Role")} == set(RIGHTS)
    for role in of_kind("Role"):
        assert role["metadata"]["namespace"] == "kaos-workloads"
        granted: dict[str, set[str]] = {}
        for rule in role["rules"]:
            assert rule["apiGroups"] == [""] and set(rule) == {"apiGroups", "resources", "verbs"}
            for resource in rule["resources"]:
                granted.setdefault(resource, set()).update(rule["verbs"])
        assert granted == RIGHTS[role["metadata"]["name"]]


def test_each_role_is_given_to_one_account():
    given = {
        binding["roleRef"]["name"]: [(s["kind"], s["namespace"], s["name"]) for s in subjects]
        for binding in of_kind("RoleBinding")
        for subjects in [binding["subjects"]]
    }
    assert given == {
        "kaos-hub": [("ServiceAccount", "kaos", "hub")],
        "kaos-service": [("ServiceAccount", "kaos", "service")],
    }


def test_only_hub_and_service_get_a_token():
    assert [c for c in COMPONENTS if pod_of(c)["automountServiceAccountToken"]] == [
        "hub",
        "service",
    ]
    for account in of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_secrets_are_with_those_who_need_them():
    for component in COMPONENTS:
        volumes = pod_of(component)["volumes"]
        (secrets,) = [v["projected"]["sources"] for v in volumes if v["name"] == "secrets"]
        others = {v["name"] for v in volumes if "secret" in v}
        assert others == (set() if component == "proxy" else {"config"})
        (secret,) = [source["secret"] for source in secrets]
        assert {item["path"] for item in secret["items"]} == SECRETS[component]
        assert all(item["path"] == item["key"] for item in secret["items"])
        assert "secretKeyRef" not in json.dumps(pod_of(component))


# --- pods ---


def restricted(pod: dict[str, Any]) -> bool:
    """What Pod Security's `restricted` asks for, and a read-only root file system."""
    ours = pod["securityContext"]
    assert ours["runAsNonRoot"] is True and ours["runAsUser"] == 1000
    assert ours["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    kinds = {next(k for k in v if k != "name") for v in pod["volumes"]}
    return kinds <= {"secret", "configMap", "emptyDir", "persistentVolumeClaim", "projected"}


@pytest.mark.parametrize("component", COMPONENTS)
def test_pods_are_restricted_bounded_and_probed(component):
    pod, deployment = pod_of(component), one("Deployment", component, "kaos")
    assert restricted(pod)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1
    (container,) = pod["containers"]
    assert {"livenessProbe", "readinessProbe"} <= set(container)
    # without, a Hub that is told to end while it starts does not for a minute
    assert pod["shareProcessNamespace"] is True
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_images_are_pinned():
    from kaos_hub import __version__

    (settings,) = [o["data"] for o in of_kind("ConfigMap") if "KAOS_HUB_IMAGE" in o["data"]]
    images = {v for k, v in settings.items() if k.endswith("_IMAGE")}
    assert len(images) == 4
    assert {i.rpartition(":")[2] for i in images} == {__version__}
    for component in COMPONENTS:
        assert pod_of(component)["containers"][0]["image"] == settings["KAOS_HUB_IMAGE"]
    assert "latest" not in json.dumps(rendered())


def test_commands_are_of_the_image():
    dockerfile = (ROOT / "images/hub/Dockerfile").read_text()
    for component in COMPONENTS:
        (container,) = pod_of(component)["containers"]
        program = container["command"][0]
        assert program == "/opt/kaos-hub/bin/python"
        for word in container["command"]:
            if "/etc/" in word:
                assert word.removeprefix("--config=") in dockerfile


def test_ports_are_those_of_the_addresses():
    at = addresses.in_cluster("kaos")
    for url in (at.hub, at.service, at.admission, at.proxy_api):
        host, port = re.fullmatch(r"http://([\w-]+)\.kaos:(\d+)", url).groups()
        service = one("Service", host, "kaos")["spec"]
        (found,) = service["ports"]
        assert found["port"] == int(port)
        component = service["selector"]["app.kubernetes.io/component"]
        ports = {p["name"]: p for p in pod_of(component)["containers"][0]["ports"]}
        assert ports[found["targetPort"]]["containerPort"] == int(port)
        assert found["protocol"] == "TCP"  # needed by server-side apply in 1.20


def test_claims():
    modes = {
        o["metadata"]["name"]: o["spec"]["accessModes"] for o in of_kind("PersistentVolumeClaim")
    }
    assert modes == {
        "hub": ["ReadWriteOnce"],
        "service": ["ReadWriteOnce"],
        "kaos-trees": ["ReadWriteMany"],
    }


def test_the_namespace_of_workloads():
    (namespace,) = of_kind("Namespace")
    labels = namespace["metadata"]["labels"]
    assert namespace["metadata"]["name"] == labels["kubernetes.io/metadata.name"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"


# --- the network ---

HUB, PROXY, SERVICE = (
    Pod("kaos", {"app.kubernetes.io/part-of": "kaos-hub", "app.kubernetes.io/component": name})
    for name in COMPONENTS
)
NOTEBOOK, BUILD, LAYING_OUT, TRAINING, INGEST = (
    Pod("kaos-workloads", {"kaos-hub.io/kind": kind})
    for kind in ("notebook", "build", "materialise", "train", "ingest")
)
STRANGER = Pod("kaos-workloads")
METADATA, NODE, INTERNET = (
    Machine(a) for a in ("169.254.169.254", "192.168.1.10", "151.101.0.223")
)
WORKLOADS = (NOTEBOOK, BUILD, LAYING_OUT, TRAINING, INGEST)


@pytest.mark.parametrize("sender", [PROXY, SERVICE, *WORKLOADS, STRANGER, INTERNET, NODE])
def test_only_the_hub_reaches_admission_and_proxy_api(sender):
    assert not may_talk(sender, SERVICE, 8090)
    assert not may_talk(sender, PROXY, 8001)
    assert may_talk(HUB, SERVICE, 8090) and may_talk(HUB, PROXY, 8001)


@pytest.mark.parametrize("sender", [SERVICE, *WORKLOADS, STRANGER, INTERNET, NODE])
def test_only_proxy_and_hub_reach_notebooks(sender):
    assert not may_talk(sender, NOTEBOOK, 8888)
    assert may_talk(PROXY, NOTEBOOK, 8888) and may_talk(HUB, NOTEBOOK, 8888)
    assert not may_talk(PROXY, NOTEBOOK, 22)


@pytest.mark.parametrize("receiver", [BUILD, LAYING_OUT, TRAINING, INGEST, STRANGER])
@pytest.mark.parametrize("sender", [HUB, PROXY, SERVICE, NOTEBOOK, INTERNET])
def test_nobody_reaches_other_workloads(sender, receiver):
    assert not may_talk(sender, receiver, 8888)


def test_people_reach_the_proxy_and_it_what_it_has_routes_to():
    assert may_talk(INTERNET, PROXY, 8000) and may_talk(NODE, PROXY, 8000)
    assert may_talk(PROXY, HUB, 8081) and may_talk(PROXY, SERVICE, 8080)
    assert not may_talk(PROXY, INTERNET, 443) and not may_talk(PROXY, METADATA, 80)
    for sender in (INTERNET, NODE):
        assert not may_talk(sender, HUB, 8081) and not may_talk(sender, SERVICE, 8080)


def test_hub_and_service_reach_each_other_and_the_cluster():
    assert may_talk(HUB, SERVICE, 8080) and may_talk(SERVICE, HUB, 8081)
    for sender in (HUB, SERVICE):
        assert may_talk(sender, NODE, 6443), "the cluster's API has no address known beforehand"


@pytest.mark.parametrize("sender", WORKLOADS)
def test_workloads_reach_the_service_and_names_and_nothing_private(sender):
    assert may_talk(sender, SERVICE, 8080)
    assert may_talk(sender, NODE, 53, tcp=False)
    assert not may_talk(sender, METADATA, 80)
    private = ("10.96.0.1", "10.244.0.9", "172.17.0.1", "192.168.1.10", "100.100.100.200")
    for address in (*private, "127.0.0.1", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1"):
        assert not may_talk(sender, Machine(address), 443), address
    assert may_talk(sender, HUB, 8081) is (sender is NOTEBOOK)
    assert not may_talk(sender, PROXY, 8001)


@pytest.mark.parametrize("sender", WORKLOADS)
@pytest.mark.parametrize("address", ["151.101.0.223", "2a04:4e42::223"])
def test_users_code_reaches_the_internet(sender, address):
    assert may_talk(sender, Machine(address), 443) is (sender is not LAYING_OUT)


def test_strangers_in_the_namespace_reach_nothing():
    for receiver in (HUB, SERVICE, INTERNET, METADATA):
        assert not may_talk(STRANGER, receiver, 80)
    assert not may_talk(STRANGER, NODE, 53, tcp=False)
