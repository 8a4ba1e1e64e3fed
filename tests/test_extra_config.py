"""What an admin adds to jupyterhub_config.py: Python or data, a file or a folder."""

import json
import sys
from urllib.parse import urlsplit

import pytest
from traitlets.config import Config, PyFileConfigLoader

from kaos_hub.deployment.extra_config import add_json, database_url, files_of
from kaos_hub.errors import KaosError
from tests.hub import ROOT


def loaded(path, monkeypatch, tmp_path, **environment):
    """jupyterhub_config.py as a Hub in a cluster reads it, with that added."""
    secrets = tmp_path / "secrets"
    secrets.mkdir(exist_ok=True)
    names = "admission cookie metrics password proxy service service-train users-password"
    for name in names.split():
        (secrets / name).write_text("0" * 64)
    ours = {"KAOS_DATA_DIR": tmp_path / "data", "KAOS_SECRETS_DIR": secrets}
    ours |= {"KAOS_NAMESPACE": "kaos", "KAOS_ENGINE": "kubernetes", "KAOS_EXTRA_CONFIG": path}
    monkeypatch.delitem(sys.modules, "kaos_hub.service", raising=False)  # this is a Hub
    for name, value in (ours | environment).items():
        monkeypatch.setenv(name, str(value))
    return PyFileConfigLoader("jupyterhub_config.py", path=str(ROOT)).load_config()


@pytest.fixture
def folder(tmp_path):
    """A folder as the chart mounts it."""
    folder = tmp_path / "config"
    folder.mkdir()
    first = {"KaosService": {"limits": {"default": {"notebooks": 2}}}, "KubeSpawner": {"uid": 7}}
    (folder / "10-config.json").write_text(json.dumps(first))
    (folder / "20-more.py").write_text("c.KubeSpawner.uid = 8\n")
    last = {"JupyterHub": {"services": [{"name": "mine"}], "authenticator_class": "dummy"}}
    (folder / "30-hub.json").write_text(json.dumps(last))
    (folder / "..data").mkdir()  # Kubernetes' own, beside them
    return folder


def test_a_folder_is_read_in_the_order_of_names(folder, monkeypatch, tmp_path):
    config = loaded(folder, monkeypatch, tmp_path)
    assert config.KaosService.limits == {"default": {"notebooks": 2}}
    assert config.KubeSpawner.uid == 8
    assert config.JupyterHub.authenticator_class == "dummy"


def test_services_of_an_admin_stand_beside_ours(folder, monkeypatch, tmp_path):
    names = [s["name"] for s in loaded(folder, monkeypatch, tmp_path).JupyterHub.services]
    assert names == ["kaos", "kaos-train", "kaos-metrics", "mine"]


@pytest.mark.parametrize(
    ("given", "public", "path"),
    [
        ({}, "http://127.0.0.1:8123", ""),
        ({"KAOS_PUBLIC_URL": "https://hub.example.org/lab"}, "https://hub.example.org/lab", "/lab"),
        ({"KAOS_SUBDOMAIN_HOST": "https://hub.example.org"}, "https://hub.example.org", ""),
    ],
)
def test_a_file_that_adds_a_service_takes_no_address_from_ours(
    given, public, path, monkeypatch, tmp_path
):
    """On this machine the Hub tells the service its addresses, whatever an admin adds beside it."""
    more = tmp_path / "more.py"
    for text in ("", 'c.JupyterHub.services.append({"name": "mine"})\n'):
        more.write_text(text)
        here = {"KAOS_NAMESPACE": "", "KAOS_SECRETS_DIR": "", "KAOS_PORT": "8123"}
        here |= {"KAOS_ENGINE": "local"} | given
        services = loaded(more, monkeypatch, tmp_path, **here).JupyterHub.services
        told = next(s for s in services if s["name"] == "kaos")["environment"]
        assert told["KAOS_PUBLIC_URL"].rstrip("/") == public
        assert urlsplit(told["KAOS_INSIDE_URL"]).path == f"{path}/services/kaos"
        assert "KAOS_ADMISSION_URL" in told
    assert "mine" in [s["name"] for s in services]


def test_one_file_is_read_as_ever(monkeypatch, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("c.KubeSpawner.uid = 5\n")
    assert loaded(path, monkeypatch, tmp_path).KubeSpawner.uid == 5


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KaosError, match="nowhere"):
        files_of(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"KaosService": 3}'])
def test_what_is_no_settings_is_named(text, tmp_path):
    path = tmp_path / "10-config.json"
    path.write_text(text)
    with pytest.raises(KaosError, match="10-config"):
        add_json(Config(), path)


def test_the_hubs_database_is_the_given_one(folder, monkeypatch, tmp_path):
    own = loaded(folder, monkeypatch, tmp_path).JupyterHub.db_url
    assert own == f"sqlite:///{tmp_path}/data/jupyterhub.sqlite"
    (tmp_path / "secrets" / "database-url").write_text("postgresql://hub:x@db/hub\n")
    given = loaded(folder, monkeypatch, tmp_path).JupyterHub.db_url
    assert given == "postgresql+psycopg://hub:x@db/hub"
    assert database_url("sqlite:////elsewhere", tmp_path) == "sqlite:////elsewhere"


def test_beside_another_chart_only_ours_is_said(monkeypatch, tmp_path, folder):
    """Its proxy, database and authenticator stay its own, and its services stay."""
    (folder / "30-hub.json").unlink()
    ours = loaded(folder, monkeypatch, tmp_path, KAOS_BESIDE="1")
    assert not {"ConfigurableHTTPProxy", "KaosProxy", "SharedPasswordAuthenticator"} & set(ours)
    own = {"authenticator_class", "bind_url", "cookie_secret", "db_url", "proxy_class"}
    assert not own & set(ours.JupyterHub)
    assert ours.JupyterHub.hub_connect_url == "http://hub.kaos:8081"
    theirs = Config({"JupyterHub": {"services": [{"name": "theirs"}], "load_roles": []}})
    theirs.merge(ours)
    names = [s["name"] for s in theirs.JupyterHub.services]
    assert names == ["theirs", "kaos", "kaos-train", "kaos-metrics"]
    assert [r["name"] for r in theirs.JupyterHub.load_roles] == ["kaos", "kaos-metrics"]
