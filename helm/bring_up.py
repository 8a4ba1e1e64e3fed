"""Bring kaos_hub up by its chart on the cluster of kubectl's present context, or take it down.

    python helm/bring_up.py up [--registry R] [--cluster-registry R] [--namespace N] [--no-images]
    python helm/bring_up.py down [--namespace N]

For trying and testing: images are built and pushed, the chart's values for this cluster are
written to `build/kubernetes/values.json`, and the chart is installed. May be repeated: what is
there already is upgraded, and stays with its data.
"""

import argparse
import json
import random
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm_python

ROOT = Path(__file__).resolve().parent.parent
CHART, IMAGES = ROOT / "helm/kaos-hub", ROOT / "build/images.env"
RELEASE = "kaos"
_PATIENCE = 600


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


def values_for(registry: Registry, url: str) -> dict[str, Any]:
    """The values of the chart that fit this cluster."""
    images = dict(line.split("=", 1) for line in IMAGES.read_text().split())
    values: dict[str, Any] = {
        "image": {n.split("_")[1].lower(): reference for n, reference in images.items()},
        "registry": {
            "url": f"{registry.pods}/kaos-users",
            "pullUrl": f"{registry.here}/kaos-users",
        },
        "publicUrl": url,
        "proxy": {"service": {"type": "NodePort", "nodePort": int(url.rpartition(":")[2])}},
    }
    if registry.inside:
        # Inside the cluster, as local clusters have one: without TLS, and perhaps a mirror.
        values["registry"] |= {
            "insecure": [registry.pods],
            "mirrors": {"docker.io": registry.pods},
        }
        values["network"] = {"buildsReach": [_to(*behind) for behind in registry.inside]}
    return values


def _to(address: str, port: int) -> dict[str, Any]:
    """A rule of egress to one address."""
    ports = [{"protocol": "TCP", "port": port}]
    return {"to": [{"ipBlock": {"cidr": f"{address}/32"}}], "ports": ports}


def public_url(namespace: str) -> str:
    """Where the proxy is reached on a node: at the port that it has, else at one that is free."""
    services = asked("get", "services", "--all-namespaces")["items"]
    taken = {p["nodePort"] for s in services for p in s["spec"]["ports"] if "nodePort" in p}
    mine = [s for s in services if _name(s) == (namespace, "proxy")]
    ports = [p["nodePort"] for s in mine for p in s["spec"]["ports"] if "nodePort" in p]
    port = ports[0] if ports else random.choice([*({*range(30_000, 32_768)} - taken)])  # noqa: S311
    node = asked("get", "nodes")["items"][0]
    addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
    return f"http://{addresses.get('ExternalIP') or addresses['InternalIP']}:{port}"


def _name(thing: dict[str, Any]) -> tuple[str, str]:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def wait_until_it_answers(url: str, namespace: str) -> None:
    """Wait for Hub and service, through the proxy.

    Raises:
        Failed: they don't answer; says what to look at.
    """
    until = time.monotonic() + _PATIENCE
    for path in ("/hub/health", "/services/kaos/health"):
        while not _answers(url + path):
            if time.monotonic() > until:
                raise Failed(
                    f"{url}{path} does not answer. Look at: kubectl -n {namespace} get pods;"
                    f" kubectl -n {namespace} logs deployment/hub"
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
    namespace: str
    values: dict[str, Any] = field(default_factory=dict)
    """What the chart was told."""


def make_namespace(name: str) -> None:
    """The namespace of Hub, proxy and service, with the label by which policies know it."""
    made = kubectl("create", "namespace", name, "--dry-run=client", "--output=json")
    kubectl("apply", "--filename=-", give=made)
    # By itself it is there from Kubernetes 1.21 on.
    labels = (
        f"kubernetes.io/metadata.name={name}",
        "pod-security.kubernetes.io/enforce=restricted",
    )
    kubectl("label", "namespace", name, *labels, "--overwrite")


def helm(namespace: str) -> helm_python.Config:
    """Helm, for one namespace."""
    return helm_python.Config(namespace=namespace)


def apply_chart(namespace: str, values: dict[str, Any], seconds: int = _PATIENCE) -> None:
    """Install the chart, or upgrade what is there; returns when all of it is ready.

    Raises:
        Failed: in Helm's words.
    """
    try:
        with helm(namespace) as there:
            known = there.list(all_states=True, name_filter=f"^{RELEASE}$")
            act = there.upgrade if known else there.install
            act(CHART, RELEASE, values, wait="watcher", timeout=seconds)
    except helm_python.HelmError as e:
        raise Failed(f"Helm: {e}") from None


def up(here: str = "", pods: str = "", images: bool = True, namespace: str = "kaos") -> Running:
    """Images, values, chart; and wait.

    Args:
        here: the registry as this machine and the nodes see it; without it, the cluster's own.
        pods: the same as pods see it.
        images: build and push them; else those that were made before are used.
        namespace: of Hub, proxy and service.

    Raises:
        Failed: says what to do or to look at.
    """
    registry = find_registry(here, pods)
    if images or not IMAGES.exists():
        make = (sys.executable, ROOT / "images/make.py", "--push", "--env", IMAGES)
        run(*make, "--registry", registry.here)
    make_namespace(namespace)
    url = public_url(namespace)
    values = values_for(registry, url)
    written = ROOT / "build/kubernetes/values.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(values, indent=2))
    print(f"Installing the chart with the values of {written}", file=sys.stderr)
    apply_chart(namespace, values)
    wait_until_it_answers(url, namespace)
    show = "--output=go-template={{.data.password | base64decode}}"
    password = kubectl("get", "secret", "kaos", f"--namespace={namespace}", show)
    return Running(url, password, namespace, values)


def down(namespace: str = "kaos") -> None:
    """Uninstall, and delete both namespaces with everything that the chart leaves to people."""
    with helm(namespace) as there:
        there.uninstall(RELEASE, ignore_not_found=True)
    kubectl("delete", "namespace", f"{namespace}-workloads", namespace, "--ignore-not-found")


def _bring_up(given: argparse.Namespace) -> None:
    began = time.monotonic()
    registry = given.registry, given.cluster_registry
    running = up(*registry, not given.no_images, given.namespace)
    print(f"\n  kaos runs at  {running.url}\n  user          admin")
    print(f"  password      {running.password}\n\n  Next: kaos login {running.url}")
    print(f"  (after {time.monotonic() - began:.0f} s)")


def _take_down(given: argparse.Namespace) -> None:
    down(given.namespace)
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
    verb.add_argument("--namespace", default="kaos", help="of Hub, proxy and service")
    verb = verbs.add_parser("down", help="delete everything, data too")
    verb.add_argument("--namespace", default="kaos", help="of Hub, proxy and service")
    verb.set_defaults(do=_take_down)
    given = parser.parse_args()
    try:
        given.do(given)
    except Failed as e:
        print(f"kubernetes: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
