"""Who reaches whom, as NetworkPolicies say: a connection needs leave of both of its ends."""

import dataclasses
from collections.abc import Mapping

from . import rendered


@dataclasses.dataclass(frozen=True)
class End:
    """A pod; or, without a namespace, an address beyond the cluster."""

    namespace: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


def pod(namespace: str, **labels: str) -> End:
    """pod("monitoring", name="prometheus"): the labels are Kubernetes' own."""
    return End(namespace, tuple((f"app.kubernetes.io/{k}", v) for k, v in labels.items()))


BEYOND = End()
NAMESPACE = "baton"
ROUTER = pod(NAMESPACE, name="baton", component="router")
WORKER = pod(NAMESPACE, name="baton", component="worker")
PROMETHEUS = pod("monitoring", name="prometheus")
NEIGHBOUR = pod("monitoring", name="grafana")
INTRUDER = pod(NAMESPACE, name="other")
STRANGER = pod("default", name="prometheus")
DNS = End("kube-system", (("k8s-app", "kube-dns"),))


def selects(selector: Mapping, labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        if term["operator"] != "In":
            raise NotImplementedError(term["operator"])
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True


def _is_peer(peer: Mapping, other: End, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        raise NotImplementedError("ipBlock")
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": other.namespace}
        if not selects(peer["namespaceSelector"], names):
            return False
    elif other.namespace != own_namespace:
        return False
    return selects(peer.get("podSelector", {}), dict(other.labels))


def _has_port(rule: Mapping, port: int, protocol: str) -> bool:
    for item in rule.get("ports", []):
        low = item.get("port", port)
        if item["protocol"] == protocol and low <= port <= item.get("endPort", low):
            return True
    return not rule.get("ports")


def _allowed(policies: list[dict], way: str, end: End, other: End, port: tuple[int, str]) -> bool:
    """`way`: "Ingress" asks for leave to come from the other end, "Egress" to go there."""
    mine = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == end.namespace
        and way in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], dict(end.labels))
    ]
    if not mine:
        return True
    peers = "from" if way == "Ingress" else "to"
    return any(
        _has_port(rule, *port)
        and (not rule.get(peers) or any(_is_peer(p, other, end.namespace) for p in rule[peers]))
        for policy in mine
        for rule in policy["spec"].get(way.lower(), [])
    )


def reaches(
    overlay: rendered.Overlay, source: End, target: End, port: int, protocol: str = "TCP"
) -> bool:
    policies = overlay.all("NetworkPolicy")
    where = (port, protocol)
    return _allowed(policies, "Egress", source, target, where) and _allowed(
        policies, "Ingress", target, source, where
    )
