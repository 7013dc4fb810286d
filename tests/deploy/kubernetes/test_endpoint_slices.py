"""components/endpoint-slices: the routers' leave to read EndpointSlices, and nothing more."""

import kubernetes_validate
import pod_security
import pytest
import yaml
from manifests import network, rendered
from manifests.rendered import pod_spec

COMPONENT = "endpoint-slices"
NAMESPACES = ["baton", "elsewhere"]
FOLDER = rendered.ROOT / "deploy/kubernetes/components" / COMPONENT


@pytest.fixture(
    scope="module", params=[(name, where) for name in rendered.OVERLAYS for where in NAMESPACES],
    ids="-".join,
)  # fmt: skip
def watching(request) -> rendered.Overlay:
    if not rendered.kubectl():
        pytest.skip(rendered.NO_KUBECTL)
    name, where = request.param
    return rendered.render(name, COMPONENT, namespace=where)


def namespace_of(overlay: rendered.Overlay) -> str:
    return overlay.one("Namespace")["metadata"]["name"]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_objects_are_valid(demo, version):
    watching = rendered.render(demo.name, COMPONENT)
    kinds = {"Deployment", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount"}
    found = [found for found in watching.objects if found["kind"] in kinds]
    assert {one["kind"] for one in found} == kinds
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)


def test_the_role_is_to_read_slices_of_one_namespace(watching):
    [role] = watching.all("Role")
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        }
    ]
    assert role["metadata"]["namespace"] == namespace_of(watching)
    assert not watching.all("ClusterRole") + watching.all("ClusterRoleBinding")


def test_the_role_is_the_routers(watching):
    [binding], where = watching.all("RoleBinding"), namespace_of(watching)
    account = watching.one("ServiceAccount", "baton-router")
    assert account["metadata"]["namespace"] == where
    assert binding["metadata"]["namespace"] == where
    # Without the namespace, or with another, the API server refuses it or the token has no leave.
    subject = {"kind": "ServiceAccount", "name": "baton-router", "namespace": where}
    assert binding["subjects"] == [subject]
    [role] = watching.all("Role")
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role"}
    assert binding["roleRef"] == reference | {"name": role["metadata"]["name"]}


def test_routers_alone_get_a_token(watching):
    router = pod_spec(watching.one("Deployment"))
    assert router["serviceAccountName"] == "baton-router"
    assert router["automountServiceAccountToken"] is True
    for workers in watching.all("StatefulSet"):
        assert pod_spec(workers)["serviceAccountName"] == "baton"
        assert pod_spec(workers)["automountServiceAccountToken"] is False
    for account in watching.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert pod_security.violations(router) == set()


def test_routers_alone_reach_the_api_server():
    if not rendered.kubectl():
        pytest.skip(rendered.NO_KUBECTL)
    for name in rendered.OVERLAYS:
        overlay = rendered.render(name, COMPONENT)
        ports = [1, 22, 80, 443, 6443, 8080, 10250]
        for end, reached in [(network.ROUTER, [443, 6443]), (network.WORKER, [])]:
            found = [p for p in ports if network.reaches(overlay, end, network.BEYOND, p)]
            assert found == reached


def test_its_words_name_a_service_and_a_port_that_are_there(watching):
    words = yaml.safe_load((FOLDER / "kustomization.yaml").read_text().split("says ")[1].split()[0])
    pools = [pool.name for pool in watching.pools()]
    if "baton-auto" in pools:
        assert words == "k8s:baton/baton-auto:rpc."
    for name in pools:
        ports = watching.one("Service", name)["spec"]["ports"]
        assert "rpc" in [port["name"] for port in ports]
