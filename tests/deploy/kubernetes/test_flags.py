"""What the manifests tell the binary is what it takes, and what they promise it keeps."""

import re

import pytest
from manifests import rendered
from manifests.rendered import container, pod_spec
from pods import args_of, in_force, placed

PAGES = [rendered.ROOT / "docs" / name for name in ("operations.md", "metrics.md")]
METRICS = "".join(page.read_text() for page in PAGES if page.exists())


def test_the_binary_takes_every_flag_and_key(overlay, baton_is_built, tmp_path):
    for workload in overlay.workloads():
        shown = in_force(placed(overlay, workload, tmp_path))
        config = overlay.config(workload)
        assert {key: shown[key] for key in config} == config
        for arg in args_of(workload, "pod-0")[1:]:
            flag, value = arg.removeprefix("--").split("=", 1)
            if flag != "config":
                assert str(shown[flag.replace("-", "_")]) == value


def test_an_unknown_flag_or_key_would_be_seen(demo, baton_is_built, tmp_path):
    workers = demo.one("StatefulSet")
    with pytest.raises(AssertionError, match="no_such_key"):
        in_force(placed(demo, workers, tmp_path, no_such_key=1))
    with pytest.raises(AssertionError, match="no-such-flag"):
        in_force([*placed(demo, workers, tmp_path), "--no-such-flag=1"])


def test_the_pod_is_given_the_time_to_drain(overlay):
    for workload in overlay.workloads():
        assert "lifecycle" not in container(workload)  # it knows by itself how to end
        waits = overlay.config(workload).get("shutdown_delay_seconds", 0)
        drains = overlay.config(workload)["drain_seconds"]
        assert pod_spec(workload)["terminationGracePeriodSeconds"] >= waits + drains + 10
        # Until then a balancer may still send something.
        assert waits >= 5 or workload["kind"] == "StatefulSet"


def test_probes_ask_what_they_are_for(overlay):
    """A router counts once it has workers and stays when it loses them; nobody is ended for what
    others lack."""
    router = {"startup": "/ready", "readiness": "/health", "liveness": "/health"}
    worker = {"startup": "/health", "readiness": "/ready", "liveness": "/health"}
    for workload in overlay.workloads():
        wanted = router if workload["kind"] == "Deployment" else worker
        pod = container(workload)
        asked = {kind: pod[f"{kind}Probe"]["httpGet"]["path"] for kind in wanted}
        assert asked == wanted
        alive = pod["livenessProbe"]
        assert alive["failureThreshold"] * alive["periodSeconds"] >= 30
        assert alive["timeoutSeconds"] >= 5


def test_a_route_waits_as_long_as_a_request_may_live(overlay):
    lives = overlay.config(overlay.one("Deployment")).get("deadline_seconds", 600)
    for route in overlay.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert rule["timeouts"] == {"request": f"{lives}s"}
            paths = {match["path"]["value"] for match in rule["matches"]}
            assert paths == {"/v1", "/tokenize", "/detokenize"}


def test_queries_name_metrics_that_there_are(overlay):
    for scaled in overlay.all("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            names = re.findall(r"\b((?:vllm:|baton_)\w+)", query)
            assert names
            for name in names:
                name = re.sub(r"_(sum|count|bucket)$", "", name)
                assert f"`{name}`" in METRICS, query


def test_pools_are_scaled_on_what_their_workers_export(overlay):
    namespace = overlay.one("Namespace")["metadata"]["name"]
    for scaled in overlay.all("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            assert f'namespace="{namespace}"' in query
            assert float(trigger["metadata"]["threshold"]) > 0
