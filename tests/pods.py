"""A namespace of a real cluster for tests of the spawner, and a Hub that may do there what it must.

The Hub gets a service account with exactly the rights that the documentation names, so that every
test shows that no others are needed.
"""

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import cluster
from tests.cluster import kubectl
from tests.hub import ROOT, wait_until

REGISTRY = os.environ.get("KAOS_TEST_REGISTRY") or "localhost:5000"
BASE = "python:3.11-slim"

# Of all that the runtime has, what a pod needs of it: a Python, the fetcher, something that serves.
_RUNTIME = f"""\
FROM {BASE}
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1
RUN pip install --quiet blake3
COPY kaos_hub /kaos_hub
RUN cp -r /kaos_hub "$(python3 -c 'import blake3; print(blake3.__path__[0])')/.."
COPY kaos-notebook /opt/kaos/bin/kaos-notebook
RUN ln -s "$(command -v python3)" /opt/kaos/bin/python && chmod 755 /opt/kaos/bin/kaos-notebook
"""
_PROGRAM = """#!/usr/bin/env python3
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("hello from inside", flush=True)
if os.environ.get("KAOS_USER_MOOD") == "greedy":
    x = [bytearray(b"1" * (1 << 20)) for _ in range(1024)]
if os.environ.get("KAOS_USER_MOOD") == "angry":
    sys.exit(3)
http.server.ThreadingHTTPServer(("0.0.0.0", 8888), Handler).serve_forever()
"""

RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "create", "delete"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create", "get"]},
]
"""What the Hub may do in the namespace of notebooks."""


def docker(*words: str) -> str:
    """What docker says."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def why_not() -> str:
    """What is missing here for tests with pods; empty if nothing is."""
    missing = cluster.why_not()
    if not missing and not docker("images", "--quiet", BASE):
        missing = f"the Docker Engine has no {BASE}"
    return missing


needs_cluster = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is one")


def this_machine() -> str:
    """The address at which pods reach this machine."""
    node = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]
    to = node["spec"].get("podCIDR")
    host = str(ip_network(to)[1]) if to else node["status"]["addresses"][0]["address"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing; only finds the way
        return str(probe.getsockname()[0])


@cache
def images() -> tuple[str, str]:
    """A user's image, and one that does for the runtime: in the registry, by digest."""
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        # the fetcher, and what it imports
        parts = ["__init__.py", "transport/__init__.py", "transport/fetch.py"]
        parts += ["util/__init__.py", "util/tls.py", "workload/__init__.py"]
        package = ROOT / "kaos_hub"
        parts += [str(p.relative_to(package)) for p in (package / "workload/fetch").glob("*.py")]
        for part in parts:
            copy = context / "kaos_hub" / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(b"" if part == "__init__.py" else (package / part).read_bytes())
        (context / "kaos-notebook").write_text(_PROGRAM)
        (context / "Dockerfile").write_text(_RUNTIME)
        runtime = f"{REGISTRY}/kaos-test/runtime"
        docker("build", "--quiet", "--force-rm", "--tag", runtime, directory)
    docker("tag", BASE, f"{REGISTRY}/kaos-test/user")
    return pushed(f"{REGISTRY}/kaos-test/user"), pushed(runtime)


def pushed(image: str) -> str:
    """Push an image; returns its name by digest, which no node has under another meaning."""
    docker("push", "--quiet", image)
    found = json.loads(docker("image", "inspect", "--format", "{{json .RepoDigests}}", image))
    return next(name for name in found if name.startswith(f"{image.partition('@')[0]}@"))


class Namespace:
    """A namespace of our own."""

    def __init__(self) -> None:
        self.name = f"kaos-test-{secrets.token_hex(4)}"

    def make(self, directory: Path) -> Path:
        """Make it, and a service account in it; returns the kubeconfig of that."""
        self.apply("Namespace", self.name)
        self.apply("ServiceAccount", "hub")
        self.apply("Role", "hub", rules=RULES)
        self.apply(
            "RoleBinding",
            "hub",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hub"},
            subjects=[{"kind": "ServiceAccount", "name": "hub", "namespace": self.name}],
        )
        wait_until(lambda: self.get("serviceaccount", "default"), 10, "the default account")
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        token = kubectl("create", "token", "hub", "-n", self.name, "--duration=3h").strip()
        config["users"] = [
            {"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}
        ]
        path = directory / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def apply(self, kind: str, name: str, **content: Any) -> None:
        """Make an object."""
        version = "rbac.authorization.k8s.io/v1" if kind.startswith("Role") else "v1"
        head = {"name": name} | ({} if kind == "Namespace" else {"namespace": self.name})
        kubectl(
            "create",
            "-f",
            "-",
            give=json.dumps({"apiVersion": version, "kind": kind, "metadata": head} | content),
        )

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object, or nothing."""
        said = kubectl("get", kind, name, "-n", self.name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(said)) if said else {}

    def names(self, kind: str) -> list[str]:
        """What there is of a kind, and not being deleted."""
        found = json.loads(kubectl("get", kind, "-n", self.name, "-o", "json"))["items"]
        heads = [item["metadata"] for item in found]
        return [head["name"] for head in heads if "deletionTimestamp" not in head]

    def delete(self, kind: str, name: str, *words: str) -> None:
        """Delete an object; whoever asks waits until it is gone."""
        kubectl("delete", kind, name, "-n", self.name, "--ignore-not-found", *words)

    def inside(self, pod: str, command: str) -> tuple[int, str]:
        """Run something in a notebook's container: exit code and output."""
        words = ["kubectl", "exec", "-n", self.name, pod, "-c", "notebook", "--"]
        done = subprocess.run([*words, "sh", "-c", command], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def log(self, pod: str) -> str:
        """What a notebook printed."""
        return kubectl("logs", "-n", self.name, pod, "-c", "notebook")

    def claim(self, name: str, files: dict[str, str]) -> None:
        """A claim with files in it."""
        storage = {"resources": {"requests": {"storage": "1Mi"}}, "accessModes": ["ReadWriteMany"]}
        self.apply("PersistentVolumeClaim", name, spec=storage)
        script = "import json, os, sys\nfor name, text in json.loads(sys.argv[1]).items():\n"
        script += "    os.makedirs(os.path.dirname('/v/' + name), exist_ok=True)\n"
        script += "    open('/v/' + name, 'w').write(text)\n"
        container = {
            "name": "write",
            "image": images()[0],
            "command": ["python3", "-c", script, json.dumps(files)],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": name}}
        spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
        self.apply("Pod", f"write-{name}", spec=spec)
        wait_until(
            lambda: self.get("pod", f"write-{name}")["status"]["phase"] == "Succeeded",
            60,
            "writing",
        )
        self.delete("pod", f"write-{name}")

    def secret(self, name: str, **content: str) -> None:
        """A secret."""
        data = {k: base64.b64encode(v.encode()).decode() for k, v in content.items()}
        self.apply("Secret", name, data=data)


class Line:
    """The way to the API server, which can be cut."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        server = urlsplit(cluster["server"])
        self._to, self._cut = (server.hostname or "", server.port or 443), False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Nobody's certificate names this port of ours.
        cluster.pop("certificate-authority-data", None)
        cluster["insecure-skip-tls-verify"] = True
        cluster["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kubeconfig = kubeconfig.with_name("through-the-line")
        self.kubeconfig.write_text(json.dumps(config))
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self) -> None:
        """From now on nobody answers."""
        self._cut = True
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        """It works again."""
        self._cut = False

    def _run(self) -> None:
        while True:
            here, _ = self._listener.accept()
            if self._cut:
                here.close()
                continue
            there = socket.create_connection(self._to)
            self._open += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def namespace(directory: Path) -> Iterator[tuple[Namespace, Path]]:
    """A namespace while you use it, and the kubeconfig of a Hub in it."""
    ours = Namespace()
    try:
        yield ours, ours.make(directory)
    finally:
        kubectl("delete", "namespace", ours.name, "--wait=false", check=False)
