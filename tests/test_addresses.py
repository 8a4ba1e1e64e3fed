"""Where Hub, proxy and service find each other, and the one configuration that says it to all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kaos_hub.installation.addresses import in_cluster, namespace, on_this_machine
from kaos_hub.installation.datadir import DataDir
from tests.hub import ROOT

_BOTH = ("service", "service-train", "admission")
_HUB_SECRETS = ("cookie", "metrics", "proxy", "password", "users-password", *_BOTH)
_SERVICE_SECRETS = ("metrics", "service-cookie", "tickets", *_BOTH)
_READ = """
import json, sys
{first}
from traitlets.config import PyFileConfigLoader
config = PyFileConfigLoader("jupyterhub_config.py", path={root!r}).load_config()
print(json.dumps(config, default=str))
"""


def read_config(tmp_path: Path, secrets: tuple[str, ...], first: str = "", **more: str) -> Any:
    """jupyterhub_config.py as a pod reads it."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name in secrets:
        (mounted / name).write_text(f"secret-{name}")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KAOS_")}
    environment = kept | {
        "KAOS_ENGINE": "kubernetes",
        "KAOS_NAMESPACE": "here",
        "KAOS_DATA_DIR": str(tmp_path / "data"),
        "KAOS_SECRETS_DIR": str(mounted),
        "KAOS_ADMIN": "ada",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", _READ.format(first=first, root=str(ROOT))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_on_this_machine_ports_are_remembered(tmp_path, monkeypatch):
    monkeypatch.delenv("KAOS_NAMESPACE", raising=False)
    assert namespace() is None
    data = DataDir(tmp_path)
    at = on_this_machine(data, 8123, "127.0.0.1")
    assert at == on_this_machine(DataDir(tmp_path), 8123, "127.0.0.1")
    assert at.public_bind == "http://127.0.0.1:8123"
    assert (at.hub, at.service, at.admission) == (at.hub_bind, at.service_bind, at.admission_bind)
    assert at.inside == f"{at.service}/services/kaos"


def test_hub_of_a_cluster(tmp_path):
    config = read_config(
        tmp_path, _HUB_SECRETS, KAOS_WORKLOADS="there", KAOS_RUNTIME_IMAGE="r/kaos-hub/runtime:1"
    )
    at, hub = in_cluster("here"), config["JupyterHub"]
    assert config["ConfigurableHTTPProxy"]["should_start"] is False
    assert config["ConfigurableHTTPProxy"]["api_url"] == at.proxy_api
    assert (hub["hub_bind_url"], hub["hub_connect_url"]) == (at.hub_bind, at.hub)
    assert hub["cookie_secret"] == "secret-cookie"
    service, train, _ = hub["services"]
    assert (service["name"], train["name"]) == ("kaos", "kaos-train")
    assert service["api_token"] != train["api_token"]
    for each in (service, train):
        assert each["url"] == at.service and "command" not in each
    assert config["KaosSpawnerMixin"]["admission_url"] == at.admission
    assert config["KaosKubeSpawner"]["namespace"] == "there"
    assert config["KubernetesEngine"]["runtime_image"] == "r/kaos-hub/runtime:1"
    assert "trees_claim" not in config["KubernetesEngine"]
    assert config["SharedPasswordAuthenticator"]["admin_password"] == "secret-password"


def test_service_of_a_cluster_needs_no_secret_of_the_hub(tmp_path):
    config = read_config(tmp_path, _SERVICE_SECRETS, first="import kaos_hub.service")
    assert config["JupyterHub"]["cookie_secret"] == ""
    assert config["SharedPasswordAuthenticator"]["admin_password"] == ""


def test_service_knows_its_hub(tmp_path, monkeypatch):
    from kaos_hub.service.process import know_hub

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAOS_", "JUPYTERHUB_"))}
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "service").write_text("token")
    changed: dict[str, str] = dict(kept)
    monkeypatch.setattr(os, "environ", changed)
    know_hub(DataDir(tmp_path / "data", create=False))
    assert changed == kept, "on one machine the Hub says it"
    changed |= {"KAOS_NAMESPACE": "here", "KAOS_SECRETS_DIR": str(mounted)}
    changed["JUPYTERHUB_BASE_URL"] = "/hubs/one/"
    know_hub(DataDir(tmp_path / "data", create=False))
    assert changed["JUPYTERHUB_API_TOKEN"] == "token"
    assert changed["JUPYTERHUB_API_URL"] == "http://hub.here:8081/hub/api"
    assert changed["JUPYTERHUB_SERVICE_URL"] == "http://0.0.0.0:8080"
    assert changed["JUPYTERHUB_BASE_URL"] == "/hubs/one/"
    assert changed["KAOS_INSIDE_URL"] == "http://service.here:8080/services/kaos"
