"""What tests of the engine `kubernetes` need: a namespace, our images, a server of trees."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from kaos_hub.bundles.scan import scan
from kaos_hub.errors import NotFound
from kaos_hub.installation.datadir import DataDir
from kaos_hub.service.workers.fetching import fetch_rules
from kaos_hub.service.workers.listings import Listings
from kaos_hub.transport.tickets import Tickets
from tests.pods import REGISTRY, kubectl, needs_cluster, this_machine

__all__ = ["REGISTRY", "TreeServer", "images", "kubectl", "namespace", "needs_cluster", "options"]

ROOT = Path(__file__).parent.parent
TREES = "kaos-trees"


@cache
def images() -> dict[str, str]:
    """References of builder and runtime as they are in this checkout, by digest."""
    command = [sys.executable, str(ROOT / "images" / "make.py"), "--registry", REGISTRY, "--push"]
    made = subprocess.run([*command, "builder", "runtime"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    lines = dict(line.partition("=")[::2] for line in made.stdout.splitlines() if "=" in line)
    return {"builder": lines["KAOS_BUILDER_IMAGE"], "runtime": lines["KAOS_RUNTIME_IMAGE"]}


@cache
def registry() -> str:
    """The registry's address that this machine and pods reach alike."""
    given = os.environ.get("KAOS_TEST_POD_REGISTRY")
    if given:
        return given
    services = json.loads(kubectl("get", "services", "-A", "-o", "json"))["items"]
    found = next(s for s in services if s["metadata"]["name"] == "registry")
    return f"{found['spec']['clusterIP']}:{found['spec']['ports'][0]['port']}"


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace of our own, with a claim for trees."""
    name = f"kaos-test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        make_claim(name)
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def make_claim(namespace: str, name: str = TREES) -> None:
    """Make a shared claim."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    kubectl("apply", "-f", "-", give=json.dumps(claim))


def options(namespace: str, url: str) -> dict[str, Any]:
    """Settings of the engine for tests."""
    made = images()
    return {
        "namespace": namespace,
        "registry": f"{registry()}/kaos-test",
        "pull_registry": f"{REGISTRY}/kaos-test",
        "registry_mirrors": {"docker.io": registry()},
        "insecure_registries": [registry()],
        "builder_image": made["builder"],
        "runtime_image": made["runtime"],
        "service_url": url,
        "build_storage": "2Gi",
        "job_share": 0.02,
        "stop_grace": 1,
        "patience": 2,
    }


class Outages:
    """A way to the API server that can be cut, and a configuration that takes it.

    Args:
        config: the configuration of the cluster.
        place: where the other one goes.
    """

    def __init__(self, config: Path, place: Path) -> None:
        said = json.loads(
            kubectl("--kubeconfig", str(config), "config", "view", "--raw", "-o", "json")
        )
        for cluster in (c["cluster"] for c in said["clusters"]):
            server = urlsplit(cluster["server"])
            self._target = (server.hostname, server.port or 443)
            self._listener = socket.create_server(("127.0.0.1", 0))
            cluster["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
            cluster["tls-server-name"] = server.hostname
        place.write_text(json.dumps(said))
        self._open: list[socket.socket] = []
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break off everything, and refuse what comes."""
        self._cut = True
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        """Let everybody through again."""
        self._cut = False

    def close(self) -> None:
        """End."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class TreeServer:
    """Serves trees to whoever has a ticket, in a thread of its own.

    Args:
        data: the data directory whose key signs the tickets.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._objects: dict[str, bytes] = {}
        self._sockets = bind_sockets(0, "0.0.0.0")
        self.port = self._sockets[0].getsockname()[1]
        self.url = f"http://{this_machine()}:{self.port}/services/kaos"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def add(self, folder: Path) -> str:
        """Serve a folder as a tree; its digest."""
        found = scan(folder)
        for digest in found.objects:
            self._objects[digest] = b"".join(found.read(digest))
        return found.root

    def put(self, objects: dict[str, bytes]) -> None:
        """Serve objects."""
        self._objects |= objects

    def close(self) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)

    def _read(self, digest: str) -> Iterable[bytes]:
        if digest not in self._objects:
            raise NotFound(f"no {digest}")
        return [self._objects[digest]]

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        tickets = Tickets(DataDir(self._data).secret("tickets"))
        rules = fetch_rules("/services/kaos/", Listings(self._read), tickets)
        core = SimpleNamespace(db=_EverybodyLives())
        server = HTTPServer(Application(rules, core=core, streams=set()))
        server.add_sockets(self._sockets)
        self._ready.set()
        await self._end.wait()
        server.stop()
        await server.close_all_connections()


class _EverybodyLives:
    """A database to which every workload is alive."""

    async def run(self, question: object) -> bool:
        return True
