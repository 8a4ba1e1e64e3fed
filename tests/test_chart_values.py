"""The chart over a matrix of values: what each changes, and what is refused with which words."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from kaos_hub import __version__
from kaos_hub.installation.datadir import DataDir
from tests.chart import CHART, IMAGES, Object, objects, texts
from tests.hub import ROOT

GOLDEN = Path(__file__).parent / "golden/chart"
MATRIX: dict[str, Object] = {
    "least": {},
    "beside": {"hub": {"enabled": False}, "publicUrl": "https://hub.example.org"},
    "ingress": {"ingress": {"enabled": True, "host": "hub.example.org", "tlsSecret": "tls"}},
    "path": {
        "publicUrl": "https://example.org/jupyter/",
        "ingress": {"enabled": True, "host": "example.org", "tlsSecret": "tls"},
        "proxy": {"trusted": ["10.8.0.0/16", "controller.ingress"]},
    },
    "domains": {
        "ingress": {"enabled": True, "host": "hub.example.org", "tlsSecret": "tls"},
        "wildcardHost": "*.hub.example.org",
    },
    "outside": {
        "database": {"secret": "urls"},
        "store": {"url": "s3://bucket/kaos", "secret": "s3"},
        "service": {"accountAnnotations": {"eks.amazonaws.com/role-arn": "arn:x"}},
        "storage": {"class": "block", "trees": {"enabled": False}},
    },
    "registry": {
        "registry": {
            "url": "r/users", "pullUrl": "n/users", "pushSecret": "push", "baseSecret": "bases",
            "pullSecrets": ["pull"], "loginSecret": "login", "caConfigMap": "ca",
            "insecure": ["r:5000"], "mirrors": {"docker.io": "m:5000"},
        },
        "image": {"registry": "r/kaos-hub", "pullSecrets": ["mine"]},
        "network": {
            "buildsReach": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}],
            "codeReaches": [{"to": [{"ipBlock": {"cidr": "10.4.5.6/32"}}]}],
        },
    },
    "doors": {
        "config": {"KaosService": {"limits": {"default": {"notebooks": 5}}}},
        "extraConfig": {"mine": "c.KubeSpawner.uid = 5\n"},
        "hub": {
            "config": {"JupyterHub": {"authenticator_class": "github"}},
            "extraConfig": {"theirs": "c.JupyterHub.port = 1\n"},
            "extraEnv": [{"name": "A", "value": "b"}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        },
        "monitoring": {"enabled": False, "from": [{"podSelector": {}}]},
        "disruption": {"maxUnavailable": 0},
        "workloads": {"namespace": "theirs", "createNamespace": False, "quota": {}},
        "proxy": {"service": {"type": "NodePort", "nodePort": 30080}},
        "keepData": False,
    },
}  # fmt: skip


def stable(text: str) -> str:
    """Without what is random, or follows from all of the rest."""
    text = re.sub(r"(checksum/\w+): \w+", r"\1: …", text)
    return re.sub(r"(?m)^(  [\w-]+): [A-Za-z0-9+/=]{40,}$", r"\1: …", text)


def summary(values: Object) -> str:
    """What an install with these values would be, as one text."""
    parts = []
    for path, text in sorted(texts(values).items()):
        if path.endswith((".yaml", ".txt")) and text.strip():
            parts.append(f"# {path.removeprefix('kaos-hub/templates/')}\n{text.strip()}\n")
    return stable("\n".join(parts))


def difference(name: str) -> str:
    """What is other than with the least values; the whole text for those."""
    import difflib

    least, this = summary({}).splitlines(), summary(MATRIX[name]).splitlines()
    if name == "least":
        return "\n".join(this) + "\n"
    lines = difflib.unified_diff(least, this, "least", name, n=1, lineterm="")
    return "\n".join(line.rstrip() for line in lines if not line.startswith("@@")) + "\n"


@pytest.mark.parametrize("name", MATRIX)
def test_it_renders_to_what_it_did(name: str) -> None:
    """What changes on purpose is written anew by `python -m tests.test_chart_values`."""
    assert difference(name) == (GOLDEN / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("name", MATRIX)
def test_it_is_sound(name: str) -> None:
    report = helm_python.lint(CHART, IMAGES | MATRIX[name], strict=True, namespace="kaos")
    assert not report["errors"], report
    assert [m["error"] for m in report["messages"]] == ["icon is recommended"]
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
            for o in objects(MATRIX[name])]  # fmt: skip
    assert len(keys) == len(set(keys))


def test_chart_and_images_are_of_one_version() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__


# --- mistakes ---


def refused(values: Object) -> str:
    """What the admin reads."""
    with pytest.raises(helm_python.HelmError) as said:
        texts(values)
    return str(said.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hubb": {}}, "additional properties 'hubb' not allowed"),
        ({"hub": {"extraVolume": []}}, "at '/hub': additional properties 'extraVolume'"),
        ({"registry": {"URL": "x"}}, "additional properties 'URL' not allowed"),
        ({"proxy": {"service": {"type": "nodePort"}}}, "must be one of 'ClusterIP', 'NodePort'"),
        ({"proxy": {"service": {"nodePort": "30080"}}}, "/proxy/service/nodePort"),
        ({"config": {"limits": {}}}, "at '/config': additional properties 'limits' not allowed"),
        ({"publicUrl": "hub.example.org"}, "at '/publicUrl'"),
        ({"publicUrl": "https://example.org/a?b"}, "at '/publicUrl'"),
        ({"publicUrl": "https://example.org/a/hub"}, 'the path of the hub has "hub" in it'),
        ({"proxy": {"trusted": ["10.0.0.0/8 "]}}, "at '/proxy/trusted/0'"),
        ({"storage": {"hub": "a lot"}}, "at '/storage/hub'"),
        ({"image": {"registry": ""}}, "image.registry says nothing of where the images are"),
        ({"ingress": {"enabled": True}}, "ingress.enabled without ingress.host"),
        ({"proxy": {"service": {"nodePort": 30080}}}, "only with proxy.service.type=NodePort"),
        ({"workloads": {"namespace": "kaos"}}, "users' pods must not be beside the Hub's"),
        ({"hub": {"enabled": False}}, "hub.enabled=false without publicUrl"),
        ({"store": {"secret": "s3"}}, "only with a store.url that begins with s3://"),
    ],
)
def test_mistakes_are_said(values: Object, said: str) -> None:
    assert said in refused(values)


def test_a_cluster_without_the_prometheus_operator_is_told() -> None:
    """Rendered without a cluster nothing can be known of it; it is looked at where Helm can."""
    found = [o for o in objects({"monitoring": {"enabled": True}}) if o["kind"] == "ServiceMonitor"]
    assert {o["metadata"]["name"] for o in found} == {"kaos-hub", "kaos-service"}
    secrets = [e["authorization"]["credentials"] for o in found for e in o["spec"]["endpoints"]]
    assert secrets == [{"name": "kaos", "key": "metrics"}] * 2


def test_all_values_are_in_schema_and_reference() -> None:
    """Each value has a default and a description, and none is missing from the page."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    page = (ROOT / "docs/reference/chart.md").read_text()

    def look(defaults: Any, part: dict[str, Any], path: str) -> None:
        assert part.get("description"), path
        if "properties" not in part or path.endswith(".resources"):
            assert f"`{path}`" in page or f"\n## {path}\n" in page, path
            return
        assert part["additionalProperties"] is False, path
        assert set(defaults) == set(part["properties"]) - {"global"}, path
        for name in defaults:
            look(defaults[name], part["properties"][name], f"{path}.{name}".lstrip("."))

    assert schema["additionalProperties"] is False
    look(yaml.safe_load((CHART / "values.yaml").read_text()), schema | {"description": "all"}, "")


# --- what it does with values ---


def pod(values: Object, component: str) -> Object:
    """The pod's template of a component."""
    (found,) = [o for o in objects(values)
                if o["kind"] == "Deployment" and o["metadata"]["name"] == component]  # fmt: skip
    return dict(found["spec"]["template"])


def test_only_what_reads_a_change_restarts() -> None:
    def sums(values: Object) -> dict[str, str]:
        return {c: pod(values, c)["metadata"]["annotations"].get("checksum/config", "")
                for c in ("hub", "service", "proxy")}  # fmt: skip

    before = sums({})
    both = sums({"config": {"KaosService": {"max_builds": 3}}})
    hub = sums({"hub": {"config": {"JupyterHub": {"authenticator_class": "github"}}}})
    assert both["hub"] != before["hub"] and both["service"] != before["service"]
    assert hub["hub"] != before["hub"] and hub["service"] == before["service"]
    assert before["proxy"] == both["proxy"] == hub["proxy"] == ""


def test_secrets_are_good_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    def made() -> dict[str, str]:
        (one,) = [o for o in objects() if o["kind"] == "Secret" and o["metadata"]["name"] == "kaos"]
        assert one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        return {name: base64.b64decode(v).decode() for name, v in one["data"].items()}

    first, second = made(), made()
    assert first.keys() == second.keys() and len(first) == 10
    for name, value in first.items():
        assert value != second[name]
        shape = (
            r"([a-km-np-z2-9]{4}-){7}[a-km-np-z2-9]{4}" if "password" in name else "[0-9a-f]{64}"
        )
        assert re.fullmatch(shape, value), name
    assert len(set(first.values())) == len(first)
    for name, value in first.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("KAOS_SECRETS_DIR", str(tmp_path))
    assert DataDir(tmp_path / "data").secret("cookie") == first["cookie"]


def test_a_path_is_everywhere_that_one_asks() -> None:
    """With a path in publicUrl all that is asked of Hub and service is asked below it."""
    values = MATRIX["path"]
    probes = {
        probe["httpGet"]["path"]
        for component in ("hub", "service")
        for container in pod(values, component)["spec"]["containers"]
        for name, probe in container.items()
        if name.endswith("Probe") and "httpGet" in probe
    }
    assert probes == {"/jupyter/hub/health", "/jupyter/services/kaos/health"}
    (ingress,) = [o for o in objects(values) if o["kind"] == "Ingress"]
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/jupyter"
    settings = {o["metadata"]["name"]: o["data"] for o in objects(values)
                if o["kind"] == "ConfigMap" and "data" in o}["settings"]  # fmt: skip
    assert settings["KAOS_PUBLIC_URL"] == "https://example.org/jupyter"
    domains = {"publicUrl": "https://example.org/jupyter", "wildcardHost": "*.example.org"}
    (settings,) = [o["data"] for o in objects(domains)
                   if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "settings"]  # fmt: skip
    assert settings["KAOS_SUBDOMAIN_HOST"] == "https://example.org"


@pytest.mark.parametrize("values", ["least", "beside", "path"])
def test_the_service_believes_the_proxy_s_pod(values: str) -> None:
    """Else all people would share the proxy's address, and what may come from one address."""
    import base64

    from kaos_hub.service.config.service import ServiceConfig

    there = {(o["kind"], o["metadata"]["name"]): o for o in objects(MATRIX[values])}
    told = base64.b64decode(there["Secret", "config-service"]["data"]["00-chart.json"])
    trusted = json.loads(told)["KaosService"]["trusted_proxies"]
    assert trusted == ["proxy-pods.kaos", *MATRIX[values].get("proxy", {}).get("trusted", [])]
    service = there["Service", "proxy-pods"]["spec"]
    assert service["clusterIP"] == "None"
    if values != "beside":
        labels = pod(MATRIX[values], "proxy")["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
    ServiceConfig(trusted_proxies=trusted).proxies()


def test_the_hubs_own_settings_do_not_reach_the_service() -> None:
    import base64

    secret = {"GitHubOAuthenticator": {"client_secret": "hush"}}
    found = {o["metadata"]["name"]: o["data"] for o in objects({"hub": {"config": secret}})
             if o["kind"] == "Secret" and o["metadata"]["name"].startswith("config-")}  # fmt: skip
    told = {name: "".join(base64.b64decode(v).decode() for v in data.values())
            for name, data in found.items()}  # fmt: skip
    assert "hush" in told["config-hub"] and "hush" not in told["config-service"]
    assert "hush" not in "".join(
        str(o) for o in objects({"hub": {"config": secret}}) if o["kind"] != "Secret"
    )


def test_the_values_for_zero_to_jupyterhub_fit_ours() -> None:
    """What they read of our Secret and ConfigMap is there when the chart is beside that one."""
    theirs = yaml.safe_load((ROOT / "helm/beside-zero-to-jupyterhub.yaml").read_text())
    ours = {(o["kind"], o["metadata"]["name"]): o for o in objects(MATRIX["beside"])}
    for value in theirs["hub"]["extraEnv"].values():
        if isinstance(value, dict) and "configMapKeyRef" in value["valueFrom"]:
            key = value["valueFrom"]["configMapKeyRef"]
            assert key["key"] in ours["ConfigMap", key["name"]]["data"]
    for volume in theirs["hub"]["extraVolumes"]:
        known = ours["Secret", volume["secret"]["secretName"]]["data"]
        assert {item["key"] for item in volume["secret"]["items"]} <= set(known)
    assert not {"Deployment/hub", "Deployment/proxy"} & {f"{k}/{n}" for k, n in ours}
    binding = ours["RoleBinding", "kaos-hub"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "hub", "namespace": "kaos"}]


def examples() -> list[tuple[str, Object]]:
    """All values that the documentation shows."""
    found = []
    for page in ("kubernetes", "private-registry", "beside-zero-to-jupyterhub"):
        text = (ROOT / f"docs/howto/{page}.md").read_text("utf-8")
        blocks = re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```", text)
        found += [(page, yaml.safe_load(textwrap.dedent(block))) for block in blocks]
    return [(page, values) for page, values in found if "image" not in values.get("hub", {})]


@pytest.mark.parametrize(("page", "values"), examples())
def test_values_in_the_documentation_are_taken(page: str, values: Object) -> None:
    assert objects(values)
    engine = values.get("config", {})
    for section, settings in engine.items():
        for name in settings:
            assert f"### c.{section}.{name}\n" in (ROOT / "docs/reference/config.md").read_text()


def test_the_documentation_shows_values() -> None:
    assert {page for page, _ in examples()} == {
        "kubernetes", "private-registry", "beside-zero-to-jupyterhub",
    }  # fmt: skip
    assert len(examples()) > 6


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for each in MATRIX:
        (GOLDEN / f"{each}.txt").write_text(difference(each), "utf-8")
