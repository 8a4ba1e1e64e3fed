"""The plain manifests: what they render to, what they allow, what they don't. Needs no cluster."""

import json
import re
import sys
from typing import Any

import pytest

from kaos_hub import addresses
from tests.hub import ROOT
from tests.manifests import Machine, Pod, may_talk, of_kind, one, rendered

PLAIN = ROOT / "helm/plain"
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
    "Deployment": "apps/v1",
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
        "admission", "cookie", "password", "proxy", "service", "service-train", "users-password",
    },
    "proxy": {"proxy"},
    "service": {"admission", "service", "service-cookie", "service-train", "tickets"},
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


def test_every_file_is_used_and_folders_look_alike():
    for component in COMPONENTS:
        names = {p.name for p in (PLAIN / component).iterdir()}
        most = {"access.yaml", "deployment.yaml", "kustomization.yaml", "network.yaml"}
        assert names - {"storage.yaml"} == most | {"service.yaml"}
    for folder in [PLAIN, *(p for p in PLAIN.iterdir() if p.is_dir())]:
        text = (folder / "kustomization.yaml").read_text()
        for path in folder.glob("*.yaml"):
            assert path.name == "kustomization.yaml" or path.name in text, path


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
        (secret,) = [v["secret"] for v in volumes if v["name"] == "secrets"]
        others = {v["name"] for v in volumes if "secret" in v} - {"secrets"}
        assert others == ({"registry"} if component == "service" else set())
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
    return kinds <= {"secret", "configMap", "emptyDir", "persistentVolumeClaim"}


@pytest.mark.parametrize("component", COMPONENTS)
def test_pods_are_restricted_bounded_and_probed(component):
    pod, deployment = pod_of(component), one("Deployment", component, "kaos")
    assert restricted(pod)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1
    (container,) = pod["containers"]
    assert {"livenessProbe", "readinessProbe"} <= set(container)
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
        assert program == "jupyterhub" or program == "/opt/kaos-hub/bin/python"
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


def test_namespaces_enforce_pod_security():
    enforced = {
        o["metadata"]["name"]: o["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for o in of_kind("Namespace")
    }
    assert enforced == {"kaos": "restricted", "kaos-workloads": "privileged"}


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


# --- bring_up fills in ---


def test_filled_in_for_a_local_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "helm"), *sys.path])
    import bring_up

    monkeypatch.setattr(bring_up, "FILLED", tmp_path / "filled")
    monkeypatch.setattr(bring_up, "IMAGES", tmp_path / "images.env")
    digest = "sha256:" + "a" * 64
    (tmp_path / "images.env").write_text(f"KAOS_HUB_IMAGE=here:5000/kaos-hub/hub@{digest}\n")
    registry = bring_up.Registry("here:5000", "inside:5000", (("10.0.0.1", 5000),))
    bring_up.fill_in(registry, "http://10.1.1.1:30000")
    said = bring_up.kubectl("kustomize", tmp_path / "filled")
    assert f"image: here:5000/kaos-hub/hub@{digest}" in said
    assert "type: NodePort" in said and "KAOS_PUBLIC_URL: http://10.1.1.1:30000" in said
    assert "cidr: 10.0.0.1/32" in said and "KAOS_REGISTRY: inside:5000/kaos-users" in said
    assert "insecure_registries = ['inside:5000']" in said


def test_make_secrets_names_all_of_them():
    text = (PLAIN / "make-secrets").read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("for name in")]
    named = set(line.removeprefix("for name in ").removesuffix("; do").split())
    assert named == set().union(*SECRETS.values())
