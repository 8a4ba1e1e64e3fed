"""kaos_hub on a real cluster, as `make kubernetes` brings it up, for tests of the whole.

With ``KAOS_TEST_KEEP=1`` it stays when the tests are done; with ``KAOS_TEST_IMAGES=0`` the images
are those that were made before; ``KAOS_TEST_NAMESPACE`` is where it goes, if not to ``kaos``.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.hub import ROOT, Answer, Browser, request, wait_until

HUB = os.environ.get("KAOS_TEST_NAMESPACE") or "kaos"
WORKLOADS = f"{HUB}-workloads"
_MARK = "kaos-hub.io/made-by-tests"


def kubectl(*words: str, give: str | None = None, check: bool = True) -> str:
    """What kubectl says."""
    done = subprocess.run(
        ["kubectl", *words], input=give, capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def kubectl_proxy() -> Iterator[str]:
    """The cluster's API without login, at an address of this machine."""
    words = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://{process.stdout.readline().split()[-1]}"
        finally:
            process.terminate()


@cache
def why_not() -> str:
    """What is missing here for tests on a cluster; empty if nothing is."""
    try:
        asked = subprocess.run(
            ["kubectl", "get", "--raw", "/version", "--request-timeout=5s"], capture_output=True
        )
        docker = subprocess.run(["docker", "version"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"no Kubernetes cluster: {e}"
    if asked.returncode:
        return "kubectl reaches no Kubernetes cluster"
    return "" if docker.returncode == 0 else "Kubernetes: no Docker Engine to build images with"


needs_cluster = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is one")


class ClusterHub:
    """The hub on the cluster.

    Args:
        url: as people reach it.
        directory: for what the command line remembers.
        values: what the chart was told.
    """

    def __init__(self, url: str, directory: Path, values: dict[str, Any]) -> None:
        self.url, self.directory, self.values = url, directory, values
        self.kaos = f"{url}/services/kaos"
        self.password = self.secret("users-password")

    @staticmethod
    def secret(name: str) -> str:
        """One of the secrets of the hub."""
        said = json.loads(kubectl("get", "secret", "kaos", "-n", HUB, "-o", "json"))
        return base64.b64decode(said["data"][name]).decode()

    def answers(self) -> bool:
        """Whether the service is well, asked through the proxy."""
        try:
            return request("GET", f"{self.kaos}/health", timeout=5).status == 200
        except OSError:
            return False

    def token(self, user: str) -> str:
        """A token of somebody who logs in through the proxy, as people do."""
        someone = Browser(self, user)  # type: ignore[arg-type]
        path = f"/hub/api/users/{urllib.parse.quote(user)}/tokens"
        xsrf = someone.xsrf("/hub/")
        head = {"X-XSRFToken": xsrf, "Content-Type": "application/json"}
        body = json.dumps({"note": "test", "expires_in": 7200}).encode()
        asked = urllib.request.Request(self.url + path, data=body, method="POST", headers=head)
        answer = someone._send(asked)
        assert answer.status == 201, answer.text
        return str(answer.json["token"])

    def command_line(self, user: str) -> "CommandLine":
        """The command line of somebody who is logged in."""
        return CommandLine(self, user)

    def ask(self, method: str, path: str, token: str, body: Any = None) -> Answer:
        """Ask the service's REST API."""
        return request(method, f"{self.kaos}/api/v1{path}", token, body)

    # --- pods ---

    def pod(self, component: str) -> str:
        """The name of the pod of Hub, service or proxy."""
        selector = f"app.kubernetes.io/component={component}"
        said = json.loads(kubectl("get", "pods", "-n", HUB, "-l", selector, "-o", "json"))
        living = [p for p in said["items"] if "deletionTimestamp" not in p["metadata"]]
        return str(living[-1]["metadata"]["name"]) if living else ""

    def kill(self, component: str) -> None:
        """Kill a pod of ours at once; Kubernetes makes another."""
        kill_pod(HUB, self.pod(component))

    def wait(self, seconds: float = 120) -> None:
        """Wait until Hub and service answer through the proxy."""
        hub = f"{self.url}/hub/health"
        wait_until(lambda: _status(hub) == 200, seconds, "the Hub's return", pause=0.3)
        wait_until(self.answers, seconds, "the service's return", pause=0.3)


def _status(url: str) -> int:
    with contextlib.suppress(OSError):
        return request("GET", url, timeout=5).status
    return 0


class CommandLine:
    """`kaos`, typed by somebody on their own machine."""

    def __init__(self, hub: ClusterHub, user: str) -> None:
        self.hub, self.user, self.token = hub, user, hub.token(user)
        self._config = hub.directory / f"config-{user}"
        self._log_in()

    def _log_in(self) -> None:
        from kaos_hub.transport.credentials import save_credentials

        before = os.environ.get("XDG_CONFIG_HOME")
        os.environ["XDG_CONFIG_HOME"] = str(self._config)
        try:
            save_credentials(self.hub.url, self.token, self.user)
        finally:
            os.environ.pop("XDG_CONFIG_HOME")
            if before is not None:
                os.environ["XDG_CONFIG_HOME"] = before

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        """Type a command and look elsewhere."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAOS_", "JUPYTERHUB_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "kaos_hub.cli", *words],
            cwd=ROOT,
            env=kept | {"XDG_CONFIG_HOME": str(self._config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, seconds: float = 300) -> Any:
        """Type a command and read the answer, as JSON.

        Raises:
            AssertionError: it failed; the text is what it said.
        """
        process = self.begin("--json", *words)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"kaos {' '.join(words)}: {process.communicate()[1]}") from None
        assert process.returncode == 0, f"kaos {' '.join(words)}: {out}{err}"
        return json.loads(out)


def pods(selector: str) -> list[dict[str, Any]]:
    """Pods of users."""
    return list(
        json.loads(kubectl("get", "pods", "-n", WORKLOADS, "-l", selector, "-o", "json"))["items"]
    )


def kill_pod(namespace: str, name: str) -> None:
    """Kill a pod at once, as the death of its node would."""
    kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", "--wait=false")


def bringing_up() -> Any:
    """`helm/bring_up.py`, which is no module of a package."""
    sys.path.insert(0, str(ROOT / "helm"))
    try:
        import bring_up
    finally:
        sys.path.pop(0)
    return bring_up


def _ours() -> bool | None:
    """Whether the hub on the cluster is one of tests; None if there is none."""
    said = kubectl("get", "namespace", HUB, "-o", "json", "--ignore-not-found")
    return json.loads(said)["metadata"].get("annotations", {}).get(_MARK) == "yes" if said else None


@contextlib.contextmanager
def hub_on_cluster(directory: Path) -> Iterator[ClusterHub]:
    """kaos_hub on the cluster while you use it. One that somebody else brought up is left alone."""
    ours, bring_up = _ours(), bringing_up()
    if ours is False:
        pytest.fail(f"The cluster has a namespace {HUB} that tests did not make; not touching it.")
    if ours and not os.environ.get("KAOS_TEST_KEEP"):
        # Of tests that were killed: their notebooks and users are not to meet those of these.
        bring_up.down(HUB)
    bring_up.make_namespace(HUB)
    kubectl("annotate", "namespace", HUB, f"{_MARK}=yes", "--overwrite")
    registry = os.environ.get("REGISTRY", ""), os.environ.get("CLUSTER_REGISTRY", "")
    images = os.environ.get("KAOS_TEST_IMAGES") != "0"
    running = bring_up.up(*registry, images=images, namespace=HUB)
    try:
        yield ClusterHub(running.url, directory, running.values)
    finally:
        if not os.environ.get("KAOS_TEST_KEEP"):
            bring_up.down(HUB)
