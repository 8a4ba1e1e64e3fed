"""The chart as Helm renders it, and what its NetworkPolicies let through."""

from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import helm_python
import yaml

from tests.hub import ROOT

Object = dict[str, Any]
CHART = ROOT / "helm/kaos-hub"
IMAGES = {"image": {"registry": "registry.example.org/kaos-hub"}}
"""The one value that must be given."""


def texts(values: Object | None = None, namespace: str = "kaos", **how: Any) -> dict[str, str]:
    """What each template renders to, without a cluster.

    Raises:
        helm_python.HelmError: the schema or a template refuses; the text is what the admin reads.
    """
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values or {})
        return dict(chart.render(IMAGES | (values or {}), name="kaos", namespace=namespace, **how))


def objects(values: Object | None = None, **how: Any) -> tuple[Object, ...]:
    """All objects, hooks too, with the namespace that Helm puts them into."""
    found = []
    for path, text in sorted(texts(values, **how).items()):
        if path.endswith(".yaml"):
            found += [o for o in yaml.safe_load_all(text) if o]
    for each in found:
        if each["kind"] != "Namespace":
            each["metadata"].setdefault("namespace", how.get("namespace", "kaos"))
    return tuple(found)


@cache
def rendered() -> tuple[Object, ...]:
    """All objects of an install that says nothing but where the images are."""
    return objects()


def of_kind(kind: str) -> list[Object]:
    """All objects of a kind."""
    return [o for o in rendered() if o["kind"] == kind]


def one(kind: str, name: str, namespace: str | None = None) -> Object:
    """The object of that name."""
    found = [
        o
        for o in of_kind(kind)
        if o["metadata"]["name"] == name and o["metadata"].get("namespace") == namespace
    ]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


@dataclass(frozen=True)
class Pod:
    """Somebody in the cluster."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Somebody outside."""

    address: str


def may_talk(sender: Pod | Machine, receiver: Pod | Machine, port: int, tcp: bool = True) -> bool:
    """Whether the policies let a connection through: its sender's, and its receiver's."""
    protocol = "TCP" if tcp else "UDP"
    out = _allows("Egress", sender, receiver, port, protocol)
    return out and _allows("Ingress", receiver, sender, port, protocol)


def _allows(way: str, whose: Pod | Machine, other: Pod | Machine, port: int, protocol: str) -> bool:
    if isinstance(whose, Machine):
        return True
    about = [
        policy["spec"]
        for policy in of_kind("NetworkPolicy")
        if policy["metadata"]["namespace"] == whose.namespace
        and way in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], whose.labels)
    ]
    if not about:
        return True
    rules = [rule for spec in about for rule in spec.get(way.lower()) or []]
    peers = "from" if way == "Ingress" else "to"
    return any(
        _port_fits(rule, port, protocol) and _is_peer(rule.get(peers), whose.namespace, other)
        for rule in rules
    )


def _port_fits(rule: Object, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(p["port"] == port and p["protocol"] == protocol for p in ports)


def _is_peer(peers: list[Object] | None, home: str, other: Pod | Machine) -> bool:
    return not peers or any(_matches(peer, home, other) for peer in peers)


def _matches(peer: Object, home: str, other: Pod | Machine) -> bool:
    if "ipBlock" in peer:
        if isinstance(other, Pod):
            return False
        block, address = peer["ipBlock"], ip_address(other.address)
        excepted = [ip_network(e) for e in block.get("except", [])]
        return address in ip_network(block["cidr"]) and not any(address in e for e in excepted)
    if isinstance(other, Machine):
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace}
        if not _selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != home:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if expression["operator"] == "In":
            fits = value in expression["values"]
        else:
            assert expression["operator"] == "Exists"
            fits = value is not None
        if not fits:
            return False
    return True
