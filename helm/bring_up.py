"""Bring kaos_hub up from `helm/plain` on the cluster of kubectl's present context, or take it down.

    python helm/bring_up.py up [--registry R] [--cluster-registry R] [--no-images]
    python helm/bring_up.py down

For trying and testing: images are built and pushed, the manifests are copied to `build/kubernetes`,
what they need to know is filled in there, and they are applied. May be repeated: what is there
already stays, with its data.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLAIN, FILLED = ROOT / "helm/plain", ROOT / "build/kubernetes"
IMAGES = ROOT / "build/images.env"
NAMESPACES = ("kaos-workloads", "kaos")
_PATIENCE = 600
_CONFIG = """
# A registry inside the cluster, as local clusters have one: without TLS, and perhaps a mirror.
c.KubernetesEngine.insecure_registries = [{host!r}]
c.KubernetesEngine.registry_mirrors = {{"docker.io": {host!r}}}
"""


class Failed(Exception):
    """Something that the person at the terminal should read, without a traceback."""


@dataclass(frozen=True)
class Registry:
    """A registry from three sides."""

    here: str
    """As this machine pushes to it and nodes pull from it."""
    pods: str
    """As pods of the cluster reach it."""
    inside: tuple[tuple[str, int], ...] = ()
    """Addresses and ports behind it, if it is a Service of the cluster."""


def run(*command: str | Path, give: str | None = None, quiet: bool = False) -> str:
    """Run a command; what it said.

    Raises:
        Failed: it failed, in its words.
    """
    try:
        done = subprocess.run(
            command,
            input=give,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
        )
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not installed") from None
    if done.returncode:
        raise Failed(
            f"{' '.join(map(str, command))} failed" + (f": {done.stderr.strip()}" if quiet else "")
        )
    return done.stdout


def kubectl(*words: str | Path, give: str | None = None) -> str:
    """Ask the cluster."""
    return run("kubectl", *words, give=give, quiet=True)


def asked(*words: str) -> dict[str, Any]:
    """What the cluster answers, as JSON; empty if there is no such thing."""
    return dict(json.loads(kubectl(*words, "--ignore-not-found", "--output=json") or "{}"))


def find_registry(here: str, pods: str) -> Registry:
    """The registry that was named, else the one that a local cluster has.

    Raises:
        Failed: none was named, and the cluster has none.
    """
    if here:
        return Registry(here, pods or here)
    service = asked("get", "service", "registry", "--namespace=kube-system")
    if not service:
        raise Failed(
            "Name a registry to which this machine pushes and from which nodes pull: REGISTRY=…"
        )
    port = service["spec"]["ports"][0]["port"]
    name = f"registry.kube-system.svc.cluster.local:{port}"
    behind = asked("get", "endpoints", "registry", "--namespace=kube-system").get("subsets", [])
    addresses = [(a["ip"], p["port"]) for s in behind for a in s["addresses"] for p in s["ports"]]
    return Registry(f"localhost:{port}", name, tuple(addresses))


def fill_in(registry: Registry, public_url: str = "") -> None:
    """Copy the manifests and write down what they need to know."""
    shutil.rmtree(FILLED, ignore_errors=True)
    shutil.copytree(PLAIN, FILLED)
    known = {
        **dict(line.split("=", 1) for line in IMAGES.read_text().split()),
        "KAOS_REGISTRY": f"{registry.pods}/kaos-users",
        "KAOS_PULL_REGISTRY": f"{registry.here}/kaos-users",
        "KAOS_PROXY_SERVICE": "NodePort",
        "KAOS_PUBLIC_URL": public_url,
    }
    settings = FILLED / "settings.env"
    lines = settings.read_text().splitlines()
    settings.write_text("".join(f"{_set(line, known)}\n" for line in lines))
    if registry.inside:
        with (FILLED / "config.py").open("a") as config:
            config.write(_CONFIG.format(host=registry.pods))
        policies = FILLED / "workloads/network.yaml"
        others = policies.read_text().split("\n---\n")[:-1]
        policies.write_text("\n---\n".join([*others, json.dumps(_to(registry.inside))]))


def _to(addresses: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """The policy that lets builds reach these: the last one of helm/plain, filled in."""
    rules = [
        {"to": [{"ipBlock": {"cidr": f"{ip}/32"}}], "ports": [{"protocol": "TCP", "port": port}]}
        for ip, port in addresses
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "registry", "namespace": "kaos-workloads"},
        "spec": {
            "podSelector": {"matchLabels": {"kaos-hub.io/kind": "build"}},
            "policyTypes": ["Egress"],
            "egress": rules,
        },
    }


def _set(line: str, known: dict[str, str]) -> str:
    name = line.partition("=")[0]
    return f"{name}={known[name]}" if name in known else line


def public_url() -> str:
    """Where the proxy's port is reached on a node."""
    port = asked("get", "service", "proxy", "--namespace=kaos")["spec"]["ports"][0]["nodePort"]
    nodes = asked("get", "nodes")["items"]
    addresses = {a["type"]: a["address"] for a in nodes[0]["status"]["addresses"]}
    return f"http://{addresses.get('ExternalIP') or addresses['InternalIP']}:{port}"


def wait_until_it_answers(url: str) -> None:
    """Wait for Hub and service, through the proxy.

    Raises:
        Failed: they don't answer; says what to look at.
    """
    until = time.monotonic() + _PATIENCE
    for path in ("/hub/health", "/services/kaos/health"):
        while not _answers(url + path):
            if time.monotonic() > until:
                raise Failed(
                    f"{url}{path} does not answer. Look at: kubectl -n kaos get pods;"
                    " kubectl -n kaos logs deployment/hub"
                )
            time.sleep(0.5)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True)
class Running:
    """A hub that answers."""

    url: str
    password: str
    """The administrator's."""


def up(here: str = "", pods: str = "", images: bool = True) -> Running:
    """Images, secrets, manifests; and wait.

    Args:
        here: the registry as this machine and the nodes see it; without it, the cluster's own.
        pods: the same as pods see it.
        images: build and push them; else those that were made before are used.

    Raises:
        Failed: says what to do or to look at.
    """
    registry = find_registry(here, pods)
    if images or not IMAGES.exists():
        make = (sys.executable, ROOT / "images/make.py", "--push", "--env", IMAGES)
        run(*make, "--registry", registry.here)
    print("Applying the manifests", file=sys.stderr)
    run(PLAIN / "make-secrets")
    fill_in(registry)
    # The proxy first: which port it gets decides the address that the others are told.
    objects = kubectl("kustomize", FILLED)
    of_proxy = "--selector=app.kubernetes.io/component=proxy"
    kubectl("apply", "--filename=-", of_proxy, give=objects)
    url = public_url()
    fill_in(registry, url)
    kubectl("apply", "--kustomize", FILLED)
    for name in ("proxy", "service", "hub"):
        patience = f"--timeout={_PATIENCE}s"
        kubectl("rollout", "status", f"deployment/{name}", "--namespace=kaos", patience)
    wait_until_it_answers(url)
    show = "--output=go-template={{.data.password | base64decode}}"
    return Running(url, kubectl("get", "secret", "kaos", "--namespace=kaos", show))


def down() -> None:
    """Delete both namespaces, with everything in them."""
    kubectl("delete", "namespace", *NAMESPACES, "--ignore-not-found")


def _bring_up(given: argparse.Namespace) -> None:
    began = time.monotonic()
    running = up(given.registry, given.cluster_registry, not given.no_images)
    print(f"\n  kaos runs at  {running.url}\n  user          admin")
    print(f"  password      {running.password}\n\n  Next: kaos login {running.url}")
    print(f"  (after {time.monotonic() - began:.0f} s)")


def _take_down(_: argparse.Namespace) -> None:
    down()
    print("Gone, with all data.")


def main() -> int:
    """Parse and do."""
    parser = argparse.ArgumentParser(description="kaos_hub on the cluster that kubectl reaches.")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("up", help="build, push, apply, wait")
    verb.add_argument("--registry", default="", help="as this machine and the nodes see it")
    verb.add_argument("--cluster-registry", default="", help="as pods see it, if not the same")
    verb.add_argument("--no-images", action="store_true", help="use those made before")
    verb.set_defaults(do=_bring_up)
    verbs.add_parser("down", help="delete everything, data too").set_defaults(do=_take_down)
    given = parser.parse_args()
    try:
        given.do(given)
    except Failed as e:
        print(f"kubernetes: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
