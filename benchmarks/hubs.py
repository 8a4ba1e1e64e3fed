"""Hubs to compare: ours, and JupyterHub as it comes. Both run at the same time.

The stock Hub is this repository's configuration without its service and with a spawner of
JupyterHub's, so that the Hub, its proxy and its database are the same on both sides.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness import note, output
from kaos_hub import Client
from kaos_hub.errors import KaosError
from kaos_hub.service.builds.analysis import image_name
from tests.hub import RunningHub, request, running_hub, wait_until

NOTEBOOK = "bench"
_PAUSE = 0.05
"""Seconds between two looks at a page that is awaited."""

_STOCK = """
tester = {{"name": "tester", "scopes": ["admin:users", "admin:servers", "tokens"]}}
c.JupyterHub.services = [{{"name": "tester", "display": False, "api_token": {token!r}}}]
c.JupyterHub.load_roles = [tester | {{"services": ["tester"]}}]
c.JupyterHub.extra_user_scopes = set()
c.JupyterHub.template_paths = []
c.JupyterHub.cleanup_servers = True
c.Spawner.default_url = "/lab"
"""
_STOCK_LOCAL = """
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r} + "/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = {args!r}
"""
_STOCK_DOCKER = """
c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = {image!r}
c.DockerSpawner.name_template = {prefix!r} + "-{{username}}-{{servername}}"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = {remove!r}
"""


class Ours:
    """A user with one notebook on a Hub with kaos_hub."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.user = f"bench-{secrets.token_hex(4)}"
        self.token = hub.token(self.user)
        self.client = Client(hub.url, self.token)
        self.url = f"{hub.url}/user/{self.user}/{NOTEBOOK}"

    def deploy(self, source: Path) -> None:
        """Deploy through the SDK, in this process."""
        self.client.notebooks.deploy(source=source, name=NOTEBOOK)

    def deploy_by_command(self, source: Path) -> None:
        """Deploy as people do, in a process of its own."""
        command = ["-m", "kaos_hub.cli", "notebook", "deploy", "--detach"]
        environment = {n: v for n, v in os.environ.items() if not n.startswith("KAOS_")}
        done = subprocess.run(
            [sys.executable, *command, "--no-browser", "-n", NOTEBOOK, "-s", str(source)],
            env=environment | {"JUPYTERHUB_API_TOKEN": self.token, "KAOS_URL": self.hub.kaos},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def until_built(self) -> None:
        """Wait until the notebook's environment and code are ready."""
        for event in self.client.notebooks.events(NOTEBOOK):
            if event.state not in ("QUEUED", "BUILDING"):
                break
        assert event.state in ("STARTING", "RUNNING"), event

    def click(self) -> None:
        """What the button Start and `kaos notebook start` do."""
        answer = self.hub.ask("POST", f"/notebooks/{NOTEBOOK}/start", self.token)
        assert answer.status < 300, answer.text

    def end(self) -> None:
        """Stop it once it runs, and wait until it is gone."""
        self.client.notebooks.wait(NOTEBOOK, 120)
        self.client.notebooks.kill(NOTEBOOK)
        wait_until(lambda: self._state() == "STOPPED", 60, "the notebook's end")

    def _state(self) -> str:
        return self.client.notebooks.get(NOTEBOOK).state

    def clean_up(self) -> None:
        """Delete the notebook, and the images that were built for it."""
        with contextlib.suppress(KaosError):
            self.client.notebooks.delete(NOTEBOOK)
        repository = image_name(f"user:{self.user}", "x").partition(":")[0]
        remove_images(repository)


class Stock:
    """A user with one named server on a stock Hub."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.user = f"bench-{secrets.token_hex(4)}"
        self.token = hub.token(self.user)
        self.url = f"{hub.url}/user/{self.user}/{NOTEBOOK}"
        self._server = f"/users/{self.user}/servers/{NOTEBOOK}"

    def click(self) -> None:
        """What the Hub's own button Start does."""
        answer = self.hub.hub_api("POST", self._server)
        assert answer.status in (201, 202), answer.text

    def end(self) -> None:
        """Stop it, and wait until it is gone."""
        answer = self.hub.hub_api("DELETE", self._server)
        assert answer.status in (202, 204, 404), answer.text
        wait_until(lambda: not self._servers(), 60, "the server's end")

    def _servers(self) -> object:
        return self.hub.hub_api("GET", f"/users/{self.user}").json["servers"]

    def clean_up(self) -> None:
        """Stop the server, whatever happened."""
        with contextlib.suppress(AssertionError, OSError):
            self.end()


class StockHub(RunningHub):
    """A Hub without the kaos service."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config = _STOCK.format(token=self._admin_token) + self.config

    def answers(self) -> bool:
        """Whether the Hub is well, asked through the proxy."""
        assert self.process is None or self.process.poll() is None, self.tail()
        try:
            return request("GET", f"{self.url}/hub/api", timeout=5).status == 200
        except OSError:
            return False


@contextlib.contextmanager
def ours(directory: Path, engine: str, **options: Any) -> Iterator[Ours]:
    """Somebody on a Hub with kaos_hub, which runs while you use it; options as of RunningHub."""
    with running_hub(directory, engine=engine, **options) as hub:
        somebody = Ours(hub)
        try:
            yield somebody
        finally:
            somebody.clean_up()


@contextlib.contextmanager
def stock_local(directory: Path) -> Iterator[Stock]:
    """Somebody on a Hub with SimpleLocalProcessSpawner and this environment's JupyterLab."""
    config = _STOCK_LOCAL.format(
        homes=str(directory / "homes"),
        python=sys.executable,
        args=["--allow-root"] if os.geteuid() == 0 else [],
    )
    with _stock(directory, "local", config) as somebody:
        yield somebody


@contextlib.contextmanager
def stock_docker(directory: Path, image: str, remove: bool) -> Iterator[Stock]:
    """Somebody on a Hub with DockerSpawner.

    Args:
        directory: where the Hub's data go.
        image: what to run.
        remove: whether each start is a new container, as ours are; JupyterHub's default is not.
    """
    prefix = f"kaos-benchmark-{secrets.token_hex(4)}"
    config = _STOCK_DOCKER.format(image=image, prefix=prefix, remove=remove)
    try:
        with _stock(directory, "docker", config) as somebody:
            yield somebody
    finally:
        left = output("docker", "ps", "-aq", "--filter", f"name={prefix}").split()
        if left:
            subprocess.run(["docker", "rm", "-f", *left], check=True, capture_output=True)


@contextlib.contextmanager
def _stock(directory: Path, engine: str, config: str) -> Iterator[Stock]:
    hub = StockHub(directory, engine=engine, config=config)
    hub.start()
    try:
        somebody = Stock(hub)
        try:
            yield somebody
        finally:
            somebody.clean_up()
    finally:
        hub.stop()


def remove_images(repository: str) -> None:
    """Remove all images of one name, and what is left of their containers."""
    listing = ("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", repository)
    for image in output(*listing).split():
        left = output("docker", "ps", "-aq", "--filter", f"ancestor={image}").split()
        for command in [["rm", "-f", *left]] * bool(left) + [["rmi", image]]:
            done = subprocess.run(["docker", *command], capture_output=True, text=True)
            if done.returncode != 0:
                note(f"left behind: {done.stderr.strip()}")


def click_to_lab(somebody: Ours | Stock, patience: float = 120) -> float:
    """Seconds from a click until the page of JupyterLab is there."""
    begin = time.perf_counter()
    # The Hub's own API may answer a start only when the server is ready; the page can be first.
    click = threading.Thread(target=somebody.click)
    click.start()
    while lab_version(somebody) is None:
        if time.perf_counter() - begin > patience:
            raise AssertionError(f"no JupyterLab within {patience:g} s:\n{somebody.hub.tail()}")
        time.sleep(_PAUSE)
    taken = time.perf_counter() - begin
    click.join()
    return taken


def lab_version(somebody: Ours | Stock) -> str | None:
    """The version of the JupyterLab that answers, or None while none does."""
    parts = urlsplit(f"{somebody.url}/lab")
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"token {somebody.token}"})
        answer = connection.getresponse()
        page = answer.read().decode(errors="replace")
    except OSError:
        return None
    finally:
        connection.close()
    if answer.status != 200 or "jupyter-config-data" not in page:
        return None
    return page.partition('"appVersion": "')[2].partition('"')[0]
