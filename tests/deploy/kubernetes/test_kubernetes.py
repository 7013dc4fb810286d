"""Each overlay renders, is valid, and grants what docs/kubernetes.md says and no more."""

import custom_resources
import kubernetes_validate
import make_kubernetes_page
import pod_security
import pytest
from manifests import network, rendered
from manifests.rendered import container, pod_spec

VERSIONS = ["1.30", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid(overlay, version):
    for found in overlay.objects:
        if not custom_resources.is_custom(found):
            kubernetes_validate.validate(found, version, strict=True)


def test_custom_resources_are_as_their_operators_want_them(overlay):
    for found in overlay.objects:
        if custom_resources.is_custom(found):
            assert custom_resources.misfits_of(found) == []


def test_a_wrong_custom_resource_is_seen():
    right = {"parentRefs": [{"name": "a"}], "hostnames": ["b"], "rules": []}
    wrong = {"parentRefs": [{"name": 1, "port": 2}], "rules": "c", "more": {}}
    of = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
    assert custom_resources.misfits_of(of | {"spec": right}) == ["spec.rules is no list, or empty"]
    assert len(custom_resources.misfits_of(of | {"spec": wrong})) == 5


def test_all_is_in_one_namespace_and_labelled(overlay):
    name = overlay.one("Namespace")["metadata"]["name"]
    others = [found for found in overlay.objects if found["kind"] != "Namespace"]
    assert {found["metadata"].get("namespace") for found in others} == {name}
    for workload in overlay.workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/component"] in ("router", "worker")
        assert network.selects(workload["spec"]["selector"], labels)


def test_the_page_is_what_the_manifests_say(demo):
    """scripts/make_kubernetes_page.py writes it."""
    assert make_kubernetes_page.PAGE.read_text() == make_kubernetes_page.current()


# --- what a pod may do ----------------------------------------------------------------------------


def test_pods_are_restricted_but_for_what_rdma_needs(overlay):
    labels = overlay.one("Namespace")["metadata"]["labels"]
    level = labels["pod-security.kubernetes.io/enforce"]
    found = {w["kind"]: pod_security.violations(pod_spec(w)) for w in overlay.workloads()}
    if overlay.name == "gpu-rdma":
        assert level == "privileged"
        pinning = {"adds IPC_LOCK", "may be root", "is root"}
        assert found == {"Deployment": set(), "StatefulSet": pinning}
    else:
        assert level == "restricted"
        assert found == {"Deployment": set(), "StatefulSet": set()}


def test_what_restricted_forbids_is_seen():
    wild = {"hostPID": True, "volumes": [{"name": "a", "hostPath": {"path": "/"}}],
            "containers": [{"securityContext": {"privileged": True}}]}  # fmt: skip
    assert pod_security.violations(wild) == {
        "hostPID", "volume hostPath", "privileged", "keeps capabilities", "may escalate",
        "may be root", "no seccomp profile",
    }  # fmt: skip


def test_pods_get_nothing_that_they_do_not_need(overlay):
    for workload in overlay.workloads():
        spec = pod_spec(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False  # which would set BATON_... variables
        assert container(workload)["securityContext"]["readOnlyRootFilesystem"] is True
        assert "memory" in container(workload)["resources"]["limits"]
    assert overlay.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert not overlay.all("Role") + overlay.all("RoleBinding") + overlay.all("ClusterRole")


def test_secrets_are_mounted_and_never_in_the_manifests(overlay):
    assert overlay.all("Secret") == []
    for workload in overlay.workloads():
        volumes = {v["name"]: v for v in pod_spec(workload)["volumes"]}
        mounts = container(workload)["volumeMounts"]
        held = {m["mountPath"]: volumes[m["name"]] for m in mounts}
        config = overlay.config(workload)
        for key in ("secret_file", "api_key_file"):
            if key == "api_key_file" and workload["kind"] == "StatefulSet":
                assert key not in config
                continue
            secret = held[config[key].rsplit("/", 1)[0]]["secret"]
            assert secret["defaultMode"] == 0o440  # nobody beyond the group, or it is refused
        assert pod_spec(workload)["securityContext"]["fsGroup"] == 10001
        env = container(workload).get("env", [])
        assert not [e for e in env if "secretKeyRef" in e.get("valueFrom", {})]


def test_images_are_pinned(overlay):
    version = project_version()
    for workload in overlay.workloads():
        image = container(workload)["image"]
        assert image.rsplit(":", 1)[1].startswith(version), image


def project_version() -> str:
    text = (rendered.ROOT / "CMakeLists.txt").read_text()
    return text.split("project(baton VERSION ")[1].split()[0]


# --- who reaches whom -----------------------------------------------------------------------------

OUTSIDERS = {
    "beyond": network.BEYOND,
    "intruder": network.INTRUDER,
    "neighbour": network.NEIGHBOUR,
    "stranger": network.STRANGER,
}


def ports_reached(overlay, source, target, protocol="TCP") -> list[int]:
    ports = [1, 22, 80, 443, 4789, 8000, 8080, 9000, 9001, 9100, *range(9199, 9217), 50000]
    return [p for p in ports if network.reaches(overlay, source, target, p, protocol)]


KV_PORTS = list(range(9200, 9216))


def test_only_the_router_is_reachable(overlay):
    for outsider in [network.BEYOND, network.STRANGER, network.NEIGHBOUR]:
        assert ports_reached(overlay, outsider, network.ROUTER) == [8000]
        assert ports_reached(overlay, outsider, network.ROUTER, "UDP") == []
    # What else is in the namespace has leave to reach nobody.
    assert ports_reached(overlay, network.INTRUDER, network.ROUTER) == []
    for outsider in OUTSIDERS.values():
        assert ports_reached(overlay, outsider, network.WORKER) == []
        assert ports_reached(overlay, outsider, network.WORKER, "UDP") == []


def test_workers_are_reached_by_routers_and_workers(overlay):
    assert ports_reached(overlay, network.ROUTER, network.WORKER) == [9000]
    assert ports_reached(overlay, network.WORKER, network.WORKER) == [9000, *KV_PORTS]
    assert ports_reached(overlay, network.WORKER, network.ROUTER) == []
    assert ports_reached(overlay, network.ROUTER, network.ROUTER) == []


def test_metrics_are_for_prometheus(overlay):
    assert ports_reached(overlay, network.PROMETHEUS, network.WORKER) == [9100]
    assert ports_reached(overlay, network.PROMETHEUS, network.ROUTER) == [8000, 9100]


def test_prometheus_asks_the_ports_of_metrics(overlay):
    for monitor in overlay.all("PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] == "metrics"


def test_routers_reach_dns_and_nobody_reaches_out(overlay):
    for protocol in ("TCP", "UDP"):
        assert network.reaches(overlay, network.ROUTER, network.DNS, 53, protocol)
        assert not network.reaches(overlay, network.WORKER, network.DNS, 53, protocol)
    for end in (network.ROUTER, network.WORKER):
        for protocol in ("TCP", "UDP"):
            assert not network.reaches(overlay, end, network.BEYOND, 53, protocol)
            for outsider in [*OUTSIDERS.values(), network.DNS]:
                assert ports_reached(overlay, end, outsider, protocol) == []


def test_ports_are_those_that_the_processes_listen_on(overlay):
    for workload in overlay.workloads():
        ports = {p["name"]: p["containerPort"] for p in container(workload)["ports"]}
        if workload["kind"] == "Deployment":
            assert ports == {"http": 8000, "metrics": 9100}
            assert overlay.config(workload)["listen"].endswith(":8000")
            assert overlay.config(workload)["metrics_listen"].endswith(":9100")
            continue
        assert ports == {"rpc": 9000, "metrics": 9100}
        args = container(workload)["args"]
        assert {
            "--listen=$(POD_IP):9000",
            "--metrics-listen=$(POD_IP):9100",
            "--ucx-port-range=9200-9215",
        } <= set(args)


# --- a Service, a budget and a scale for each -----------------------------------------------------


def selected(overlay, selector: dict) -> list[str]:
    return [
        w["metadata"]["name"]
        for w in overlay.workloads()
        if network.selects(selector, w["spec"]["template"]["metadata"]["labels"])
    ]


def test_selectors_select_one_workload(overlay):
    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for found in overlay.all(kind):
            name = found["metadata"]["name"]
            assert selected(overlay, found["spec"]["selector"]) == [name]
    for service in overlay.all("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        assert selected(overlay, selector) == [service["metadata"]["name"]]
    names = {w["metadata"]["name"] for w in overlay.workloads()}
    assert {b["metadata"]["name"] for b in overlay.all("PodDisruptionBudget")} == names
    assert {s["metadata"]["name"] for s in overlay.all("Service")} == names


def test_one_pod_at_a_time_is_taken(overlay):
    for budget in overlay.all("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        # Or one that cannot start would keep its node from being drained.
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    router = overlay.one("Deployment")["spec"]
    assert router["replicas"] >= 2
    assert router["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    for pool in overlay.pools():
        assert pool.low >= 2


def test_workers_are_named_before_they_are_ready(overlay):
    for workers in overlay.all("StatefulSet"):
        service = overlay.one("Service", workers["spec"]["serviceName"])["spec"]
        assert service["clusterIP"] == "None"
        assert service["publishNotReadyAddresses"] is True


def test_routers_know_the_workers_of_every_pool(overlay):
    namespace = overlay.one("Namespace")["metadata"]["name"]
    names = [f"dns:{pool.name}.{namespace}.svc.cluster.local.:9000" for pool in overlay.pools()]
    assert overlay.config(overlay.one("Deployment"))["workers"] == names


def test_an_autoscaler_has_its_pool_for_itself(overlay):
    scaled = {o["spec"]["scaleTargetRef"]["name"]: o for o in overlay.all("ScaledObject")}
    for workers in overlay.all("StatefulSet"):
        name = workers["metadata"]["name"]
        # A number in both places would be reset by each apply.
        assert ("replicas" in workers["spec"]) != (name in scaled)
    assert set(scaled) <= {w["metadata"]["name"] for w in overlay.all("StatefulSet")}


def test_pools_of_an_overlay_are_those_of_its_roles(overlay):
    roles = {
        w["metadata"]["name"]: next(e["value"] for e in container(w)["env"] if e["name"] == "ROLE")
        for w in overlay.all("StatefulSet")
    }
    expected = ["prefill", "decode"] if overlay.name == "gpu-rdma" else ["auto"]
    assert roles == {f"baton-{role}": role for role in expected}
