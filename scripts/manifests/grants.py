"""The table of what each overlay grants and denies."""

from . import network, rendered
from .rendered import Overlay, container, pod_spec


def _who(overlay: Overlay, say) -> str:
    """One answer for routers and workers, or one for each if they differ."""
    said = {}
    for workload in overlay.workloads():
        role = "routers" if workload["kind"] == "Deployment" else "workers"
        said.setdefault(say(workload), []).append(role)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(dict.fromkeys(who))}: {what}" for what, who in said.items())


def _user(workload: dict) -> str:
    user = pod_spec(workload)["securityContext"]["runAsUser"]
    return "root" if user == 0 else str(user)


def _capabilities(workload: dict) -> str:
    return (
        ", ".join(container(workload)["securityContext"]["capabilities"].get("add", [])) or "none"
    )


def _root_file_system(workload: dict) -> str:
    read_only = container(workload)["securityContext"]["readOnlyRootFilesystem"]
    return "read-only" if read_only else "writable"


def _escalation(workload: dict) -> str:
    return "yes" if container(workload)["securityContext"]["allowPrivilegeEscalation"] else "no"


def _of_the_host(workload: dict) -> str:
    spec = pod_spec(workload)
    shared = [k for k in ("hostNetwork", "hostPID", "hostIPC") if spec.get(k)]
    paths = [v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v]
    return ", ".join(shared + paths) or "nothing"


def _token(workload: dict) -> str:
    return "mounted" if pod_spec(workload).get("automountServiceAccountToken", True) else "none"


def _leave(overlay: Overlay) -> str:
    """What those with a token may: a Role holds in its own namespace alone."""
    said = [
        f"{', '.join(rule['verbs'])} {', '.join(f'`{kind}`' for kind in rule['resources'])}"
        for role in overlay.all("Role")
        for rule in role["rules"]
    ]
    return "; ".join(said) or "nothing"


def _secrets(workload: dict) -> str:
    volumes = pod_spec(workload)["volumes"]
    return ", ".join(f"`{v['secret']['secretName']}`" for v in volumes if "secret" in v)


def _devices(workload: dict) -> str:
    limits = container(workload).get("resources", {}).get("limits", {})
    return ", ".join(f"{n} `{name}`" for name, n in limits.items() if "/" in name) or "none"


def _workers(overlay: Overlay) -> str:
    def count(pool: rendered.Pool) -> str:
        return str(pool.low) if pool.low == pool.high else f"{pool.low} to {pool.high}"

    return ", ".join(f"{count(pool)} in `{pool.name}`" for pool in overlay.pools())


def _enforced(overlay: Overlay) -> str:
    return overlay.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]


def _kv(overlay: Overlay) -> str:
    [transport] = {overlay.config(w)["transport"] for w in overlay.all("StatefulSet")}
    return {"tcp": "TCP", "auto": "RDMA, else TCP"}[transport]


def _paths_outside(overlay: Overlay) -> str:
    paths = [
        match["path"]["value"]
        for route in overlay.all("HTTPRoute")
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]
    return ", ".join(f"`{path}`" for path in paths) or "none"


GRANTS = [
    ("routers", lambda o: str(o.one("Deployment")["spec"]["replicas"])),
    ("workers", _workers),
    ("KV travels over", _kv),
    ("Pod Security that the namespace enforces", _enforced),
    ("user", lambda o: _who(o, _user)),
    ("capabilities", lambda o: _who(o, _capabilities)),
    ("more privileges later", lambda o: _who(o, _escalation)),
    ("root file system", lambda o: _who(o, _root_file_system)),
    ("of the host", lambda o: _who(o, _of_the_host)),
    ("token of the API server", lambda o: _who(o, _token)),
    ("leave there, in its namespace", _leave),
    ("Secrets", lambda o: _who(o, _secrets)),
    ("devices", lambda o: _who(o, _devices)),
    ("paths outside, by HTTPRoute", _paths_outside),
]

ENDS = {
    "anybody": network.BEYOND,
    "another pod of the namespace": network.INTRUDER,
    "Prometheus": network.PROMETHEUS,
    "another pod of `monitoring`": network.NEIGHBOUR,
    "a router": network.ROUTER,
    "a worker": network.WORKER,
}
PORTS = {
    "a router's HTTP": (network.ROUTER, 8000, "TCP"),
    "a router's metrics": (network.ROUTER, 9100, "TCP"),
    "a worker's RPC": (network.WORKER, 9000, "TCP"),
    "a worker's KV": (network.WORKER, 9200, "TCP"),
    "a worker's metrics": (network.WORKER, 9100, "TCP"),
    "DNS": (network.DNS, 53, "UDP"),
    "the world": (network.BEYOND, 443, "TCP"),
}
# What is asked of pods that are not ours is not ours to say.
ASKED = {"a router": list(PORTS), "a worker": list(PORTS)}


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: list[str], rows: list[list[str]]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join([_row(head), rule, *map(_row, rows)])


def grants(overlays: list[Overlay]) -> str:
    rows = [[what, *(say(overlay) for overlay in overlays)] for what, say in GRANTS]
    return _table(["", *(f"`{overlay.name}`" for overlay in overlays)], rows)


def _is_allowed(overlay: Overlay, end: str, port: str) -> str:
    """Empty: not asked."""
    if port not in ASKED.get(end, list(PORTS)[:5]):
        return ""
    return "yes" if network.reaches(overlay, ENDS[end], *PORTS[port]) else "no"


def connections(overlay: Overlay) -> str:
    rows = [[end, *(_is_allowed(overlay, end, port) for port in PORTS)] for end in ENDS]
    return _table(["who, to", *PORTS], rows)


def added(overlay: Overlay, more: Overlay) -> str:
    """What the second of the two has that differs."""
    rows = [[what, say(overlay), say(more)] for what, say in GRANTS]
    for end in ENDS:
        for port in PORTS:
            allowed = [_is_allowed(found, end, port) for found in (overlay, more)]
            rows.append([f"{end} to {port}", *allowed])
    return _table(["", "without", "with"], [row for row in rows if row[1] != row[2]])


def text() -> str:
    overlays = [rendered.render(name) for name in rendered.OVERLAYS]
    # Each is the same in all overlays, or the page must say more.
    [matrix] = {connections(overlay) for overlay in overlays}
    [watching] = {added(o, rendered.render(o.name, "endpoint-slices")) for o in overlays}
    return (
        f"{grants(overlays)}\n\n"
        f"Connections that the NetworkPolicies allow, in each of the overlays:\n\n{matrix}\n\n"
        f"What `components/endpoint-slices` changes of that, in each of them:\n\n{watching}\n"
    )
