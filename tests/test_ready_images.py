"""Ready-made environments: an image as it is, of those that the admin offers."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.errors import (
    BuildFailed,
    Forbidden,
    InvalidRequest,
    KaosError,
    NotFound,
    RestartRequired,
    Unsupported,
)
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Image
from kaos_hub.service.builds.image_catalog import Images
from tests.engines import needs_docker
from tests.hub import RunningHub, request, running_hub
from tests.kernels import Kernel
from tests.test_versions import folder

SCIENCE = Image(name="science", image="registry:5000/science:1")


def test_what_is_offered_is_found_by_its_name() -> None:
    assert Images([SCIENCE]).reference("science") == "registry:5000/science:1"
    assert Images([SCIENCE]).reference("registry:5000/science:1") == "registry:5000/science:1"
    for other in ("python:3.13-slim", "Science", "", "science:2"):
        with pytest.raises(NotFound, match="offered: science"):
            Images([SCIENCE]).reference(other)


def test_any_other_only_if_the_admin_says_so() -> None:
    any_image = Images([SCIENCE], any_image=True)
    assert any_image.reference("python:3.13-slim") == "docker.io/library/python:3.13-slim"
    assert any_image.reference("science") == "registry:5000/science:1"
    for wrong in ("", "-v", "a b", "a\n", "/x", "a:b:c!", "ä", "sha256:" + "0" * 64 + "x y"):
        with pytest.raises((NotFound, InvalidRequest)):
            any_image.reference(wrong)


def test_an_id_of_an_image_here_is_never_meant() -> None:
    """Else somebody's build could be had by a few letters of its id."""
    assert Images(any_image=True).reference("3f2abc") == "docker.io/library/3f2abc:latest"


def test_what_a_build_left_is_nobody_elses(tmp_path: Path) -> None:
    docker = Images(any_image=True, ours=DockerEngine(data_dir=str(tmp_path)).owns)
    cluster = KubernetesEngine(
        data_dir=str(tmp_path), registry="reg:5000/kaos", pull_registry="localhost:5000/kaos"
    )
    for images, image in [
        (docker, "kaos-hub/0123456789abcdef:00"),
        (docker, "docker.io/kaos-hub/0123456789abcdef:00"),
        (Images(any_image=True, ours=cluster.owns), "reg:5000/kaos/x:1"),
        (Images(any_image=True, ours=cluster.owns), "localhost:5000/kaos/x@sha256:" + "0" * 64),
    ]:
        with pytest.raises(Forbidden):
            images.reference(image)
    assert not cluster.owns(Reference.parse("reg:5000/kaosx/y"))


def test_builds_reach_the_registry_by_the_name_that_nodes_know(tmp_path: Path) -> None:
    """A notebook's own base image is named so, and what is saved from it is built again."""

    def ways(**settings: Any) -> dict[str, str]:
        return KubernetesEngine(data_dir=str(tmp_path), registry="reg:5000/k", **settings).mirrors()

    assert ways(pull_registry="localhost:5000/k") == {"localhost:5000": "reg:5000"}
    assert ways(pull_registry="localhost:5000/k", registry_mirrors={"docker.io": "m"}) == {
        "localhost:5000": "reg:5000", "docker.io": "m",
    }  # fmt: skip
    assert ways() == ways(pull_registry="reg:5000/k") == {}
    assert ways(pull_registry="elsewhere/other") == {}


def test_an_engine_without_images_says_so() -> None:
    with pytest.raises(Unsupported, match=r"requirements\.txt"):
        Images([SCIENCE], engine="local").reference("science")


# --- on a Hub ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp("ready")
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True)
    musl = "kaos-test-ready:musl"
    dockerfile = f"FROM scratch\nCOPY a /lib/ld-musl-{machine.stdout.strip()}.so.1\n"
    folder(directory / "musl", {"Dockerfile": dockerfile, "a": "x"})
    subprocess.run(
        ["docker", "build", "-q", "-t", musl, directory / "musl"], check=True, capture_output=True
    )
    offered = [
        {"name": "slim", "description": "Python alone", "image": "python:3.13-slim"},
        {"name": "musl", "image": musl},
        {"name": "absent", "image": "kaos-test-ready:absent"},
    ]
    config = f"c.KaosService.images = {offered!r}\n"
    with running_hub(directory, engine="docker", config=config) as running:
        yield running
    subprocess.run(["docker", "rmi", "-f", musl], check=False, capture_output=True)


@needs_docker
@pytest.mark.docker
def test_nothing_is_built_and_the_source_is_worked_on(hub: RunningHub, tmp_path: Path) -> None:
    token = hub.token("iris")
    kaos = Client(hub.url, token)
    names = [image.name for image in kaos.info().images]
    assert (names, kaos.info().any_image) == (["slim", "musl", "absent"], False)
    code = {"Dockerfile": "FROM python:3.13-slim\nRUN exit 1\n", "model/code.py": "x = 1\n"}
    source = folder(tmp_path / "example", code)
    notebook = kaos.notebooks.deploy(source=source, image="slim").wait()
    assert (notebook.state, notebook.image, notebook.build.state) == ("RUNNING", "slim", "SKIPPED")
    kernel = Kernel(notebook.url, token)
    assert kernel.run("open('/home/kaos/work/model/code.py').read()") == "'x = 1\\n'"
    assert kernel.run("import os; os.path.exists('/opt/program')") == "False"
    answer = request("GET", f"{notebook.url}/api/contents/work", token)
    assert {"Dockerfile", "model"} <= {entry["name"] for entry in answer.json["content"]}
    # the image goes: now there is something to build
    with pytest.raises(RestartRequired, match="environment"):
        kaos.notebooks.deploy(name="example", image="-")
    kaos.notebooks.delete("example")


@needs_docker
@pytest.mark.docker
@pytest.mark.parametrize(
    ("image", "words", "kind"),
    [("musl", "musl", BuildFailed), ("absent", "no image", KaosError)],
)
def test_what_cannot_be_a_notebook_is_said(
    hub: RunningHub, image: str, words: str, kind: type[KaosError]
) -> None:
    kaos = Client(hub.url, hub.token("iris"))
    with pytest.raises(kind, match=words):
        kaos.notebooks.deploy(name=f"bad-{image}", image=image).wait()
    assert kaos.notebooks.get(f"bad-{image}").state == "FAILED"
    kaos.notebooks.delete(f"bad-{image}")


@needs_docker
@pytest.mark.docker
def test_what_is_not_offered_is_refused_with_what_is(hub: RunningHub) -> None:
    kaos = Client(hub.url, hub.token("iris"))
    with pytest.raises(NotFound, match="offered: slim, musl, absent"):
        kaos.notebooks.deploy(name="x", image="debian:trixie-slim")
    assert kaos.notebooks.list() == []
    # whoever asks the Hub itself is told the same
    answer = request(
        "POST", f"{hub.url}/hub/api/users/iris/servers/y", hub.token("iris"),
        {"image": "debian:trixie-slim"},
    )  # fmt: skip
    assert answer.status in (404, 500), json.dumps(answer.json)
